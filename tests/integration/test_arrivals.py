"""What arrives from elsewhere is looked at once, is lost by no kill, and shows nobody the password it was fetched with."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from argan.config import params, schema
from argan.errors import UserError
from argan.photos import collection
from pipelines import arrivals


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A workspace whose collections only note the names of what is added."""
    monkeypatch.chdir(tmp_path)
    seen: list[list[str]] = []

    def add(name: str, place: str, **options: Any) -> collection.Added:
        files = sorted(path.name for path in Path(place).rglob("*.jpg"))
        seen.append(files)
        return collection.Added(len(files), len(files), {}, len(files), "r")

    monkeypatch.setattr(params, "load", lambda: schema.Params.model_construct(crop=schema.Crop()))
    monkeypatch.setattr(params, "check_collection_name", lambda name, settings: None)
    monkeypatch.setattr(params, "record_revision", lambda name, revision: None)
    monkeypatch.setattr(collection, "add", add)
    return seen


def bucket(folder: Path, *names: str) -> str:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return f"file://{folder}"


def test_what_was_added_is_not_asked_for_again_and_the_note_is_private(tmp_path: Path, added: list[list[str]]) -> None:
    lines: list[str] = []
    source = bucket(tmp_path / "bucket", "a.jpg", "b.jpg")
    arrivals.add_arrivals("mine", source, lines.append)
    bucket(tmp_path / "bucket", "c.jpg")
    arrivals.add_arrivals("mine", source, lines.append)
    assert added == [["a.jpg", "b.jpg"], ["c.jpg"]]
    assert stat.S_IMODE((arrivals.SEEN_FOLDER / "mine.json").stat().st_mode) == 0o600


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from argan.config import params, schema
from argan.photos import collection
from pipelines import arrivals
params.load = lambda: schema.Params.model_construct(crop=schema.Crop())
params.check_collection_name = params.record_revision = lambda name, other: None
collection.add = lambda *given, **options: os.kill(os.getpid(), signal.SIGKILL)
arrivals.add_arrivals("mine", sys.argv[1], print)
"""


def test_photos_that_a_kill_kept_out_are_fetched_again(tmp_path: Path, added: list[list[str]]) -> None:
    source = bucket(tmp_path / "bucket", "a.jpg")
    here = str(Path(arrivals.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", KILLED, source, here], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    arrivals.add_arrivals("mine", source, print)
    assert added == [["a.jpg"]]


def test_a_password_is_neither_written_down_nor_shown(
    tmp_path: Path, added: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an address in memory, which as fsspec has it may hold anything."""
    import fsspec  # type: ignore[import-untyped]

    files = fsspec.filesystem("memory")
    files.pipe("/camera/a.jpg", b"a")
    opened: list[str] = []

    def url_to_fs(url: str, **options: Any) -> tuple[Any, str]:
        opened.append(url)
        return files, "/camera"

    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    monkeypatch.setenv("CAMERA_PASSWORD", "hunter2")
    lines: list[str] = []
    (arrivals.SEEN_FOLDER).mkdir(parents=True)
    (arrivals.SEEN_FOLDER / "mine.json").write_text(json.dumps({"ftp://old:hunter2@host/x /x/a.jpg": "1"}))
    arrivals.add_arrivals("mine", "ftp://me:${CAMERA_PASSWORD}@host/camera", lines.append)
    assert opened == ["ftp://me:hunter2@host/camera"] and added == [["a.jpg"]]
    note = (arrivals.SEEN_FOLDER / "mine.json").read_text()
    assert "hunter2" not in note + "".join(lines) and set(json.loads(note)) == {
        "ftp://host/camera /camera/a.jpg",
        "ftp://host/x /x/a.jpg",
    }

    def refused(url: str, **options: Any) -> None:
        raise OSError(f"530 {url} and me:hunter2@host: login incorrect")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refused)
    with pytest.raises(UserError, match="login incorrect") as caught:
        arrivals.add_arrivals("mine", "ftp://me:${CAMERA_PASSWORD}@host/camera", lines.append)
    assert "hunter2" not in str(caught.value)
    monkeypatch.delenv("CAMERA_PASSWORD")
    with pytest.raises(UserError, match="names the variable CAMERA_PASSWORD, which is not set"):
        arrivals.add_arrivals("mine", "ftp://me:${CAMERA_PASSWORD}@host/camera", lines.append)


def test_prefect_gets_no_password_as_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.flows import ingest as module

    monkeypatch.setattr(module.workspace, "prepare", lambda: None)
    monkeypatch.setattr(module.params, "check_collection_name", lambda name, settings: None)
    monkeypatch.setattr(module, "run_flow", lambda *given, **named: pytest.fail("Prefect saw it"))
    with pytest.raises(UserError, match=r"^the source ftp://host/x holds a user, a password or a key.*\$\{NAME\}"):
        module.ingest_command("mine", "ftp://me:hunter2@host/x", 1)
    pattern = module.ingest.parameters.properties["source"]["pattern"]  # what its server holds a parameter against
    assert not re.search(pattern, "ftp://me:hunter2@host/x") and re.search(pattern, "ftp://me:${NAME}@host/x")


def test_artifacts_show_foreign_names_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.flows import artifacts

    made: dict[str, str] = {}
    monkeypatch.setattr(artifacts, "create_markdown_artifact", lambda **named: made.update(named))
    hostile = "`<img src=x onerror=alert(1)>|\n\n# x"
    found = {"refused": {hostile: hostile}}
    artifacts.publish_arrivals("mine", f"s3://{hostile}", found, hostile)
    assert "<img" not in made["markdown"] + made["description"]
    assert [line.count("|") for line in made["markdown"].splitlines() if "alert" in line] == [0, 3]
    assert "\n" not in made["description"]
