"""Training through the command line: it resumes to the same bits, and leaves what it promises."""

import csv
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.commandline import fork_process
from tests.conftest import assert_refused

# A checkpoint after each step, and each epoch validated, however little time the steps take.
EVERY_STEP = " train.checkpoint_seconds=0 train.validate_share=1"


@pytest.fixture
def trained(finished, workplace) -> Path:
    return Path(shutil.copytree(finished / "runs/a", workplace / "runs/a"))


def test_a_run_folder_holds_what_is_needed_to_repeat_it(trained):
    assert {path.name for path in trained.iterdir()} >= {"config.yaml", "split.csv", "environment.json", "fold0"}
    fold = trained / "fold0"
    assert {path.name for path in fold.iterdir()} >= {"metrics.csv", "last.pt", "oof.npz", "summary.json", "faces.png"}
    rows = list(csv.DictReader((fold / "metrics.csv").open()))
    summary = json.loads((fold / "summary.json").read_text())
    assert len(rows) == 1
    assert summary["in_one_pass"]["nme"] == pytest.approx(float(rows[0]["nme"]))
    assert not list(trained.rglob("*.partial"))


def test_checkpoints_load_without_running_code(trained):
    state = torch.load(trained / "fold0/last.pt", weights_only=True)
    assert state["averaged"]["mean_points_crop"].shape == (68, 2)


def test_a_finished_fold_is_not_trained_again(foldmark, trained, synthetic_root, quick):
    before = (trained / "fold0" / "last.pt").stat().st_mtime_ns
    done = foldmark("train", "--data-root", synthetic_root, "--name", "a", "--set", quick, "--folds", "0")
    assert done.returncode == 0
    assert "fold 0 is finished" in done.stdout
    assert (trained / "fold0" / "last.pt").stat().st_mtime_ns == before


def test_another_config_in_the_same_folder_is_refused(foldmark, trained, synthetic_root, quick):
    done = foldmark("train", "--data-root", synthetic_root, "--name", "a", "--set", quick + " train.lr=0.5")
    assert_refused(done, "train.lr (0.0001 there, 0.5 asked)", "NAME=")


def without_times(path):
    rows = list(csv.DictReader(path.open()))
    measured = ("seconds", "faces_per_second", "memory_mb")
    return [{key: value for key, value in row.items() if key not in measured} for row in rows]


