"""Terminal output while folds train: a live table of all folds, or a plain line an epoch where nobody watches."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.box import SIMPLE
from rich.live import Live
from rich.table import Table

from foldmark.core.metrics import HEADLINE_METRICS, format_scores
from foldmark.show.terminal import console, is_watched, say

REFRESHES = 1  # a second
SMOOTHING = 0.95  # of the training MAE over batches


@dataclass
class FoldRow:
    """One fold in the table: a listener of its training."""

    name: str
    epochs: int
    label: str
    live: bool
    where: str = ""  # the machine and device, where an engine of several trains it
    state: str = "waits"
    epochs_done: float = 0
    train_mae_px: float | None = None
    scores: dict[str, float] = field(default_factory=dict)  # the headline metrics on the held-out faces
    faces_per_second: float | None = None
    seconds: float | None = None
    started: float | None = None
    started_at: float = 0  # epochs that were done before this process

    def place(self, where: str) -> None:
        """A fold that is moved goes on from its last state, at another pace."""
        self.where, self.state, self.started = where, "waits", None

    def begin(self, epochs_done: int) -> None:
        """The time left is known only once a batch has shown the pace."""

    def batch(self, epochs_done: float, mae_px: float) -> None:
        if self.started is None:
            # The epoch's first batch is over. Its time is missing from the estimate, and short.
            self.state, self.started, self.started_at = "trains", time.monotonic(), epochs_done
        old = mae_px if self.train_mae_px is None else self.train_mae_px
        self.train_mae_px = SMOOTHING * old + (1 - SMOOTHING) * mae_px
        self.epochs_done = epochs_done

    def epoch(self, row: dict, points_px: object = None) -> None:
        self.epochs_done, self.train_mae_px = row["epoch"], row["train_mae_px"]
        self.faces_per_second = row["faces_per_second"]
        scores = _headline_scores(row)
        self.scores = scores or self.scores
        if not self.live:
            held_out = f"  held-out {format_scores(scores)}" if scores else ""
            on = f" on {self.where}" if self.where else ""
            left = f"  {self.seconds_left / 60:.0f} min left" if self.seconds_left else ""
            say(
                f"{self.label}{on}  epoch {row['epoch']}/{self.epochs}  training MAE {row['train_mae_px']:.2f} px{held_out}"
                f"  {row['faces_per_second']:.0f} faces/s{left}"
            )

    def end(self, summary: dict) -> None:
        """Also for a fold that an earlier command finished."""
        self.state, self.epochs_done, self.seconds = "done", summary["epochs"], summary["seconds"]
        self.scores = _headline_scores(summary)

    @property
    def seconds_left(self) -> float | None:
        """The time of the epochs ahead at the pace so far; None before there is a pace, and after the last epoch."""
        if self.started is None or not self.started_at < self.epochs_done < self.epochs:
            return None
        passed = time.monotonic() - self.started
        return passed / (self.epochs_done - self.started_at) * (self.epochs - self.epochs_done)

    def cells(self) -> list[str]:
        epoch = f"{min(int(self.epochs_done) + (self.state == 'trains'), self.epochs)}/{self.epochs}"
        if self.state == "done":
            time_shown = f"took {_duration(self.seconds or 0)}"
        else:
            time_shown = self.state if self.seconds_left is None else _duration(self.seconds_left)
        return [
            self.name,
            epoch if self.state != "waits" else "",
            _shown(self.train_mae_px, 2),
            *(metric.format(self.scores[key]) if key in self.scores else "" for key, metric in HEADLINE_METRICS.items()),
            _shown(self.faces_per_second, 0),
            time_shown,
        ]


class TrainingTable:
    """The folds that one command trains; a context manager that shows them while it lasts."""

    def __init__(self, what: str = "fold") -> None:
        self.what, self.rows = what, list[FoldRow]()
        self._live: Live | None = None

    def add(self, names: Sequence[str], epochs: int) -> list[FoldRow]:
        """The rows of these folds, below those that are there."""
        of = f"of {len(names)}"
        rows = [FoldRow(name, epochs, f"{self.what} {name} ({i + 1} {of})", is_watched()) for i, name in enumerate(names)]
        self.rows += rows
        return rows

    def __enter__(self) -> "TrainingTable":
        if is_watched():
            self._live = Live(get_renderable=self.table, console=console, refresh_per_second=REFRESHES)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def table(self) -> Table:
        """The table as it stands."""
        table = Table(box=SIMPLE, pad_edge=False)
        table.add_column(self.what, no_wrap=True)
        held_out = [f"held-out {metric.title}" for metric in HEADLINE_METRICS.values()]
        placed = any(row.where for row in self.rows)
        if placed:
            table.add_column("on", no_wrap=True)
        for title in ("epoch", "training MAE px", *held_out, "faces/s", "time left"):
            table.add_column(title, justify="right")
        for row in self.rows:
            name, *cells = row.cells()
            table.add_row(
                name,
                *([row.where] if placed else []),
                *cells,
                style={"trains": "bold", "waits": "dim", "done": "green"}.get(row.state),
            )
        return table


def _headline_scores(row: dict) -> dict[str, float]:
    return {key: row[key] for key in HEADLINE_METRICS if row.get(key) is not None}


def _shown(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes >= 2 else f"{seconds:.0f} s"
