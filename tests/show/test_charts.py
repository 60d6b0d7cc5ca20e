"""Charts: files that open, alike each time, whatever the names in them hold."""

import numpy as np
import pandas
import pytest

from foldmark.core.metrics import HEADLINE_METRICS
from foldmark.show.charts import Curve, Panel, draw_curves, draw_ledger, draw_reliability, metric_panels

HOSTILE = ["$x$", "a $ b", "$\\frac{", "[old]", "x[/b]", "a\nb\x1b[31m", "你好", "\udcff"]


def metrics(epochs: int, seed: int) -> pandas.DataFrame:
    """A metrics.csv whose every second epoch has held-out scores."""
    random = np.random.default_rng(seed)
    table = pandas.DataFrame({"epoch": range(1, epochs + 1), "loss": random.uniform(1, 2, epochs)})
    for key in (*HEADLINE_METRICS, "train_mae_px", "mse", "train_mse"):
        table[key] = random.uniform(1, 2, epochs)
    table.loc[::2, list(HEADLINE_METRICS)] = np.nan
    return table


def test_curves_show_every_headline_metric_and_the_loss(tmp_path):
    curve = Curve("", [metrics(12, seed) for seed in range(3)])
    for file in ("first.svg", "second.svg"):
        draw_curves(tmp_path / file, metric_panels(curve))
    svg = (tmp_path / "first.svg").read_text()
    assert all(f"<!-- {metric.axis} -->" in svg for metric in HEADLINE_METRICS.values())
    assert "<!-- training loss -->" in svg
    assert "held out, mean" in svg
    assert svg == (tmp_path / "second.svg").read_text()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("log", [False, True])
def test_a_name_is_no_formula(tmp_path, recwarn, name, log):
    panel = Panel("MSE", [Curve(name, [metrics(1, 0)])], "mse", "train_mse", title=name, line=("mean face", 1.5))
    draw_curves(tmp_path / "curves.svg", [panel, panel], log=log)
    rows = [{"file": f"{name}{index}.csv", "oof_mae_px": f"{index}", "leaderboard": f"{index + 1}"} for index in range(3)]
    draw_ledger(tmp_path / "ledger.png", rows, {"oof_mae_px": "1.00"})
    assert not list(recwarn)
    if name.isascii() and name.isprintable():
        assert name.replace("<", "&lt;") in (tmp_path / "curves.svg").read_text()
    assert (tmp_path / "ledger.png").read_bytes().startswith(b"\x89PNG")


def test_the_reliability_diagram_names_its_bins_and_the_diagonal(tmp_path):
    table = pandas.DataFrame({"points": 10, "predicted": np.linspace(1, 3, 10), "observed": np.linspace(1, 4, 10)})
    draw_reliability(tmp_path / "reliability.svg", table)
    svg = (tmp_path / "reliability.svg").read_text()
    assert "<!-- perfect calibration -->" in svg
    assert "<!-- 10 bins -->" in svg
    draw_reliability(tmp_path / "reliability.png", table)
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
