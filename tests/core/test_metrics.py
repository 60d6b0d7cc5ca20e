"""The table of metrics: each is what its name says, and every figure comes from it."""

import numpy as np
import pytest

from foldmark.core.metrics import HEADLINE_METRICS, METRICS, TABLE_METRICS, compute_scores, format_scores
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug


@pytest.fixture(scope="module")
def faces(synthetic_root):
    return read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)


@pytest.fixture(scope="module")
def points_px(faces):
    """The truth of half of the faces, and points off by 3 px to the right and 4 px down on the others."""
    off = np.zeros_like(faces.points_px)
    off[::2] = 3, 4
    return faces.points_px + off


def test_each_metric_is_what_its_name_says(faces, points_px):
    found = compute_scores(points_px, faces)
    nme = np.where(np.arange(len(faces)) % 2, 0, 500 / faces.eye_distance_px)
    assert found["mae_px"] == pytest.approx(3.5 / 2)
    assert found["nme"] == pytest.approx(nme.mean())
    assert found["median_nme"] == pytest.approx(np.median(nme))
    assert found["failure_rate"] == pytest.approx(100 * (nme > 8).mean())
    relative = np.square([3, 4] / faces.boxes_px[::2, 2:]).mean()
    assert found["mse"] == pytest.approx(relative / 2)


def test_a_mean_metric_is_the_mean_of_its_faces(faces, points_px):
    for key, metric in METRICS.items():
        if metric.reduce is np.mean:
            assert metric.of_faces(points_px, faces).mean() == pytest.approx(compute_scores(points_px, faces)[key])


def test_figures_are_written_with_their_label_unit_and_digits():
    assert set(HEADLINE_METRICS) <= set(TABLE_METRICS) <= set(METRICS)
    assert format_scores({"mae_px": 3.214, "nme": 4.999, "mse": 1}) == "MAE 3.21 px, NME 5.00 %"
    assert (METRICS["nme"].title, METRICS["nme"].axis, METRICS["mse"].format(1 / 3)) == ("NME %", "NME (%)", "0.33333")
