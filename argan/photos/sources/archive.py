"""Zip and tar archives, opened without trust: streamed into a new folder that takes its place only when all went well.

One entry that will not do (its name, its kind, its bytes) is refused with its reason and the others come out; an archive that
attacks as a whole (too many entries, too many bytes, a bomb) or is damaged as a whole comes out not at all.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from argan.errors import UserError
from argan.files import swapped
from argan.photos.sources.entries import (
    CHUNK,
    ArchiveLimits,
    EntryRefused,
    Extracted,
    Extraction,
    Progress,
    Readable,
    printable,
)

HEADER_MAX = 1 << 20  # bytes of a tar header that tarfile reads into memory at once (long names, PAX records)
MEMORY = 256 << 20  # bytes to unpack xz with: `xz -9` wants 65 MiB, a hostile file may want gigabytes
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
# What the readers of the standard library stumble over: bad bytes, and headers that make no sense.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    IndexError,
    OverflowError,
    RuntimeError,  # encryption, methods and versions they do not know, recursion
)


def extract(
    archive: str | Path,
    folder: str | Path,
    *,
    suffixes: Collection[str] | None = None,
    limits: ArchiveLimits | None = None,
    progress: Progress = lambda done, total: None,
) -> Extracted:
    """Extract what ends in one of `suffixes` (".jpg", "/images.txt"; None: everything) into a new `folder`, which replaces the old.

    Raises UserError when the archive is missing, damaged, of no known kind, beyond the limits, or the folder cannot be
    written; the folder then stays as it was.
    """
    archive = Path(archive)
    try:
        with archive.open("rb") as file:
            unpack = _kind(archive, file)
            with swapped(folder) as new:
                out = Extraction(archive, new, suffixes, limits or ArchiveLimits(), progress)
                try:
                    unpack(file, out)
                except DAMAGE as error:
                    raise UserError(_damaged(archive, error)) from error
                except OSError as error:
                    if error.errno is not None:
                        raise
                    raise UserError(_damaged(archive, error)) from error  # gzip and bz2 say so of bad data
            return out.result
    except FileNotFoundError as error:
        raise UserError(f"{archive} is not there; give the archive's own path") from error
    except OSError as error:
        raise UserError(f"cannot read {archive}: {error.strerror or error}; give the archive's own path") from error


def _damaged(archive: Path, error: object) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{archive} is damaged ({reason}); fetch or copy it again"


def _kind(archive: Path, file: IO[bytes]) -> Callable[[IO[bytes], Extraction], None]:
    """How to unpack it, by its first bytes: names lie."""
    head = file.read(512)
    file.seek(0)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return _unzip
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")) or head[257:262] == b"ustar" or archive.suffix == ".tar":
        return _untar
    raise UserError(f"{archive} is no zip, tar, tar.gz, tar.bz2 or tar.xz; give one of these, or the folder itself")


# ---- tar ----


class _MeteredReader:
    """What a tar's decompressor gives, counted: how much came out for what went in, and where the last byte but 0 was."""

    def __init__(self, source: Readable, raw: IO[bytes], out: Extraction) -> None:
        self.source, self.raw, self.out = source, raw, out
        self.size = out.archive.stat().st_size
        self.came = self.last = 0

    def read(self, size: int = -1, /) -> bytes:
        chunk = self.source.read(min(size, CHUNK) if size >= 0 else CHUNK)
        if stripped := len(chunk.rstrip(b"\0")):
            self.last = self.came + stripped
        self.came += len(chunk)
        went = self.raw.tell()
        self.out.bomb(self.came, went)
        self.out.progress(went, self.size)
        return chunk


class _XzReader:
    """Unpacks xz as lzma.LZMAFile does, in bounded memory."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw, self.unpacker, self.begun = raw, lzma.LZMADecompressor(lzma.FORMAT_XZ, MEMORY), False

    def read(self, size: int = -1, /) -> bytes:
        while True:
            if self.unpacker.eof:  # another stream may follow, after padding
                data, self.begun = self.unpacker.unused_data, False
                self.unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, MEMORY)
            else:
                data = b""
            if not data and self.unpacker.needs_input and not (data := self.raw.read(CHUNK)):
                if self.begun:
                    raise EOFError("it is cut off")
                return b""
            if not self.begun:
                data = data.lstrip(b"\0")
                self.begun = bool(data)
            if self.begun and (chunk := self.unpacker.decompress(data, size)):
                return chunk


class _Member(tarfile.TarInfo):
    """A header whose size is believed only where it can be: tarfile reads long names and PAX records whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0:
            raise tarfile.ReadError("a header with a negative size")
        if member.type in b"xgXLK" and member.size > HEADER_MAX:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member


