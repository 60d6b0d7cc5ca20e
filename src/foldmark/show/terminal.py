"""Terminal output: sentences and tables as plain text, and a live progress bar where somebody watches."""

import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from foldmark.core.files import MEGABYTE

# Names and paths may hold what rich takes for markup or emoji codes.
console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
if not console.is_terminal:
    console.width = 200  # a log need not fit a window

LINE_EVERY = 30  # seconds, where a bar cannot be shown
# Control characters, line separators, marks that reorder text, and bytes of file names that are not UTF-8.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def is_watched() -> bool:
    """Whether somebody watches a terminal that can redraw lines. A log of a CI machine is read later, whatever it claims."""
    return console.is_interactive and sys.stdout.isatty() and os.environ.get("CI", "").lower() in ("", "0", "false")


def say(text: object) -> None:
    """Print a sentence as one line of plain text: see `plain_text`."""
    console.print(_encodable(plain_text(text), console.encoding))


def say_made(what: object, next_step: str | None = None) -> None:
    """The last message of a command: what was made and where, and the command that people run next."""
    say(f"made: {what}")
    if next_step:
        say(f"Next: {next_step}")


def make_command(targets: str, variables: Mapping[str, str]) -> str:
    """A make command with the variables that are set, quoted for the shell where that is needed."""
    return " ".join([f"make {targets}", *(f"{name}={shlex.quote(value)}" for name, value in variables.items() if value)])


def say_error(text: object) -> None:
    """Print to stderr what is wrong, as one line of plain text."""
    print(_encodable(f"foldmark: {plain_text(text)}", sys.stderr.encoding), file=sys.stderr)


def say_table(
    rows: Sequence[Mapping[str, object]],
    *,
    title: str | None = None,
    narrow: Sequence[str] = (),
    styles: Sequence[str | None] = (),
) -> None:
    """Print rows as a table with their keys as its header. A cell is text, or a list of lines.

    narrow: the columns to keep where the terminal is too narrow for all. styles: a style of rich for each row.
    """
    table = _table(rows, list(rows[0]), styles)
    # A table that is wider than its terminal is broken into pieces.
    if narrow and Measurement.get(console, console.options.update(max_width=10_000), table).maximum > console.width:
        table = _table(rows, narrow, styles)
    if title:
        say(title)
    console.print(table, soft_wrap=False)


def _table(rows: Sequence[Mapping[str, object]], columns: Sequence[str], styles: Sequence[str | None]) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    for index, column in enumerate(columns):
        numbers = index > 0 and all(re.match(r"[+-]?\d|$", str(row[column])) for row in rows)
        # Folded rather than cut: two names may differ only in their ends.
        table.add_column(plain_text(column), overflow="fold", justify="right" if numbers else "left")
    for index, row in enumerate(rows):
        cells = (row[column] for column in columns)
        lines = (cell if isinstance(cell, list) else [cell] for cell in cells)
        texts = ("\n".join(_encodable(plain_text(line), console.encoding) for line in cell) for cell in lines)
        table.add_row(*texts, style=styles[index] if styles else None)
    return table


def plain_text(text: object) -> str:
    """Text that may hold names, paths or a server's words, fit to be shown on one line: control characters are escaped as
    Python writes them, and paths below the working folder are relative to it."""
    escaped = UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))
    with suppress(FileNotFoundError):  # the working folder was removed
        here = str(Path.cwd()).rstrip(os.sep)
        if here:
            return re.sub(rf"(?<![\w./-]){re.escape(here + os.sep)}", "", escaped)
    return escaped


def _encodable(text: str, encoding: str | None) -> str:
    encoding = encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def show_progress(what: str, total: int | None, *, start: int = 0, in_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar, as `core.progress.Progress` describes it; of bytes with their speed. Where nobody watches, a long transfer gets a
    line now and then."""
    what = plain_text(what)
    shown = [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), *shown, TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not is_watched()) as bar:
        task = bar.add_task(what, total=total, completed=start)
        last_line = time.monotonic()

        def show(done: int) -> None:
            nonlocal last_line
            bar.update(task, completed=done)
            if in_bytes and not is_watched() and time.monotonic() - last_line >= LINE_EVERY:
                last_line = time.monotonic()
                end = "" if total is None else f" of {total / MEGABYTE:,.0f}"
                say(f"{what}: {done / MEGABYTE:,.0f}{end} MB")

        yield show


class _Sentences(logging.Handler):
    """Prints what the packages below log as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def show_log() -> None:
    """Print the sentences that Foldmark's packages log from now on. The command line calls it once."""
    log = logging.getLogger("foldmark")
    if not any(isinstance(handler, _Sentences) for handler in log.handlers):
        log.addHandler(_Sentences())
    log.setLevel(logging.INFO)
    log.propagate = False
