"""What the terminal shows: a live bar where somebody watches, plain lines elsewhere, and at the end what was made."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from foldmark.core.files import MEGABYTE

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 200  # a log need not fit a window

LINE_EVERY = 30  # seconds, where a bar cannot be shown


def watched() -> bool:
    """Whether somebody watches a terminal that can redraw lines; a log of a CI machine is read later, whatever it claims."""
    return console.is_interactive and sys.stdout.isatty() and os.environ.get("CI", "").lower() in ("", "0", "false")


def made(what: object, following: str | None = None) -> None:
    """The end of a command: what was made and where, and the command that people run next."""
    console.print(f"made: {what}", markup=False)
    if following:
        console.print(f"Next: {following}", markup=False)


@contextmanager
def show_progress(what: str, total: int | None, *, start: int = 0, in_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar, as `core.progress.Progress` describes it; of bytes with their speed. Where nobody watches, a long transfer gets a
    line now and then."""
    shown = [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
    columns = [TextColumn("{task.description}"), BarColumn(), *shown, TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not watched()) as bar:
        task = bar.add_task(what, total=total, completed=start)
        told = time.monotonic()

        def show(done: int) -> None:
            nonlocal told
            bar.update(task, completed=done)
            if in_bytes and not watched() and time.monotonic() - told >= LINE_EVERY:
                told = time.monotonic()
                end = "" if total is None else f" of {total / MEGABYTE:,.0f}"
                console.print(f"{what}: {done / MEGABYTE:,.0f}{end} MB")

        yield show


class _Sentences(logging.Handler):
    """Prints what the packages below log as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(record.getMessage(), markup=False)


def show_log() -> None:
    """Print the sentences that Foldmark's packages log from now on; the command line calls it once."""
    log = logging.getLogger("foldmark")
    if not any(isinstance(handler, _Sentences) for handler in log.handlers):
        log.addHandler(_Sentences())
    log.setLevel(logging.INFO)
    log.propagate = False
