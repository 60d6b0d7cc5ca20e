"""What the terminal shows: a live bar where there is a terminal, plain lines elsewhere."""

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
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from foldmark.files import MEGABYTE

console = Console(highlight=False, soft_wrap=True)

LINE_EVERY = 30  # seconds, where a bar cannot be shown


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over a known number of things; the function it gives takes how many are done."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def receiving(what: str, total: int | None, start: int) -> Iterator[Callable[[int], None]]:
    """A bar over bytes with their speed, from `start` on; the function it gives takes how many bytes are there."""
    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, completed=start)
        told = time.monotonic()

        def show(received: int) -> None:
            nonlocal told
            bar.update(task, completed=received)
            if not console.is_terminal and time.monotonic() - told >= LINE_EVERY:
                told = time.monotonic()
                end = "" if total is None else f" of {total / MEGABYTE:,.0f}"
                console.print(f"{what}: {received / MEGABYTE:,.0f}{end} MB")

        yield show


class FoldProgress:
    """A fold's training: the bar with the current MAE, NME and the time left, and a line per epoch."""

    def __init__(self, fold: int, folds: list[int], epochs: int) -> None:
        self.fold, self.epochs = fold, epochs
        self.place = f"fold {fold} ({folds.index(fold) + 1} of {len(folds)})"
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        ]
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task(self.place, total=epochs, state="")
        self.nme, self.mae, self.started, self.first = None, None, time.monotonic(), None

    def __enter__(self) -> "FoldProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def batch(self, epochs_done: float, mae_px: float) -> None:
        self.mae = mae_px if self.mae is None else 0.95 * self.mae + 0.05 * mae_px
        if self.first is None:
            self.first = epochs_done
        held_out = "" if self.nme is None else f"  held-out NME {self.nme:.2f} %"
        state = f"epoch {min(int(epochs_done) + 1, self.epochs)}/{self.epochs}  training MAE {self.mae:.2f} px{held_out}"
        self.bar.update(self.task, completed=epochs_done, state=state)

    def epoch(self, row: dict) -> None:
        held_out = ""
        if row["nme"] is not None:
            self.nme = row["nme"]
            held_out = f"  held-out MAE {row['mae_px']:.2f} px  NME {row['nme']:.2f} %"
        left = ""
        if self.first is not None and row["epoch"] < self.epochs:
            passed = time.monotonic() - self.started
            left = f"  {passed / (row['epoch'] - self.first) * (self.epochs - row['epoch']) / 60:.0f} min left"
        console.print(
            f"{self.place}  epoch {row['epoch']}/{self.epochs}  training MAE {row['train_mae_px']:.2f} px{held_out}"
            f"  {row['faces_per_second']:.0f} faces/s{left}"
        )