def _untar(raw: IO[bytes], out: Extraction) -> None:
    head = raw.read(6)
    raw.seek(0)
    with ExitStack() as stack:
        opened: Any = raw
        if head.startswith(b"\x1f\x8b"):
            opened = stack.enter_context(gzip.GzipFile(fileobj=raw))
        elif head.startswith(b"BZh"):
            opened = stack.enter_context(bz2.BZ2File(raw))
        elif head.startswith(b"\xfd7zXZ\0"):
            opened = _XzReader(raw)
        metered: Any = _MeteredReader(opened, raw, out)
        with tarfile.open(
            fileobj=metered,
            mode="r|",
            bufsize=CHUNK,
            tarinfo=_Member,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar:
            announced = 0
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else a million of them stay in memory
                out.count()
                if member.size < 0:
                    raise tarfile.ReadError("a header with a negative size")
                announced += member.size
                if announced > out.limits.total:
                    raise out.stop(f"unpacks to more than {out.limits.total:,} bytes")
                if not member.isdir():
                    out.entry(member.name, member.size, _tar_fault(member), _reader(tar, member))
            ended = tar.offset  # type: ignore[attr-defined]
        while metered.read(CHUNK):  # to the end, where the checksum is
            pass
        # tarfile takes a header that makes no sense, and a cut between two files, for the end.
        if metered.last > ended or metered.came < ended + tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"no more files can be read from byte {ended:,} of what it unpacks to")


def _reader(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], Readable]:
    def opened() -> Readable:
        file = tar.extractfile(member)
        if file is None:
            raise EntryRefused("not a file")
        return file

    return opened


def _tar_fault(member: tarfile.TarInfo) -> str | None:
    if member.issym() or member.islnk():
        return f"a {'symbolic' if member.issym() else 'hard'} link (to {printable(member.linkname)})"
    if member.issparse():
        return "a sparse file"
    if not member.isreg():
        return "a device, a pipe or something else that is no file"
    return None


# ---- zip ----


def _unzip(raw: IO[bytes], out: Extraction) -> None:
    _check_directory(raw, out)
    try:
        opened = zipfile.ZipFile(raw)  # reads the directory
    except UnicodeDecodeError as error:
        raise zipfile.BadZipFile("a name in it claims to be UTF-8 and is not") from error
    size = out.archive.stat().st_size
    with opened as archive:
        for info in archive.infolist():
            out.count()
            if not info.orig_filename.endswith("/") or _zip_fault(info):
                out.entry(_zip_name(info), info.file_size, _zip_fault(info), _unzipper(archive, info, out))
            out.progress(min(info.header_offset + info.compress_size, size), size)


def _check_directory(raw: IO[bytes], out: Extraction) -> None:
    """The number of entries, before a million of them are read into memory. Leaves `raw` anywhere."""
    size = raw.seek(0, 2)
    raw.seek(max(0, size - 65557))
    tail = raw.read()
    if (at := tail.rfind(b"PK\5\6")) < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("its end is missing")
    count, length = struct.unpack("<10xHL", tail[at : at + 16])
    if (count == 0xFFFF or length == 0xFFFFFFFF) and at >= 20 and tail[at - 20 : at - 16] == b"PK\6\7":
        raw.seek(struct.unpack("<8xQ", tail[at - 20 : at - 4])[0])
        if (big := raw.read(56))[:4] == b"PK\6\6":
            count, length = struct.unpack("<32xQQ8x", big)
    # The count may lie; so may the length, but zipfile believes that one. Names and extras rarely take 200 bytes.
    if count > out.limits.entries or length > 256 * (out.limits.entries + 64):
        raise out.stop(f"has more than {out.limits.entries:,} entries")


def _zip_name(info: zipfile.ZipInfo) -> str:
    """As UTF-8, also where the archive does not say so; else in the code page of the format. Windows' slashes are slashes."""
    name = info.orig_filename
    if not info.flag_bits & 0x800:
        with suppress(UnicodeDecodeError):
            name = name.encode("cp437").decode()
    return name if "/" in name else name.replace("\\", "/")


def _zip_fault(info: zipfile.ZipInfo) -> str | None:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_IFMT(mode) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return "a device, a pipe or something else that is no file"
    if info.flag_bits & 0x1:
        return "encrypted"
    if info.compress_type not in METHODS:
        return "packed in a way that photographs are not (neither stored nor deflated nor bzip2)"
    return None


def _unzipper(archive: zipfile.ZipFile, info: zipfile.ZipInfo, out: Extraction) -> Callable[[], Readable]:
    def opened() -> Readable:
        try:
            return _Unzipped(archive.open(info), info, out)
        except DAMAGE as error:
            raise EntryRefused(f"damaged ({printable(str(error))})") from error

    return opened


class _Unzipped:
    """An entry's bytes, their ratio watched; damage is that entry's alone."""

    def __init__(self, file: IO[bytes], info: zipfile.ZipInfo, out: Extraction) -> None:
        self.file, self.info, self.out, self.came = file, info, out, 0
        out.packed += info.compress_size

    def read(self, size: int = -1, /) -> bytes:
        try:
            chunk = self.file.read(size)
        except DAMAGE as error:
            raise EntryRefused(f"damaged ({printable(str(error)) or type(error).__name__})") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise EntryRefused(f"damaged ({printable(str(error))})") from error
        self.came += len(chunk)
        self.out.bomb(self.came, self.info.compress_size)
        self.out.bomb(self.out.written + len(chunk), self.out.packed)
        return chunk
