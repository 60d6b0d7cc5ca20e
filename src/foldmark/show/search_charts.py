"""Charts of a search: the values of all trials as parallel coordinates, and the importance of each key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foldmark.show.charts import COLOURS, GREY, new_figure
from foldmark.show.terminal import plain_text

BEST, BASE = COLOURS[1], COLOURS[6]


@dataclass(frozen=True)
class Axis:
    """A key, or the result: its title, and what is written at places from 0, below, to 1."""

    title: str
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """A trial: its places on the axes, the last of which may be missing, and what it is."""

    places: Sequence[float]
    kind: Literal["best", "base", "finished", "pruned", "failed"]


def draw_parallel_coordinates(path: Path, axes: Sequence[Axis], lines: Sequence[Line]) -> None:
    """Draw each trial as a line across the axes: those that finished by colour, from dark for the lowest result to light, the
    best and the base on top of them, the others, which have no result, in grey or dotted."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    shades = colormaps["viridis"]
    last = len(axes) - 1
    with new_figure(path, max(6.4, 1.7 * len(axes)), 4.8) as figure:
        axis = figure.subplots()
        for line in sorted(lines, key=lambda line: ["failed", "pruned", "finished", "base", "best"].index(line.kind)):
            look: dict = {
                "best": {"color": BEST, "linewidth": 3},
                "base": {"color": BASE, "linewidth": 2, "linestyle": "--"},
                "finished": {"color": shades(0.9 * line.places[-1]), "linewidth": 1.5},
                "pruned": {"color": GREY, "linewidth": 0.8, "alpha": 0.6},
                "failed": {"color": GREY, "linewidth": 0.8, "linestyle": ":"},
            }[line.kind]
            axis.plot(range(len(line.places)), line.places, **look)
        for place, one in enumerate(axes):
            axis.axvline(place, color="black", linewidth=0.8, zorder=0)
            for height, text in one.ticks:
                axis.plot([place - 0.02, place + 0.02], [height, height], color="black", linewidth=0.8)
                side, align = (8, "left") if place == last else (-6, "right")
                label = plain_text(text)
                # Lines would hide what stands on them.
                ground = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5}
                axis.annotate(
                    label, (place, height), (side, 0), textcoords="offset points", fontsize=8, ha=align, va="center", bbox=ground
                )
        axis.set(xlim=(-0.5, last + 0.5), ylim=(-0.06, 1.06), yticks=[])
        axis.set_xticks(range(len(axes)), [plain_text(one.title).replace(".", ".\n") for one in axes], fontsize=9)
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
        kinds = {line.kind for line in lines}
        shown: list[tuple[str, dict, str]] = [
            ("best", {"color": BEST, "linewidth": 3}, "best"),
            ("base", {"color": BASE, "linewidth": 2, "linestyle": "--"}, "base (trial 0)"),
            ("finished", {"color": shades(0.1)}, "finished, lower NME"),
            ("finished", {"color": shades(0.9)}, "finished, higher NME"),
            ("pruned", {"color": GREY}, "pruned"),
            ("failed", {"color": GREY, "linestyle": ":"}, "failed"),
        ]
        handles = [Line2D([], [], label=label, **look) for kind, look, label in shown if kind in kinds]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def draw_importances(path: Path, shares: Mapping[str, float]) -> None:
    """Draw the share of each key in the variance of the result, the largest on top."""
    with new_figure(path, 6.4, 1.1 + 0.38 * len(shares)) as figure:
        axis = figure.subplots()
        names, percents = [plain_text(name) for name in shares], [100 * share for share in shares.values()]
        bars = axis.barh(names, percents, color=COLOURS[0], height=0.65)
        axis.bar_label(bars, [f"{percent:.0f} %" for percent in percents], padding=4, fontsize=8)
        axis.invert_yaxis()
        axis.set(xlim=(0, 108), xlabel="share in the variance of the OOF NME (%)")
        axis.grid(alpha=0.25, axis="x")
