"""Blends: the weights are right where the answer is known, and the figure that is printed does not flatter."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldmark.core.faces import Faces
from foldmark.core.metrics import face_nme
from foldmark.data.sets import find_data
from foldmark.ensemble.blend import fit_blend, fit_weights, weighted_sum
from tests.change_run import change_oof
from tests.conftest import assert_refused


def some_faces(count: int, rng: np.random.Generator) -> Faces:
    points_px = rng.uniform(0, 100, (count, 68, 2))
    points_px[:, 36], points_px[:, 45] = (20, 50), (80, 50)
    return Faces(
        Path(), [f"{row}.jpg" for row in range(count)], np.ones((count, 4)), points_px, np.zeros((count, 2)), [""] * count
    )


def predictions(faces: Faces, scatters: list[float], rng: np.random.Generator) -> np.ndarray:
    return np.stack([faces.points_px + rng.normal(0, scatter, faces.points_px.shape) for scatter in scatters])


def test_equally_good_predictions_weigh_the_same_and_a_useless_one_nothing():
    rng = np.random.default_rng(0)
    faces = some_faces(60, rng)
    weights = fit_weights(predictions(faces, [2, 2, 60], rng), faces)
    assert weights == pytest.approx([0.5, 0.5, 0], abs=0.02)


@given(seed=st.integers(0, 10_000), scatters=st.lists(st.floats(0.1, 20), min_size=2, max_size=4))
def test_fitted_weights_are_weights_and_beat_every_prediction_and_the_mean(seed, scatters):
    rng = np.random.default_rng(seed)
    faces = some_faces(8, rng)
    points_px = predictions(faces, scatters, rng)
    weights = fit_weights(points_px, faces)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    nme = face_nme(weighted_sum(points_px, weights), faces).mean()
    rivals = [*np.eye(len(scatters)), np.full(len(scatters), 1 / len(scatters))]
    assert all(nme <= face_nme(weighted_sum(points_px, rival), faces).mean() + 0.01 for rival in rivals)


def test_the_figure_is_nested():
    """Each fold's OOF points come from weights that never saw that fold: other truth there changes nothing."""
    rng = np.random.default_rng(1)
    faces, folds = some_faces(40, rng), np.arange(40) % 4
    points_px = predictions(faces, [2, 6], rng)
    first, first_px = fit_blend(points_px, faces, folds)
    assert first.fitted
    truth = faces.points_px.copy()
    truth[folds == 2] += rng.normal(0, 5, truth[folds == 2].shape)
    again, again_px = fit_blend(points_px, replace(faces, labels_px=truth), folds)
    assert np.array_equal(first_px[folds == 2], again_px[folds == 2])
    assert not np.array_equal(first_px[folds != 2], again_px[folds != 2])


def test_where_weights_do_not_help_the_plain_mean_is_taken():
    """Each fold has an experiment of its own that is right, so weights from the other folds are the worst there are."""
    rng = np.random.default_rng(2)
    faces, folds = some_faces(40, rng), np.arange(40) % 2
    points_px = predictions(faces, [10, 10], rng)
    for fold in (0, 1):
        points_px[fold, folds == fold] = faces.points_px[folds == fold]
    result, result_px = fit_blend(points_px, faces, folds)
    assert not result.fitted
    assert result.weights == pytest.approx([0.5, 0.5])
    assert np.array_equal(result_px, weighted_sum(points_px, result.weights))
    assert result.nme_nested > result.nme_mean


def test_one_experiment_is_itself():
    rng = np.random.default_rng(3)
    faces = some_faces(10, rng)
    points_px = predictions(faces, [3], rng)
    result, result_px = fit_blend(points_px, faces, np.arange(10) % 2)
    assert result.weights == pytest.approx([1])
    assert np.allclose(result_px, points_px[0])


@pytest.fixture
def two_configs(workplace) -> Path:
    """A folder of configs in which `both` blends two quick ones."""
    folder = workplace / "configs"
    folder.unlink()
    folder.mkdir()
    quick = "crop: {size: 32}\nfolds: {count: 2}\ntrain: {epochs: 1, batch: 8, lr: 1.0e-4}\n"
    for head in ("pool", "flat"):
        (folder / f"{head}.yaml").write_text(quick + f"model: {{name: cnn, channels: [8, 16], hidden: 32, head: {head}}}\n")
    (folder / "both.yaml").write_text("blend: [pool, flat]\n")
    return folder


