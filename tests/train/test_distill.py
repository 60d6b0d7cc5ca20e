"""Distillation: a net learns from teachers that have seen neither the face nor what it is judged on."""

import re
import shutil

import numpy as np
import pytest
import yaml

from foldmark.data.folds import read_split
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.runs.run_folder import RunFolder
from tests.commandline import run_in_process
from tests.conftest import QUICK, REPOSITORY, assert_refused

SETTINGS = QUICK.replace("folds.count=2", "folds.count=3")
LEARNER = f"{SETTINGS} folds.file=runs/a/split.csv"


@pytest.fixture(scope="module")
def distilled(synthetic_root, tmp_path_factory):
    """A folder where "a" was trained and distilled for fold 1; and what the command printed."""
    folder = tmp_path_factory.mktemp("distilled")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    for command, options in (("train", []), ("distill", ["--folds", "1"])):
        done = foldmark(folder, command, synthetic_root, "a", SETTINGS, *options)
        assert done.returncode == 0, done.stderr
    return folder, done.stdout


def foldmark(folder, command, root, name, settings, *options):
    return run_in_process(folder, command, "--data-root", root, "--name", name, "--set", settings, "--device", "cpu", *options)


def oof_of(folder, run, fold, faces):
    rows, prediction = RunFolder(folder / "runs" / run).fold(fold).read_oof(faces)
    return rows, prediction.points_px


@pytest.fixture(scope="module")
def faces(synthetic_root):
    return read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)


def test_teachers_neither_learn_nor_hold_out_the_fold_that_is_judged(distilled, faces):
    folder, _ = distilled
    teachers = RunFolder(folder / "runs/a-teachers1")
    assert [fold.number for fold in teachers.finished] == [0, 2]
    split = read_split(teachers.split_file, faces)
    assert np.array_equal(split, read_split(RunFolder(folder / "runs/a").split_file, faces))
    for fold in teachers.finished:
        assert set(split[fold.read_oof(faces)[0]]) == {fold.number}


def test_the_faces_left_out_change_no_weight_of_a_teacher(distilled, synthetic_root, faces, tmp_path):
    # Other labels for the left-out fold: a teacher that had seen one would differ.
    folder, _ = distilled
    root = shutil.copytree(synthetic_root, tmp_path / "set")
    split = read_split(RunFolder(folder / "runs/a").split_file, faces)
    xml = root / IBUG_FOLDER / TRAIN_XML
    text = xml.read_text().split("<image ")
    left_out = [split[faces.pictures.index(part.split("'")[1])] == 1 for part in text[1:]]
    moved = [_move_points(part) if out else part for part, out in zip(text[1:], left_out, strict=True)]
    assert sum(left_out) > 10
    xml.write_text("<image ".join([text[0], *moved]))
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    settings = f"{SETTINGS} folds.file={folder / 'runs/a/split.csv'} folds.leave_out=1"
    done = foldmark(tmp_path, "train", root, "t", settings, "--folds", "0")
    assert done.returncode == 0, done.stderr
    ours, theirs = (oof_of(where, run, 0, faces)[1] for where, run in ((tmp_path, "t"), (folder, "a-teachers1")))
    assert np.array_equal(ours, theirs)


def _move_points(part: str) -> str:
    return re.sub(r" x='([-.0-9]+)'", lambda found: f" x='{float(found[1]) + 5:.2f}'", part)


def test_the_table_compares_ensemble_distilled_and_plain_net_on_that_fold(distilled, faces):
    folder, printed = distilled
    assert "ensemble of 2 teachers" in printed
    plain = RunFolder(folder / "runs/a").fold(1).require_summary()
    learner = RunFolder(folder / "runs/a-distilled1").fold(1).require_summary()
    for summary in (plain, learner):
        assert f"{summary['nme']:.3f}" in printed
    assert oof_of(folder, "a-distilled1", 1, faces)[0].tolist() == oof_of(folder, "a", 1, faces)[0].tolist()


def test_distilling_again_trains_nothing_and_says_the_same(distilled, synthetic_root):
    folder, printed = distilled
    checkpoints = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/fold*/last.pt")}
    again = foldmark(folder, "distill", synthetic_root, "a", SETTINGS, "--folds", "1")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/fold*/last.pt")} == checkpoints
    table = [line for line in printed.splitlines() if "net" in line and "%" not in line]
    assert all(line in again.stdout for line in table)


def test_without_a_share_of_the_teachers_the_net_is_the_plain_one_to_the_last_bit(distilled, synthetic_root, faces):
    folder, _ = distilled
    points = {}
    for share in (0, 1):
        settings = f"{LEARNER} train.teacher=[a-teachers1] train.teacher_share={share}"
        done = foldmark(folder, "train", synthetic_root, f"share{share}", settings, "--folds", "1")
        assert done.returncode == 0, done.stderr
        points[share] = oof_of(folder, f"share{share}", 1, faces)[1]
    plain = oof_of(folder, "a", 1, faces)[1]
    assert np.array_equal(points[0], plain)
    assert not np.array_equal(points[1], plain)


def test_a_teacher_that_has_seen_the_fold_or_is_not_trained_is_refused(distilled, synthetic_root):
    folder, _ = distilled
    for number, (teacher, fold, words) in enumerate(
        [
            ("a", "1", ["train.teacher: a", "have seen faces that fold 1 holds out", "folds.leave_out=1"]),
            ("a-teachers1", "0", ["train.teacher: a-teachers1", "have seen faces that fold 0 holds out"]),
            ("nobody", "1", ["train.teacher: nobody", "no finished fold"]),
            ("a-distilled1", "1", ["have seen faces"]),
        ]
    ):
        done = foldmark(folder, "train", synthetic_root, f"x{number}", f"{LEARNER} train.teacher=[{teacher}]", "--folds", fold)
        assert_refused(done, *words)


def test_a_fold_that_is_left_out_cannot_be_trained(distilled, synthetic_root):
    folder, _ = distilled
    assert yaml.safe_load((folder / "runs/a-teachers1/config.yaml").read_text())["folds"]["leave_out"] == 1
    settings = f"{LEARNER} folds.leave_out=1"
    assert_refused(foldmark(folder, "train", synthetic_root, "y", settings, "--folds", "1"), 'FOLDS="1"', "leaves out")


def test_a_run_of_its_own_settings_is_exported_by_its_name_alone(distilled, synthetic_root):
    pytest.importorskip("onnxscript", reason="make export installs onnx, onnxscript and onnxruntime")
    folder, _ = distilled
    done = run_in_process(folder, "export", "--data-root", synthetic_root, "--name", "a-distilled1")
    assert done.returncode == 0, done.stderr
    assert (folder / "exports/a-distilled1-int8.onnx").is_file()
