"""Archives, friendly and hostile: what is good comes out whole, what is not leaves nothing behind and nothing outside."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from argan.errors import UserError
from argan.photos.sources import entries
from argan.photos.sources.archive import extract
from argan.photos.sources.entries import ArchiveLimits

PHOTOS = {f"jpg/image_{i:05d}.jpg": random.Random(i).randbytes(5000 + i) for i in range(1, 6)}
PACKED = {"tar": bytes, "tgz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}


def member(name: str, size: int = 0, **changed: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in changed.items():
        setattr(info, key, value)
    return info


def tar_bytes(files: dict[str, bytes] | list[tuple[tarfile.TarInfo | str, bytes]], **settings: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **settings) as tar:
        for info, data in files.items() if isinstance(files, dict) else files:
            info = member(info) if isinstance(info, str) else info
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(
    files: dict[str, bytes] | list[tuple[zipfile.ZipInfo | str, bytes]], how: int = zipfile.ZIP_DEFLATED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as made:
        for info, data in files.items() if isinstance(files, dict) else files:
            made.writestr(info, data)
    return buffer.getvalue()


def zip_member(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def both(files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The same entries as a tar and as a zip."""
    return [("a.tgz", gzip.compress(tar_bytes(files))), ("a.zip", zip_bytes(files))]


def unpack(
    tmp_path: Path, data: bytes, name: str = "a.tgz", **settings: Any
) -> tuple[entries.Extracted, dict[str, bytes]]:
    archive = tmp_path / name
    archive.write_bytes(data)
    result = extract(archive, tmp_path / "out", **settings)
    found = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert sorted(found) == sorted(result.files)
    assert not any(p.is_symlink() for p in (tmp_path / "out").rglob("*"))
    assert {p.name for p in tmp_path.iterdir()} == {name, "out"}
    return result, found


def rejected(tmp_path: Path, data: bytes, match: str, name: str = "a.tgz", **settings: Any) -> None:
    """Refused as a whole: what was there before is there still, and nothing else."""
    archive, out = tmp_path / name, tmp_path / "out"
    archive.write_bytes(data)
    out.mkdir(exist_ok=True)
    (out / "before").write_text("here")
    with pytest.raises(UserError, match=match) as caught:
        extract(archive, out, **settings)
    assert "\n" not in str(caught.value) and name in str(caught.value)
    assert [p.name for p in out.iterdir()] == ["before"]
    assert {p.name for p in tmp_path.iterdir()} == {name, "out"}


# ---- friendly ----


@pytest.mark.parametrize("kind", [*PACKED, "zip", "stored.zip"])
def test_what_was_packed_comes_out(tmp_path: Path, kind: str) -> None:
    if kind.endswith("zip"):
        data = zip_bytes(PHOTOS, zipfile.ZIP_STORED if kind == "stored.zip" else zipfile.ZIP_DEFLATED)
    else:
        data = PACKED[kind](tar_bytes(PHOTOS))
    seen: list[tuple[int, int]] = []
    result, found = unpack(tmp_path, data, f"a.{kind}", progress=lambda done, total: seen.append((done, total)))
    assert found == PHOTOS
    assert result.files == list(PHOTOS) and not result.refused and not result.unwanted
    assert seen and all(done <= total == len(data) for done, total in seen)


def test_the_kind_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    assert unpack(tmp_path, zip_bytes(PHOTOS), "photos.tgz")[1] == PHOTOS
    (tmp_path / "photos.tgz").unlink()
    assert unpack(tmp_path, lzma.compress(tar_bytes(PHOTOS)), "photos.zip")[1] == PHOTOS


def test_dots_folders_and_long_names_are_no_trouble(tmp_path: Path) -> None:
    long = "/".join(["folder" * 20] * 3) + "/photo.jpg"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        files = [(member("./", type=tarfile.DIRTYPE), b""), ("./jpg/./a.jpg", b"a"), ("jpg//b.jpg", b""), (long, b"c")]
        result, found = unpack(tmp_path, tar_bytes(files, format=form), "a.tar")
        assert found == {"jpg/a.jpg": b"a", "jpg/b.jpg": b"", long: b"c"} and not result.refused


