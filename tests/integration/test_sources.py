"""The published datasets, from archives of their true layouts on a server of this machine, to rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from archives import SPECIES, bird_files, flower_files, mat, metadata, picture, served, thumbnails, zipped
from loopback import Server, good, serving
from PIL import Image

from argan.config.schema import FileOverride
from argan.errors import UserError
from argan.photos.sources import birds, faces, flowers
from argan.photos.sources.birds import BIRDS
from argan.photos.sources.dataset import Dataset, fetch, held_out, throttled_progress
from argan.photos.sources.faces import FACES
from argan.photos.sources.flowers import FLOWERS
from argan.photos.sources.mat import read_integers
from argan.photos.sources.web import RetryPolicy

NO_WAIT = RetryPolicy(sleep=lambda seconds: None, attempts=2)


@pytest.fixture(autouse=True)
def http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGAN_ALLOW_HTTP", "loopback")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


# ---- what is pinned ----


@pytest.mark.parametrize("dataset", [FLOWERS, BIRDS, FACES], ids=lambda dataset: dataset.name)
def test_every_file_is_pinned_and_comes_by_https_or_by_hand(dataset: Dataset) -> None:
    for remote in dataset.files:
        assert all(url.startswith("https://") and remote.name in url for url in remote.urls)
        assert remote.urls or remote.by_hand
        assert remote.sha256 or remote.md5 or not remote.urls
        assert remote.sha256 is None or len(bytes.fromhex(remote.sha256)) == 32
        assert remote.md5 is None or len(bytes.fromhex(remote.md5)) == 16
        assert bool(remote.into) == bool(remote.suffixes)
    assert len({remote.name for remote in dataset.files}) == len(dataset.files)
    assert dataset.licence and dataset.citation and dataset.homepage.startswith("https://")


def test_what_is_held_out_never_changes() -> None:
    held = [name for name in (f"{i:05d}" for i in range(10_000)) if held_out(name, 0.1)]
    assert 900 < len(held) < 1100
    assert held[:5] == ["00015", "00044", "00050", "00051", "00102"]
    assert not held_out("a", 0.0) and held_out("a", 1.0)
    assert {name for name in held if held_out(name, 0.05)} < set(held)


# ---- flowers ----


def test_flowers_from_the_server_to_rows(server: Server, tmp_path: Path) -> None:
    dataset, raw = served(FLOWERS, server, flower_files()), tmp_path / "raw" / "flowers"
    lines: list[str] = []
    fetched = fetch(dataset, raw, tmp_path / "downloads", say=lines.append)
    assert not fetched.refused and len(fetched.photos) == 12
    assert fetched.photos == flowers.photos(raw)
    assert [row.image.name for row in fetched.photos] == [f"image_{i:05d}.jpg" for i in range(1, 13)]
    official = {"trnid": [4, 5, 6], "valid": [1, 9, 12], "tstid": [2, 3, 7, 8, 10, 11]}
    for name, split in (("trnid", "train"), ("valid", "validation"), ("tstid", "test")):
        rows = [row for row in fetched.photos if row.official == name]
        assert [int(row.image.stem[-5:]) for row in rows] == official[name] and {row.split for row in rows} == {split}
    assert [row.label for row in fetched.photos] == [77] * 6 + [102] * 6
    assert all(row.box is None for row in fetched.photos)
    assert fetched.photos[11].mask is None
    for row in fetched.photos[:11]:
        assert row.mask is not None and row.mask.name == row.image.name.replace("image", "segmim")
        with Image.open(row.image) as image:
            assert image.size == (50, 40)
            image.load()
    shape = flowers.foreground(fetched.photos[0].mask)
    assert shape.shape == (40, 50) and shape[20, 25] and not shape[2, 2] and 0.1 < shape.mean() < 0.25
    output = json.loads((raw / "provenance.json").read_text())
    assert "Nilsback" in output["citation"] and "licence" in output and len(output["files"]) == 4
    assert str(tmp_path) not in json.dumps(output)
    assert [p.name for p in raw.parent.iterdir()] == ["flowers"]
    assert any("12 photographs" in line for line in lines)


def test_what_is_downloaded_is_kept_and_unpacked_again_without_the_net(server: Server, tmp_path: Path) -> None:
    dataset = served(FLOWERS, server, flower_files())
    first = fetch(dataset, tmp_path / "raw", tmp_path / "downloads")
    asked = len(server.asked)
    (tmp_path / "raw" / "photos" / "jpg" / "image_00001.jpg").unlink()
    assert fetch(dataset, tmp_path / "raw", tmp_path / "downloads") == first
    assert len(server.asked) == asked == 4


def test_masks_are_left_out_where_nobody_judges(server: Server, tmp_path: Path) -> None:
    fetched = fetch(served(FLOWERS, server, flower_files()), tmp_path / "raw", tmp_path / "downloads", masks=False)
    assert all(row.mask is None for row in fetched.photos)
    assert "/102segmentations.tgz" not in [path for path, _ in server.asked]


def test_a_dataset_appears_whole_or_stays_as_it_was(server: Server, tmp_path: Path) -> None:
    raw, downloads = tmp_path / "raw", tmp_path / "downloads"
    raw.mkdir()
    (raw / "before").write_text("here")
    files = flower_files()
    wrong = served(FLOWERS, server, files)
    server.offer("/setid.mat", files["setid.mat"], good(change=lambda data: data[:-1] + b"x"))
    with pytest.raises(UserError, match=r"cannot download setid\.mat .*wrong bytes"):
        fetch(wrong, raw, downloads, retry=NO_WAIT)
    lost = served(FLOWERS, server, flower_files(lost="jpg/image_00007.jpg"))
    with pytest.raises(UserError, match=r"102flowers\.tgz lacks jpg/image_00007\.jpg"):
        fetch(lost, raw, downloads)
    assert [p.name for p in raw.iterdir()] == ["before"]
    assert {p.name for p in tmp_path.iterdir()} == {"raw", "downloads"}


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("setid.mat", b"", "setid.mat cannot be read .*fetch it again"),
        ("setid.mat", b"MATLAB 5.0 MAT-file" * 50, "setid.mat cannot be read .*fetch it again"),
        ("setid.mat", mat(trnid=np.array([[1]]), valid=np.array([[2]])), "setid.mat: no numbers are called 'tstid'"),
        ("setid.mat", mat(trnid=np.array([[1]]), valid=np.array([[1]]), tstid=np.array([[2]])), "two splits"),
        ("setid.mat", mat(trnid=np.array([[1]]), valid=np.array([[2]]), tstid=np.array([[3]])), "splits 3 .* names 12"),
        ("imagelabels.mat", mat(labels=np.array([["a"]])), "no numbers are called 'labels'"),
        ("imagelabels.mat", mat(labels=np.array([[1.5]])), "holds no integers"),
        ("imagelabels.mat", mat(labels=np.array([[np.nan]])), "holds no integers"),
        ("imagelabels.mat", flower_files()["imagelabels.mat"][:-3], "cannot be read"),
    ],
)
def test_matrices_that_make_no_sense_are_named(tmp_path: Path, name: str, data: bytes, match: str) -> None:
    overrides = {}
    for output, content in {**flower_files(), name: data}.items():
        (tmp_path / output).write_bytes(content)
        overrides[output] = FileOverride(path=tmp_path / output, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(UserError, match=match) as caught:
        fetch(FLOWERS, tmp_path / "raw", tmp_path / "downloads", overrides=overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
def test_matrices_of_every_integer_and_float_type_are_read(tmp_path: Path, packed: bool) -> None:
    kinds = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64, np.uint64, np.float32, np.float64)
    arrays = {f"a{i}_{n}": np.arange(n).astype(kind)[None] for i, kind in enumerate(kinds) for n in (1, 3, 8, 8189)}
    others = {"text": "abc", "cell": np.array([[1, "a"]], object), "struct": {"a": 1}, "complex": np.array([[1j]])}
    (tmp_path / "a.mat").write_bytes(mat(packed=packed, **arrays, **others))
    read = read_integers(tmp_path / "a.mat")
    for name, array in arrays.items():
        assert read[name].dtype == np.int64 and np.array_equal(read[name], array[0].astype(np.int64))
    assert set(others).isdisjoint(read)


# ---- birds ----


def test_birds_from_the_server_to_rows(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(birds, "VALIDATION", 0.4)  # of twenty, a tenth may be none
    raw = tmp_path / "raw" / "birds"
    fetched = fetch(served(BIRDS, server, bird_files()), raw, tmp_path / "downloads")
    assert not fetched.refused and len(fetched.photos) == 40 and fetched.photos == birds.photos(raw)
    assert [row.official for row in fetched.photos] == ["train", "test"] * 20
    assert all(row.split == "test" for row in fetched.photos if row.official == "test")
    train = [row for row in fetched.photos if row.official == "train"]
    assert {row.split for row in train} == {"train", "validation"}
    for row in train:
        assert (row.split == "validation") == held_out(f"{row.image.parent.name}/{row.image.name}", birds.VALIDATION)
    assert [row.label for row in fetched.photos] == [1] * 20 + [2] * 20
    assert fetched.photos[4].box == (2.5, 10.0, 20.0, 21.5)
    assert all(row.mask and row.mask.stem == row.image.stem and row.mask.is_file() for row in fetched.photos)
    shape = birds.foreground(fetched.photos[0].mask)
    assert shape.shape == (40, 50) and shape[20, 25] and not shape[2, 2]
    texts = sorted(path.name for path in raw.rglob("*.txt"))
    assert texts == sorted(birds.TABLES)  # what is not needed does not come out


def test_a_bird_that_is_named_but_not_there_is_told(server: Server, tmp_path: Path) -> None:
    lost = f"{SPECIES[0]}/Black_footed_Albatross_0003_796103.jpg"
    with pytest.raises(UserError, match=r"lacks images/.*_0003_796103\.jpg"):
        fetch(served(BIRDS, server, bird_files(lost=lost)), tmp_path / "raw", tmp_path / "downloads")
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(
    ("table", "old", "new", "match"),
    [
        (
            "images.txt",
            "001.Black_footed_Albatross/Black_footed_Albatross_0000_796100.jpg",
            "../../../x.jpg",
            "lacks images/../",
        ),
        ("images.txt", "1 001.", "one 001.", "images.txt cannot be read"),
        ("images.txt", "2 001.", "1 001.", "names a number twice"),
        ("bounding_boxes.txt", "1 0.5 10.0 20.0 21.5\n", "", "bounding_boxes.txt and images.txt do not name the same"),
        ("bounding_boxes.txt", "1 0.5 10.0 20.0 21.5", "1 0.5 10.0 20.0", "damaged at photograph 1"),
        (
            "bounding_boxes.txt",
            "1 0.5 10.0 20.0 21.5",
            "1 0.5 10.0 0.0 21.5",
            "damaged at photograph 1 .a box of 0 x 21.5",
        ),
        ("bounding_boxes.txt", "1 0.5 10.0 20.0 21.5", "1 0.5 10.0 nan 21.5", "damaged at photograph 1"),
        ("train_test_split.txt", "3 1\n", "3 2\n", "damaged at photograph 3"),
        ("image_class_labels.txt", "3 1\n", "3\n", "short lines"),
    ],
)
def test_tables_that_make_no_sense_are_named(tmp_path: Path, table: str, old: str, new: str, match: str) -> None:
    def change(tables: dict[str, str]) -> None:
        assert old in tables[table]
        tables[table] = tables[table].replace(old, new, 1)

    overrides = {}
    for name, data in bird_files(change=change).items():
        (tmp_path / name).write_bytes(data)
        overrides[name] = FileOverride(path=tmp_path / name, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(UserError, match=match):
        fetch(BIRDS, tmp_path / "raw", tmp_path / "downloads", overrides=overrides)
    assert not (tmp_path / "raw").exists()


# ---- faces ----


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "PHOTOS", 12)
    monkeypatch.setattr(faces, "TRAINING", 6)


def test_faces_want_a_licence_read_and_a_file_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"thumbnails128x128\.zip: FFHQ is under CC BY-NC-SA .*by hand") as caught:
        fetch(FACES, tmp_path / "raw", tmp_path / "downloads")
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("few")
def test_faces_from_a_local_file_to_rows(tmp_path: Path) -> None:
    lines: list[str] = []
    data = zipped(thumbnails())
    (tmp_path / "mine.zip").write_bytes(data)
    fetched = fetch(
        FACES,
        tmp_path / "raw",
        tmp_path / "downloads",
        overrides={"thumbnails128x128.zip": FileOverride(path=tmp_path / "mine.zip")},
        say=lines.append,
    )
    assert [row.image.name for row in fetched.photos] == [f"{i:05d}.png" for i in range(12)]
    assert [row.official for row in fetched.photos] == ["training"] * 6 + ["validation"] * 6
    assert {row.split for row in fetched.photos[:6]} == {"train"} and {row.split for row in fetched.photos[6:]} == {
        "validation",
        "test",
    }
    assert any(hashlib.sha256(data).hexdigest() in line for line in lines)
    assert (tmp_path / "mine.zip").exists() and not (tmp_path / "downloads").exists()


@pytest.mark.usefixtures("few")
def test_each_face_is_checked_where_the_metadata_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = thumbnails()
    output = metadata(photos)
    (tmp_path / "a.zip").write_bytes(zipped(photos))
    (tmp_path / "ffhq.json").write_bytes(output)
    overrides = {
        "thumbnails128x128.zip": FileOverride(path=tmp_path / "a.zip"),
        "ffhq-dataset-v2.json": FileOverride(path=tmp_path / "ffhq.json", sha256=hashlib.sha256(output).hexdigest()),
    }
    assert len(fetch(FACES, tmp_path / "raw", tmp_path / "downloads", overrides=overrides).photos) == 12
    changed = {**photos, "thumbnails128x128/01000/00007.png": picture(99, "PNG")}
    (tmp_path / "a.zip").write_bytes(zipped(changed))
    with pytest.raises(UserError, match=r"00007\.png is not what ffhq-dataset-v2\.json describes"):
        fetch(FACES, tmp_path / "raw", tmp_path / "downloads", overrides=overrides)
    overrides["ffhq-dataset-v2.json"] = FileOverride(path=tmp_path / "ffhq.json")
    with pytest.raises(UserError, match=r"is not the published ffhq-dataset-v2\.json .md5 is"):
        fetch(FACES, tmp_path / "raw", tmp_path / "downloads", overrides=overrides)
    (tmp_path / "ffhq.json").write_bytes(b"")
    overrides["ffhq-dataset-v2.json"] = FileOverride(
        path=tmp_path / "ffhq.json", sha256=hashlib.sha256(b"").hexdigest()
    )
    with pytest.raises(UserError, match=r"ffhq-dataset-v2\.json cannot be read"):
        fetch(FACES, tmp_path / "raw", tmp_path / "downloads", overrides=overrides)


@pytest.mark.usefixtures("few")
def test_a_part_of_the_faces_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(thumbnails(9)))
    overrides = {"thumbnails128x128.zip": FileOverride(path=tmp_path / "a.zip")}
    with pytest.raises(UserError, match=r"lacks 3 of 12 thumbnails .the first: 00009\.png"):
        fetch(FACES, tmp_path / "raw", tmp_path / "downloads", overrides=overrides)


# ---- what a user says ----


def test_a_users_copy_address_and_hash_go_before_ours(server: Server, tmp_path: Path) -> None:
    files = flower_files()
    mirror = server.offer("/mirror/102flowers.tgz", files["102flowers.tgz"])
    overrides = {
        "102flowers.tgz": FileOverride(url=mirror, sha256=hashlib.sha256(files["102flowers.tgz"]).hexdigest().upper())
    }
    for name in ("imagelabels.mat", "setid.mat", "102segmentations.tgz"):
        (tmp_path / name).write_bytes(files[name])
        overrides[name] = FileOverride(path=tmp_path / name, sha256=hashlib.sha256(files[name]).hexdigest())
    assert len(fetch(FLOWERS, tmp_path / "raw", tmp_path / "downloads", overrides=overrides).photos) == 12
    assert [path for path, _ in server.asked] == ["/mirror/102flowers.tgz"]

    overrides["setid.mat"] = FileOverride(path=tmp_path / "setid.mat")
    with pytest.raises(UserError, match=r"is not the published setid\.mat .sha256 is"):
        fetch(FLOWERS, tmp_path / "raw", tmp_path / "downloads", overrides=overrides)
    overrides["setid.mat"] = FileOverride(path=tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"nowhere, named for setid\.mat, cannot be read"):
        fetch(FLOWERS, tmp_path / "raw", tmp_path / "downloads", overrides=overrides)
    with pytest.raises(UserError, match=r"flowers: no file is called setid; known: 102flowers\.tgz"):
        fetch(FLOWERS, tmp_path / "raw", tmp_path / "downloads", overrides={"setid": FileOverride()})


def test_faces_from_an_address_need_a_pinned_hash(server: Server, tmp_path: Path) -> None:
    overrides = {"thumbnails128x128.zip": FileOverride(url=server.offer("/a.zip", zipped(thumbnails())))}
    with pytest.raises(UserError, match=r"no checksum is known for thumbnails128x128\.zip"):
        fetch(FACES, tmp_path / "raw", tmp_path / "downloads", overrides=overrides)
    assert not server.asked


def test_progress_is_told_now_and_then() -> None:
    lines: list[str] = []
    times = iter([0.0, 1.0, 9.0, 11.0, 12.0, 25.0])
    progress = throttled_progress("a.tgz", lines.append, lambda: next(times))
    for done in (1, 2, 3, 4):
        progress(done * 10**6, 10**9)
    progress(5 * 10**6, None)
    assert lines == ["a.tgz: 3 of 1,000 MB", "a.tgz: 5 MB"]
