"""The report's charts of errors, as SVG: sharp at every size and on paper."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foldmark.core.markup import Markup
from foldmark.ensemble.standard import PUBLISHED_RESULTS
from foldmark.show.charts import COLOURS, GREY, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, OTHERS, MEASURED = COLOURS[:3]
WIDEST_NME = 15.0  # percent; where the cumulative curve is cut off, unless the mean is near or beyond


@dataclass(frozen=True)
class Anchor:
    """A published or measured result on other faces than ours: its mean NME in percent."""

    name: str
    nme: float
    faces: str


PUBLISHED, COURSE = "300-W full, published", "716 course test faces, measured"
ANCHORS = [
    Anchor("U-Net heatmaps, a student's upload", 6.25, COURSE),
    Anchor("ResNet50, a student's upload (8.5 px)", 5.35, COURSE),
    Anchor("dlib's predictor (trained on these faces too)", 2.64, COURSE),
    Anchor("plain ResNet18 regression", 4.39, PUBLISHED),
    *(Anchor(one.method, one.full, PUBLISHED) for one in PUBLISHED_RESULTS),
]


def draw_cumulative(path: Path, nme: np.ndarray, folds: np.ndarray, interval: tuple[float, float]) -> None:
    """Draw the cumulative error distribution of the held-out faces, nme and folds (n,), and above it their mean NME with its
    interval beside results of others on other data."""
    with new_figure(path, 10, 6.6) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
        _draw_anchors(above, nme.mean(), interval)
        widest = max(WIDEST_NME, 1.5 * interval[1])
        grid = np.linspace(0, widest, 301)
        for fold in np.unique(folds):
            below.plot(grid, _share_below(nme[folds == fold], grid), color=OURS, linewidth=0.6, alpha=0.5)
        below.plot(grid, _share_below(nme, grid), color=OURS, linewidth=2.2)
        below.set(xlim=(0, widest), ylim=(0, 100), xlabel="NME (%)", ylabel="faces with a lower NME (%)")
        below.set_title("Out-of-fold faces: all (thick) and each fold (thin)", fontsize=10, loc="left")
        below.grid(alpha=0.25)


def _draw_anchors(axis: "Axes", mean: float, interval: tuple[float, float]) -> None:
    for place, anchor in enumerate(ANCHORS):
        colour, mark = (OTHERS, "D") if anchor.faces == PUBLISHED else (MEASURED, "s")
        axis.plot(anchor.nme, place, mark, color=colour, markersize=5)
        axis.annotate(f"{anchor.nme:.2f}  {anchor.name}", (anchor.nme, place), (8, -3), textcoords="offset points", fontsize=8)
    axis.errorbar(mean, -1.2, xerr=[[mean - interval[0]], [interval[1] - mean]], fmt="o", color=OURS, capsize=3)
    label = f"{mean:.2f}  this experiment, out of fold"
    axis.annotate(label, (interval[1], -1.2), (8, -3), textcoords="offset points", fontsize=8)
    axis.axhline(-0.6, color=GREY, linewidth=0.6)
    axis.set(yticks=[], ylim=(-1.9, len(ANCHORS) - 0.4))
    axis.set_title("Mean NME (%): this experiment and, above the line, results on OTHER DATA", fontsize=10, loc="left")
    for faces, colour, mark in ((PUBLISHED, OTHERS, "D"), (COURSE, MEASURED, "s")):
        axis.plot([], [], mark, color=colour, label=f"other data: {faces}")
    axis.legend(fontsize=8, frameon=False, loc="upper right")
    axis.grid(alpha=0.25)
    axis.spines["left"].set_visible(False)


def _share_below(nme: np.ndarray, grid: np.ndarray) -> np.ndarray:
    return 100 * np.searchsorted(np.sort(nme), grid) / len(nme)


def draw_mean_face(path: Path, face: np.ndarray, errors: np.ndarray, markup: Markup, regions: dict[str, float]) -> None:
    """Draw a mean face (k, 2) with each point as large and dark as its mean error (k,) in percent of the eye distance, and
    the mean of each region beside it."""
    with new_figure(path, 10, 6.6) as figure:
        axis = figure.subplots()
        for line in markup.lines:
            axis.plot(*face[line].T, color="#999999", linewidth=1, zorder=1)
        sizes = 280 * errors / max(errors.max(), 1e-12)
        dots = axis.scatter(
            face[:, 0], face[:, 1], s=sizes, c=errors, cmap="cividis_r", edgecolors="#333333", linewidths=0.6, zorder=2
        )
        width, height = np.ptp(face, axis=0)
        centre = face.mean(axis=0)
        for name, value in regions.items():
            points = face[markup.regions[name]]
            axis.annotate(
                f"{name} {value:.2f} %",
                points.mean(axis=0) if name != "jaw" else points[len(points) // 2],
                _label_place(name, points, centre, width, height),
                fontsize=9,
                ha="center",
                va="center",
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkB": 6},
            )
        axis.set(xlim=(centre[0] - 0.85 * width, centre[0] + 0.85 * width))
        axis.set_ylim(face[:, 1].max() + 0.16 * height, face[:, 1].min() - 0.18 * height)
        axis.set_aspect("equal")
        axis.axis("off")
        figure.colorbar(dots, ax=axis, label="mean error of the point (% of the eye distance)", shrink=0.7)


def _label_place(name: str, points: np.ndarray, centre: np.ndarray, width: float, height: float) -> tuple[float, float]:
    """Where the label of a region stands: beside the face on the region's side, above it for brows, below it for the jaw."""
    middle = points.mean(axis=0)
    if name == "jaw":
        return centre[0], points[:, 1].max() + 0.1 * height
    if "brow" in name:
        return middle[0], points[:, 1].min() - 0.12 * height
    side = -1 if "left" in name or name == "inner lips" else 1
    return centre[0] + side * 0.7 * width, middle[1]
