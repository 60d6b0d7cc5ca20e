"""Draw OOF NME over the faces that a fold has learned, extrapolated to 1.5 million by a power law.

    .venv/bin/python benchmarks/draw_oof.py

Reads results/oof-over-faces.csv beside this file, a row for each finished schedule on five folds of the 300-W subset, and
writes results/oof-over-faces.svg. low and high: the 95 % interval, photos resampled.
"""

import math
from pathlib import Path

import numpy as np
import pandas

from foldmark.show.charts import COLOURS, GREY, new_figure

RESULTS = Path(__file__).parent / "results"
FACES_OF_A_GPU = 1_500_000
# The labels' own error, which no model gets below; its size is not known.
FLOORS = (0.0, 2.5)
TICKS = (20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)


def fit_power(first: pandas.Series, last: pandas.Series, floor: float) -> tuple[float, float]:
    """Scale and exponent of NME = floor + scale * faces^exponent through two rows."""
    over = [row["OOF NME %"] - floor for row in (first, last)]
    exponent = math.log(over[1] / over[0]) / math.log(last["faces learned"] / first["faces learned"])
    return over[0] / first["faces learned"] ** exponent, exponent


def main() -> None:
    table = pandas.read_csv(RESULTS / "oof-over-faces.csv")
    first, last = table.iloc[0], table.iloc[-1]
    faces = np.geomspace(first["faces learned"], FACES_OF_A_GPU, 100)
    with new_figure(RESULTS / "oof-over-faces.svg", 6.4, 4.2) as figure:
        axes = figure.subplots()
        for floor, style in zip(FLOORS, ("--", ":"), strict=True):
            scale, exponent = fit_power(first, last, floor)
            nme = floor + scale * faces**exponent
            name = f"power law above a floor of {floor} %" if floor else "power law"
            axes.plot(faces, nme, style, color=GREY, label=f"{name}: {nme[-1]:.2f} % after 1.5 million faces")
            print(f"{name}: exponent {exponent:.3f}, {nme[-1]:.2f} % after {FACES_OF_A_GPU:,} faces")
        nme = table["OOF NME %"]
        interval = [nme - table["low"], table["high"] - nme]
        axes.errorbar(
            table["faces learned"], nme, interval, fmt="o", color=COLOURS[0], capsize=3, label="measured, 95 % interval"
        )
        for row in table.to_dict("records"):
            place = row["faces learned"], row["OOF NME %"]
            # Muon's label on the left does not overlap the others.
            offset, side = (-7, "right") if "muon" in row["config"] else (7, "left")
            axes.annotate(row["config"], place, (offset, 3), textcoords="offset points", ha=side, fontsize=8)
        axes.set(xscale="log", xlabel="faces learned by a fold", ylabel="OOF NME, %", title="300-W subset, 4,416 faces")
        axes.set_xticks(TICKS, [f"{count:,}" for count in TICKS])
        axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