def test_only_wanted_suffixes_come_out(tmp_path: Path) -> None:
    files = [("a.JPG", b"a"), ("readme.txt", b"t"), ("run.sh", b"s"), ("x.jpg.exe", b"e"), ("noend", b"n")]
    for name, data in both(files):
        result, found = unpack(tmp_path, data, name, suffixes={".jpg"})
        assert found == {"a.JPG": b"a"} and not result.refused
        assert result.unwanted == ["readme.txt", "run.sh", "x.jpg.exe", "noend"]
        (tmp_path / name).unlink()


def test_what_comes_out_replaces_what_was_there_and_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.jpg").write_text("old")
    assert unpack(tmp_path, tar_bytes([(member("a.jpg", mode=0o6777), b"a")]), "a.tar")[1] == {"a.jpg": b"a"}
    assert not (tmp_path / "out" / "a.jpg").stat().st_mode & 0o7111


def test_names_in_utf8_come_out_also_where_a_zip_does_not_say_so(tmp_path: Path) -> None:
    archive = zip_bytes({"blüte.jpg": b"a"})
    assert unpack(tmp_path, archive, "a.zip")[1] == {"blüte.jpg": b"a"}
    silent = zip_bytes({"bl__te.jpg": b"a"}).replace(b"bl__te", "blüte".encode())
    assert unpack(tmp_path, silent, "a.zip")[1] == {"blüte.jpg": b"a"}


# ---- hostile names ----


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../out.jpg", "leads out"),
        ("jpg/../../out.jpg", "leads out"),
        ("jpg/..", "leads out"),
        ("/etc/out.jpg", "absolute"),
        ("//host/out.jpg", "absolute"),
        ("C:/out.jpg", "drive letter"),
        ("C:out.jpg", "drive letter"),
        ("..\\out.jpg", "backslash|leads out"),  # a zip's are read as slashes
        ("\\\\host\\out.jpg", "backslash|absolute"),
        ("a\nb.jpg", "control"),
        ("a\x1b[2Jb.jpg", "control"),
        ("a" * 300 + ".jpg", "too long"),
        ("b/" * 600 + "a.jpg", "too long"),
        ("__MACOSX/jpg/._a.jpg", "Mac's"),
        ("jpg/._a.jpg", "Mac's"),
    ],
)
def test_a_name_that_will_not_do_is_refused_alone(tmp_path: Path, name: str, reason: str) -> None:
    for file, data in both([("good.jpg", b"good"), (name, b"bad"), ("too.jpg", b"too")]):
        result, found = unpack(tmp_path, data, file)
        assert found == {"good.jpg": b"good", "too.jpg": b"too"}
        assert len(result.refused) == 1 and re.search(reason, result.refused[0][1])
        assert result.refused[0][0].isprintable()
        (tmp_path / file).unlink()


def test_names_that_are_not_utf8_are_refused_alone_or_read_as_the_format_says(tmp_path: Path) -> None:
    latin = tar_bytes(
        [("bl\udcfcte.jpg", b"bad"), ("good.jpg", b"good")], format=tarfile.GNU_FORMAT, errors="surrogateescape"
    )
    silent = zip_bytes({"bl_te.jpg": b"bad", "good.jpg": b"good"}).replace(b"bl_te", b"bl\xfcte")
    result, found = unpack(tmp_path, latin, "a.tar")
    assert found == {"good.jpg": b"good"}
    assert result.refused == [("bl\\udcfcte.jpg", "its name is not UTF-8")]
    (tmp_path / "a.tar").unlink()
    result, found = unpack(tmp_path, silent, "a.zip")
    assert found == {"blⁿte.jpg": b"bad", "good.jpg": b"good"} and not result.refused  # code page 437
    (tmp_path / "a.zip").unlink()
    claimed = zip_bytes({"blüte.jpg": b"bad"}).replace("blüte".encode(), b"bl\xfc\xfcte")
    shutil.rmtree(tmp_path / "out")
    rejected(tmp_path, claimed, "claims to be UTF-8 and is not", "a.zip")


