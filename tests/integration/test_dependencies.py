"""What code depends on is what it imports: the hashes and dvc.yaml's lists follow from the source."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from argan.dependencies import closure, revision
from argan.errors import UserError
from argan.evaluation.revision import NOT_SCORED
from argan.training import revision as code_of_weights
from pipelines import dependencies

TREE = {
    "argan/__init__.py": "def load():\n    from argan.lazy import Model\n",
    "argan/lazy.py": "",
    "argan/top.py": """
from __future__ import annotations
import typing
from typing import TYPE_CHECKING
import numpy as np
from argan import plain, absent_name
from argan.box import inner
import argan.renamed as renamed
if TYPE_CHECKING:
    from argan.types import T
elif True:
    from argan import otherwise
if typing.TYPE_CHECKING:
    import argan.types
def f():
    "import argan.text"
    with open("x"):
        for _ in ():
            from argan.function import g
class C:
    def m(self):
        try:
            import argan.tried as x
        except ImportError:
            from argan.handled import y
        match self:
            case 1:
                from argan.matched import z
async def h():
    from .relative import r
""",
    **{
        f"argan/{name}.py": ""
        for name in (
            "plain", "renamed", "types", "otherwise", "text", "function", "tried", "handled", "matched", "relative", "unrelated",
        )
    },
    "argan/box/__init__.py": "from argan.box.first import a\ndef late():\n    from argan.box import only_by_name\n",
    "argan/box/first.py": "",
    "argan/box/inner.py": "from . import sibling\nfrom ..above import up\n",
    "argan/box/sibling.py": "",
    "argan/box/only_by_name.py": "",
    "argan/above.py": "",
    "pipelines/__init__.py": "",
    "pipelines/stage.py": "from argan.top import f\nfrom pipelines import helper\n",
    "pipelines/helper.py": "from pipelines import stage\n",  # a circle
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_every_form_of_import_is_followed_and_no_other_module_is(tree: Path) -> None:
    found = closure(("pipelines.stage",), root=tree)
    expected = {
        "argan", "argan.lazy", "argan.top", "argan.plain", "argan.box", "argan.box.first", "argan.box.inner",
        "argan.box.sibling", "argan.above", "argan.renamed", "argan.otherwise", "argan.function", "argan.tried",
        "argan.handled", "argan.matched", "argan.relative", "pipelines", "pipelines.stage", "pipelines.helper",
    }  # fmt: skip
    assert set(found) == expected  # argan.lazy: `from argan import absent_name` names something of the package itself
    assert all(path.is_file() and path.is_relative_to(tree) for path in found.values())
    (tree / "argan/top.py").write_text("from argan import plain\nfrom argan.box import inner\n")
    found = closure(("pipelines.stage",), root=tree)
    assert "argan.lazy" not in found and "argan.box.only_by_name" not in found and "argan.box.first" in found
    (tree / "argan/top.py").write_text("import argan.box.inner\n")  # argan.load and argan.box.late can be called now
    assert {"argan.lazy", "argan.box.only_by_name"} <= set(closure(("pipelines.stage",), root=tree))


def test_what_is_left_out_is_not_followed_and_must_exist(tree: Path) -> None:
    whole = set(closure(("pipelines.stage",), root=tree))
    without = closure(("pipelines.stage",), {"argan.box": "why", "argan.__init__": "why"}, tree)
    assert whole - set(without) == {
        "argan", "argan.lazy", "argan.box", "argan.box.first", "argan.box.inner", "argan.box.sibling", "argan.above",
    }  # fmt: skip
    root_apart = closure(("pipelines.stage",), {"pipelines": "calls"}, tree)
    assert "pipelines.stage" not in root_apart and "argan.top" in root_apart
    for roots, left in ((("argan.gone",), {}), (("argan.top",), {"argan.gone": "why"}), (("numpy",), {})):
        with pytest.raises(ValueError, match="there is no module"):
            closure(roots, left, tree)


def test_a_change_to_any_module_is_another_revision(tree: Path) -> None:
    found = closure(("pipelines.stage",), root=tree)
    before = revision(found)
    for path in found.values():
        source = path.read_bytes()
        path.write_bytes(source + b"\n# changed\n")
        assert revision(closure(("pipelines.stage",), root=tree)) != before, path
        path.write_bytes(source)
    (tree / "argan/unrelated.py").write_text("changed = True")
    assert revision(closure(("pipelines.stage",), root=tree)) == before


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    for name in ("argan", "pipelines"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


HASHES = {
    "scores": (("argan.evaluation.evaluate",), NOT_SCORED),
    "weights": (code_of_weights.GENERATOR, code_of_weights.NO_WEIGHT),
    "estimator": (code_of_weights.ESTIMATOR, code_of_weights.NO_WEIGHT),
}


@pytest.mark.parametrize("name", HASHES)
def test_the_hash_of_scores_and_weights_follows_every_module_but_those_left_out(sources: Path, name: str) -> None:
    roots, without = HASHES[name]
    imported, counted = closure(roots, root=sources), closure(roots, without, sources)
    before = revision(counted)
    for module, path in imported.items():
        source = path.read_bytes()
        path.write_bytes(source + b"\n# changed\n")
        changed = revision(closure(roots, without, sources)) != before
        path.write_bytes(source)
        assert changed is (module in counted), module
    assert {
        "scores": {
            "argan.training.noise",
            "argan.training.health",
            "argan.inference.model",
            "argan.metrics.features",
            "argan.photos.store",
        },
        "weights": {
            "argan.training.loop",
            "argan.training.step",
            "argan.training.state",
            "argan.networks.generator",
            "argan.photos.store",
            "argan.guided_filter",
            "argan.training.distributed",
            "argan.optics.rendering",
        },
        "estimator": {"argan.training.distill", "argan.guided_filter", "argan.training.augment"},
    }[name] <= set(counted)
    assert "argan.training.distill" not in counted or name != "weights", (
        "a change to it must not throw the generator away"
    )
    assert "argan.registry.registration" not in counted


@pytest.mark.parametrize("stage", dependencies.STAGES)
def test_what_a_stage_comes_to_import_comes_to_its_deps(sources: Path, stage: str) -> None:
    deps = dependencies.code(stage, sources)
    assert f"pipelines/{stage}.py" in deps
    (sources / "argan/brand_new.py").write_text("")
    assert "argan/config/presets" in deps, "read, and not imported"
    for name in (dep for dep in deps if dep.endswith(".py")):
        path = sources / name
        source = path.read_bytes()
        late = b"def _later():\n    import argan.brand_new as new\n    return new\n"
        path.write_bytes(source + (b"import argan.brand_new as new\n" if path.name == "__init__.py" else late))
        assert "argan/brand_new.py" in dependencies.code(stage, sources), name
        path.write_bytes(source)
    (sources / "argan/brand_new.py").unlink()


def test_dvc_yaml_lists_the_code_that_its_stages_import() -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert dependencies.written(text) == text, "run `python -m pipelines.dependencies --write`"
    stages = yaml.safe_load(text)["stages"]
    for stage in dependencies.STAGES:
        ours = [dep for dep in stages[stage]["deps"] if dep.startswith(("argan/", "pipelines/"))]
        assert ours == dependencies.code(stage)


def test_code_that_decides_weights_makes_dvc_train_again() -> None:
    weights = closure((*code_of_weights.GENERATOR, *code_of_weights.ESTIMATOR), code_of_weights.NO_WEIGHT)
    assert {path.relative_to(ROOT).as_posix() for path in weights.values()} <= set(dependencies.code("train"))


def test_the_lists_are_written_between_their_markers_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(
        text.replace("      - argan/tensors.py\n", "").replace("argan/meadow/scene.py", "argan/gone.py")
    )
    with pytest.raises(UserError, match=r"run `python -m pipelines\.dependencies --write`"):
        dependencies.main([])
    dependencies.main(["--write"])
    assert Path("dvc.yaml").read_text() == text
    dependencies.main(["--write"])
    dependencies.main([])
    assert Path("dvc.yaml").read_text() == text
    Path("dvc.yaml").write_text(text.replace(dependencies.END, "# the end", 1))
    with pytest.raises(UserError, match=r"the stage fetch lacks the lines"):
        dependencies.main(["--write"])


def test_deriving_dependencies_needs_no_torch() -> None:
    output = "import sys, pipelines.dependencies as d; d.code('train'); print('torch' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", output], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False False\n"
