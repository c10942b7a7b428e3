"""Collections: what is added, what is not, and that nothing half done is ever seen."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from photo_folders import noise, photo_folder, put
from PIL import Image

from argan import cli
from argan.config import params
from argan.errors import UserError
from argan.photos import collection
from argan.photos.collection import Collection, addition, remove
from argan.photos.collection.hashing import copy_verified
from argan.photos.prepare import SourceFile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photo_folder(tmp_path / "photos")


def state(home: Path) -> dict[str, bytes]:
    """Every file that belongs to the collection."""
    folder = home / "mine"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_folder_twice_adds_nothing_and_a_grown_one_what_is_new(folder: Path, tmp_path: Path) -> None:
    first = put(folder, tmp_path / "home")
    assert (first.files, first.new, first.photos, first.refused) == (12, 12, 12, {})
    before = state(tmp_path / "home")
    assert put(folder, tmp_path / "home") == collection.Added(12, 0, {}, 12, first.revision)
    assert state(tmp_path / "home") == before
    noise(folder / "new.png", 99)
    shutil.copy(folder / "cat.webp", folder / "again.webp")
    grown = put(folder, tmp_path / "home")
    assert (grown.files, grown.new, grown.photos) == (14, 1, 13) and grown.revision != first.revision
    opened = Collection.open("mine", tmp_path / "home")
    for file in opened.files():
        assert hashlib.sha256(file.path.read_bytes()).hexdigest() == file.sha256


def test_a_photo_keeps_its_split_as_the_collection_grows(folder: Path, tmp_path: Path) -> None:
    put(folder, tmp_path / "home")
    before = Collection.open("mine", tmp_path / "home").index.set_index("file_sha256")["split"]
    resaved = Image.open(folder / "cat.webp").convert("RGB")
    resaved.save(folder / "resaved.jpg", quality=60)
    put(folder, tmp_path / "home")
    index = Collection.open("mine", tmp_path / "home").index
    assert (index.set_index("file_sha256")["split"].reindex(before.index) == before).all()
    cats = index[index["source"].isin(["cat.webp", "resaved.jpg"])]
    assert len(cats) == 2 and cats["group"].nunique() == 1 and cats["split"].nunique() == 1


def test_what_an_earlier_version_measured_is_measured_again(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = put(folder, home)
    preview = home / "mine" / "preview"
    index = pd.read_parquet(preview / "index.parquet").drop(columns="sharpness")
    index.attrs["ingest"]["version"] = 1
    index.to_parquet(preview / "index.parquet", index=False)
    (preview / "quality.json").write_text('{"unfit": []}')
    assert Collection.open("mine", home).unfit == [collection.UNMEASURED]
    lines: list[str] = []
    again = put(folder, home, say=lines.append)
    assert (again.new, again.revision) == (0, first.revision) and any("measured again" in line for line in lines)
    assert "500 are needed" in " ".join(Collection.open("mine", home).unfit)


def test_show_begins_with_the_verdict_and_lists_photos_on_request(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "text.jpg").write_text("no photo")
    monkeypatch.chdir(tmp_path)
    put(folder, collection.HOME)

    def show(*options: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["argan", "collection", "show", "mine", *options])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out.splitlines()

    lines = show()
    assert lines[0] == "mine: not fit for training" and "at least 500 are needed" in lines[1]
    text = "\n".join(lines)
    for fact in (
        "photos +12",
        "splits +",
        "refused +1 .1 not an image",
        "with defocus +",
        "middle sharper",
        "report +data/",
    ):
        assert re.search(f"^{fact}", text, re.MULTILINE), fact
    assert "cat.webp" not in text and "text.jpg" not in text and len(lines) < 20
    listed = show("--photos")
    assert listed[: len(lines)] == lines
    assert len(listed) == len(lines) + 13 and listed[-1].startswith("refused: text.jpg: not an image")


def test_known_files_are_not_read_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, tmp_path / "home")
    read = []
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: read.append(given))
    assert put(folder, tmp_path / "home").new == 0 and not read


def test_an_archive_gives_the_same_photos_as_its_folder(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"deep/{path.name}")
        archive.writestr("../escaped.jpg", b"x")
    added = put(tmp_path / "photos.zip", tmp_path / "home")
    assert added.new == 12 and "leads out" in added.refused["../escaped.jpg"]
    assert put(folder, tmp_path / "home").new == 0
    assert not list((tmp_path / "home").glob(".mine.unpacked*")) and not (tmp_path / "escaped.jpg").exists()


def test_faults_are_told_once_each_and_most_of_them_stop_the_add(folder: Path, tmp_path: Path) -> None:
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no photo")
    added = put(folder, tmp_path / "home")
    assert added.new == 12 and set(added.refused) == {"empty.jpg", "text.jpg"}
    assert put(folder, tmp_path / "home").refused == {}
    output = Collection.open("mine", tmp_path / "home").quarantine
    assert sorted(output["source"]) == ["empty.jpg", "text.jpg"]
    before = state(tmp_path / "home")
    bad = tmp_path / "bad"
    bad.mkdir()
    noise(bad / "good.png", 50)
    for i in range(3):
        (bad / f"{i}.jpg").write_text(f"no photo {i}")
    with pytest.raises(UserError, match=r"3 of 4 photos .*--refused-max 0.5.* 3 of them: not an image"):
        put(bad, tmp_path / "home")
    assert state(tmp_path / "home") == before
    assert put(bad, tmp_path / "home", refused_max=0.8).photos == 13


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("nothing", "is not there"),
        ("empty", "holds no photographs"),
        ("file.jpg", "no zip, tar"),
        ("http://x.org/a.zip", "https"),
    ],
)
def test_a_source_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, output: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.jpg").write_bytes(b"no archive")
    with pytest.raises(UserError, match=output):
        put(source, tmp_path / "home")
    assert collection.names(tmp_path / "home") == []


def test_photos_are_removed_by_name_or_hash_and_their_doubles_are_welcome_then(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    put(folder, home)
    opened = Collection.open("mine", home)
    cat = opened.index.set_index("source")["file_sha256"]["cat.webp"]
    left = remove("mine", ["owl.webp", cat[:10]], home)
    assert left is not None and len(left.index) == 10 and len(left.files()) == 10
    assert cat not in {path.stem for path in (home / "mine").rglob("*.webp")}
    with pytest.raises(UserError, match=r"no photo of 'mine' called 'owl\.webp'"):
        remove("mine", ["owl.webp"], home)
    assert put(folder, home).new == 2
    assert remove("mine", [], home) is None and collection.names(home) == []


def test_frozen_it_is_what_it_was(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = put(folder, home)
    frozen = collection.freeze("mine", first.revision, tmp_path / "raw" / "mine", home)
    noise(folder / "new.png", 99)
    put(folder, home)
    with pytest.raises(UserError, match=f"is at revision .+ asks for {first.revision}"):
        collection.freeze("mine", first.revision, tmp_path / "elsewhere" / "mine", home)
    again = Collection.open("mine", tmp_path / "raw")
    assert again.revision == first.revision == frozen.revision and len(again.files()) == 12


def test_killed_between_the_two_renames_it_comes_back(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    revision = put(folder, home).revision
    (home / "mine" / "preview").replace(home / "mine" / ".preview.old")
    assert put(folder, home) == collection.Added(12, 0, {}, 12, revision)


def test_params_get_the_revision_and_keep_their_comments(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    file.write_text(text)
    assert params.record_revision("mine", lambda: "0" * 16, file)
    assert not params.record_revision("mine", lambda: "1" * 16, file)
    assert file.read_text().startswith(text)
    assert yaml.safe_load(file.read_text())["mine"] == {"source": "collection", "preset": "64", "revision": "1" * 16}
    assert params.load(file).domain("mine").source == "collection"
    for name in ("meadow", "crop", "Mine", "flowers", "../x"):
        with pytest.raises(UserError, match=f"'{name}' is"):
            params.record_revision(name, lambda: "0" * 16, file)


@pytest.mark.parametrize(
    "text",
    [
        "domains: [meadow]\nmeadow:\n    source: meadow # four spaces\n",
        "---\ndomains:\n- meadow\nmeadow: {source: meadow}\nmine:\n  source: collection\n  # why\n\n  revision: '77' # one\nzoo:\n"
        "  source: meadow\n",
        "domains: [meadow]\nmine: {source: collection, preset: quick, revision: abc}\nmeadow: {source: meadow}\n",
        'domains: [meadow]\nmeadow: {source: meadow}\n"mine": {source: collection, "revision": "abc"}\n',
    ],
)
def test_params_change_in_one_place_alone(tmp_path: Path, text: str) -> None:
    file, revision = tmp_path / "params.yaml", "12e4567890123456"  # a number, were it not quoted
    file.write_text(text.replace("'77'", f"'{'7' * 16}'").replace("abc", "a" * 16))
    before = file.read_text()
    params.record_revision("mine", lambda: revision, file)
    assert params.load(file).domain("mine").model_dump()["revision"] == revision
    after = file.read_text()
    if "mine" in before:
        assert len([1 for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]) == 1
    else:
        assert after.startswith(before)
    # An alias: a change to one section is a change to both
    shared = f"zoo: &zoo {{source: collection, revision: '{'7' * 16}'}}\nmine: *zoo\n"
    file.write_text(f"domains: [meadow]\nmeadow: {{source: meadow}}\n{shared}")
    before = file.read_text()
    with pytest.raises(UserError, match=f"write mine.revision: '{revision}' there"):
        params.record_revision("mine", lambda: revision, file)
    assert file.read_text() == before
    for name in ("on", "no", "null", "2024"):
        with pytest.raises(UserError, match="no name for a collection"):
            params.check_collection_name(name, params.load(file))


# ---- what went wrong ----


def test_a_lost_index_is_made_again_and_no_photo_is_ever_deleted_by_an_add(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    revision = put(folder, home).revision
    stranger = home / "mine" / "photos" / "00" / "mine.txt"
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_text("a user's own")
    (home / "mine" / "preview" / "index.parquet").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"preview is damaged .*delete that folder and add anything"):
        put(folder, home)
    shutil.rmtree(home / "mine" / "preview")
    more = tmp_path / "more"
    more.mkdir()
    noise(more / "more.png", 77)
    assert put(more, home).photos == 13
    assert put(more, home).photos == 13 and put(folder, home).photos == 13
    assert len(Collection.open("mine", home).files()) == 13 and stranger.exists()
    remove("mine", ["more.png"], home)
    assert Collection.open("mine", home).revision == revision


def test_a_damaged_store_of_pictures_costs_only_time(folder: Path, tmp_path: Path) -> None:
    revision = put(folder, tmp_path / "home").revision
    (tmp_path / "home" / "mine" / "preview" / "photos.npy").write_bytes(b"")
    noise(folder / "new.png", 99)
    assert put(folder, tmp_path / "home").new == 1
    remove("mine", ["new.png"], tmp_path / "home")
    assert Collection.open("mine", tmp_path / "home").revision == revision


def test_interrupted_between_the_two_renames_it_comes_back(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    revision = put(folder, home).revision
    noise(folder / "new.png", 99)
    renamed = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.suffix == ".new":
            raise KeyboardInterrupt
        return renamed(self, target)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", replace)
        put(folder, home)
    assert Collection.open("mine", home).revision == revision
    assert put(folder, home).new == 1


def test_a_first_add_that_was_killed_leaves_nothing_for_the_next(folder: Path, tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    other.mkdir()
    noise(other / "other.png", 55)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "sync", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        put(folder, home)
    assert len(collection.photo_paths(home / "mine")) == 12 and collection.names(home) == []
    assert put(other, home).photos == 1


def test_a_photo_that_changes_while_it_is_added_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = addition.with_hashes

    def late(*given: Any) -> Any:
        result = hashed(*given)
        noise(folder / "3.png", 123)
        return result

    monkeypatch.setattr(addition, "with_hashes", late)
    with pytest.raises(UserError, match="changed while they were added; nothing was added"):
        put(folder, tmp_path / "home")
    assert collection.names(tmp_path / "home") == []
    monkeypatch.setattr(addition, "with_hashes", hashed)
    assert put(folder, tmp_path / "home").photos == 12


def test_a_copy_with_other_bytes_than_were_looked_at_is_refused_and_removed(folder: Path, tmp_path: Path) -> None:
    file = SourceFile(folder / "3.png", "3.png", sha256="0" * 64)
    with pytest.raises(UserError, match=r"3\.png changed while it was added"):
        copy_verified(file, tmp_path / "mine")
    assert not [path for path in (tmp_path / "mine").rglob("*") if path.is_file()]


def test_the_revision_changes_with_photos_groups_and_splits_and_with_nothing_else() -> None:
    index = pd.DataFrame({"file_sha256": ["a", "b"], "group": ["g", "h"], "split": ["train", "test"], "source": "x"})

    def revision(index: pd.DataFrame) -> str:
        return Collection("mine", Path("mine"), index, pd.DataFrame()).revision

    changed = [index.assign(**{name: ["b", "c"]}) for name in ("file_sha256", "group", "split")]
    assert len({revision(table) for table in (index, *changed)}) == 4
    assert revision(index.iloc[::-1].assign(source="y")) == revision(index)


def test_photos_that_are_gone_are_left_out_and_come_back_with_the_next_add(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    revision = put(folder, home).revision
    for path in list(collection.photo_paths(home / "mine").values())[:3]:
        path.unlink()
    with pytest.raises(UserError, match=r"3 photos of the collection 'mine' are gone"):
        collection.freeze("mine", revision, tmp_path / "raw" / "mine", home)
    again = put(folder, home)
    assert (again.photos, again.revision) == (12, revision)
    for path in list(collection.photo_paths(home / "mine").values())[:3]:
        path.unlink()
    name = Collection.open("mine", home).index["source"].iloc[-1]
    left = remove("mine", [name], home)
    assert left is not None and len(left.files()) == len(left.index) >= 8


def test_odd_names_and_dates_end_no_add(folder: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(folder) + b"/odd\xff\r\n.png")
    noise(Path(odd), 31)
    early = Image.Exif()
    early.get_ifd(0x8769)[36867] = "0001:01:01 00:00:00"
    with Image.open(noise(folder / "plain.png", 32)) as image:
        image.save(folder / "early.jpg", exif=early)
    assert put(folder, tmp_path / "home").photos == 15
    sources = set(Collection.open("mine", tmp_path / "home").index["source"])
    assert "odd\\xff\\r\\n.png" in sources
    assert put(folder, tmp_path / "home").new == 0


def test_what_the_machine_lacked_is_looked_at_again(folder: Path, tmp_path: Path) -> None:
    (folder / "text.jpg").write_text("no photo")
    home, cat = tmp_path / "home", (folder / "cat.webp").read_bytes()
    (folder / "cat.webp").unlink()
    put(folder, home)
    (folder / "cat.webp").write_bytes(cat)
    output = home / "mine" / "preview" / "quarantine.csv"
    digest = hashlib.sha256(cat).hexdigest()
    output.write_text(output.read_text() + f"cat.webp,HEIC without a decoder: pip install pillow-heif,{digest}\n")
    assert put(folder, home).new == 1
    assert Collection.open("mine", home).quarantine["source"].tolist() == ["text.jpg"]


def test_a_zip_says_why_nothing_of_it_can_be_taken(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../a.jpg", b"x")
    with pytest.raises(UserError, match=r"none of its 1 entries can be taken; \.\./a\.jpg: its name leads out"):
        put(tmp_path / "a.zip", tmp_path / "home")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for i, name in enumerate(("holiday\\a.png", "12:30:00.png", b"Bl\x81te.png".decode("cp437"))):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, (folder / f"{i}.png").read_bytes())
    assert put(tmp_path / "b.zip", tmp_path / "home").new == 3
    sources = set(Collection.open("mine", tmp_path / "home").index["source"])
    assert sources == {"holiday/a.png", "12:30:00.png", "Blüte.png"}
    with pytest.raises(UserError, match="is not what --sha256 says"):
        put(tmp_path / "b.zip", tmp_path / "home", sha256="0" * 64)


def test_an_old_revision_that_is_frozen_stays_frozen(folder: Path, tmp_path: Path) -> None:
    home, raw = tmp_path / "home", tmp_path / "raw" / "mine"
    first = put(folder, home).revision
    collection.freeze("mine", first, raw, home)
    noise(folder / "new.png", 99)
    put(folder, home)
    assert collection.freeze("mine", first, raw, home).revision == first  # say, for another preset
