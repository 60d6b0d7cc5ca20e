"""Charts as PNG or SVG: learning curves, reliability of the uncertainty, scatter plots and learned filters.

matplotlib is imported where a figure is drawn, because most commands draw none.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas

from foldmark.core.files import atomic_path
from foldmark.core.metrics import HEADLINE_METRICS
from foldmark.show.overlay import draw_sheet, save_png
from foldmark.show.terminal import plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: distinguishable with any colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
GREY = "#777777"
# Names may hold dollar signs, and SVG would hold random names.
SETTINGS: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.hashsalt": "foldmark",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextmanager
def new_figure(path: Path, width: float, height: float) -> Iterator["Figure"]:
    """A figure of so many inches to draw on, then saved at `path`, as SVG or PNG by its ending; whole or not at all."""
    import matplotlib
    from matplotlib.figure import Figure

    # SVG would hold the date, too, and differ each time.
    details: dict[str, Any] = {"transparent": True, "metadata": {"Date": None}} if path.suffix == ".svg" else {}
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=120, format=path.suffix[1:], **details)


@dataclass(frozen=True)
class Curve:
    """One setting: its trainings, a table (the rows of a metrics.csv) for each fold or seed."""

    label: str
    tables: Sequence[pandas.DataFrame]


@dataclass(frozen=True)
class Panel:
    """A panel of `draw_curves`: a column of metrics.csv for the held-out faces, one for training, or both.

    curves: a colour each. line: a label and a value to draw across.
    """

    ylabel: str
    curves: Sequence[Curve]
    held_out: str | None = None
    training: str | None = None
    title: str = ""
    line: tuple[str, float] | None = None


def metric_panels(curve: Curve) -> list[Panel]:
    """A panel for each headline metric and one for the training loss."""
    panels = [
        Panel(metric.axis, [curve], key, f"train_{key}" if f"train_{key}" in curve.tables[0] else None)
        for key, metric in HEADLINE_METRICS.items()
    ]
    return [*panels, Panel("training loss", [curve], training="loss")]


def draw_curves(path: Path, panels: Sequence[Panel], *, log: bool = False) -> None:
    """Draw panels side by side by epoch: held out solid, training dashed; of several trainings each thin, their mean thick and
    their range as a band. log: all panels on one logarithmic scale."""
    with new_figure(path, max(6.4, (4.4 if log else 3.6) * len(panels)), 4.2) as figure:
        axes = figure.subplots(1, len(panels), sharey=log, squeeze=False)[0]
        for panel, axis in zip(panels, axes, strict=True):
            for curve, colour in zip(panel.curves, COLOURS, strict=False):
                prefix = f"{plain_text(curve.label)}: " if curve.label else ""
                if panel.held_out:
                    _draw_curve(axis, curve.tables, panel.held_out, f"{prefix}held out", (colour, "-"))
                if panel.training:
                    _draw_curve(axis, curve.tables, panel.training, f"{prefix}training", (colour, "--"))
            if panel.line:
                axis.axhline(panel.line[1], color=GREY, linewidth=1, linestyle=":", label=panel.line[0])
            axis.set(xlabel="epoch", ylabel=panel.ylabel if axis is axes[0] or not log else "", title=plain_text(panel.title))
            axis.title.set_fontsize(10)
            axis.grid(alpha=0.25, which="both")
            axis.legend(fontsize=8, frameon=False)
            _scale(axis, log)


def _draw_curve(axis: "Axes", tables: Sequence[pandas.DataFrame], column: str, label: str, look: tuple[str, str]) -> None:
    """Draw a column of metrics.csv by epoch; look: colour and line style."""
    colour, style = look
    together = pandas.concat([table.set_index("epoch")[column].dropna() for table in tables], axis=1).sort_index()
    low, mean, high = together.min(axis=1), together.mean(axis=1), together.max(axis=1)
    # Few epochs are few dots; a single one would not be seen at all.
    mark = "o" if len(mean) < 10 else ""
    if len(tables) > 1:
        axis.plot(together.index, together, color=colour, linestyle=style, linewidth=0.7, alpha=0.45)
        axis.fill_between(mean.index, low, high, color=colour, alpha=0.15, linewidth=0)
        label = f"{label}, mean"
    width = 1.8 if style == "-" else 1.2
    axis.plot(mean.index, mean, style, color=colour, linewidth=width, marker=mark, markersize=4, label=label)


def _scale(axis: "Axes", log: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if log:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    else:
        axis.set_ylim(0, 1.06 * axis.dataLim.ymax)


def draw_reliability(path: Path, table: pandas.DataFrame) -> None:
    """Draw the `predicted` against the `observed` error of the bins in a table, both in percent of the box."""
    with new_figure(path, 5.2, 4.8) as figure:
        axis = figure.subplots()
        most = 1.1 * table[["predicted", "observed"]].to_numpy().max()
        axis.plot([0, most], [0, most], color=GREY, linewidth=1, linestyle="--", label="perfect calibration")
        axis.plot(table["predicted"], table["observed"], "o-", color=COLOURS[0], label=f"{len(table)} bins")
        axis.set(
            xlim=(0, most),
            ylim=(0, most),
            xlabel="predicted standard deviation (% of box)",
            ylabel="observed RMSE (% of box)",
            title="Reliability diagram of the uncertainty, out of fold",
            aspect="equal",
        )
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)


def draw_ledger(path: Path, rows: Sequence[Mapping[str, str]], ranks: Mapping[str, str]) -> None:
    """Draw the OOF scores of the ledger's scored rows against their leaderboard scores. ranks: the rank correlation of each
    column with the leaderboard."""
    columns = {f"oof_{key}": f"OOF {metric.axis}" for key, metric in HEADLINE_METRICS.items() if f"oof_{key}" in ranks}
    with new_figure(path, 4.8 * len(columns), 4.4) as figure:
        axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axis, (column, label) in zip(axes, columns.items(), strict=True):
            for row in rows:
                place = float(row[column]), float(row["leaderboard"])
                axis.plot(*place, "o", color=COLOURS[0])
                axis.annotate(plain_text(Path(row["file"]).stem), place, (5, 4), textcoords="offset points", fontsize=8)
            axis.set(xlabel=label, title=f"Spearman's rank correlation {ranks[column]} ({len(rows)} files)")
            axis.title.set_fontsize(10)
            axis.margins(0.15)
            axis.grid(alpha=0.25)
        axes[0].set_ylabel("leaderboard MAE (px)")


def draw_filters(path: Path, weights: np.ndarray, side: int = 56, most: int = 128) -> None:
    """Draw conv filters (out, in, h, w) in grey, each on its own scale. A filter with many inputs takes a row, in which its
    first inputs stand side by side."""
    inputs = weights.shape[1]
    columns = 16 if inputs == 1 else min(inputs, 16)
    shown = weights[:, :columns].reshape(-1, *weights.shape[2:])
    tiles = []
    for kernel in shown[:most]:
        low, high = kernel.min(), kernel.max()
        grey = np.round(255 * (kernel - low) / max(high - low, 1e-12)).astype(np.uint8)
        large = cv2.resize(grey, (side, side), interpolation=cv2.INTER_NEAREST)
        tiles.append(cv2.copyMakeBorder(large, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0))
    save_png(path, draw_sheet(tiles, columns=columns, gap=4))
