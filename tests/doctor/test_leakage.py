"""What a plain KFold leaks is counted as it is, and our split leaks nothing."""

import numpy as np
import pytest

from foldmark.data.folds import group_faces, make_folds, read_split
from foldmark.data.twins import find_twins
from foldmark.doctor.leakage import leaks, plain_folds


def test_each_kind_of_leak_is_counted():
    groups = np.array([0, 0, 1, 1, 2])
    twins = np.array([1, 0, -1, -1, -1])
    assert leaks(np.array([0, 0, 1, 1, 0]), groups, twins) == {"mirror twin": 0, "photo, twin or copy": 0}
    assert leaks(np.array([0, 1, 1, 1, 0]), groups, twins) == {"mirror twin": 2, "photo, twin or copy": 2}
    assert leaks(np.array([0, 0, 0, 1, 0]), groups, twins) == {"mirror twin": 0, "photo, twin or copy": 2}


def test_on_real_faces_a_plain_kfold_has_trained_on_most_twins_and_ours_on_none(real_faces):
    groups, twins = group_faces(real_faces), find_twins(real_faces)
    plain = leaks(plain_folds(5, 0, len(real_faces)), groups, twins)
    # A twin is in another of five folds four times out of five.
    assert plain["mirror twin"] == pytest.approx(0.8 * len(real_faces), rel=0.05)
    assert not any(leaks(make_folds(real_faces, groups, 5, 0), groups, twins).values())


def test_the_command_counts_and_writes_a_plain_split_to_measure_with(foldmark, synthetic_root, workplace):
    done = foldmark("leakage", "--data-root", synthetic_root, "--set", "folds.count=5")
    assert done.returncode == 0, done.stderr
    assert "0 of 48" in done.stdout
    assert "plain KFold" in done.stdout
    from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug

    faces = read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)
    folds = read_split(workplace / "runs/leakage/plain-kfold.csv", faces)
    assert sorted(np.bincount(folds)) == [9, 9, 10, 10, 10]
