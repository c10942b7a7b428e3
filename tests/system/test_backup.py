"""What a backup keeps, follows and removes. The servers themselves: tests/test_services.py."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from argan.errors import UserError
from argan.files import locked, write_json
from pipelines.services.backup import backup
from pipelines.services.databases import NAMES
from pipelines.services.restore import restore
from pipelines.services.servers import Services
from pipelines.services.settings import Settings


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    """Services that never ran: settings, two databases with a row each, one artifact."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARGAN_DATABASE_URL", raising=False)
    made = Services(tmp_path / "services", Settings())
    fill(made)
    return made


def fill(services: Services) -> None:
    for name in NAMES:
        file = services.databases.file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file)) as database:
            database.execute("create table t (x)")
            database.execute("insert into t values (1)")
            database.commit()
    write_json(services.home / "settings.json", asdict(services.settings))
    artifacts = Path(services.artifacts)
    artifacts.mkdir(parents=True)
    (artifacts / "model").write_text("model")


def held(file: Path) -> set[str]:
    with tarfile.open(file) as tar:
        return {name for name in tar.getnames() if name.startswith("artifacts/")}


def test_the_backup_just_made_stays_whatever_the_clock_of_others_said(services: Services, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    for name in ("argan-20200101-000000.tar", "argan-20210101-000000.tar", "argan-29990101-000000.tar"):
        (folder / name).write_text("")
    new = folder / "argan-20260101-000000.tar"
    backup(services, new, keep=2)
    assert sorted(path.name for path in folder.iterdir()) == [new.name, "argan-29990101-000000.tar"]
    backup(services, new, keep=1)
    assert [path.name for path in folder.iterdir()] == [new.name]


@pytest.mark.parametrize("keep", [0, -1])
def test_a_number_to_keep_that_is_none_changes_nothing(services: Services, tmp_path: Path, keep: int) -> None:
    with pytest.raises(UserError, match=f"KEEP is {keep}; .*1 or more"):
        backup(services, tmp_path / "b" / "new.tar", keep=keep)
    assert not (tmp_path / "b").exists()


def test_what_lies_behind_links_is_in_it_and_is_reported(
    services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts, disk = Path(services.artifacts), tmp_path / "disk"
    (disk / "deep").mkdir(parents=True)
    (disk / "deep" / "file").write_text("content")
    (artifacts / "linked").symlink_to(disk)
    (artifacts / "one").symlink_to(disk / "deep" / "file")
    (artifacts / "away").symlink_to(tmp_path / "away")
    (disk / "deep" / "back").symlink_to(artifacts)
    backup(services, tmp_path / "new.tar")
    assert held(tmp_path / "new.tar") == {"artifacts/model", "artifacts/linked/deep/file", "artifacts/one"}
    lines = capsys.readouterr().out
    assert f"{artifacts}/linked is a link to {disk}: what is there is in the backup" in lines
    assert (
        f"left out of the backup: {artifacts}/away, a link that leads to {tmp_path}/away, nothing that is there"
        in lines
    )
    assert "linked/deep/back, a link that leads to" in lines


def test_services_on_another_disk_are_restored_there(services: Services, tmp_path: Path) -> None:
    backup(services, tmp_path / "new.tar")
    disk, link = tmp_path / "disk", services.home
    disk.mkdir()
    link.rename(disk / "services")
    link.symlink_to(disk / "services")
    for _ in range(2):
        (Path(services.artifacts) / "model").write_text("other")
        restore(link, tmp_path / "new.tar", force=True)
        assert link.is_symlink() and (disk / "services" / "mlflow" / "artifacts" / "model").read_text() == "model"
    assert [path.name for path in disk.iterdir()] == ["services"]


def test_what_a_killed_backup_left_goes_and_a_living_one_is_reported(services: Services, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    (folder / ".backup.killed").mkdir(parents=True)
    half = folder / ".argan-20260101-000000.tar.abcdef01.tmp"
    half.write_text("half")
    with locked(folder / ".backup.lock"), pytest.raises(UserError, match="another backup is being written"):
        backup(services, folder / "new.tar")
    assert half.exists()
    backup(services, folder / "new.tar")
    assert [path.name for path in folder.iterdir()] == ["new.tar"]
    assert json.loads((services.home / "settings.json").read_text())["database"] == "sqlite"
