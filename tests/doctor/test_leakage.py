"""What a plain KFold leaks is counted as it is, and our split leaks nothing."""

import json

import numpy as np
import pytest
from sklearn.model_selection import KFold

from foldmark.data.folds import group_faces, make_folds
from foldmark.data.twins import find_twins
from foldmark.doctor.leakage import count_leaks, make_plain_folds


def test_each_kind_of_leak_is_counted():
    groups = np.array([0, 0, 1, 1, 2])
    twins = np.array([1, 0, -1, -1, -1])
    assert count_leaks(np.array([0, 0, 1, 1, 0]), groups, twins) == {"mirror twin": 0, "photo, twin or copy": 0}
    assert count_leaks(np.array([0, 1, 1, 1, 0]), groups, twins) == {"mirror twin": 2, "photo, twin or copy": 2}
    assert count_leaks(np.array([0, 0, 0, 1, 0]), groups, twins) == {"mirror twin": 0, "photo, twin or copy": 2}


def test_on_real_faces_a_plain_kfold_has_trained_on_most_twins_and_ours_on_none(real_faces):
    groups, twins = group_faces(real_faces), find_twins(real_faces)
    plain = count_leaks(make_plain_folds(5, 0, len(real_faces)), groups, twins)
    # A twin is in another of five folds four times out of five.
    assert plain["mirror twin"] == pytest.approx(0.8 * len(real_faces), rel=0.05)
    assert not any(count_leaks(make_folds(real_faces, groups, 5, 0), groups, twins).values())


@pytest.mark.parametrize(("count", "faces"), [(2, 2), (5, 48), (7, 100)])
def test_the_plain_folds_are_those_of_scikit_learn(count, faces):
    folds = make_plain_folds(count, 3, faces)
    for fold, (_, rows) in enumerate(KFold(count, shuffle=True, random_state=3).split(np.zeros(faces))):
        assert np.array_equal(np.flatnonzero(folds == fold), rows)


def test_faces_that_are_never_held_out_do_not_count():
    groups, twins = np.array([0, 0, 1, 1]), np.array([1, 0, 3, 2])
    assert count_leaks(np.array([0, -1, -1, -1]), groups, twins) == {"mirror twin": 1, "photo, twin or copy": 1}


def test_the_doctor_shows_what_a_plain_kfold_would_leak_and_what_ours_does(foldmark, synthetic_root, workplace):
    done = foldmark("check", "--data-root", synthetic_root, "--set", "folds.count=5")
    assert done.returncode == 0, done.stderr
    assert "0 of 48" in done.stdout
    assert "plain KFold" in done.stdout
    leakage = json.loads((workplace / "runs/check/check.json").read_text())["leakage"]
    assert leakage["Foldmark"] == {"mirror twin": 0, "photo, twin or copy": 0}
    assert leakage["plain KFold"]["mirror twin"] > 20
