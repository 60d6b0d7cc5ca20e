"""Where the data sets are published, and the record of what was fetched from where.

Nothing is stated here that is not certain: a digest that nobody published is recorded when a file is first used and
checked from then on.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE, write_text
from foldmark.data.ibug import IBUG_FOLDER
from foldmark.data.imm import IMM_FOLDER

RECORD = "sources.json"


@dataclass(frozen=True)
class Source:
    """One thing to fetch.

    name: of the set, as `find_data` knows it.
    variable: how `make data` lets the user give another address, a path or a URL.
    folder: name it gets below DATA_ROOT; None for the test list, which goes into the folder of iBUG.
    url: None where no address is certain; `advice` then says where to look.
    size, sha256: of the published file, None where they are not known.
    limit: bytes that neither the file nor what is unpacked from it may exceed.
    """

    name: str
    variable: str
    title: str
    folder: str | None
    url: str | None
    size: int | None
    sha256: str | None
    limit: int
    advice: str


IBUG = Source(
    name="ibug",
    variable="IBUG",
    title="iBUG 300-W",
    folder=IBUG_FOLDER,
    url="http://dlib.net/files/data/ibug_300W_large_face_landmark_dataset.tar.gz",
    size=None,
    sha256=None,
    limit=8192 * MEGABYTE,
    advice="it is published on dlib.net",
)
TEST_LIST = Source(
    name="test-list",
    variable="TEST_LIST",
    title="the competition's test list",
    folder=None,
    url=None,
    size=None,
    sha256=None,
    limit=64 * MEGABYTE,
    advice="the competition's data page on Kaggle has it",
)
IMM = Source(
    name="imm",
    variable="IMM",
    title="the IMM Face Database",
    folder=IMM_FOLDER,
    url=None,
    size=None,
    sha256=None,
    limit=1024 * MEGABYTE,
    advice="the course's page links to it",
)


@dataclass(frozen=True)
class Known:
    """What is known of the file at an address beforehand; None where nothing is."""

    size: int | None
    sha256: str | None


def known(source: Source, url: str, record: Path) -> Known:
    """What the table, or else the record, says about a URL. Raises UserError for a damaged record."""
    if url == source.url and source.sha256:
        return Known(source.size, source.sha256)
    entry = _read(record).get(url)
    return Known(entry["size"], entry["sha256"]) if entry else Known(None, None)


def remember(url: str, size: int, sha256: str, record: Path) -> None:
    """Record what was fetched from a URL and found usable."""
    entries = {**_read(record), url: {"size": size, "sha256": sha256}}
    write_text(record, json.dumps(entries, indent=2) + "\n")


def _read(record: Path) -> dict[str, dict]:
    if not record.exists():
        return {}
    try:
        entries = json.loads(record.read_text(encoding="utf-8"))
        whole = all(isinstance(entry["size"], int) and isinstance(entry["sha256"], str) for entry in entries.values())
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        whole = False
    if not whole:
        raise UserError(f"{record}: damaged; correct it, or delete it to record the digests anew.")
    return entries
