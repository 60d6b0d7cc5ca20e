"""Writing files so that a crash at any moment leaves either the old state or the new one."""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from foldmark.core.errors import UserError

MEGABYTE = 2**20

log = logging.getLogger(__name__)

Record = TypeVar("Record", bound=BaseModel)
Content = TypeVar("Content")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; on success it is flushed to disk and renamed over `path`.

    A full disk or a folder without write permission raises UserError; `path` then is as it was before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise explain_error(error, path) from error
    finally:
        with suppress(OSError):  # the folder is none, or the name too long
            temporary.unlink(missing_ok=True)


def read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a regular file. Raises OSError, whose strerror says why there are none: also for a pipe or device, which
    could keep us waiting for ever, and for more than `limit` bytes."""
    if _require_regular(path) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit / MEGABYTE:,.0f} MB", str(path))
    return path.read_bytes()


def _require_regular(path: Path) -> int:
    """The size of a regular file. Raises OSError for anything else."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    return status.st_size


def is_file(path: Path) -> bool:
    """Whether there is a file at a path that the user gave. Raises UserError where the system does not let us look."""
    try:
        return path.is_file()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); change its permissions or name another file.") from None


def read_text(path: Path, limit: int = 64 * MEGABYTE) -> str:
    """The text of a regular file in UTF-8, with or without a byte order mark. Raises OSError as `read_bytes` does, and
    UnicodeDecodeError."""
    return read_bytes(path, limit).decode("utf-8-sig")


def expand_user(path: Path, setting: str) -> Path:
    """The path with its ~ or ~user replaced by that home. Raises UserError, which names the setting, for an unknown user."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(f"{setting}={path}: there is no such user; write the path out.") from None


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


@contextmanager
def lock_folder(folder: Path, busy: str | None) -> Iterator[None]:
    """Hold a folder for this process alone, and remove what a killed one left half-written in it. Waits for another process that
    holds it, or raises UserError with the words `busy`."""
    with _hold(folder / ".lock", folder, busy):
        for left in folder.glob(".*.partial"):
            # Another process may write here without the lock, such as csv its kept predictions.
            writer = re.fullmatch(r".*\.([0-9]{1,9})\.partial", left.name)
            if writer is None or not _is_running(int(writer[1])):
                with suppress(OSError):
                    left.unlink()
        yield


def is_locked(folder: Path) -> bool:
    """Whether another process holds this folder now. Writes nothing."""
    lock_path = folder / ".lock"
    if not lock_path.is_file():
        return False
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _is_running(process: int) -> bool:
    if os.name != "posix":  # elsewhere signal 0 ends the process
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return process != os.getpid()


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold a file that is read, changed and written back; another process that wants to hold it waits."""
    with _hold(path.with_name(f".{path.name}.lock"), path, None):
        yield


@contextmanager
def _hold(lock_path: Path, held: Path, busy: str | None) -> Iterator[None]:
    # The system releases the lock when the process ends, however it ends.
    lock = FileLock(lock_path)
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if busy is None else 0)
    except Timeout:
        raise UserError(f"{held}: {busy}; wait for it, or stop it.") from None
    except OSError as error:
        raise explain_error(error, lock_path) from error
    try:
        yield
    finally:
        lock.release()


def require_space(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raise UserError unless the disk of `folder` (or of its nearest existing parent) has room and 64 MB to spare."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed_bytes + 64 * 2**20:
        raise UserError(
            f"{folder}: {purpose} needs {needed_bytes / 2**20:,.0f} MB but the disk has only {free / 2**20:,.0f} MB free; "
            "make room, or run from a folder on another disk."
        )


def place_folder(built: Path, folder: Path) -> None:
    """Flush a folder built elsewhere on the same disk and rename it to `folder`, which appears whole or not at all.

    Raises UserError for a full disk, a folder without write permission, or when something stands there already.
    """
    try:
        if hasattr(os, "sync"):
            os.sync()  # thousands of small files: at once is much faster than one by one
        built.rename(folder)
        _sync_folder(folder.parent)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise UserError(f"{folder}: is there already; move it away and run the same command again.") from None
        raise explain_error(error, folder) from error


def digest(value: Any) -> str:
    """A short sha256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Raises UserError for a file that cannot be read."""
    try:
        _require_regular(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def _sync_folder(folder: Path) -> None:
    # Windows cannot open folders; there the rename alone has to do.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_FIXES = {
    errno.ENOENT: "its folder cannot be made here, or was removed; choose another folder",
    errno.EDQUOT: "your quota on this disk is used up, nothing was changed; make room and run the same command again",
    errno.ENAMETOOLONG: "the name is too long for this disk; shorten it",
    errno.ELOOP: "a link on the way leads back to itself; remove that link",
    errno.EFBIG: "the file would be larger than this disk or ulimit -f allows; raise the limit, or choose another disk",
    errno.EIO: "the disk reports an error; check it, or choose another disk",
}


def explain_error(error: OSError, path: Path) -> Exception:
    """The UserError for what the disk says about `path`, or `error` itself where the user cannot fix it."""
    code = error.errno
    if code == errno.ENOSPC:
        return UserError(f"{path}: the disk is full, nothing was changed; make room and run the same command again.")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"{path}: no permission to write here; choose a folder of your own.")
    if code in (errno.ENOTDIR, errno.EEXIST):
        return UserError(f"{path}: a file stands where its folder should be; move that file away.")
    if code in (errno.EISDIR, errno.ENOTEMPTY):
        return UserError(f"{path}: a folder stands where this file should be; move that folder away.")
    if code in _FIXES:
        return UserError(f"{path}: {_FIXES[code]}.")
    return error


def read_kept(path: Path, parse: Callable[[bytes], Content], instead: str = "it is made again") -> Content | None:
    """What `parse`, which may raise anything, makes of a file that can be made again; None where it is missing or damaged. Damage
    is logged, with what the caller does instead."""
    try:
        return parse(read_bytes(path, 4096 * MEGABYTE))
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001  damaged archives raise nearly anything
        reason = error.strerror if isinstance(error, OSError) else "damaged"
        log.info(f"{path}: cannot be used ({reason}); {instead}.")
        return None


def read_record(path: Path, kind: type[Record], fix: str) -> Record:
    """A JSON file that Foldmark wrote, as what it holds. Raises UserError that ends with the fix where it is damaged."""
    try:
        return kind.model_validate_json(read_bytes(path, 64 * MEGABYTE))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "the file"
        raise UserError(f"{path}: damaged ({place}: {problem['msg'].lower()}); {fix}.") from None