def test_killed_and_started_again_is_the_same_to_the_bit(foldmark, synthetic_root, quick, workplace):
    settings = quick.replace("train.epochs=1", "train.epochs=10") + EVERY_STEP
    arguments = ["train", "--data-root", str(synthetic_root), "--set", settings, "--folds", "0", "--device", "cpu"]
    whole = foldmark(*arguments, "--name", "whole")
    assert whole.returncode == 0, whole.stderr
    # The measured way to compute belongs to the run folder: both runs must take the same.
    (workplace / "runs/cut").mkdir()
    (workplace / "runs/cut/speed-cpu.json").write_bytes((workplace / "runs/whole/speed-cpu.json").read_bytes())
    metrics = workplace / "runs/cut/fold0/metrics.csv"
    kills = 0
    for epochs in (1, 5):
        process = fork_process(workplace, workplace / "said.txt", *arguments, "--name", "cut")
        while process.is_alive() and not (metrics.exists() and len(without_times(metrics)) >= epochs):
            time.sleep(0.02)
        kills += process.is_alive()
        process.kill()
        process.join()
    assert kills
    # As a disk that lost its last blocks leaves it: the state before is gone on from.
    last, previous = (workplace / "runs/cut/fold0" / name for name in ("last.pt", "previous.pt"))
    content = (last if last.exists() else previous).read_bytes()
    last.write_bytes(content[: len(content) // 2])
    rest = foldmark(*arguments, "--name", "cut")
    assert rest.returncode == 0, rest.stderr
    assert "last.pt" in rest.stdout
    assert "going on from the earlier previous.pt" in rest.stdout
    assert without_times(metrics) == without_times(workplace / "runs/whole/fold0/metrics.csv")
    one, other = (
        torch.load(workplace / f"runs/{name}/fold0/last.pt", weights_only=True)["averaged"] for name in ("whole", "cut")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert (workplace / "runs/cut/fold0/summary.json").exists()


def test_two_processes_never_train_one_fold_and_ctrl_c_says_how_to_go_on(foldmark, synthetic_root, quick, workplace):
    arguments = ["train", "--data-root", str(synthetic_root), "--name", "a", "--folds", "0"]
    arguments += ["--set", quick.replace("train.epochs=1", "train.epochs=2000") + EVERY_STEP]
    first = fork_process(workplace, workplace / "said.txt", *arguments)
    metrics = workplace / "runs/a/fold0/metrics.csv"
    while first.is_alive() and not metrics.exists():
        time.sleep(0.02)
    assert_refused(foldmark(*arguments), "runs/a/fold0", "another process trains this fold")
    assert first.is_alive()
    os.kill(first.pid, signal.SIGINT)
    first.join(60)
    assert first.exitcode == 130
    said = (workplace / "said.txt").read_text()
    assert "run the same command again to resume" in said
    assert "Traceback" not in said
    assert not list((workplace / "runs").rglob("*.partial"))


def test_a_loss_that_is_not_finite_names_its_pictures_and_can_be_gone_on_from(foldmark, synthetic_root, quick, workplace):
    """At a rate of 10 the numbers of a deep net without normalisation outgrow float32 within a few steps."""
    settings = quick.replace("train.lr=1e-4", "train.lr=10 train.loss=mse train.warmup=0 train.schedule=constant")
    settings = settings.replace("train.epochs=1", "train.epochs=4 train.validate_every=4 train.optimizer=adam")
    settings += " model.head=flat model.hidden=4096 model.kernel=7 model.channels=[32,64,64,64,64]"
    arguments = ["train", "--data-root", synthetic_root, "--name", "a", "--folds", "0", "--set"]
    done = foldmark(*arguments, settings)
    assert_refused(done, "the loss is", ".jpg", "train.lr_factor=")
    epoch = int(re.search(r"its checkpoint is of epoch (\d+)", done.stderr).group(1))
    assert epoch < 4
    again = foldmark(*arguments, settings + " train.lr_factor=1e-5")
    # Whether it can be saved depends on the model; resuming from there at that rate is guaranteed.
    rates = [float(row["lr"]) for row in csv.DictReader((workplace / "runs/a/fold0/metrics.csv").open())]
    assert again.returncode == 0, again.stderr
    assert rates == pytest.approx([10] * epoch + [1e-4] * (4 - epoch))


def test_training_beats_the_mean_face(foldmark, synthetic_root, workplace):
    """Untrained, the model predicts the mean face; a few dozen steps must get well below that. One pass a face:
    cropping again pays only once the first prediction is good."""
    settings = (
        "model.name=cnn model.head=flat model.channels=[16,32,64] model.norm=true crop.size=48 augment.realign=0 "
        "predict.realign=0 train.epochs=30 train.batch=8 folds.count=2 train.validate_every=29"
    )
    done = foldmark("train", "--data-root", synthetic_root, "--name", "a", "--set", settings, "--folds", "0")
    assert done.returncode == 0, done.stderr
    from foldmark.core.config import CropConfig
    from foldmark.core.geometry import apply, invert
    from foldmark.core.metrics import compute_scores
    from foldmark.data.crops import open_store
    from foldmark.data.folds import read_split
    from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug

    faces = read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)
    held_out = read_split(workplace / "runs/a/split.csv", faces) == 0
    store = open_store(faces, CropConfig(size=48), workplace / "cache")
    mean_store = apply(store.px_to_store, faces.points_px)[~held_out].mean(axis=0)
    mean_px = apply(invert(store.px_to_store), mean_store[None])[held_out]
    mean_face = compute_scores(mean_px, faces.take(held_out))
    summary = json.loads((workplace / "runs/a/fold0/summary.json").read_text())
    assert summary["nme"] < 0.8 * mean_face["nme"]


def test_a_damaged_picture_stops_training_or_is_left_out_when_asked(foldmark, data_root, quick, workplace):
    picture = min(data_root.rglob("trainset/*.jpg"))
    picture.write_bytes(b"no picture")
    arguments = ["train", "--data-root", data_root, "--name", "a", "--folds", "0"]
    assert_refused(foldmark(*arguments, "--set", quick), picture.name, "is not a picture", "data.skip_damaged=true")
    assert not (workplace / "runs/a/fold0").exists()
    done = foldmark(*arguments, "--set", quick + " data.skip_damaged=true")
    assert done.returncode == 0, done.stderr
    assert picture.name in done.stdout


def test_an_unsafe_checkpoint_is_refused(foldmark, trained, synthetic_root, quick):
    import pickle

    class Attack:
        def __reduce__(self):
            return (os.system, ("touch hacked",))

    (trained / "fold0/summary.json").unlink()
    (trained / "fold0/last.pt").write_bytes(pickle.dumps(Attack()))
    done = foldmark("train", "--data-root", synthetic_root, "--name", "a", "--set", quick, "--folds", "0")
    assert_refused(done, "last.pt", "holds more than plain tensors")
    assert not (trained.parent.parent / "hacked").exists()


def test_an_aligner_is_trained_first_and_becomes_part_of_the_fold(foldmark, synthetic_root, quick, workplace):
    def run(command, *more):
        return foldmark(command, "--data-root", synthetic_root, "--config", "configs/small.yaml", *more)

    (workplace / "configs").unlink()
    (workplace / "configs").mkdir()
    (workplace / "configs/finder.yaml").write_text("{crop: {size: 32}, model: {name: cnn, head: pool}, train: {epochs: 1}}")
    (workplace / "configs/small.yaml").write_text(
        "{crop: {size: 48}, model: {name: cnn, head: pool, aligner: finder}, predict: {realign: 0}, train: {epochs: 1}}"
    )
    done = run("train", "--folds", "0")
    assert done.returncode == 0, done.stderr
    assert "takes models of finder-synthetic, so what is missing there is trained first" in done.stdout
    finder = torch.load(workplace / "runs/finder-synthetic/fold0/last.pt", weights_only=True)["averaged"]
    held = torch.load(workplace / "runs/small-synthetic/fold0/last.pt", weights_only=True)["aligner"]["weights"]
    assert all(torch.equal(finder[name], held[name]) for name in finder)
    assert run("csv").returncode == 0
    csv = (workplace / "submissions/small-synthetic.csv").read_bytes()
    # The run folder needs no other one to predict with, whatever became of that.
    shutil.rmtree(workplace / "runs/finder-synthetic")
    (workplace / "runs/finder-synthetic").mkdir()
    (workplace / "runs/finder-synthetic/config.yaml").write_text("damaged: [")
    (workplace / "runs/small-synthetic/fold0/test.npz").unlink()
    assert run("csv").returncode == 0
    assert (workplace / "submissions/small-synthetic.csv").read_bytes() == csv


def test_an_aligner_is_refused_that_has_seen_what_is_held_out_or_learns_other_points(foldmark, synthetic_root, quick, workplace):
    def train(name, settings=""):
        return foldmark("train", "--data-root", synthetic_root, "--name", name, "--set", f"{quick} {settings}", "--folds", "0")

    assert train("finder").returncode == 0
    assert_refused(train("folds", "model.aligner=finder folds.seed=1"), "model.aligner", "finder has other folds", "folds.file=")
    assert_refused(train("eyes", "model.aligner=finder data.points=[36,39,42,45]"), "finder learns other points")
    assert_refused(train("nobody", "model.aligner=nobody"), "nobody has no finished fold")
    assert train("one", "model.aligner=finder").returncode == 0
    assert_refused(train("two", "model.aligner=one"), "one has an aligner itself")


def test_a_run_goes_on_from_another_ones_folds(foldmark, synthetic_root, quick, workplace):
    def train(name, settings=""):
        return foldmark("train", "--data-root", synthetic_root, "--name", name, "--set", f"{quick} {settings}", "--folds", "0")

    assert_refused(train("on", "train.start=nothing"), "nothing has no finished fold")
    assert not (workplace / "runs/on").exists()
    done = train("first")
    assert done.returncode == 0, done.stderr
    # At no rate to speak of, so that what it ends with is what it started from; other crops, so another mean face.
    done = train("going", "train.start=first train.lr=1e-12 train.seed=1 crop.size=64")
    assert done.returncode == 0, done.stderr
    first, on = (
        torch.load(workplace / f"runs/{name}/fold0/last.pt", weights_only=True)["averaged"] for name in ("first", "going")
    )
    weights = [name for name in first if name.endswith("weight")]
    assert all(torch.allclose(first[name], on[name], atol=1e-6) for name in weights)
    assert not torch.equal(first["mean_points_crop"], on["mean_points_crop"])
    assert "start: first" in (workplace / "runs/going/config.yaml").read_text()
    assert_refused(train("net", "train.start=first model.head=flat"), "first has another model")
    assert_refused(train("folds", "train.start=first folds.seed=1"), "first has other folds", "folds.file=")
    assert not (workplace / "runs/folds").exists()
    done = train("its-folds", "train.start=first folds.seed=1 folds.file=runs/first/split.csv")
    assert done.returncode == 0, done.stderr
