"""Unpacking an archive from others: every entry is checked before the first one is written."""

import errno
import gzip
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import IO

from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE, explain_error, require_space
from foldmark.core.progress import Progress, no_progress

MOST_ENTRIES = 100_000
LONGEST_PATH, LONGEST_NAME = 1000, 255  # bytes
PIECE = 2**20

DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    struct.error,
    ValueError,
    OverflowError,
    NotImplementedError,  # a zip's rarer ways to pack
    RuntimeError,  # a zip's password
)


class BadArchive(UserError):
    """The archive itself is bad: fetch it again, or another one."""


class _Refused(Exception):
    """An error in an archive, without its name."""


@dataclass(frozen=True)
class Entry:
    """A file in an archive; its path is known to stay below the folder that it is unpacked into."""

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, *, limit: int, name: str, progress: Progress = no_progress) -> None:
    """Unpack a .tar.gz, .tar or .zip into `folder`, which must not exist yet.

    Refused are paths that leave the folder, links and devices, more than `limit` bytes, and damage. Raises BadArchive
    for these, before anything is written where that can be known, and UserError where the disk is at fault. `name` is
    what errors call the archive. Files get the usual permissions, whatever the archive says.
    """
    try:
        with _entries(archive, limit) as entries:
            require_space(folder.parent, sum(entry.size for entry in entries), f"unpacking {name}")
            folder.mkdir()
            with progress("unpacking", len(entries)) as done:
                for count, entry in enumerate(entries, 1):
                    _write(entry, folder / entry.path)
                    done(count)
    except _Refused as problem:
        raise BadArchive(f"{name}: refused, because {problem}; get it from a place you trust.") from None
    except DAMAGE as error:
        raise BadArchive(f"{name}: damaged ({error or type(error).__name__}); fetch it again.") from None
    except OSError as error:
        # A damaged table of contents has its reader seek to before the file's start.
        if error.errno == errno.EINVAL:
            raise BadArchive(f"{name}: damaged ({error.strerror}); fetch it again.") from None
        if error.filename == str(archive):
            raise UserError(f"{name}: cannot be read ({error.strerror}); give the path of an archive.") from None
        raise explain_error(error, folder) from error


@contextmanager
def _entries(archive: Path, limit: int) -> Iterator[list[Entry]]:
    """All files of an archive, which stays open to read them."""
    with archive.open("rb") as file:
        start = file.read(512)
        file.seek(0)
        if start.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(file) as packed:
                yield _zip_entries(packed, limit)
        elif start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as plain, tarfile.open(fileobj=_SmallReads(plain), mode="r:") as packed:
                yield _tar_entries(packed, limit)
        elif start[257:262] == b"ustar":
            with tarfile.open(fileobj=_SmallReads(file), mode="r:") as packed:
                yield _tar_entries(packed, limit)
        else:
            raise _Refused("it is neither a .tar.gz nor a .zip (a web page perhaps)")


def _tar_entries(packed: tarfile.TarFile, limit: int) -> list[Entry]:
    entries = []
    for count, member in enumerate(packed, 1):
        # By where the file would end, which tarfile goes to only for the next entry.
        _check_amount(count, member.offset_data + member.size, limit)
        if not (member.isdir() or member.isreg()) or member.issparse():
            raise _Refused(f"{member.name!r} is a link or a device")
        path = _path_inside(member.name)
        if member.isreg():
            entries.append(Entry(path, member.size, partial(_open_member, packed, member)))
    # The check sum stands at the very end, after what tarfile reads.
    while packed.fileobj.read(PIECE):
        _check_amount(0, packed.fileobj.tell(), limit)
    return entries


def _open_member(packed: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = packed.extractfile(member)
    if file is None:
        raise _Refused(f"{member.name!r} is not a file")
    return file


def _zip_entries(packed: zipfile.ZipFile, limit: int) -> list[Entry]:
    entries, total = [], 0
    for count, member in enumerate(packed.infolist(), 1):
        total += member.file_size
        _check_amount(count, total, limit)
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _Refused(f"{member.filename!r} is a link or a device")
        path = _path_inside(member.filename)
        if not member.is_dir():
            entries.append(Entry(path, member.file_size, partial(packed.open, member)))
    return entries


def _path_inside(name: str) -> PurePosixPath:
    """The path of an entry, if it surely stays below the folder that it is unpacked into, on every system."""
    path = PurePosixPath(name)
    encoded = name.encode("utf-8", "surrogateescape")
    if path.is_absolute() or ".." in path.parts or any(character in name for character in "\\:\0"):
        raise _Refused(f"{name!r} leaves the folder")
    if len(encoded) > LONGEST_PATH or any(len(part) > LONGEST_NAME for part in encoded.split(b"/")):
        raise _Refused(f"{name[:60]!r}... is no usable name")
    return path


def _check_amount(count: int, size: int, limit: int) -> None:
    if count > MOST_ENTRIES:
        raise _Refused(f"it holds more than {MOST_ENTRIES:,} files")
    if size > limit:
        raise _Refused(f"it unpacks to more than {limit / MEGABYTE:,.0f} MB")


def _write(entry: Entry, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as packed, target.open("xb") as file:
            shutil.copyfileobj(packed, file, PIECE)
    except (FileExistsError, NotADirectoryError):
        raise _Refused(f"{str(entry.path)!r} is there twice") from None


class _SmallReads(BufferedIOBase):
    """A file for tarfile, which reads long names and headers whole: a hostile one could fill the memory."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= PIECE:
            raise _Refused("it has a header of more than a megabyte")
        return self._file.read(size)
