"""The file of a W&B run on this disk: what is in it, and a copy of it with just what the service lacks.

W&B's own upload sends a whole file again after an interruption, and numbers the steps that are there already anew. The format is
LevelDB's log: blocks of 32 KB with checked pieces of records, after a header of 7 bytes.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foldmark.core.files import MEGABYTE, read_bytes, write_bytes

HEADER = b":W&B\xe1\xbe\x00"
BLOCK, PIECE = 32 * 1024, struct.Struct("<IHB")  # a piece: checksum, length, kind
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_records(file: Path) -> list[Any]:
    """The records of a run's file, W&B's protobuf messages, to its end or to where it is torn. Raises ValueError for a file of
    another format, OSError for one that cannot be read."""
    content = read_bytes(file, 4096 * MEGABYTE)
    if content[: len(HEADER)] != HEADER:
        raise ValueError(f"{file}: not a file of this version of W&B")
    return list(_parse(content))


def write_records(file: Path, records: list[Any]) -> None:
    content = bytearray(HEADER)
    for number, record in enumerate(records, 1):
        record.num = number
        _append(content, record.SerializeToString())
    write_bytes(file, memoryview(content))


def find_run(file: Path) -> Any | None:
    """The record of which run a file is of, None as long as there is none: W&B writes it within the first second."""
    try:
        with file.open("rb") as opened:
            start = opened.read(2 * BLOCK)
    except OSError:
        return None
    return next((record.run for record in _parse(start) if record.HasField("run")), None)


def has_ended(records: list[Any]) -> bool:
    """Whether the run came to an end, good or bad."""
    return any(record.WhichOneof("record_type") == "exit" for record in records)


def find_last_step(records: list[Any]) -> int:
    """The highest step of the run's history, -1 without any."""
    return max((record.history.step.num for record in records if record.HasField("history")), default=-1)


@dataclass(frozen=True)
class Content:
    """What a run's records hold that its service must have: the last step of the history, its pictures and tables by their paths,
    and the artifacts that it made, each with its type, name and digest."""

    last_step: int
    media: frozenset[str]
    artifacts: frozenset[tuple[str, str, str]]


def list_content(records: list[Any], last_step: int) -> Content:
    """The content of records whose history has at least that last step."""
    paths = [file.path for record in records if record.HasField("files") for file in record.files.files]
    made = [record.artifact for record in records if record.HasField("artifact") and not record.artifact.use_after_commit]
    return Content(
        max(last_step, find_last_step(records)),
        frozenset(path for path in paths if path.startswith("media/")),
        frozenset((artifact.type, artifact.name, artifact.digest) for artifact in made),
    )


def is_complete(file: Path, last_step: int) -> bool:
    """Whether a run's file has the run's end, and its history up to that step."""
    try:
        records = read_records(file)
    except (OSError, ValueError):
        return False
    return has_ended(records) and find_last_step(records) >= last_step


def make_run(about: dict[str, Any], project: str, started: float) -> list[Any]:
    """The first records of a run of which W&B wrote none: `about` as tracker.read_identity gives it, `started` in seconds."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    header, record = Record(), Record()
    header.header.version_info.producer = wandb.__version__
    run = record.run
    run.run_id, run.project, run.display_name = about["id"], project, about["name"]
    run.run_group, run.job_type, run.notes = about["experiment"], about["job_type"], about["notes"]
    run.tags.extend(about["tags"])
    run.resume = True  # as tracker.start does
    run.start_time.FromSeconds(int(started))
    for key, value in about["config"].items():
        run.config.update.add(key=key, value_json=json.dumps(value))
    return [header, record]


def end_run(records: list[Any], figures: dict[str, Any], exit_code: int = 0) -> list[Any]:
    """The records of a run with these figures in its summary, and with its end, which a killed process cannot write."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    summary, end = Record(), Record()
    for key, value in figures.items():
        summary.summary.update.add(nested_key=[key], value_json=json.dumps(value))
    end.exit.exit_code = exit_code
    there = [record for record in records if not record.HasField("exit")]
    # W&B's upload dies of a record without content.
    return [*there, *([summary] if figures else []), end]


def select_missing(records: list[Any], done: int, rows: dict[int, dict[str, Any]]) -> list[Any]:
    """The records without the history up to step `done`, which the service has, and with these rows of values by their step where
    the history lacks them. In the order of the steps."""
    steps = {record.history.step.num for record in records if record.HasField("history")}
    lacking = sorted(step for step in rows if step > done and step not in steps)
    selected = []
    for record in records:
        is_history = record.HasField("history")
        if is_history and record.history.step.num <= done:
            continue
        if is_history or record.HasField("exit"):
            while lacking and (not is_history or lacking[0] < record.history.step.num):
                selected += _make_history(lacking[0], rows[lacking.pop(0)])
        selected.append(record)
    for step in lacking:
        selected += _make_history(step, rows[step])
    return selected


def _make_history(step: int, values: dict[str, Any]) -> list[Any]:
    """A line of the history, and its part in the summary."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    history, summary = Record(), Record()
    history.history.step.num = step
    for key, value in {**values, "_step": step}.items():
        for items in (history.history.item, summary.summary.update):
            items.add(nested_key=[key], value_json=json.dumps(value))
    return [summary, history]


def _parse(content: bytes) -> Iterator[Any]:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    return map(Record.FromString, _split(content))


def _split(content: bytes) -> Iterator[bytes]:
    at, parts = len(HEADER), list[bytes]()
    while at + PIECE.size <= len(content):
        left = BLOCK - at % BLOCK
        if left < PIECE.size:
            at += left
            continue
        checksum, length, kind = PIECE.unpack_from(content, at)
        part = content[at + PIECE.size : at + PIECE.size + length]
        if len(part) < length or zlib.crc32(bytes([kind]) + part) != checksum:
            return
        at += PIECE.size + length
        parts = [part] if kind in (WHOLE, FIRST) else [*parts, part]
        if kind in (WHOLE, LAST):
            yield b"".join(parts)


def _append(content: bytearray, record: bytes) -> None:
    first = True
    while first or record:
        left = BLOCK - len(content) % BLOCK
        if left < PIECE.size:
            content += bytes(left)
            continue
        part, record = record[: left - PIECE.size], record[left - PIECE.size :]
        kind = (WHOLE if first else LAST) if not record else (FIRST if first else MIDDLE)
        content += PIECE.pack(zlib.crc32(bytes([kind]) + part), len(part), kind) + part
        first = False
