"""What the terminal shows: a live bar where somebody watches, plain lines elsewhere, and at the end what was made."""

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
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over a known number of things; the function it gives takes how many are done."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not watched()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def receiving(what: str, total: int | None, start: int) -> Iterator[Callable[[int], None]]:
    """A bar over bytes with their speed, from `start` on; the function it gives takes how many bytes are there."""
    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not watched()) as bar:
        task = bar.add_task(what, total=total, completed=start)
        told = time.monotonic()

        def show(received: int) -> None:
            nonlocal told
            bar.update(task, completed=received)
            if not watched() and time.monotonic() - told >= LINE_EVERY:
                told = time.monotonic()
                end = "" if total is None else f" of {total / MEGABYTE:,.0f}"
                console.print(f"{what}: {received / MEGABYTE:,.0f}{end} MB")

        yield show
