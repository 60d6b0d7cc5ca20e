"""The report's charts, as SVG: sharp at every size and on paper."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from foldmark.core.files import atomic_path
from foldmark.core.markup import Markup
from foldmark.show.charts import COLOURS

OURS, OTHERS, MEASURED = COLOURS[0], COLOURS[1], COLOURS[2]
GREY = "#777777"
# Of metrics.csv, by what an axis shows.
PANELS = {
    "MAE, px of the pictures": {"training": "train_mae_px", "held out": "mae_px"},
    "NME, %": {"held out": "nme"},
    "training loss": {"training": "loss"},
}
STYLES = {"training": (COLOURS[3], "--"), "held out": (OURS, "-")}
WIDEST_NME = 15.0  # percent; where the cumulative curve is cut off, unless the mean is near or beyond
# SVG would else carry the date and random names, and differ each time.
matplotlib.rcParams["svg.hashsalt"] = "foldmark"


@dataclass(frozen=True)
class Anchor:
    """A figure of someone else, on other faces than ours: its mean NME in percent."""

    name: str
    nme: float
    faces: str


PUBLISHED, COURSE = "300-W full, published", "716 course test faces, measured"
ANCHORS = [
    Anchor("U-Net heatmaps, a student's upload", 6.25, COURSE),
    Anchor("ResNet50, a student's upload (8.5 px)", 5.35, COURSE),
    Anchor("dlib's predictor (trained on these faces too)", 2.64, COURSE),
    Anchor("plain ResNet18 regression", 4.39, PUBLISHED),
    Anchor("PIPNet ResNet-18", 3.36, PUBLISHED),
    Anchor("DTLD ResNet-18", 2.96, PUBLISHED),
    Anchor("STAR", 2.87, PUBLISHED),
]


def save_svg(path: Path, figure: Figure) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", transparent=True, metadata={"Date": None})


def fold_curves(path: Path, folds: list[pandas.DataFrame]) -> None:
    """Draw the metrics.csv of each fold by epoch: folds thin, their mean thick, their range as a band."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, (label, kinds) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for kind, column in kinds.items():
            colour, style = STYLES[kind]
            together = pandas.concat([table.set_index("epoch")[column].dropna() for table in folds], axis=1).sort_index()
            low, mean, high = together.min(axis=1), together.mean(axis=1), together.max(axis=1)
            # Few epochs are few dots; a single one would else not be seen at all.
            mark = "o" if len(mean) < 10 else ""
            axis.plot(together.index, together, color=colour, linestyle=style, linewidth=0.7, alpha=0.45)
            axis.fill_between(mean.index, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.plot(mean.index, mean, style, color=colour, linewidth=2, marker=mark, markersize=4, label=f"{kind}, mean")
        axis.set(xlabel="epoch", ylabel=label, xlim=(0.5, max(table["epoch"].max() for table in folds) + 0.5))
        axis.set_ylim(0, 1.06 * axis.dataLim.ymax)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _plain(axis)
        axis.legend(fontsize=8, frameon=False)
    save_svg(path, figure)


def cumulative(path: Path, nme: np.ndarray, folds: np.ndarray, interval: tuple[float, float]) -> None:
    """Draw the share of the held-out faces (n,) below each NME and, in a panel of its own, mean NMEs of others, which are of
    other faces."""
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    above, axis = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    for place, anchor in enumerate(ANCHORS):
        colour, mark = (OTHERS, "D") if anchor.faces == PUBLISHED else (MEASURED, "s")
        above.plot(anchor.nme, place, mark, color=colour, markersize=5)
        above.annotate(f"{anchor.nme:.2f}  {anchor.name}", (anchor.nme, place), (8, -3), textcoords="offset points", fontsize=8)
    middle = nme.mean()
    above.errorbar(middle, -1.2, xerr=[[middle - interval[0]], [interval[1] - middle]], fmt="o", color=OURS, capsize=3)
    at = (interval[1], -1.2)
    above.annotate(f"{middle:.2f}  this experiment, out of fold", at, (8, -3), textcoords="offset points", fontsize=8)
    above.axhline(-0.6, color=GREY, linewidth=0.6)
    above.set(yticks=[], ylim=(-1.9, len(ANCHORS) - 0.4))
    above.set_title("Mean NME, %: ours, and above the line others' on OTHER DATA", fontsize=10, loc="left")
    for faces, colour, mark in ((PUBLISHED, OTHERS, "D"), (COURSE, MEASURED, "s")):
        above.plot([], [], mark, color=colour, label=f"other data: {faces}")
    above.legend(fontsize=8, frameon=False, loc="upper right")
    _plain(above)
    above.spines["left"].set_visible(False)
    widest = max(WIDEST_NME, 1.5 * interval[1])
    grid = np.linspace(0, widest, 301)
    for fold in np.unique(folds):
        share = np.searchsorted(np.sort(nme[folds == fold]), grid) / (folds == fold).sum()
        axis.plot(grid, 100 * share, color=OURS, linewidth=0.6, alpha=0.5)
    axis.plot(grid, 100 * np.searchsorted(np.sort(nme), grid) / len(nme), color=OURS, linewidth=2.2)
    axis.set(xlim=(0, widest), ylim=(0, 100), xlabel="NME of a face, %", ylabel="faces with less, %")
    axis.set_title("Out-of-fold faces: all (thick), and each fold (thin)", fontsize=10, loc="left")
    _plain(axis)
    save_svg(path, figure)


def mean_face_errors(path: Path, face: np.ndarray, errors: np.ndarray, markup: Markup, regions: dict[str, float]) -> None:
    """Draw a mean face (k, 2) with each point as large and dark as its mean error (k,) in percent of the eye distance, and
    the mean of each region beside it."""
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    axis = figure.subplots()
    for line in markup.lines:
        axis.plot(*face[line].T, color="#999999", linewidth=1, zorder=1)
    sizes = 280 * errors / errors.max()
    dots = axis.scatter(*face.T, s=sizes, c=errors, cmap="cividis_r", edgecolors="#333333", linewidths=0.6, zorder=2)
    width, height = np.ptp(face, axis=0)
    centre = face.mean(axis=0)
    for name, value in regions.items():
        middle = face[markup.regions[name]].mean(axis=0)
        text, beside = f"{name} {value:.2f} %", _label_place(name, face[markup.regions[name]], centre, width, height)
        axis.annotate(
            text,
            middle if name != "jaw" else face[markup.regions[name]][len(markup.regions[name]) // 2],
            beside,
            fontsize=9,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkB": 6},
        )
    axis.set(xlim=(centre[0] - 0.85 * width, centre[0] + 0.85 * width))
    axis.set_ylim(face[:, 1].max() + 0.16 * height, face[:, 1].min() - 0.18 * height)
    axis.set_aspect("equal")
    axis.axis("off")
    figure.colorbar(dots, ax=axis, label="mean error of the point, % of the eye distance", shrink=0.7)
    save_svg(path, figure)


def _label_place(name: str, points: np.ndarray, centre: np.ndarray, width: float, height: float) -> tuple[float, float]:
    """Where the label of a region stands: beside the face, on the region's own side; above it for brows, below for the jaw."""
    middle = points.mean(axis=0)
    if name == "jaw":
        return centre[0], points[:, 1].max() + 0.1 * height
    if "brow" in name:
        return middle[0], points[:, 1].min() - 0.12 * height
    side = -1 if "left" in name or name == "inner lips" else 1
    return centre[0] + side * 0.7 * width, middle[1]


def _plain(axis) -> None:
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
