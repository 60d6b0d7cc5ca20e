"""One resumable download over HTTP that never joins parts of two files.

In its folder, `archive.partial` holds the bytes so far, `archive.json` says what they are part of, and `archive` is there
when all is.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse, InvalidURL
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE, explain_error, read_text, require_space, write_text
from foldmark.core.progress import Done, Progress, no_progress

RECORD = "sources.json"  # beside the data: size and sha256 of what was fetched from where
TIMEOUT = 30  # seconds to connect, and between two pieces of data
WAITS = (1, 2, 4, 8)  # seconds before trying again, as long as nothing new arrives
PIECE = 2**18
RETRIED = {408, 425, 429, 500, 502, 503, 504}  # answers that may be others in a moment

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """The recorded digests of the file at an address; None where there are none."""

    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Wanted:
    """A download and where to keep it. limit: bytes that the file may not exceed."""

    url: str
    folder: Path
    limit: int
    known: Known
    timeout: float = TIMEOUT
    waits: Sequence[float] = WAITS

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def partial(self) -> Path:
        return self.folder / "archive.partial"

    @property
    def description(self) -> Path:
        return self.folder / "archive.json"


@dataclass(frozen=True)
class Received:
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Described:
    """A server's description of a file: enough to recognise the same file later."""

    url: str
    size: int | None
    validator: str | None  # its strong ETag, or else its date

    def same_as(self, other: "Described") -> bool:
        return self.validator is not None and self == other


class _Failed(Exception):
    """Says what is wrong, without the URL, and what may fix it."""

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(problem)
        self.fix = fix and f"{fix}, or "


class _Broken(Exception):
    """The transfer did not end, and may when it is tried again. Says what happened, without the URL."""


class _Unreachable(_Broken):
    """Not even a connection."""


class _HttpRedirects(HTTPRedirectHandler):
    """Follows redirects to http and https only."""

    def redirect_request(self, *arguments: Any) -> Request | None:
        return super().redirect_request(*arguments) if is_url(arguments[-1]) else None


