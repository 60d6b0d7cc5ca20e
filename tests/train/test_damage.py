"""`train` over run folders whose files were lost, damaged or mixed up: what can be made again is, with a line that says so; what
cannot is a sentence with the fix; never a traceback, and never figures of another fold, split or config."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from foldmark.core.errors import UserError
from foldmark.models.checkpoint import load_checkpoint
from foldmark.runs.fold_folder import FoldFolder
from tests.change_run import save_checkpoint
from tests.conftest import assert_refused

FOLDS = ("fold0", "fold1")


@pytest.fixture
def run(finished, workplace) -> Path:
    """The finished quick run, in a folder of the test's own."""
    shutil.copytree(finished / "runs", workplace / "runs")
    return workplace / "runs/a"


@pytest.fixture
def train(foldmark, synthetic_root, quick):
    def run(*more: str, settings: str = "", name: str = "a"):
        options = ["--data-root", synthetic_root, "--name", name, "--set", f"{quick} {settings}", "--device", "cpu"]
        return foldmark("train", *options, *more)

    return run


def begin_again(fold: Path) -> None:
    (fold / "summary.json").unlink()


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 9)


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = (remove, empty, cut_short, garble, become_folder, become_pipe)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["last.pt", "oof.npz"])
def test_a_finished_fold_that_lost_its_model_or_predictions_is_named(run, train, name, damage):
    damage(run / "fold1" / name)
    assert_refused(train(), f"fold1/{name}", "remove", "make train")
    shutil.rmtree(run / "fold1")
    done = train()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("damage", [remove, empty, garble, cut_short])
def test_lost_metrics_are_written_again_from_the_checkpoint(run, train, damage):
    path = run / "fold0/metrics.csv"
    before = path.read_text()
    damage(path)
    done = train()
    assert done.returncode == 0, done.stderr
    assert "metrics.csv: not there or damaged" in done.stdout
    assert path.read_text() == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_measured_speed_is_measured_again(run, train, damage):
    path = run / "speed-cpu.json"
    for file in (run.parent.parent / "cache").glob("speed-*.json"):
        file.write_text("{")
    damage(path)
    done = train()
    if damage is become_folder:
        assert_refused(done, "speed-cpu.json", "move that folder away")
        return
    assert done.returncode == 0, done.stderr
    assert "speed-cpu.json" in done.stdout
    assert json.loads(path.read_text())["steps_per_second"]


def test_a_run_keeps_the_way_that_it_was_trained_in_and_a_new_one_takes_the_measured_one(run, train, monkeypatch):
    monkeypatch.setattr("foldmark.models.device.WORTH_MEASURING", 0)
    kept = run / "speed-cpu.json"
    kept.write_text('{"channels_last": true, "bf16": false, "steps_per_second": {}}')
    assert "channels_last float32 (" in train().stdout
    done = train("--folds", "0", name="b")
    measured = [json.loads(path.read_text()) for path in (run.parent.parent / "cache").glob("speed-*.json")]
    assert json.loads((run.parent / "b/speed-cpu.json").read_text()) in measured
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("damage", [empty, cut_short, garble, become_folder, become_pipe])
def test_an_unfinished_fold_with_a_damaged_checkpoint_says_what_to_remove_and_then_trains_again(run, train, damage):
    begin_again(run / "fold0")
    damage(run / "fold0/last.pt")
    assert_refused(train(), "fold0/last.pt", "remove it")
    path = run / "fold0/last.pt"
    path.rmdir() if path.is_dir() else path.unlink()
    assert train().returncode == 0


def another_fold(state: dict, run: Path) -> dict:
    return load_checkpoint(run / "fold1/last.pt")


def another_program(state: dict, run: Path) -> dict:
    return {"state_dict": {"fc.weight": torch.zeros(2)}}


def another_model(state: dict, run: Path) -> dict:
    return {**state, "averaged": {"fc.weight": torch.zeros(2)}}


@pytest.mark.parametrize("swap", [another_fold, another_program, another_model])
@pytest.mark.parametrize("finished_fold", [True, False])
def test_a_checkpoint_that_is_not_the_folds_own_is_refused(run, train, swap, finished_fold):
    path = run / "fold0/last.pt"
    save_checkpoint(path, swap(load_checkpoint(path), run))
    if not finished_fold:
        begin_again(run / "fold0")
    assert_refused(train(), "fold0", "remove", "make train")


def test_a_checkpoint_of_a_run_with_another_config_or_split_is_refused(run, train):
    for name, settings, words in (("b", "train.lr=2e-4", "another config"), ("c", "folds.seed=1", "another config")):
        assert train("--folds", "0", name=name, settings=settings).returncode == 0
        shutil.copytree(run.parent / name / "fold0", run / "fold0", dirs_exist_ok=True)
        assert_refused(train(), "fold0", words)
        begin_again(run / "fold0")
        assert_refused(train(), "fold0/last.pt", words)


