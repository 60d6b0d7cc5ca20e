"""The ledger's chart: out-of-fold figures against leaderboard scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from foldmark.core.files import atomic_path

LABELS = {"oof_mae_px": "OOF MAE, px", "oof_nme": "OOF NME, %"}


def draw_ledger(path: Path, rows: Sequence[Mapping[str, str]], ranks: Mapping[str, str]) -> None:
    """Draw each OOF figure of scored rows of the ledger against their leaderboard scores, with its rank correlation."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    axes = figure.subplots(1, len(LABELS), sharey=True)
    for axis, (column, label) in zip(axes, LABELS.items(), strict=True):
        for row in rows:
            place = float(row[column]), float(row["leaderboard"])
            axis.plot(*place, "o", color="#0072b2")
            # A name may hold a $, which would start a formula.
            name = Path(row["file"]).stem
            axis.annotate(name, place, xytext=(5, 4), textcoords="offset points", fontsize=8, parse_math=False)
        axis.set_title(f"Spearman's rank correlation {ranks[column]} ({len(rows)} files)", fontsize=10)
        axis.set_xlabel(label)
        axis.margins(0.15)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("leaderboard, px")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
