"""The course's parts as their users type them: everything they must show is made, and nothing is trained twice."""

import csv
import json
import re

import numpy as np
import pytest

from foldmark.core.metrics import compute_scores, mean_face_px
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.data.imm import find_imm, read_imm
from foldmark.report.reasons import explain_faces
from foldmark.synthetic.imm import write_synthetic_imm
from tests.conftest import assert_refused

TINY = "train.epochs=2 train.batch=4"


@pytest.fixture(scope="module")
def synthetic_imm_root(tmp_path_factory):
    """Nine synthetic people in six views each."""
    root = tmp_path_factory.mktemp("imm")
    write_synthetic_imm(root, people=9, seed=2)
    return root


@pytest.mark.parametrize(
    ("part", "settings", "figures"),
    [
        (
            "part1",
            TINY + " crop.size=[48,36]",
            {"samples.png", "curves-mse.png", "varied-learning-rate.png", "varied-kernel.png", "best-1.png"},
        ),
        (
            "part2",
            TINY + " crop.size=[48,36] predict.realign=0 model.channels=[8,8,8]",
            {"augmented.png", "curves-mse_crop.png", "worst-4.png", "filters-conv1.png", "filters-conv2.png"},
        ),
    ],
)
def test_a_part_makes_all_it_must_show(foldmark, synthetic_imm_root, workplace, part, settings, figures):
    arguments = [part, "--data-root", synthetic_imm_root, "--set", settings]
    done = foldmark(*arguments)
    assert done.returncode == 0, done.stderr
    assert "NO REAL FACES" in done.stdout
    assert f"Next: make {'part2' if part == 'part1' else 'train'} DATA_ROOT={synthetic_imm_root}" in done.stdout
    folder = workplace / f"runs/{part}-synthetic"
    assert figures <= {path.name for path in (folder / "figures").iterdir()}
    rows = {row["setting"]: row for row in csv.DictReader((folder / "results.csv").open())}
    assert set(rows) == {"mean face", "report", "ours"}
    # The table's mean is that of the three seeds' own figures.
    ends = [json.loads((folder / f"ours-seed{seed}/fold0/summary.json").read_text())["mse"] for seed in range(3)]
    assert float(rows["ours"]["relative MSE"].split()[0]) == pytest.approx(np.mean(ends), abs=1e-5)
    page = (folder / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("<img") >= len(figures)
    assert str(folder.relative_to(workplace) / "index.html") in done.stdout

    weights = folder / "ours-seed2/fold0/last.pt"
    before = weights.stat().st_mtime_ns
    again = foldmark(*arguments)
    assert again.returncode == 0, again.stderr
    assert "epoch" not in again.stdout
    assert weights.stat().st_mtime_ns == before


def test_bad_settings_of_a_part_are_refused(foldmark, synthetic_imm_root, workplace):
    assert_refused(foldmark("part1", "--data-root", "nowhere"), "nowhere", "no such folder")
    assert_refused(foldmark("part1", "--data-root", synthetic_imm_root, "--set", "predict.realign=1"), "realign", "one point")
    assert not (workplace / "runs").exists()


def test_imm_has_no_competition_file(foldmark, synthetic_imm_root, workplace):
    settings = [*("--data-root", synthetic_imm_root), "--config", "part1", "--set", TINY]
    assert foldmark("train", *settings).returncode == 0
    assert_refused(foldmark("csv", *settings), "no test list")


def test_a_short_training_beats_the_mean_face(foldmark, real_root, workplace):
    settings = ["--data-root", real_root, "--config", "part1", "--name", "short", "--set", "train.epochs=8"]
    done = foldmark("train", *settings)
    assert done.returncode == 0, done.stderr
    faces = read_imm(find_imm(real_root)).pick_points([52])
    held_out = np.array([int(person) > 32 for person in faces.groups])
    mean_face = compute_scores(mean_face_px(faces.take(~held_out), faces.take(held_out)), faces.take(held_out))
    assert mean_face["mse"] == pytest.approx(0.0051, abs=1e-4)
    summary = json.loads((workplace / "runs/short/fold0/summary.json").read_text())
    assert summary["faces"] == 48
    assert summary["mse"] < 0.7 * mean_face["mse"]


def test_the_reason_names_what_was_changed(synthetic_root):
    """A face made large, or turned, is said to be so."""
    faces = read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)
    greys = np.tile([120.0, 40.0], (len(faces), 1)) + np.random.default_rng(0).normal(size=(len(faces), 2))
    points_px, boxes_px = faces.points_px.copy(), faces.boxes_px
    centre = points_px[0].mean(axis=0)
    points_px[0] = centre + 3 * (points_px[0] - centre)
    turn = np.deg2rad(60)
    points_px[1] = (points_px[1] - centre) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + centre
    greys[2] = [250, 40]
    from dataclasses import replace

    changed = replace(faces, labels_px=points_px, boxes_px=boxes_px, eye_distances_px=None)
    large, tilted, bright = explain_faces(changed, greys, np.arange(3, len(faces)), np.arange(3))
    assert "face larger than usual" in large
    assert "head tilted" in tilted
    assert "bright picture" in bright
