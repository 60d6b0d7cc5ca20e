"""Distillation: a net learns from teachers that have seen neither the face nor what it is judged on; what is measured, and what
is taken away."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import foldmark as foldmark_api
from foldmark.cluster.replay import Replay
from foldmark.cluster.task import FoldTask, describe_store, make_run_task, pack, read_pixels
from foldmark.cluster.worker import train as work
from foldmark.core import geometry
from foldmark.core.errors import UserError
from foldmark.core.metrics import compute_scores
from foldmark.data.folds import read_split
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML, read_ibug
from foldmark.data.sets import find_data
from foldmark.ensemble.nested import check_taught, read_nested
from foldmark.ensemble.oof import read_oof
from foldmark.models.checkpoint import load_checkpoint
from foldmark.runs.fold_folder import ALL_FACES
from foldmark.runs.places import Places
from foldmark.runs.run import open_run
from foldmark.runs.run_folder import RunFolder
from foldmark.synthetic.ibug import write_synthetic_faces
from foldmark.train.fold_data import prepare_fold
from tests.commandline import run_in_process
from tests.conftest import QUICK, REPOSITORY, assert_refused

SETTINGS = QUICK.replace("folds.count=2", "folds.count=3")
LEARNER = f"{SETTINGS} folds.file=runs/a/split.csv"


@pytest.fixture(scope="module")
def distilled(synthetic_root, tmp_path_factory):
    """A folder where "a" was trained and distilled, judged on fold 1; and what the command printed."""
    folder = tmp_path_factory.mktemp("distilled")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    for command, options in (("train", []), ("distill", ["--folds", "1"])):
        done = foldmark(folder, command, synthetic_root, "a", SETTINGS, *options)
        assert done.returncode == 0, done.stderr
    return folder, done.stdout


def foldmark(folder, command, root, name, settings, *options):
    return run_in_process(folder, command, "--data-root", root, "--name", name, "--set", settings, "--device", "cpu", *options)


def foldmark_options(folder, command, root, name, settings, *options):
    return run_in_process(folder, command, "--data-root", root, "--name", name, "--set", settings, *options)


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
    nested = read_nested(RunFolder(folder / "runs/a-distilled").nested_file)
    for net, summary in zip(nested.nets[1:], (learner, plain), strict=True):
        assert net.nme == pytest.approx(summary["nme"])
        assert net.interval[0] < net.nme < net.interval[1]
        assert f"{summary['nme']:.3f} (" in printed
    assert (nested.fold, nested.faces) == (1, plain["faces"])
    gained = "the ensemble taught it" if learner["nme"] < plain["nme"] else "learning from the ensemble gained nothing here"
    assert f"distilled net against plain net: {learner['nme'] - plain['nme']:+.3f} (" in printed
    assert gained in " ".join(printed.split())
    assert oof_of(folder, "a-distilled1", 1, faces)[0].tolist() == oof_of(folder, "a", 1, faces)[0].tolist()


def open_net(folder, root):
    """The run of the net that learned all faces, and what it learned."""
    places = Places(folder)
    config = RunFolder(places.run("a-distilled")).read_config()
    run = open_run(places, "a-distilled", config, find_data(root, "ibug"))
    return run, prepare_fold(run, ALL_FACES)


def test_the_net_to_take_away_learns_every_face_half_from_nets_that_had_not_seen_it(distilled, synthetic_root, faces):
    folder, _ = distilled
    run, data = open_net(folder, synthetic_root)
    assert data.training_rows.tolist() == list(range(len(faces)))
    assert not len(data.held_out_rows)
    oof = read_oof(RunFolder(folder / "runs/a"), faces)
    learned_px = geometry.apply(geometry.invert(run.store.px_to_store), data.points_store)
    assert learned_px == pytest.approx((faces.points_px + oof.points_px) / 2)


def test_the_net_to_take_away_has_no_figure_and_every_command_says_so(distilled, synthetic_root):
    folder, printed = distilled
    net = RunFolder(folder / "runs/a-distilled").fold(ALL_FACES)
    assert not net.oof_file.exists()
    assert not {"nme", "mae_px", "faces"} & set(net.require_summary())
    assert all(row["nme"] is None for row in net.read_epochs())
    assert "it learned all faces, so it has no figure of its own; a net made in the same way (a-distilled1 fold 1)" in printed
    for command in ("csv", "report"):
        done = foldmark_options(folder, command, synthetic_root, "a-distilled", SETTINGS)
        assert_refused(done, "a-distilled: its net learned all faces, so no out-of-fold figure of it exists")
    done = run_in_process(folder, "compare", "--data-root", synthetic_root)
    assert "not compared: runs/a-distilled: its net learned all faces" in " ".join((done.stdout + done.stderr).split())
    assert "a-distilled " not in (folder / "runs/compare.csv").read_text()


def test_the_report_shows_the_nested_figures_and_links_the_demo_page(distilled, synthetic_root):
    folder, _ = distilled
    (folder / "exports").mkdir(exist_ok=True)
    (folder / "exports/a-demo.html").write_text("<!doctype html>")
    done = foldmark_options(folder, "report", synthetic_root, "a", SETTINGS)
    assert done.returncode == 0, done.stderr
    page = (folder / "runs/a/report.html").read_text()
    assert "Distilled net" in page
    assert "it has no figure of its own" in page
    assert 'href="../../exports/a-demo.html"' in page


def test_the_net_to_take_away_predicts_with_the_calibration_of_the_nested_one(distilled, synthetic_root):
    folder, _ = distilled
    net, learner = (foldmark_api.load(folder / "runs" / name, device="cpu") for name in ("a-distilled", "a-distilled1"))
    assert [len(member.models) for member in net.members] == [1]
    assert all(np.array_equal(one, vars(learner.calibration)[key]) for key, one in vars(net.calibration).items())
    test = read_ibug(synthetic_root / IBUG_FOLDER / TEST_XML, with_points=False)
    points, _ = net.predict(test.path(0), test.boxes_px[:1])
    assert not np.array_equal(points, learner.predict(test.path(0), test.boxes_px[:1])[0])


def test_distilling_again_trains_nothing_and_what_was_interrupted_ends_the_same(distilled, synthetic_root, tmp_path):
    before, printed = distilled
    folder = Path(shutil.copytree(before, tmp_path / "work", symlinks=True))
    checkpoints = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*/last.pt")}
    assert len(checkpoints) == 7
    again = foldmark(folder, "distill", synthetic_root, "a", SETTINGS, "--folds", "1")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*/last.pt")} == checkpoints
    table = [line.rstrip() for line in printed.splitlines() if line.startswith((" ensemble", " distilled", " plain"))]
    assert len(table) == 3
    assert all(line in again.stdout for line in table)
    # Killed before the first checkpoint, and between the last one and what comes after it.
    shutil.rmtree(folder / "runs/a-distilled1")
    net = RunFolder(folder / "runs/a-distilled")
    net.fold(ALL_FACES).summary_file.unlink()
    net.nested_file.unlink()
    net.ensemble_file.unlink()
    again = foldmark(folder, "distill", synthetic_root, "a", SETTINGS, "--folds", "1")
    assert again.returncode == 0, again.stderr
    for file in ("a-distilled1/fold1/last.pt", "a-distilled/all/last.pt"):
        one, other = (load_checkpoint(where / "runs" / file)["averaged"] for where in (before, folder))
        assert all(torch.equal(one[key], other[key]) for key in one)
    for file in ("nested.json", "ensemble.json"):
        assert (folder / "runs/a-distilled" / file).read_text() == (before / "runs/a-distilled" / file).read_text()


def test_what_the_teachers_say_cannot_change_while_a_net_learns(distilled, synthetic_root, tmp_path):
    folder = Path(shutil.copytree(distilled[0], tmp_path / "work", symlinks=True))
    net, teacher = RunFolder(folder / "runs/a-distilled").fold(ALL_FACES), RunFolder(folder / "runs/a").fold(0)
    net.summary_file.unlink()
    RunFolder(folder / "runs/a-distilled").nested_file.unlink()  # is written when the net is finished
    run, _ = open_net(folder, synthetic_root)
    rows, prediction = teacher.read_oof(run.faces)
    moved, held_out = prediction.points_px + 1, run.faces.take(rows)
    teacher.write_oof(held_out, replace(prediction, points_px=moved))
    summary = {**json.loads(teacher.summary_file.read_text()), **compute_scores(moved, held_out)}
    summary["files"].pop("oof.npz")
    teacher.summary_file.write_text(json.dumps(summary))
    done = foldmark(folder, "distill", synthetic_root, "a", SETTINGS, "--folds", "1")
    assert_refused(done, "a-distilled/all/last.pt", "other points of its teachers")


def test_a_net_whose_teachers_were_trained_anew_is_neither_kept_nor_exported(distilled, synthetic_root, faces, tmp_path):
    pytest.importorskip("onnxscript", reason="make export installs onnx, onnxscript and onnxruntime")
    folder = Path(shutil.copytree(distilled[0], tmp_path / "work", symlinks=True))
    shutil.rmtree(folder / "exports", ignore_errors=True)  # another test's
    shutil.rmtree(folder / "runs/a/fold0")
    assert foldmark(folder, "train", synthetic_root, "a", SETTINGS).returncode == 0
    # The same settings give the same teachers to the bit.
    again = foldmark(folder, "distill", synthetic_root, "a", SETTINGS, "--folds", "1")
    assert again.returncode == 0, again.stderr
    shutil.rmtree(folder / "runs/a")
    other = SETTINGS.replace("folds.count", "train.seed=7 folds.count")
    assert foldmark(folder, "train", synthetic_root, "a", other).returncode == 0
    refused = ("runs/a-distilled", "other nets", "runs/a holds now", "make distill")
    assert_refused(foldmark(folder, "distill", synthetic_root, "a", other, "--folds", "1"), *refused)
    for name in ("a", "a-distilled"):
        assert_refused(run_in_process(folder, "export", "--data-root", synthetic_root, "--name", name), *refused)
    assert not (folder / "exports").exists()
    done = run_in_process(folder, "report", "--data-root", synthetic_root, "--name", "a")
    assert "left out: Distilled net (runs/a-distilled: learned from other nets" in " ".join(done.stdout.split())
    # Without its teachers the net is whole.
    shutil.rmtree(folder / "runs/a")
    check_taught(RunFolder(folder / "runs/a-distilled"), RunFolder(folder / "runs/a"), faces)


def test_a_worker_that_has_no_run_of_the_teachers_trains_the_same_net(distilled, synthetic_root, tmp_path, monkeypatch):
    folder, _ = distilled
    run, data = open_net(folder, synthetic_root)
    head = replace(run, folder=RunFolder(tmp_path / "head/runs/a-distilled"), places=Places(tmp_path / "head"))
    task = FoldTask(ALL_FACES, {}, "cpu", 1, head.places.root, tmp_path / "scratch", 1, data)
    sent = {"run": pack(make_run_task(head, describe_store(data.store))), "fold": pack(task), "crops": read_pixels(data.store)}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    replay = Replay(head.fold(ALL_FACES), [])
    for message in work(sent.get):
        replay.take(message)
    one, other = (load_checkpoint(where.fold(ALL_FACES).checkpoint)["averaged"] for where in (run, head))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not head.fold(ALL_FACES).oof_file.exists()


def test_what_cannot_be_distilled_is_refused_before_anything_is_trained(distilled, synthetic_root, tmp_path):
    folder = Path(shutil.copytree(distilled[0], tmp_path / "work", symlinks=True))
    before = sorted(folder.glob("runs/*"))
    for settings, options, words in [
        (SETTINGS, ["--folds", "9"], ['FOLDS="9"', "folds 0 to 2"]),
        (SETTINGS, ["--folds", "0 1"], ['FOLDS="0 1"', "name one"]),
        (SETTINGS, ["--folds", "-1"], ['FOLDS="-1"', "write fold numbers"]),
        (f"{SETTINGS} train.teacher=[a]", [], ["train.teacher", "leave them out"]),
        (f"{SETTINGS} model.aligner=a", [], ["model.aligner", "have seen the faces"]),
        (
            f"{SETTINGS} train.teacher_share=0.9",
            ["--folds", "1"],
            ["a-distilled1: was distilled with other settings", "remove it"],
        ),
        (SETTINGS, ["--unlabelled", "nowhere"], ["nowhere: no such file or folder"]),
    ]:
        assert_refused(foldmark(folder, "distill", synthetic_root, "a", settings, *options), *words)
    (folder / "runs/a/fold2/summary.json").unlink()
    (folder / "runs/a/fold2/oof.npz").unlink()
    assert_refused(foldmark(folder, "distill", synthetic_root, "a", SETTINGS), "fold2: is not finished", "make train")
    assert_refused(foldmark(folder, "distill", synthetic_root, "b", SETTINGS), "runs/b", "no finished fold")
    assert sorted(folder.glob("runs/*")) == before


def test_a_source_that_has_seen_the_fold_that_is_left_out_is_refused(distilled, synthetic_root):
    settings = f"{LEARNER} folds.leave_out=1 train.start=a"
    assert_refused(foldmark(distilled[0], "train", synthetic_root, "z", settings), "train.start", "have seen faces of fold 1")


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


def test_export_takes_the_distilled_net_and_tells_no_figure_of_faces_that_it_learned(distilled, synthetic_root):
    pytest.importorskip("onnxscript", reason="make export installs onnx, onnxscript and onnxruntime")
    folder, _ = distilled
    done = foldmark_options(folder, "export", synthetic_root, "a", SETTINGS)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert f".venv/bin/foldmark predict PHOTO --run exports/a-int8.onnx; make demo NAME=a DATA_ROOT={synthetic_root}" in said
    assert "runs/a-distilled/all: the net exported; it learned all faces, so it has no figure of its own" in said
    nested = read_nested(RunFolder(folder / "runs/a-distilled").nested_file).distilled
    file = foldmark_api.load(folder / "exports/a-int8.onnx")
    assert (file.name, file.facts.figures["nested_nme_percent"]) == ("a-distilled", pytest.approx(nested.nme, abs=1e-4))
    assert not {"nme_percent", "error_over_std"} & set(file.facts.figures)
    test = read_ibug(synthetic_root / IBUG_FOLDER / TEST_XML, with_points=False)
    run = foldmark_api.load(folder / "runs/a-distilled", device="cpu")
    both = [one.predict(test.path(0), test.boxes_px[:1])[0] for one in (foldmark_api.load(folder / "exports/a.onnx"), run)]
    assert np.abs(both[0] - both[1]).max() < 0.05 * test.boxes_px[0, 2]
    assert_refused(foldmark_options(folder, "export", synthetic_root, "a", SETTINGS, "--folds", "9"), 'FOLDS="9"')
    assert_refused(foldmark_options(folder, "export", synthetic_root, "a", SETTINGS, "--folds", "0 1"), 'FOLDS="0 1"', "name one")


@pytest.fixture(scope="module")
def pictures(synthetic_root, faces, tmp_path_factory):
    """A folder of pictures without labels, boxes beside them: two new ones with their mirror images, and disguised ones of the
    data set."""
    folder, root = tmp_path_factory.mktemp("pictures"), tmp_path_factory.mktemp("others")
    write_synthetic_faces(root, train_faces=2, test_faces=1, seed=77)
    others = read_ibug(root / IBUG_FOLDER / TRAIN_XML, with_points=True)
    test = read_ibug(synthetic_root / IBUG_FOLDER / TEST_XML, with_points=False)
    for row in range(len(others)):
        shutil.copy(others.path(row), folder / f"new{row}.jpg")
        write_box(folder / f"new{row}.jpg", others.boxes_px[row])
    shutil.copy(faces.path(0), folder / "copy.jpg")
    tested, held_out = Image.open(test.path(0)), Image.open(faces.path(5))
    tested.resize((200, 200)).save(folder / "smaller.png")
    held_out.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.jpg", quality=60)
    for name in ("copy.jpg", "smaller.png", "mirrored.jpg"):
        write_box(folder / name, np.array([60, 60, 90, 90]))
    (folder / "note.txt").write_text("no picture")
    return folder


def write_box(picture, box_px):
    picture.with_name(f"{picture.name}.box").write_text(",".join(f"{edge:g}" for edge in box_px))


def test_unlabelled_faces_are_learned_as_the_ensemble_sees_them_but_none_of_the_data_set(
    distilled, synthetic_root, pictures, faces, tmp_path
):
    pytest.importorskip("dlib", reason="dlib is not installed; `make .venv/photos-installed` does it")
    folder = Path(shutil.copytree(distilled[0], tmp_path / "work", symlinks=True))
    for name in ("a-distilled", "a-distilled1"):
        shutil.rmtree(folder / "runs" / name)
    done = foldmark(folder, "distill", synthetic_root, "a", SETTINGS, "--folds", "1", "--unlabelled", pictures)
    assert done.returncode == 0, done.stderr
    run, data = open_net(folder, synthetic_root)
    new = data.pictures[len(faces) :]
    assert sorted(Path(picture).name for picture in new) == [f"new{row}.jpg" for row in range(4)]
    assert "or that look like one of it: 3" in " ".join((done.stdout + done.stderr).split())
    assert data.training_rows.tolist() == list(range(len(faces) + 4))
    ensemble = foldmark_api.load(folder / "runs/a", device="cpu")
    learned_px = geometry.apply(geometry.invert(data.store.px_to_store), data.points_store)
    trust = (data.face_weight / data.face_weight[0]).numpy()
    assert trust[: len(faces)] == pytest.approx(1)
    stds = []
    for row, picture in enumerate(new, start=len(faces)):
        (points,), (std,) = ensemble.predict(picture, data.boxes_px[row : row + 1])
        assert learned_px[row] == pytest.approx(points)
        stds.append(std.mean() / data.boxes_px[row, 2:].max())
    # The less certain a face is, the less it counts, and none counts more than a labelled one.
    assert (trust[len(faces) :] <= 1).all()
    less, products = trust[len(faces) :] < 1, trust[len(faces) :] * np.square(stds)
    assert less.any()
    assert products[less] == pytest.approx(products[less].mean())
    # Again: nothing is found, trained or written anew; another picture is another training.
    files = {path: path.stat().st_mtime_ns for path in [*folder.glob("cache/unlabelled-*"), *folder.glob("runs/*/*/last.pt")]}
    again = foldmark(folder, "distill", synthetic_root, "a", SETTINGS, "--folds", "1", "--unlabelled", pictures)
    assert again.returncode == 0, again.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())
    for file in folder.glob("cache/unlabelled-*.u8"):
        file.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"unlabelled faces cannot be read .*has another size.*make distill"):
        prepare_fold(run, ALL_FACES)


def test_pictures_of_the_data_set_alone_teach_nothing(distilled, synthetic_root, pictures, tmp_path):
    for name in ("copy.jpg", "copy.jpg.box", "smaller.png", "smaller.png.box"):
        shutil.copy(pictures / name, tmp_path / name)
    done = foldmark(distilled[0], "distill", synthetic_root, "a", SETTINGS, "--folds", "1", "--unlabelled", tmp_path)
    assert_refused(done, "no face in it can be learned", "or that look like one of it: 2")