def test_one_fold_leaves_no_other_to_fit_weights_on(foldmark, synthetic_root, two_configs):
    options = ["--data-root", synthetic_root, "--config", "both"]
    assert foldmark("train", *options, "--folds", "0").returncode == 0
    done = foldmark("csv", *options)
    assert done.returncode == 0, done.stderr
    assert "0.50 (equal, because one fold alone leaves no other to fit them on)" in done.stdout
    assert "nested" not in done.stdout


def test_a_blend_trains_predicts_and_is_rebuilt(foldmark, synthetic_root, two_configs, workplace):
    settings = ["--data-root", synthetic_root, "--config", "both"]
    done = foldmark("train", *settings)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (workplace / "runs").iterdir()} == {"pool-synthetic", "flat-synthetic"}
    done = foldmark("csv", *settings)
    assert done.returncode == 0, done.stderr
    assert "weights: pool-synthetic 0." in done.stdout
    csv = workplace / "submissions" / "both-synthetic.csv"
    assert len(csv.read_text().splitlines()) == 1 + 8 * 136
    done = foldmark("verify", csv, "--data-root", synthetic_root)
    assert done.returncode == 0, done.stderr
    assert "identical" in done.stdout


def test_a_blend_of_one_takes_the_run_of_that_one(foldmark, synthetic_root, two_configs, workplace):
    (two_configs / "chosen.yaml").write_text("blend: [pool]\n")
    settings = ["--data-root", synthetic_root]
    assert foldmark("train", *settings, "--config", "pool").returncode == 0
    done = foldmark("csv", *settings, "--config", "chosen")
    assert done.returncode == 0, done.stderr
    csv = workplace / "submissions/chosen-synthetic.csv"
    assert foldmark("csv", *settings, "--config", "pool").returncode == 0
    assert csv.read_bytes() == (workplace / "submissions/pool-synthetic.csv").read_bytes()
    for command in ("train", "report"):
        assert foldmark(command, *settings, "--config", "chosen").returncode == 0
    assert [path.name for path in (workplace / "runs").glob("*/fold0")] == ["fold0"]


def test_a_blend_of_other_folds_is_refused(foldmark, synthetic_root, two_configs):
    settings = ["--data-root", synthetic_root]
    assert foldmark("train", *settings, "--config", "pool", "--folds", "0").returncode == 0
    assert foldmark("train", *settings, "--config", "flat", "--folds", "1").returncode == 0
    assert_refused(foldmark("csv", *settings, "--config", "both"), "other faces", "the same folds")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("blend: pool\n", "a list of configs"),
        ("blend: []\n", "a list of configs"),
        ("blend: [pool, pool]\n", "names one config twice"),
        ("blend: [pool]\ntrain: {epochs: 2}\n", "train beside blend"),
        ("blend: [pool, flatt]\n", "did you mean flat?"),
        ("blend: [pool, both]\n", "is a blend"),
    ],
)
def test_a_blend_that_makes_no_sense_is_a_sentence(foldmark, two_configs, text, words):
    (two_configs / "both.yaml").write_text(text)
    assert_refused(foldmark("train", "--config", "both"), words)


def test_what_takes_one_config_refuses_a_blend(foldmark, two_configs):
    assert_refused(foldmark("model", "both"), "is a blend of", "name one")


def test_an_experiment_that_weighs_nothing_is_no_part_of_the_file(foldmark, synthetic_root, two_configs, workplace):
    (two_configs / "flat.yaml").write_text((two_configs / "pool.yaml").read_text() + "predict: {realign: 0, flip: false}\n")
    settings = ["--data-root", synthetic_root, "--config", "both"]
    assert foldmark("train", *settings).returncode == 0
    # The same nets, but what the second has predicted is far off.
    faces = find_data(synthetic_root, "ibug").train
    change_oof(workplace / "runs/flat-synthetic", faces, lambda points_px: points_px + 50)
    done = foldmark("csv", *settings)
    assert done.returncode == 0, done.stderr
    assert "not part of the file" in done.stdout
    record = json.loads((workplace / "submissions/both-synthetic.json").read_text())
    assert [experiment["name"] for experiment in record["experiments"]] == ["pool-synthetic"]
    assert not list((workplace / "runs/flat-synthetic").glob("fold*/test.npz"))
    assert foldmark("verify", workplace / "submissions/both-synthetic.csv", "--data-root", synthetic_root).returncode == 0
    alone = foldmark("csv", "--data-root", synthetic_root, "--config", "pool")
    assert alone.returncode == 0, alone.stderr
    assert (workplace / "submissions/both-synthetic.csv").read_bytes() == (
        workplace / "submissions/pool-synthetic.csv"
    ).read_bytes()
    labels = next(synthetic_root.rglob("*test*.xml"))
    done = foldmark("predict", labels, "--config", "both")
    assert done.returncode == 0, done.stderr