def test_one_of_names_that_clash_comes_out(tmp_path: Path) -> None:
    files = [("jpg/a.jpg", b"1"), ("jpg/a.jpg", b"2"), ("JPG/A.jpg", b"3"), ("./jpg/a.jpg", b"4")]
    files += [("blu\u0308te.jpg", b"5"), ("bl\u00fcte.jpg", b"6"), ("stra\u00dfe.jpg", b"7"), ("STRASSE.JPG", b"8")]
    with pytest.warns(UserWarning, match="Duplicate name"):
        packed = both(files)
    for name, data in packed:
        result, found = unpack(tmp_path, data, name)
        assert found == {"jpg/a.jpg": b"1", "blu\u0308te.jpg": b"5", "stra\u00dfe.jpg": b"7"}
        assert [output for output, _ in result.refused] == [files[i][0] for i in (1, 2, 3, 5, 7)]
        assert all("taken" in reason for _, reason in result.refused)
        (tmp_path / name).unlink()


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path) -> None:
    for name, data in both([("a", b"1"), ("A/b.jpg", b"2"), ("c/d.jpg", b"3"), ("C", b"4")]):
        result, found = unpack(tmp_path, data, name)
        assert found == {"a": b"1", "c/d.jpg": b"3"}
        assert ["name of its folder" in result.refused[0][1], "folder has its name" in result.refused[1][1]] == [
            True,
            True,
        ]
        (tmp_path / name).unlink()


# ---- hostile kinds ----


def test_links_and_devices_are_refused_alone(tmp_path: Path) -> None:
    odd = [
        (tarfile.SYMTYPE, "/etc/passwd", "symbolic link (to /etc/passwd)"),
        (tarfile.SYMTYPE, "..", "symbolic link"),
        (tarfile.SYMTYPE, "good.jpg", "symbolic link"),
        (tarfile.LNKTYPE, "../../etc/passwd", "hard link"),
        (tarfile.LNKTYPE, "good.jpg", "hard link"),
        (tarfile.CHRTYPE, "", "device"),
        (tarfile.BLKTYPE, "", "device"),
        (tarfile.FIFOTYPE, "", "pipe"),
        (tarfile.GNUTYPE_SPARSE, "", "sparse"),
    ]
    files: list[tuple[tarfile.TarInfo | str, bytes]] = [("good.jpg", b"good")]
    files += [(member(f"odd{i}.jpg", type=kind, linkname=link), b"") for i, (kind, link, _) in enumerate(odd)]
    result, found = unpack(tmp_path, tar_bytes([*files, ("too.jpg", b"too")]), "a.tar")
    assert found == {"good.jpg": b"good", "too.jpg": b"too"}
    assert [output for output, _ in result.refused] == [f"odd{i}.jpg" for i in range(len(odd))]
    assert all(words in reason for (_, reason), (_, _, words) in zip(result.refused, odd, strict=True))


def test_a_link_to_a_folder_outside_carries_nothing_out(tmp_path: Path) -> None:
    outside = tmp_path / "out" / ".." / ".." / "outside"
    files = [(member("way", type=tarfile.SYMTYPE, linkname=str(outside)), b""), ("way/a.jpg", b"a")]
    _, found = unpack(tmp_path, tar_bytes(files), "a.tar")
    assert found == {"way/a.jpg": b"a"}
    assert not outside.exists()


def test_links_and_devices_in_a_zip_are_refused_alone(tmp_path: Path) -> None:
    kinds = (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)
    files: list[Any] = [(zip_member(f"odd{i}.jpg", kind | 0o777), b"/etc/passwd") for i, kind in enumerate(kinds)]
    files += [
        (zip_member("way/", stat.S_IFLNK | 0o777), b"/etc"),
        (zip_member("good.jpg", stat.S_IFREG | 0o644), b"good"),
    ]
    result, found = unpack(tmp_path, zip_bytes(files), "a.zip")
    assert found == {"good.jpg": b"good"}
    assert len(result.refused) == 6 and "symbolic link" in result.refused[0][1]