def is_url(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def download(wanted: Wanted, instead: str, progress: Progress = no_progress) -> Received:
    """Fetch a file, or resume an earlier call's download, and verify it.

    Raises UserError, which names the URL and the fix, when it cannot be had or is another file than known; `instead`
    is how the user can do without this download. What arrived so far is kept for the next call, unless it is proved
    wrong.
    """
    try:
        wanted.folder.mkdir(parents=True, exist_ok=True)
        for path in (wanted.archive, wanted.partial, wanted.description):
            if path.exists() and not path.is_file():
                raise UserError(f"{path}: is not a file; remove it and run the same command again.")
        described = _read(wanted.description)
        if described is None or described.url != wanted.url:
            wanted.archive.unlink(missing_ok=True)
            wanted.partial.unlink(missing_ok=True)
        if not wanted.archive.exists():
            _receive_all(wanted, progress)
            with wanted.partial.open("rb") as file:
                os.fsync(file.fileno())
            wanted.partial.replace(wanted.archive)
        return _verified(wanted)
    except _Failed as problem:
        raise UserError(f"{wanted.url}: {problem}; {problem.fix}{instead}.") from None
    except OSError as error:
        raise explain_error(error, wanted.folder) from error


def _receive_all(wanted: Wanted, progress: Progress) -> None:
    """Try until the whole file is there; give up when that brings nothing new."""
    farthest, in_vain, reached = _size(wanted.partial), 0, False
    while True:
        try:
            return _receive(wanted, progress)
        except _Broken as problem:
            if isinstance(problem, _Unreachable) and not reached:
                raise _Failed(f"cannot be reached ({problem})", "check the network and run the same command again") from None
            reached = True
            # By the farthest byte and not by the last one: a server may make every try start over.
            in_vain = in_vain + 1 if _size(wanted.partial) <= farthest else 0
            farthest = max(farthest, _size(wanted.partial))
            if in_vain >= len(wanted.waits):
                raise _Failed(str(problem), "run the same command later to resume") from None
            log.info(f"{problem}; trying again in {wanted.waits[in_vain]:g} s")
            time.sleep(wanted.waits[in_vain])


def _receive(wanted: Wanted, progress: Progress) -> None:
    """Ask once for what is missing and append it; start over where the server offers another file or no part."""
    before, start = _read(wanted.description), _size(wanted.partial)
    if start and before and start == before.size:
        return
    headers = {"User-Agent": f"foldmark/{version('foldmark')}"}
    if start and before and before.validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": before.validator}
    with _open(Request(wanted.url, headers=headers), wanted) as response:
        described, first = _describe(wanted.url, response)
        if response.status != 206:
            start = 0
            _check_size(described.size, wanted)
            # In this order: a description never stands beside bytes of another file.
            wanted.partial.write_bytes(b"")
            write_text(wanted.description, json.dumps(asdict(described)))
        elif first != start or before is None or not described.same_as(before):
            wanted.partial.unlink(missing_ok=True)
            raise _Broken("the file changed meanwhile, so it is fetched from the start")
        # Pictures hardly compress: unpacked they take about as much again.
        require_space(wanted.folder, 2 * (described.size or 0) - start, "the download, with as much again to unpack it,")
        log.info(f"{'going on with' if start else 'fetching'} {wanted.url}: {_amount(start, described.size)}")
        with progress("fetching", described.size, start=start, in_bytes=True) as done:
            _append(response, wanted, done)
    if described.size is not None and _size(wanted.partial) < described.size:
        raise _Broken(f"the connection broke off after {_amount(_size(wanted.partial), described.size)}")


def _open(request: Request, wanted: Wanted) -> HTTPResponse:
    try:
        return build_opener(_HttpRedirects).open(request, timeout=wanted.timeout)
    except HTTPError as error:
        error.close()
        if 300 <= error.code < 400:
            raise _Failed("the server redirects without end, or to an address that is not http") from None
        if error.code == 416:
            # The server's file ends before what we have of it: ours cannot be a part of it.
            wanted.partial.unlink(missing_ok=True)
            raise _Broken("the file is shorter than announced, so it is fetched from the start") from None
        kind = _Broken if error.code in RETRIED else _Failed
        raise kind(f"the server answers {error.code} {' '.join(str(error.reason).split())}") from None
    except (InvalidURL, UnicodeError) as error:
        raise _Failed(f"not a valid address ({error})") from None
    except URLError as error:
        raise _Unreachable(getattr(error.reason, "strerror", None) or error.reason) from None
    except (OSError, HTTPException) as error:
        raise _Broken(f"no answer ({error or type(error).__name__})") from None


def _append(response: HTTPResponse, wanted: Wanted, done: Done) -> None:
    received = _size(wanted.partial)
    with wanted.partial.open("ab") as file:
        while piece := _piece(response):
            received += len(piece)
            if received > wanted.limit:
                raise _Failed(f"is larger than {wanted.limit / MEGABYTE:,.0f} MB, so it is not the data set")
            file.write(piece)
            file.flush()  # a killed process keeps what it showed
            done(received)


def _piece(response: HTTPResponse) -> bytes:
    try:
        return response.read1(PIECE)
    except (OSError, HTTPException) as error:
        raise _Broken(f"the connection was lost ({error or type(error).__name__})") from None


def _describe(url: str, response: HTTPResponse) -> tuple[Described, int]:
    """The server's description of the whole file, and the byte that its answer starts with."""
    tag = response.headers.get("ETag", "")
    # A weak ETag may stay the same while bytes change.
    validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
    if response.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        return Described(url, int(span[2]) if span else None, validator), int(span[1]) if span else -1
    return Described(url, response.length, validator), 0


def _check_size(size: int | None, wanted: Wanted) -> None:
    if size is None:
        return
    if size > wanted.limit:
        raise _Failed(
            f"is {size / MEGABYTE:,.0f} MB where at most {wanted.limit / MEGABYTE:,.0f} are expected, so it is not the data set"
        )
    if wanted.known.size not in (None, size):
        raise _changed(f"{size:,} bytes where {wanted.known.size:,} are known")


def _verified(wanted: Wanted) -> Received:
    with wanted.archive.open("rb") as file:
        received = Received(wanted.archive, _size(wanted.archive), hashlib.file_digest(file, "sha256").hexdigest())
    if wanted.known.sha256 not in (None, received.sha256):
        wanted.archive.unlink()
        raise _changed(f"sha256 {received.sha256} where {wanted.known.sha256} is known")
    return received


def _changed(difference: str) -> _Failed:
    return _Failed(f"is not the file it was ({difference})", f"remove its entry from {RECORD} beside the data to accept it")


def _read(description: Path) -> Described | None:
    try:
        return Described(**json.loads(description.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _amount(done: int, size: int | None) -> str:
    total = "an unknown size" if size is None else f"{size / MEGABYTE:,.1f} MB"
    return f"{done / MEGABYTE:,.1f} of {total}" if done else total


def recorded(url: str, record: Path) -> Known:
    """The record's entry for a URL. Raises UserError for a damaged record."""
    entry = _read_record(record).get(url, {})
    return Known(entry.get("size"), entry.get("sha256"))


def remember(url: str, received: Received, record: Path) -> None:
    """Record what was fetched from a URL and found usable."""
    entries = {**_read_record(record), url: {"size": received.size, "sha256": received.sha256}}
    write_text(record, json.dumps(entries, indent=2) + "\n")


def _read_record(record: Path) -> dict[str, dict]:
    if not record.exists():
        return {}
    with suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
        entries = json.loads(read_text(record))
        if all(isinstance(entry["size"], int) and isinstance(entry["sha256"], str) for entry in entries.values()):
            return entries
    raise UserError(f"{record}: damaged; correct it, or delete it to record the digests again.")
