"""What tests share: no connection leaves the machine, and a workspace: the real configuration, shrunken to seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock
from kernels import compile_kernels

ROOT = Path(__file__).parent.parent
OFFLINE = Path(__file__).parent / "offline"
sys.path.insert(0, str(OFFLINE))
import sitecustomize  # noqa: E402, F401  (blocks connections in this process too)

AUTHOR = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

SMALL: dict[str, dict[str, Any]] = {
    "meadow": {"photos": 200, "validation": 32, "test": 32},
    "train": {
        "images": 320,
        "estimator_images": 64,
        "log_every": 32,
        "samples_every": 160,
        "checkpoint_every": 64,
    },
    "crop": {"photos_min": 50},
    "evaluate": {"images": 64},
}


@pytest.fixture
def photos() -> np.ndarray:
    """Noise, for training to run on: (50, 32, 32, 3)."""
    return np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Workspace:
    """A small repository of its own: code, configuration, an empty home, a registry."""

    folder: Path
    home: Path
    connections: Path  # attempts to reach the outside are written here

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in ("LANG", "LC_ALL", "TMPDIR")}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "SHELL": "/bin/sh",
            "PYTHONPATH": str(OFFLINE),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",  # threads that wait for each other crawl on a busy machine
            "ARGAN_TEST_CONNECTIONS": str(self.connections),
            "DVC_SITE_CACHE_DIR": str(self.home / "dvc"),
            **AUTHOR,
        }

    def start(self, *command: str, **changed: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, its output in one stream. `python` and `dvc` are the tested ones."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | changed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, code: int = 0, **changed: str) -> str:
        """Run a command to its end, check its exit code, and return what it printed."""
        process = self.start(*command, **changed)
        output, _ = process.communicate()
        assert process.returncode == code, f"{' '.join(command)} ended with {process.returncode}:\n{output}"
        return output

    def params(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change params.yaml in place."""
        file = self.folder / "params.yaml"
        content = yaml.safe_load(file.read_text())
        change(content)
        file.write_text(yaml.safe_dump(content, sort_keys=False))

    def copy(self, folder: Path) -> Workspace:
        """The same workspace, everything made included, elsewhere."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workspace(folder, self.home, folder.with_name(f"{folder.name}-connections.txt"))


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def make_workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Workspace]:
    """A function that makes a new workspace with the parameters shrunken; `git=False` makes it without Git."""

    with FileLock(shared_folder(tmp_path_factory) / "kernels.lock"):
        compile_kernels()

    def make(git: bool = True) -> Workspace:
        base = tmp_path_factory.mktemp("workspace")
        made = Workspace(base / "argan", base / "home", base / "connections.txt")
        made.home.mkdir()
        made.folder.mkdir()
        for name in ("argan", "pipelines"):
            shutil.copytree(ROOT / name, made.folder / name, ignore=shutil.ignore_patterns("*.pyc"))
        for name in (
            "dvc.yaml",
            "params.yaml",
            "prefect.yaml",
            ".dvcignore",
            ".gitignore",
            ".dvc/config",
            ".dvc/.gitignore",
        ):
            target = made.folder / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, target)
        made.params(lambda content: [content[section].update(values) for section, values in SMALL.items()])
        if git:
            made.run("git", "init", "-q")
            made.run("git", "add", "-A")
            made.run("git", "commit", "-qm", "start")
        return made

    return make


@pytest.fixture(scope="session")
def finished(make_workspace: Callable[..., Workspace], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which `dvc repro` has run to its end. Tests read it; those that change it work on a copy.

    One test process makes it, the others copy it.
    """
    shared = shared_folder(tmp_path_factory)
    note = shared / "finished.txt"
    with FileLock(shared / "finished.lock"):
        if not note.exists():
            workspace = make_workspace()
            workspace.run("dvc", "repro")
            workspace.run("git", "add", "-A")
            workspace.run("git", "commit", "-qm", "finished")
            assert not workspace.connections.exists(), workspace.connections.read_text()
            note.write_text(str(workspace.folder))
    origin = Path(note.read_text())
    base = tmp_path_factory.mktemp("finished")
    copy = Workspace(origin, base / "home", base / "none.txt").copy(base / "argan")
    copy.home.mkdir()
    return copy


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making its tables takes seconds, copying it none."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model that has learned nothing: enough for all that does not look at what it says."""
    import torch

    from argan import networks
    from argan.config.schema import training
    from argan.files import write_json
    from argan.tensors import write_tensors

    folder = tmp_path_factory.mktemp("untrained")
    torch.manual_seed(0)
    config = training("quick", {"latent": 8, "generator_channels": 4, "channels_max": 16, "estimator_channels": 8})
    write_tensors(folder / "generator.safetensors", networks.build_generator(config).state_dict())
    student = networks.Estimator(config.estimator_channels, config.disparity_max)
    for head in (student.head, student.doubt):
        head.weight.data.mul_(20)  # as sure of itself as a trained one
    write_tensors(folder / "estimator.safetensors", student.state_dict())
    write_json(folder / "config.json", {"domain": "meadow", "training": config.model_dump()})
    return folder


@pytest.fixture(scope="session")
def exported(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its estimator as ONNX, which takes many seconds to make."""
    import argan
    from argan.inference.onnx_export import export_onnx

    path = tmp_path_factory.mktemp("onnx") / "estimator.onnx"
    assert export_onnx(argan.load(untrained), path) < 1e-5
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser, without a window."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        message = f"no browser is installed ({', '.join(BROWSERS)}): apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        running = playwright.chromium.launch(executable_path=found, args=options)
        yield running
        running.close()


# Modules that share servers or a finished workspace run in one process. A test process takes a group at a time, the longest first:
# these groups, then the modules of LONGEST, then the others.
GROUPS = {
    "test_flows": "flows",
    **dict.fromkeys(("test_services", "test_storage", "test_models"), "servers"),
    **dict.fromkeys(("test_pipeline", "test_examples"), "pipeline"),
}
LONGEST = (
    "test_distributed",
    "test_collection_add",
    "test_studio",
    "test_serve",
    "test_full_disk",
    "test_evaluation",
    "test_iris",
    "test_training",
)
ORDER = list(dict.fromkeys((*GROUPS, *LONGEST)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else len(ORDER))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`pytest -n 2` gives each process a group at a time. (`--dist loadgroup` does nothing with pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = Path(nodeid.partition("::")[0]).stem
            return GROUPS.get(module, module)

    return GroupScheduling(config, log)


pytest_plugins = ["servers"]  # the fixtures that start real servers