def test_a_split_that_was_edited_after_training_is_refused(run, train):
    """A face that a fold was trained on must not count as held out from it."""
    path = run / "split.csv"
    lines = path.read_text().splitlines()
    swapped = {",0": ",1", ",1": ",0"}
    first = next(line for line in lines[1:] if line.endswith(",0"))
    group = first.rsplit(",", 2)[1]
    lines = [line[:-2] + swapped[line[-2:]] if line.split(",")[-2] == group else line for line in lines]
    path.write_text("\n".join(lines) + "\n")
    assert_refused(train(), "fold0", "another split")


def test_oof_predictions_of_another_fold_are_refused(run, train):
    shutil.copy(run / "fold1/oof.npz", run / "fold0/oof.npz")
    assert_refused(train(), "fold0/oof.npz", "is not the file that training wrote")


def test_folds_from_before_there_were_bindings_are_taken_as_they_are(run, train):
    for fold in FOLDS:
        path = run / fold / "summary.json"
        summary = json.loads(path.read_text())
        path.write_text(json.dumps({key: summary[key] for key in summary if key not in ("binding", "files")}))
        state = load_checkpoint(run / fold / "last.pt")
        del state["binding"]
        save_checkpoint(run / fold / "last.pt", state)
    done = train()
    assert done.returncode == 0, done.stderr
    assert "fold 1 is finished" in done.stdout


def test_a_stored_config_may_hold_the_retired_choice_of_checkpoint_but_only_as_it_still_works(run, train):
    path = run / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("predict:\n", "predict:\n  checkpoint: last\n"))
    assert train().returncode == 0
    path.write_text(text.replace("predict:\n", "predict:\n  checkpoint: best\n"))
    assert_refused(train(), "config.yaml", "predict.checkpoint is gone")


def test_weights_that_overflow_in_the_last_step_of_an_epoch_are_not_kept(run, train):
    """The loss is computed before its step, so it does not show them."""
    begin_again(run / "fold0")
    state = load_checkpoint(run / "fold0/last.pt")
    state["averaged"] = {
        name: value.clone().fill_(float("nan")) if name == "head.fc.weight" else value
        for name, value in state["averaged"].items()
    }
    save_checkpoint(run / "fold0/last.pt", state)
    assert_refused(train(), "not finite", "train.lr_factor=")


def test_seeds_as_large_as_the_config_takes_train_and_larger_ones_are_refused(train):
    assert train("--folds", "0", settings=f"train.seed={2**31 - 1}").returncode == 0
    assert_refused(train(name="b", settings=f"train.seed={2**31}"), "train.seed")
    for seed in (2**32 + 5, 2**70):
        done = train("--folds", "0", name=f"c{seed}", settings=f"folds.seed={seed}")
        assert done.returncode == 0 or "folds.seed" in done.stderr, done.stderr


def test_the_files_of_a_fold_are_bound_together(run):
    for fold in FOLDS:
        summary = json.loads((run / fold / "summary.json").read_text())
        assert summary["binding"] == load_checkpoint(run / fold / "last.pt")["binding"]
        assert set(summary["files"]) == {"last.pt", "oof.npz", "metrics.csv"}
        assert np.load(run / fold / "oof.npz")["points_px"].shape[1:] == (68, 2)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_best_epoch_is_read_from_the_metrics_which_are_named_where_they_are_lost(run, damage):
    fold = FoldFolder(run / "fold0")
    metrics = pandas.read_csv(fold.metrics_file)
    assert fold.best_epoch() == (1, pytest.approx(metrics["nme"].min()))
    damage(fold.metrics_file)
    if damage is not cut_short:
        with pytest.raises(UserError, match=r"fold0/metrics\.csv: is missing or damaged; run make train"):
            fold.best_epoch()


@pytest.mark.parametrize("key", ["train.start", "model.aligner"])
def test_a_source_whose_split_or_checkpoint_is_not_its_own_is_refused(train, run, key):
    """Its models have seen what this run holds out, so the figure would flatter."""
    split = run / "split.csv"
    before = split.read_text()
    swapped = [line[:-1] + {"0": "1", "1": "0"}.get(line[-1], line[-1]) for line in before.splitlines()]
    split.write_text("\n".join(swapped) + "\n")
    done = train(settings=f"{key}=a folds.file={split}", name="other")
    assert_refused(done, "runs/a/fold0", "was trained with another split")
    split.write_text(before)
    shutil.rmtree(run.parent / "other")
    shutil.copyfile(run / "fold1/last.pt", run / "fold0/last.pt")
    done = train(settings=f"{key}=a", name="other")
    assert_refused(done, "runs/a/fold0/last.pt", "is not the file that training wrote")
