"""What belongs to a version: a list of its files with their hashes, itself named by its hash in a tag of the version.

So a copy of the files is known to be complete, or not, whatever came between: a kill, two downloads at once, a cache that was
tidied up. Older versions have no such list: what the artifact store lists of them is compared by name and size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from argan.errors import UserError
from argan.files import locked, recover, swapped

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "manifest.json"
TAG = "manifest_sha256"


def upload(client: MlflowClient, run_id: str, folder: Path, directory: str) -> str:
    """Log the files of `folder` and their list as artifacts below `directory`; the sha256 of the list."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    text = json.dumps({name: _sha256(folder / name) for name in names if name != NAME}, indent=1)
    client.log_artifacts(run_id, str(folder), directory)
    client.log_text(run_id, text, f"{directory}/{NAME}")
    return hashlib.sha256(text.encode()).hexdigest()


def fetch(version: Any, uri: str, target: Path) -> Path:
    """The folder of a version's files in `target`, downloaded unless it is complete there. Raises UserError."""
    import mlflow.artifacts

    if not _defects(version, uri, target):
        return _files_folder(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f".{target.name}.download.lock")):  # whoever else wants it waits, and finds it here
        recover(target)
        if not _defects(version, uri, target):
            return _files_folder(target)
        with swapped(target) as new:
            mlflow.artifacts.download_artifacts(artifact_uri=version.source, dst_path=str(new), tracking_uri=uri)
            if defects := _defects(version, uri, new, downloaded=True):
                raise UserError(
                    f"models:/{version.name}/{version.version} did not come complete from {version.source}: {defects[0]}; run it "
                    "again later, and where it says the same again restore a backup or register the model again"
                )
    return _files_folder(target)


def _defects(version: Any, uri: str, target: Path, downloaded: bool = False) -> list[str]:
    """What is wrong with a copy: against its version's list, and the store where there is none or it was just downloaded."""
    if not target.is_dir():
        return [f"{target} is not there"]
    folder, checksum = _files_folder(target), version.tags.get(TAG)
    defects = list(_against_list(folder, checksum)) if checksum else []
    if downloaded or not checksum:
        defects += _against_store(folder, version.source, uri)
    return defects


def _against_list(folder: Path, checksum: str) -> Iterator[str]:
    try:
        content = (folder / NAME).read_bytes()
    except OSError as error:
        yield f"{NAME} cannot be read ({error.strerror})"
        return
    if hashlib.sha256(content).hexdigest() != checksum:
        yield f"{NAME} is not the one that was registered"
        return
    for name, digest in json.loads(content).items():
        try:
            if _sha256(folder / name) != digest:
                yield f"{name} is damaged"
        except OSError as error:
            yield f"{name} cannot be read ({error.strerror})"


def _against_store(folder: Path, source: str, uri: str) -> Iterator[str]:
    import mlflow.artifacts

    top, waiting, count = source.rstrip("/"), [source.rstrip("/")], 0
    while waiting:
        directory = waiting.pop()
        for entry in mlflow.artifacts.list_artifacts(artifact_uri=directory, tracking_uri=uri):
            entry_uri = f"{directory}/{entry.path.rsplit('/', 1)[-1]}"
            if entry.is_dir:
                waiting.append(entry_uri)
                continue
            count += 1
            name = entry_uri.removeprefix(f"{top}/")
            file = folder / name
            if not file.is_file():
                yield f"{name} is not there"
            elif entry.file_size is not None and file.stat().st_size != entry.file_size:
                yield f"{name} has {file.stat().st_size} bytes, not {entry.file_size}"
    if not count:
        yield "its files are gone"


def _files_folder(target: Path) -> Path:
    """The folder of the files in what was downloaded: MLflow keeps the name of the folder they came from."""
    inner = sorted((path.parent for path in target.rglob("config.json")), key=lambda path: len(path.parts))
    return inner[0] if inner else target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
