"""Uncertainty: calibrated where the truth is known, it says what the error is, and points at the faces that are wrong."""

from pathlib import Path

import numpy as np
import pytest

from foldmark.core.faces import Faces
from foldmark.ensemble.calibration import calibrate, measure_reliability, rank_uncertain_faces


@pytest.fixture
def predicted():
    """400 faces in boxes of many sizes whose coordinates err by twice what their spread says."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(50, 500, 400)
    truth = rng.uniform(0, 1, (400, 68, 2)) * sides[:, None, None]
    boxes = np.column_stack([np.zeros((400, 2)), sides, sides * 0.9])
    names = [f"{row}.jpg" for row in range(400)]
    faces = Faces(Path(), names, boxes, truth, np.zeros((400, 2)), names)
    spread_px = rng.uniform(0.002, 0.02, (400, 68)) * sides[:, None]
    points_px = truth + rng.normal(size=truth.shape) * 2 * spread_px[..., None]
    return faces, points_px, spread_px


def test_the_standard_deviation_is_that_of_a_coordinate(predicted):
    faces, points_px, spread_px = predicted
    std_px = calibrate(spread_px, points_px, faces).std_px(spread_px, faces)
    assert np.median(np.abs(std_px / (2 * spread_px) - 1)) < 0.1


def test_what_is_predicted_is_observed_on_the_other_folds(predicted):
    faces, points_px, spread_px = predicted
    table = measure_reliability(spread_px, points_px, faces, np.arange(400) % 5)
    assert table["points"].sum() == 400 * 68
    assert np.abs(table["predicted"] / table["observed"] - 1).max() < 0.1
    assert table["observed"].iloc[-1] > 4 * table["observed"].iloc[0]


def test_a_spread_that_means_nothing_gives_one_standard_deviation_for_all(predicted):
    faces, points_px, spread_px = predicted
    shuffled = np.random.default_rng(1).permutation(spread_px.ravel()).reshape(spread_px.shape)
    table = measure_reliability(shuffled, points_px, faces, np.arange(400) % 5)
    assert table["predicted"].max() < 2 * table["predicted"].min()


def test_the_most_uncertain_face_comes_first(predicted):
    faces, _, spread_px = predicted
    std_px = np.full_like(spread_px, 1.0) * faces.boxes_px[:, 2:3] / 100
    std_px[7] *= 3
    std_px[7, faces.markup.regions["jaw"]] *= 2
    table = rank_uncertain_faces(std_px, faces)
    assert table["picture"].iloc[0] == "7.jpg"
    assert table["worst_region"].iloc[0] == "jaw"
    assert table["first_id"].iloc[0] == 7 * 136
    assert len(table) == 400