# ---- bombs and limits ----


def deflated_zeros(blocks: int, mebibytes: int = 16) -> bytes:
    """A raw deflate stream of zeros, made by repeating a block of it: gigabytes cost milliseconds."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(bytes(mebibytes << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start * blocks + packer.flush(zlib.Z_FINISH)


def zip_of(name: bytes, packed: bytes, size: int) -> bytes:
    """A zip of one entry, its sizes as told."""
    common = struct.pack("<HHHHHLLLHH", 20, 0, 8, 0, 33, 0, len(packed), size, len(name), 0)
    local = b"PK\3\4" + common + name + packed
    central = b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHLL", 0, 0, 0, 0, 0) + name
    return local + central + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, len(central), len(local), 0)


def test_ten_gigabytes_of_zeros_in_a_tar_stop_early(tmp_path: Path) -> None:
    head = member("zeros.jpg", 10 << 30).tobuf(tarfile.GNU_FORMAT)
    bomb = gzip.compress(head) + gzip.compress(bytes(16 << 20), 1) * 640
    rejected(tmp_path, bomb, "unpacks to more than 100 times its size")
    rejected(tmp_path, bomb, "unpacks to more than 1,000,000,000 bytes", limits=ArchiveLimits(total=1_000_000_000))
    packed = (
        gzip.compress(member("zeros.jpg", 500 << 20).tobuf(tarfile.GNU_FORMAT)) + gzip.compress(bytes(16 << 20), 1) * 32
    )
    rejected(tmp_path, packed, "unpacks to more than 100 times its size")


def test_ten_gigabytes_of_zeros_in_a_zip_stop_early(tmp_path: Path) -> None:
    zeros = deflated_zeros(40)
    rejected(tmp_path, zip_of(b"zeros.jpg", zeros, 640 << 20), "unpacks to more than 100 times its size", "a.zip")
    result, found = unpack_alone(tmp_path, zip_of(b"zeros.jpg", deflated_zeros(200), (200 << 24) - 1))
    assert not found and "allowed of one file" in result.refused[0][1]
    result, found = unpack_alone(tmp_path, zip_of(b"zeros.jpg", zeros, 100))  # the told size lies
    assert not found and "damaged" in result.refused[0][1]


def unpack_alone(tmp_path: Path, data: bytes) -> tuple[entries.Extracted, dict[str, bytes]]:
    folder = tmp_path / f"alone{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    return unpack(folder, data, "a.zip")


def test_many_small_bombs_are_one_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "BOMB_FROM", 1 << 20)
    files = [(f"{i}.jpg", bytes(400_000)) for i in range(10)]
    for name, data in both(files):
        rejected(tmp_path, data, "more than 100 times its size", name)
        (tmp_path / name).unlink()


def test_photographs_are_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "BOMB_FROM", 0)
    for name, data in both(list(PHOTOS.items())):
        assert unpack(tmp_path, data, name, limits=ArchiveLimits(ratio=3.0))[1] == PHOTOS
        (tmp_path / name).unlink()


def test_more_bytes_than_allowed_of_a_file_or_in_all(tmp_path: Path) -> None:
    random_bytes = random.Random(0).randbytes(20_000)
    for name, data in both([("big.jpg", random_bytes), ("small.jpg", b"small")]):
        result, found = unpack_alone_named(tmp_path, data, name, limits=ArchiveLimits(file=10_000))
        assert found == {"small.jpg": b"small"} and "20,000 bytes, more than the 10,000" in result.refused[0][1]
        rejected(tmp_path, data, "unpacks to more than 10,000 bytes", name, limits=ArchiveLimits(total=10_000))
        (tmp_path / name).unlink()


def unpack_alone_named(
    tmp_path: Path, data: bytes, name: str, **settings: Any
) -> tuple[entries.Extracted, dict[str, bytes]]:
    folder = tmp_path.parent / f"{tmp_path.name}-{name}"
    folder.mkdir()
    return unpack(folder, data, name, **settings)


def test_a_million_entries_stop_at_the_limit(tmp_path: Path) -> None:
    block = member("a.jpg").tobuf(tarfile.GNU_FORMAT) * 1000
    million = gzip.compress(block, 1) * 1000
    rejected(tmp_path, million, "has more than 2,000 entries", limits=ArchiveLimits(entries=2_000, ratio=1e9))
    (tmp_path / "a.tgz").unlink()
    entry = zip_of(b"a.jpg", b"", 0)
    local, central = entry[:35], entry[35 : 35 + 51]
    end = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    big = b"PK\6\6" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 10**6, 10**6, len(central), len(local))
    locator = b"PK\6\7" + struct.pack("<LQL", 0, len(local) + len(central), 1)
    rejected(tmp_path, local + central + big + locator + end, "has more than 500,000 entries", "a.zip")
    lying = local + central * 4_000 + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, 51 * 4_000, 35, 0)
    for entries_ in (100, 2_000):  # told by the directory's length, then by counting
        rejected(
            tmp_path, lying, f"has more than {entries_:,} entries", "a.zip", limits=ArchiveLimits(entries=entries_)
        )


def test_three_thousand_files_come_out(tmp_path: Path) -> None:
    result, _ = unpack(tmp_path, tar_bytes({f"{i % 100:02d}/{i:05d}.png": b"x" for i in range(3_000)}), "a.tar")
    assert len(result.files) == 3_000


def test_a_tar_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        head = member("x", 8 << 30, type=kind).tobuf(tarfile.GNU_FORMAT)
        rejected(tmp_path, head + bytes(1 << 20), "a header of 8,589,934,592 bytes", "a.tar")
    chain = member("x", 2, type=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT) + b"a\0" + bytes(510)
    rejected(tmp_path, chain * 5000, "damaged", "a.tar")


# ---- damage ----


@pytest.mark.parametrize("kind", [*PACKED, "zip"])
def test_an_archive_cut_anywhere_comes_out_not_at_all(tmp_path: Path, kind: str) -> None:
    data = zip_bytes(PHOTOS) if kind == "zip" else PACKED[kind](tar_bytes(PHOTOS))
    body = len(data) if kind != "tar" else len(PHOTOS) * 5632 + 512  # behind the last file a tar is padded with zeros
    chance = random.Random(kind)
    for at in [0, 1, 100, 512, 5632, 11264, body - 1, *(chance.randrange(body) for _ in range(12))]:
        rejected(tmp_path, data[:at], "is damaged|is no zip", f"a.{kind}")


@pytest.mark.parametrize("kind", ["tgz", "tar.bz2", "tar.xz"])
def test_a_flipped_bit_is_noticed_by_the_checksum(tmp_path: Path, kind: str) -> None:
    data = bytearray(PACKED[kind](tar_bytes(PHOTOS)))
    data[len(data) // 2] ^= 16
    rejected(tmp_path, bytes(data), "is damaged", f"a.{kind}")


def test_a_flipped_bit_in_a_zip_costs_that_photo_alone(tmp_path: Path) -> None:
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        data = bytearray(zip_bytes(PHOTOS, how))
        data[2500] ^= 16
        result, found = unpack(tmp_path, bytes(data), "a.zip")
        assert len(found) == 4 and all(PHOTOS[name] == photo for name, photo in found.items())
        assert result.refused[0][0] == "jpg/image_00001.jpg" and "damaged" in result.refused[0][1]


def test_xz_in_many_streams_comes_out_and_takes_little_memory(tmp_path: Path) -> None:
    data = tar_bytes(PHOTOS)
    parts = [lzma.compress(data[i : i + 9000]) + bytes(8) for i in range(0, len(data), 9000)]
    assert unpack(tmp_path, b"".join(parts), "a.tar.xz")[1] == PHOTOS
    shutil.rmtree(tmp_path / "out")
    hungry = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    greedy = bytearray(lzma.compress(data, filters=hungry))
    at = greedy.index(b"\x21\x01")  # the filter, and the size of its properties; then the size of the dictionary
    greedy[at + 2] = 39  # 3 GiB
    greedy[20:24] = struct.pack("<L", zlib.crc32(greedy[12:20]))
    rejected(tmp_path, bytes(greedy), "[Mm]emory", "a.tar.xz")


@pytest.mark.parametrize(
    "records",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s.jpg", "GNU.sparse.realsize": "9"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "x"},
        {"GNU.sparse.size": "9x"},
        {"GNU.sparse.map": "0,-5"},
        {"size": "-1024"},
        {"size": "99999999999999999999999999"},
    ],
)
def test_records_that_make_no_sense_are_damage(tmp_path: Path, records: dict[str, str]) -> None:
    info = member("s.jpg", pax_headers=records)
    data = tar_bytes([(info, b"no numbers here"), ("a.jpg", b"a")], format=tarfile.PAX_FORMAT)
    (tmp_path / "a.tar").write_bytes(data)
    try:
        found = extract(tmp_path / "a.tar", tmp_path / "out").files
    except UserError as error:
        found = []
        assert "a.tar" in str(error) and "\n" not in str(error)  # noqa: PT017 (either end will do)
    assert "s.jpg" not in found


def test_a_header_that_makes_no_sense_is_not_taken_for_the_end(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(PHOTOS))
    data[5632:5732] = bytes([255]) * 100
    rejected(tmp_path, bytes(data), "no more files can be read from byte 5,632", "a.tar")


def test_an_encrypted_or_unknown_way_of_packing_is_refused_alone(tmp_path: Path) -> None:
    data = zip_bytes({"a.jpg": b"a" * 100, "good.jpg": b"good"})
    at = [i for i in range(len(data)) if data.startswith((b"PK\3\4", b"PK\1\2"), i)]
    for change in ((6, 1), (8, 97), (8, 14)):  # bit 0 of the flags; a method nobody knows
        changed = bytearray(data)
        for start in (at[0], at[2] + 2):
            changed[start + change[0]] = change[1]
        result, found = unpack(tmp_path, bytes(changed), "a.zip")
        assert found == {"good.jpg": b"good"} and len(result.refused) == 1


@pytest.mark.parametrize(
    "build", [lambda: tar_bytes(PHOTOS), lambda: gzip.compress(tar_bytes(PHOTOS)), lambda: zip_bytes(PHOTOS)]
)
def test_damaged_at_random_it_never_ends_in_a_traceback_or_outside(tmp_path: Path, build: Callable[[], bytes]) -> None:
    good, chance, out = build(), random.Random(1), tmp_path / "in" / "out"
    refused = 0
    for _ in range(60):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            start = chance.choice([0, 0, 5632, len(data) - 600, chance.randrange(len(data))])
            data[min(start + chance.randrange(512), len(data) - 1)] = chance.randrange(256)
        (tmp_path / "a").write_bytes(data)
        try:
            extract(tmp_path / "a", out)
        except UserError:
            refused += 1
        assert {p.name for p in tmp_path.iterdir()} <= {"a", "in"} and {p.name for p in out.parent.glob("*")} <= {"out"}
    assert refused


def test_what_is_no_archive_is_told_in_a_line(tmp_path: Path) -> None:
    rejected(tmp_path, b"\xff\xd8\xff a photograph", "is no zip, tar", "photo.jpg")
    (tmp_path / "photo.jpg").unlink()
    rejected(tmp_path, b"", "is no zip, tar", "a.zip")
    rejected(tmp_path, gzip.compress(b"text"), "is damaged", "a.zip")
    (tmp_path / "a.zip").unlink()
    with pytest.raises(UserError, match=r"not\.tgz is not there"):
        extract(tmp_path / "not.tgz", tmp_path / "new")
    with pytest.raises(UserError, match="cannot read"):
        extract(tmp_path / "out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entries.Extraction, "write", full)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(tar_bytes(PHOTOS)))
    with pytest.raises(UserError, match="No space left on device; free some space"):
        extract(tmp_path / "a.tgz", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tgz"]
