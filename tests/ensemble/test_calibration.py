"""Uncertainty: calibrated where the truth is known, it says what the error is, and points at the faces that are wrong."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foldmark.core.faces import Faces
from foldmark.core.prediction import Prediction
from foldmark.ensemble.calibration import (
    box_sides,
    calibrate,
    describe_list,
    measure_reliability,
    predict_held_out_std,
    rank_uncertain_faces,
)
from foldmark.ensemble.fit import EnsembleFit
from foldmark.ensemble.oof import Oof


@pytest.fixture
def oof():
    """400 faces in boxes of many sizes whose coordinates err by twice what their spread says, or ten times the votes'."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(50, 500, 400)
    truth = rng.uniform(0, 1, (400, 68, 2)) * sides[:, None, None]
    boxes = np.column_stack([np.zeros((400, 2)), sides, sides * 0.9])
    names = [f"{row}.jpg" for row in range(400)]
    faces = Faces(Path(), names, boxes, truth, np.zeros((400, 2)), names)
    spread_px = rng.uniform(0.002, 0.02, (400, 68)) * sides[:, None]
    points_px = truth + rng.normal(size=truth.shape) * 2 * spread_px[..., None]
    return Oof(np.arange(400), np.arange(400) % 5, Prediction(points_px, spread_px, np.zeros_like(spread_px)), faces)


def test_the_standard_deviation_is_that_of_a_coordinate(oof):
    std_px = calibrate(oof.prediction, oof.faces).std_px(oof.prediction, box_sides(oof.faces))
    assert np.median(np.abs(std_px / (2 * oof.prediction.spread_px) - 1)) < 0.1


def test_what_is_predicted_is_observed_on_the_other_folds(oof):
    table = measure_reliability(oof, predict_held_out_std(oof))
    assert table["points"].sum() == 400 * 68
    assert np.abs(table["predicted"] / table["observed"] - 1).max() < 0.1
    assert table["observed"].iloc[-1] > 4 * table["observed"].iloc[0]


def shuffled(values):
    return np.random.default_rng(1).permutation(values.ravel()).reshape(values.shape)


def test_a_spread_that_means_nothing_gives_one_standard_deviation_for_all(oof):
    blind = replace(oof, prediction=replace(oof.prediction, spread_px=shuffled(oof.prediction.spread_px)))
    table = measure_reliability(blind, predict_held_out_std(blind))
    assert table["predicted"].max() < 2 * table["predicted"].min()


def test_votes_say_what_the_spread_does_not(oof):
    spread_px = oof.prediction.spread_px
    votes = Prediction(oof.points_px, shuffled(spread_px), spread_px / 5)
    std_px = predict_held_out_std(replace(oof, prediction=votes))
    assert np.median(np.abs(std_px / (2 * spread_px) - 1)) < 0.1


def test_a_face_of_which_the_models_are_as_unsure_as_of_none_is_unlike_them(oof):
    votes_px = oof.prediction.spread_px
    fitted = calibrate(replace(oof.prediction, votes_px=votes_px), oof.faces)
    for strange in ({"spread_px": 10 * votes_px, "votes_px": votes_px}, {"votes_px": 10 * votes_px}):
        assert fitted.find_unlike(replace(oof.prediction, **strange), box_sides(oof.faces)).all()
    usual = fitted.find_unlike(replace(oof.prediction, votes_px=votes_px), box_sides(oof.faces))
    assert 0 < usual.sum() <= 4
    # Of models without votes, and of those that an earlier version trained, nothing is known about them.
    without = calibrate(oof.prediction, oof.faces)
    assert not without.find_unlike(replace(oof.prediction, votes_px=10 * votes_px), box_sides(oof.faces))[~usual].any()


def test_the_list_finds_the_bad_faces_and_the_sentence_says_how_many(oof):
    worse = np.where(np.arange(400) < 20, 8.0, 1.0)[:, None]
    off = (oof.points_px - oof.faces.points_px) * worse[..., None]
    bad = replace(oof, prediction=replace(oof.prediction, points_px=oof.faces.points_px + off))
    known = replace(bad, prediction=replace(bad.prediction, spread_px=bad.prediction.spread_px * worse))
    assert "100 % of the worst 5 % stand in its first 10 %" in describe_list(known, predict_held_out_std(known))
    assert " 100 % " not in describe_list(bad, predict_held_out_std(bad))
    assert "calibrated on the other folds" in describe_list(known, predict_held_out_std(known))
    one_fold = replace(known, folds=np.zeros_like(known.folds))
    assert "which flatters" in describe_list(one_fold, predict_held_out_std(one_fold))


def test_the_most_uncertain_face_comes_first(oof):
    faces, sides = oof.faces, box_sides(oof.faces)
    points_px = oof.faces.points_px.copy()
    points_px[:, 36], points_px[:, 45] = 0, 0.5 * sides * [1, 0]
    std_px = np.full((400, 68), 1.0) * sides / 100
    std_px[7] *= 3
    std_px[7, faces.markup.regions["jaw"]] *= 2
    unlike = np.arange(400) == 9
    table = rank_uncertain_faces(std_px, unlike, points_px, faces)
    assert table["picture"].iloc[0] == "7.jpg"
    assert table["worst_region"].iloc[0] == "jaw"
    assert table["first_id"].iloc[0] == 7 * 136
    assert table["std_percent"].iloc[-1] == pytest.approx(2)
    assert table["picture"][table["unlike_training"] == "yes"].tolist() == ["9.jpg"]
    assert len(table) == 400


def test_a_calibration_of_an_earlier_version_is_read(oof):
    """It kept the variance as a curve over the spread, both relative to the box."""
    spread = [0.001, 0.01, 0.02]
    stored = {
        "members": [{"run": "a", "weight": 1, "folds": "x"}],
        "calibration": {"spread": spread, "variance": [1e-6, 4e-4, 1e-3]},
    }
    fitted = EnsembleFit.model_validate_json(json.dumps(stored)).read_calibration()
    sides = box_sides(oof.faces)
    prediction = replace(oof.prediction, spread_px=np.full((400, 68), 0.01) * sides)
    assert fitted.std_px(prediction, sides) == pytest.approx(np.full((400, 68), 0.02) * sides)
    assert not fitted.find_unlike(prediction, sides).any()
