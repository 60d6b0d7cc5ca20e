"""Charts: curves side by side, and the filters a net has learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from foldmark.core.files import atomic_path
from foldmark.show.overlay import save_png, sheet

matplotlib.use("Agg")

# Okabe and Ito's colours: told apart with any colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


@dataclass(frozen=True)
class Curve:
    """The metrics of one setting: one table (rows of metrics.csv) a seed."""

    label: str
    seeds: Sequence[pandas.DataFrame]


def curves(path: Path, panels: Sequence[Sequence[Curve]], column: str, unit: str, line: tuple[str, float] | None = None) -> None:
    """Draw panels side by side on one scale: held-out solid (mean and range over the seeds), training dashed.

    column: of metrics.csv, with its training twin `train_<column>`. line: a label and a value to draw across.
    """
    figure = Figure(figsize=(max(6.4, 4.4 * len(panels)), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        for curve, colour in zip(panel, COLOURS, strict=False):
            _draw_curve(axis, curve, column, colour)
        if line:
            axis.axhline(line[1], color="#777777", linewidth=1, linestyle=":", label=line[0])
        axis.set(yscale="log", xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize=8)
    axes[0].set_ylabel(unit)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _draw_curve(axis, curve: Curve, column: str, colour: str) -> None:
    held_out = pandas.concat([table.set_index("epoch")[column].dropna() for table in curve.seeds], axis=1)
    training = pandas.concat([table.set_index("epoch")[f"train_{column}"] for table in curve.seeds], axis=1)
    axis.plot(held_out.index, held_out.mean(axis=1), color=colour, label=f"{curve.label}: held out")
    if len(curve.seeds) > 1:
        axis.fill_between(held_out.index, held_out.min(axis=1), held_out.max(axis=1), color=colour, alpha=0.2, linewidth=0)
    axis.plot(training.index, training.mean(axis=1), color=colour, linestyle="--", linewidth=1, label=f"{curve.label}: training")


def filters(path: Path, weights: np.ndarray, side: int = 56, most: int = 128) -> None:
    """Draw conv filters (out, in, h, w) as grey pictures, each on a scale of its own; of a filter with many inputs, the
    first inputs stand side by side in its row."""
    inputs = weights.shape[1]
    columns = 16 if inputs == 1 else min(inputs, 16)
    shown = weights[:, :columns].reshape(-1, *weights.shape[2:])
    tiles = []
    for kernel in shown[:most]:
        low, high = kernel.min(), kernel.max()
        grey = np.round(255 * (kernel - low) / max(high - low, 1e-12)).astype(np.uint8)
        large = cv2.resize(grey, (side, side), interpolation=cv2.INTER_NEAREST)
        tiles.append(cv2.copyMakeBorder(large, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0))
    save_png(path, sheet(tiles, columns=columns, gap=4))
