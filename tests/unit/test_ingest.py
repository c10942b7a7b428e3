"""Files in, a store out: hostile ones in quarantine, copies and bursts in one split, and only what is new decoded."""

from __future__ import annotations

import io
import itertools
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from argan.errors import UserError
from argan.files import swapped
from argan.photos import duplicates, ingest, pool
from argan.photos.crop import Box, Rule
from argan.photos.duplicates import components, near_pairs
from argan.photos.folder import find_photos
from argan.photos.prepare import Prepare, SourceFile
from argan.photos.previous_store import is_current
from argan.photos.splits import Splits, assign
from argan.photos.store import Photos
from benchmarks import bench_photos

DATA = Path(__file__).parents[1] / "data"
SIZE = 32


def picture(seed: int, width: int = 96, height: int = 72) -> np.ndarray:
    """Smooth blotches and some detail: as different from each other as photographs are."""
    random = np.random.default_rng(seed)
    blotches = cv2.resize(
        random.integers(0, 256, (5, 6, 3)).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return np.clip(blotches + random.normal(0, 6, (height, width, 1)), 0, 255).astype(np.uint8)


def save(path: Path, image: np.ndarray, taken: str | None = None, **options: Any) -> None:
    exif = Image.Exif()
    if taken:
        exif[272] = "Camera 7"
        exif.get_ifd(0x8769).update({33437: IFDRational(28, 10), 37386: IFDRational(50), 36867: taken})
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, exif=exif, **options)


def take_in(files: list[SourceFile], store: Path, **options: Any) -> ingest.IngestReport:
    options = {"processes": 0, "previous": store} | options
    with swapped(store) as new:
        return ingest.ingest(files, new, options.pop("size", SIZE), **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve photos."""
    for i in range(12):
        save(tmp_path / "photos" / f"{i:02}.jpg", picture(i), quality=92)
    return tmp_path / "photos"


def quarantine(store: Path) -> dict[str, str]:
    table = pd.read_csv(store / "quarantine.csv")
    assert table["source"].is_unique
    return dict(zip(table["source"], table["reason"], strict=True))


def test_photos_become_a_store(folder: Path, tmp_path: Path) -> None:
    save(folder / "wide.jpg", picture(50, 200, 100), taken="2020:02:03 04:05:06")
    report = take_in(find_photos(folder), tmp_path / "store")
    store = Photos.open(tmp_path / "store")
    assert (report.files, report.photos, report.decoded, report.groups, report.refused) == (13, 13, 13, 0, {})
    assert store.pixels.shape == (13, SIZE, SIZE, 3)
    assert store.index["source"].tolist() == [*(f"{i:02}.jpg" for i in range(12)), "wide.jpg"]
    last = store.index.iloc[-1]
    assert (last["width"], last["height"], last["crop_left"], last["crop_size"]) == (200, 100, 50, 100)
    assert (last["aperture"], last["focal_length"], last["taken"]) == (2.8, 50, "2020-02-03T04:05:06")
    assert store.index["aperture"].isna().sum() == 12
    expected = cv2.resize(picture(50, 200, 100)[:, 50:150], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    assert np.abs(store.pixels[-1].astype(int) - expected).mean() < 4


def hostile() -> dict[str, bytes]:
    good, deep = io.BytesIO(), io.BytesIO()
    Image.fromarray(picture(90)).save(good, "JPEG")
    Image.fromarray(np.arange(96 * 72, dtype=np.uint16).reshape(72, 96) * 9).save(deep, "PNG")
    frames, tiny = io.BytesIO(), io.BytesIO()
    pages = [Image.fromarray(picture(91)), Image.fromarray(picture(92))]
    pages[0].save(frames, "WEBP", save_all=True, append_images=pages[1:])
    Image.fromarray(picture(93)[:1, :1]).save(tiny, "PNG")
    flat = io.BytesIO()
    Image.new("RGB", (80, 80), (9, 99, 9)).save(flat, "PNG")
    bomb = bytearray(good.getvalue())
    at = bomb.index(b"\xff\xc0")
    bomb[at + 5 : at + 9] = b"\x75\x30\x75\x30"  # 30,000 x 30,000
    return {
        "animated.webp": frames.getvalue(),
        "bomb.jpg": bytes(bomb),
        "constant.png": flat.getvalue(),
        "empty.jpg": b"",
        "text.jpg": b"hello",
        "tiny.png": tiny.getvalue(),
        "truncated.jpg": good.getvalue()[:900],
    }


def test_hostile_photos_are_a_row_in_quarantine_each(folder: Path, tmp_path: Path) -> None:
    for name, content in hostile().items():
        (folder / name).write_bytes(content)
    Image.fromarray(picture(60)).convert("CMYK").save(folder / "cmyk.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / os.fsdecode(b"not-utf8-\xff.jpg")).write_bytes(b"x")
    (folder / "notes.txt").write_text("no photograph by its name")
    report = take_in(find_photos(folder), tmp_path / "store", refused_max=0.6)
    reasons = quarantine(tmp_path / "store")
    kinds = {name: reason.split(":")[0] for name, reason in reasons.items()}
    assert kinds == {
        "animated.webp": "animated",
        "bomb.jpg": "bomb",
        "constant.png": "constant",
        "empty.jpg": "empty",
        "not-utf8-\\xff.jpg": "not an image",
        "pipe.jpg": "no regular file",
        "text.jpg": "not an image",
        "tiny.png": "too small",
        "truncated.jpg": "truncated",
    }
    assert report.photos == 13 and sum(report.refused.values()) == 9 and next(iter(report.refused)) == "not an image"
    assert "cmyk.jpg" in set(Photos.open(tmp_path / "store").index["source"])


def test_too_many_refused_stop_it_and_the_chief_reason_is_named(folder: Path, tmp_path: Path) -> None:
    for i in range(3):
        (folder / f"cut{i}.jpg").write_bytes((folder / "01.jpg").read_bytes()[:700])
    (folder / "empty.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"4 of 16 photos refused, more than .* 3 of them: truncated \(such as cut0"):
        take_in(find_photos(folder), tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert take_in(find_photos(folder), tmp_path / "store", refused_max=0.25).photos == 12


def test_nothing_to_take_in(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no photographs"):
        take_in([], tmp_path / "store")
    with pytest.raises(UserError, match="1 of 1 photos refused"):
        take_in([SourceFile(tmp_path / "missing.jpg", "missing.jpg")], tmp_path / "store", refused_max=1)


def resaves(image: np.ndarray) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    h, w = image.shape[:2]
    return {
        "low.jpg": (image, {"quality": 30}),
        "half.png": (cv2.resize(image, (w // 2, h // 2), interpolation=cv2.INTER_AREA), {}),
        "bright.webp": (np.clip(image * 1.15 + 4, 0, 255).astype(np.uint8), {"quality": 80}),
        "burst.jpg": (np.ascontiguousarray(image[h // 150 :, w // 150 :]), {"quality": 90}),
    }


def test_resaves_of_real_photographs_are_grouped_and_different_ones_are_not(tmp_path: Path) -> None:
    for path in sorted(DATA.glob("*.webp")):
        image = np.asarray(Image.open(path).convert("RGB"))
        save(tmp_path / "photos" / f"{path.stem}-.png", image)
        for name, (changed, options) in resaves(image).items():
            save(tmp_path / "photos" / f"{path.stem}-{name}", changed, **options)
    report = take_in(find_photos(tmp_path / "photos"), tmp_path / "store", size=64)
    index = Photos.open(tmp_path / "store").index
    subject = index["source"].str.split("-").str[0]
    assert report.photos == 15 and report.groups == 3 and index["group"].nunique() == 3
    assert (index.groupby(subject)["group"].nunique() == 1).all()
    assert (index.groupby("group")["split"].nunique() == 1).all()


def test_a_burst_by_the_clock_may_differ_more() -> None:
    one, other = 0x0123456789ABCDEF, 0x0123456789ABCDEF ^ 0xFFF0  # 12 bits apart
    hashes = np.array([one, other, one, other, ~one & (2**64 - 1), other], np.uint64)
    cameras = ["a", "a", "b", "a", "a", "b"]
    seconds = np.array([10.0, 11.5, 11.0, 20.0, 11.6, np.nan])
    assert duplicates.burst_pairs(hashes, seconds, cameras).tolist() == [[0, 1]]
    assert duplicates.burst_pairs(hashes, seconds[::-1].copy(), ["a"] * 6).tolist() == [[3, 5]]


def test_copies_are_refused_once_and_do_not_count_as_faults(folder: Path, tmp_path: Path) -> None:
    (folder / "a copy.jpg").write_bytes((folder / "03.jpg").read_bytes())
    pixels = np.asarray(Image.open(folder / "04.jpg"))
    save(folder / "lossless.png", pixels)
    report = take_in(find_photos(folder), tmp_path / "store", refused_max=0)
    assert report.photos == 12 and report.refused == {"copy": 2}
    assert quarantine(tmp_path / "store") == {
        "a copy.jpg": "copy: the same picture as 03.jpg",
        "lossless.png": "copy: the same picture as 04.jpg",
    }


def test_only_new_photos_are_decoded_and_the_result_is_that_of_all_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cut.jpg").write_bytes((folder / "01.jpg").read_bytes()[:700])
    take_in(find_photos(folder), tmp_path / "store", refused_max=0.5)
    for i in range(3):
        save(folder / f"05 new {i}.jpg", picture(100 + i))
    (folder / "00.jpg").rename(folder / "renamed.jpg")
    (folder / "11.jpg").unlink()
    decoded = []
    real = Prepare._prepared
    monkeypatch.setattr(
        Prepare, "_prepared", lambda self, file, *rest: decoded.append(file.source) or real(self, file, *rest)
    )
    report = take_in(find_photos(folder), tmp_path / "store", refused_max=0.5)
    assert decoded == ["05 new 0.jpg", "05 new 1.jpg", "05 new 2.jpg"] and report.decoded == 3
    take_in(find_photos(folder), tmp_path / "fresh", refused_max=0.5, previous=None)
    for name in ("photos.npy", "quarantine.csv"):
        assert (tmp_path / "store" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    pd.testing.assert_frame_equal(Photos.open(tmp_path / "store").index, Photos.open(tmp_path / "fresh").index)


def test_files_known_by_their_hash_are_not_even_read(folder: Path, tmp_path: Path) -> None:
    take_in(find_photos(folder), tmp_path / "store")
    index = Photos.open(tmp_path / "store").index
    files = [
        SourceFile(tmp_path / "gone" / s, s, digest)
        for s, digest in zip(index["source"], index["file_sha256"], strict=True)
    ]
    report = take_in(files, tmp_path / "store")
    assert (report.photos, report.decoded) == (12, 0)


@pytest.mark.parametrize("change", [{"size": 24}, {"rule": Rule(keep=0.7)}])
def test_other_settings_start_afresh(folder: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    take_in(find_photos(folder), tmp_path / "store")
    assert take_in(find_photos(folder), tmp_path / "store", **change).decoded == 12


def test_a_store_of_an_earlier_version_is_measured_again_and_keeps_groups_and_splits(
    folder: Path, tmp_path: Path
) -> None:
    take_in(find_photos(folder), tmp_path / "store")
    file = tmp_path / "store" / "index.parquet"
    index = pd.read_parquet(file)
    measured = index["sharpness"]
    earlier = index.drop(columns="sharpness").assign(group=[f"g{i}" for i in range(12)], split="validation")
    earlier.attrs["ingest"]["version"] = 1
    earlier.to_parquet(file, index=False)
    assert not is_current(pd.read_parquet(file))
    assert take_in(find_photos(folder), tmp_path / "store").decoded == 12
    index = pd.read_parquet(file)
    assert is_current(index) and index["sharpness"].equals(measured)
    assert index["group"].tolist() == earlier["group"].tolist() and set(index["split"]) == {"validation"}
    assert take_in(find_photos(folder), tmp_path / "store").decoded == 0


def test_a_damaged_store_is_not_built_upon(folder: Path, tmp_path: Path) -> None:
    take_in(find_photos(folder), tmp_path / "store")
    pixels = tmp_path / "store" / "photos.npy"
    pixels.write_bytes(pixels.read_bytes()[:-100])
    assert take_in(find_photos(folder), tmp_path / "store").decoded == 12


def test_splits_stay_when_others_come_and_go(tmp_path: Path) -> None:
    halves = Splits(validation=0.25, test=0.25, seed=1)
    for i in range(40):
        save(tmp_path / "photos" / f"{i:02}.png", picture(i))
    files = find_photos(tmp_path / "photos")
    take_in(files[::2], tmp_path / "store", shares=halves)
    before = Photos.open(tmp_path / "store").index.set_index("source")["split"]
    assert before.value_counts().min() >= 2
    take_in(files, tmp_path / "store", shares=halves)
    after = Photos.open(tmp_path / "store").index.set_index("source")["split"]
    assert after[before.index].equals(before)
    take_in(files, tmp_path / "fresh", shares=halves, previous=None)
    assert Photos.open(tmp_path / "fresh").index.set_index("source")["split"].equals(after)
    take_in(files, tmp_path / "store", shares=Splits(seed=2))
    assert not Photos.open(tmp_path / "store").index.set_index("source")["split"].equals(after)


def test_official_splits_and_boxes_are_kept_and_a_copy_across_splits_goes(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"{i}.png", picture(i))
    save(tmp_path / "again.jpg", picture(0), quality=60)
    split = {"0": "test", "1": "validation", "again": "train"}
    files = [
        SourceFile(f.path, f.source, split=split.get(f.path.stem), box=Box(50, 30, 10, 10))
        for f in find_photos(tmp_path)
    ]
    take_in(files, tmp_path / "store", rule=Rule("box", background=0.9), shares=Splits(0, 0), size=20)
    index = Photos.open(tmp_path / "store").index.set_index("source")
    assert index["split"].to_dict() == {"0.png": "test", "1.png": "validation", "2.png": "train", "3.png": "train"}
    assert quarantine(tmp_path / "store") == {"again.jpg": "near duplicate across splits: of 0.png in test"}
    assert (index["crop_left"] == 39).all() and (index["crop_size"] == 32).all()


def test_groups_never_straddle_splits_whatever_is_fixed() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        n = 14
        links = {tuple(sorted(pair)) for pair in random.integers(0, n, (9, 2)).tolist() if pair[0] != pair[1]}
        known = {(i, j) for i, j in links}

        def alike(pairs: np.ndarray, known: set[tuple[int, ...]] = known) -> np.ndarray:
            return np.array([tuple(pair) in known for pair in pairs.tolist()], bool)

        given = {
            int(i): str(random.choice(["train", "validation", "test"])) for i in random.choice(n, 6, replace=False)
        }
        pairs = np.array(sorted(links)).reshape(-1, 2)
        component = components(n, [(pairs, alike)])
        names = [f"{random.integers(1 << 60):016x}" for _ in range(n)]
        result = assign(component, names, Splits(0.3, 0.3), given, {}, alike, str)
        kept = [i for i in range(n) if i not in result.refused]
        for i, j in itertools.combinations(kept, 2):
            if (i, j) in links:
                assert result.group[i] == result.group[j]
            if result.group[i] == result.group[j]:
                assert result.split[i] == result.split[j]
        assert all(result.split[i] == given[i] for i in kept if i in given)
        assert all(i in given or any(i in link for link in links) for i in result.refused)


def test_a_photo_between_two_settled_splits_is_refused() -> None:
    settled = {0: ("a", "train"), 2: ("b", "test")}

    def alike(pairs: np.ndarray) -> np.ndarray:
        return np.array([1 in pair for pair in pairs.tolist()], bool)

    result = assign(np.array([0, 0, 0, 3]), ["w", "x", "y", "z"], Splits(), {}, settled, alike, "photo {}".format)
    assert set(result.refused) == {1} and result.refused[1].startswith("near duplicate across splits: of photo ")
    assert (result.split[0], result.split[2], result.group[0], result.group[2]) == ("train", "test", "a", "b")


def test_the_index_finds_exactly_the_near_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 600, dtype=np.uint64)
    for i in range(300, 600):
        for bit in random.choice(64, random.integers(0, 12), replace=False):
            hashes[i] ^= np.uint64(1 << int(bit))
        if i % 2:
            hashes[i] = hashes[i - 300] ^ np.uint64(int(hashes[i] & np.uint64(0x0101010101010101)))
    hashes[:20] = hashes[0]
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None])
    for portion in (7, 1 << 20):
        monkeypatch.setattr(duplicates, "PAIRS_AT_A_TIME", portion)
        for limit in (0, 3, 7):
            found = {tuple(pair) for pairs in near_pairs(hashes, limit) for pair in pairs.tolist()}
            assert found == {(i, j) for i, j in np.argwhere(distance <= limit).tolist() if i < j}
    with pytest.raises(ValueError, match="up to 7"):
        list(near_pairs(hashes, 8))


def test_the_index_looks_at_few_pairs() -> None:
    """Of 20,000 hashes there are 200 million pairs; one in a hundred at most is looked at."""
    hashes = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64)
    looked_at = 0
    real = duplicates._joined

    def counted(*arguments: Any) -> Any:
        nonlocal looked_at
        for i, j in real(*arguments):
            looked_at += len(i)
            yield i, j

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_joined", counted)
        list(near_pairs(hashes))
    assert looked_at < 2e6


def test_splits_take_their_shares() -> None:
    splits = Splits(0.2, 0.1)
    drawn = [splits.of(str(i)) for i in range(5000)]
    assert abs(drawn.count("validation") - 1000) < 120 and abs(drawn.count("test") - 500) < 90
    with pytest.raises(ValueError, match="nothing to train on"):
        Splits(0.6, 0.4)


def alone(names: list[str], settled: dict[int, tuple[str, str]] | None = None) -> Counter[str]:
    """How many photos each split has, where no two photos are alike."""
    never = lambda pairs: np.zeros(len(pairs), bool)  # noqa: E731
    split = assign(np.arange(len(names)), names, Splits(), {}, settled or {}, never, str).split
    assert all(split[i] == label for i, (_, label) in (settled or {}).items())
    return Counter(split)


def test_a_held_out_split_taken_out_beforehand_is_filled_up_to_its_share_from_new_photos() -> None:
    names = [f"{i:016x}" for i in range(1000)]
    drawn = {name: Splits().of(name) for name in names}
    assert alone(names) == Counter(drawn.values())  # where none is short, the hash alone decides
    for missing in ("test", "validation"):
        left = [name for name in names if drawn[name] != missing]
        counts = alone(left)
        assert counts[missing] == round(0.1 * len(left))
        others = {"test", "validation"} - {missing}
        assert all(counts[label] == list(drawn.values()).count(label) for label in others)


def test_filling_up_moves_no_photo_that_is_in_a_split_already() -> None:
    names = [name for name in (f"{i:016x}" for i in range(1000)) if Splits().of(name) == "train"]
    old = {i: (names[i], "train") for i in range(len(names) - 30)}
    counts = alone(names, old)
    assert counts["test"] + counts["validation"] == 30
    assert alone(names[:19]) == {"train": 19}  # a tenth of nineteen is less than the two that evaluation needs


# Processes


def misbehave(item: str) -> str:
    if item == "dies":
        os._exit(3)
    while item == "hangs":
        time.perf_counter()
    return item.upper()


def test_what_hangs_or_kills_its_process_is_lost_alone() -> None:
    items = ["a", "hangs", *"bcdefgh", "dies", *"ijklmnop", "dies"]
    results = dict(enumerate(pool.in_order(misbehave, items, processes=2, seconds=1)))
    assert [item for item, _ in results.values()] == items
    for item, result in results.values():
        if len(item) == 1:
            assert result == item.upper()
        else:
            assert isinstance(result, pool.Lost)
            assert result.reason.startswith({"hangs": "hangs: ", "dies": "crashes"}[item])


def test_work_is_taken_as_it_is_done_and_left_when_nobody_wants_it() -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield "x"

    results = pool.in_order(misbehave, endless(), processes=1)
    assert [next(results) for _ in range(30)] == [("x", "X")] * 30
    results.close()  # type: ignore[attr-defined]
    assert taken < 30 + 2 * pool.WAITING


def test_two_processes_make_the_same_store(folder: Path, tmp_path: Path) -> None:
    (folder / "cut.jpg").write_bytes((folder / "01.jpg").read_bytes()[:700])
    seen: list[tuple[int, int]] = []
    take_in(find_photos(folder), tmp_path / "one", refused_max=0.5)
    take_in(find_photos(folder), tmp_path / "two", refused_max=0.5, processes=2, progress=lambda *at: seen.append(at))
    for name in ("photos.npy", "quarantine.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert seen == [(i, 13) for i in range(1, 14)]


def test_it_is_measured_against_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_photos, "INGEST", (2, 2, (1600, 1200), 1))
    monkeypatch.setattr(bench_photos, "INDEX", (50,))
    numbers = bench_photos.ingest()
    assert set(numbers) == {"ingest_speedup", "ingest_photos_per_second", "ingest_index_50_us"}
    assert all(value > 0 for value in numbers.values())
    assert numbers["ingest_photos_per_second"] < 1e4 and numbers["ingest_index_50_us"] < 1e6  # a second, a microsecond
