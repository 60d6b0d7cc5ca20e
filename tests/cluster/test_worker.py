"""What a worker sends and what the head makes of it, without Ray between them."""

import pickle
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foldmark.cluster.replay import Replay
from foldmark.cluster.scratch import scratch_folder
from foldmark.cluster.task import (
    FoldTask,
    describe_store,
    find_crops,
    list_fold_files,
    make_run_task,
    open_task,
    pack,
    read_pixels,
    unpack,
)
from foldmark.cluster.worker import train
from foldmark.core.errors import UserError
from foldmark.core.files import lock_folder
from foldmark.models.checkpoint import load_checkpoint
from foldmark.runs.places import Places
from foldmark.runs.run import Run
from foldmark.runs.run_folder import RunFolder
from foldmark.train.fold_data import prepare_fold
from foldmark.train.listener import Listener
from foldmark.train.loop import FoldTraining, train_fold
from tests.change_run import save_checkpoint
from tests.train.test_crash import without_times
from tests.train.test_listener import Recorder, run  # noqa: F401  a fixture


@pytest.fixture
def head(run, tmp_path) -> Run:  # noqa: F811
    """The run in a project of its own, in which nothing is trained yet."""
    places = Places(tmp_path / "head")
    return replace(run, folder=RunFolder(places.run("a")), places=places)


def send(head: Run, tmp_path: Path, fold: int = 0, pixels: np.ndarray | None = None, workers: int = 1) -> dict:
    """What a worker is sent to train a fold of the head's run."""
    task = FoldTask(fold, list_fold_files(head, fold, "cpu"), "cpu", 1, head.places.root, tmp_path / "scratch", workers)
    content = {"run": pack(make_run_task(head, describe_store(head.store))), "fold": pack(task)}
    return content if pixels is None else {**content, "crops": pixels}


def test_a_fold_that_a_worker_trains_is_the_plain_loops(head, run, tmp_path, monkeypatch):  # noqa: F811
    expected = train_fold(run, prepare_fold(run, 0), torch.device("cpu"))
    pixels = read_pixels(head.store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    listener = Recorder()
    replay = Replay(head.fold(0), [listener])
    summaries = [replay.take(message) for message in train(send(head, tmp_path, pixels=pixels).get)]
    seconds = {"seconds": expected["seconds"]}
    assert summaries[-1] | seconds == expected
    # Batches are left out where the next one has come already.
    assert [line for line in listener.lines if "batch" not in line] == ["begin 0", "epoch 1", "epoch 2 of 16 faces"] + [
        "epoch 3 of 16 faces",
        "end 3",
    ]
    mine, theirs = run.fold(0), head.fold(0)
    assert {path.name for path in theirs.path.iterdir()} == {path.name for path in mine.path.iterdir()}
    assert without_times(theirs.metrics_file) == without_times(mine.metrics_file)
    with np.load(mine.oof_file) as one, np.load(theirs.oof_file) as other:
        assert all(np.array_equal(one[name], other[name]) for name in one.files)
    one, other = (load_checkpoint(folder.checkpoint)["averaged"] for folder in (mine, theirs))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not list((tmp_path / "scratch").glob("task-*"))


@pytest.mark.parametrize("name", ["a", "search/trial0"])
def test_a_worker_goes_on_from_the_heads_last_state(head, tmp_path, monkeypatch, name):
    head = replace(head, folder=RunFolder(head.places.run(name)))

    class Stop(Listener):
        def batch(self, *_: object) -> None:
            if head.fold(0).checkpoint.exists():
                raise KeyboardInterrupt

    config = head.config.model_copy(update={"train": head.config.train.model_copy(update={"checkpoint_seconds": 0})})
    head = replace(head, config=config)
    with pytest.raises(KeyboardInterrupt):
        train_fold(head, prepare_fold(head, 0), torch.device("cpu"), [Stop()])
    steps = load_checkpoint(head.fold(0).checkpoint)["steps"]
    content = send(head, tmp_path)
    root = tmp_path / "worker"
    worker = open_task(unpack(content["run"]), unpack(content["fold"]), head.store, root)
    training = FoldTraining(worker, prepare_fold(worker, 0), torch.device("cpu"), [])
    training.resume()
    assert training.progress.steps == steps > 0


def test_a_head_that_is_slow_gets_every_epoch_and_the_newest_state_only(head, tmp_path, monkeypatch):
    config = head.config.model_copy(update={"train": head.config.train.model_copy(update={"epochs": 60})})
    head, listener = replace(head, config=config), Recorder()
    replay, states = Replay(head.fold(0), [listener]), []
    monkeypatch.setattr("foldmark.cluster.outbox.Outbox.message_seconds", 0.05)
    for message in train(send(head, tmp_path, pixels=read_pixels(head.store)).get):
        time.sleep(0.4)
        replay.take(message)
        if "state" in message:
            states.append(len(head.fold(0).read_epochs()))
    assert [line.split()[1] for line in listener.lines if "epoch" in line] == [str(epoch) for epoch in range(1, 61)]
    assert states == sorted(states)
    assert 0 < len(states) < 60
    # Predictions are sent for a few epochs, although every second one was validated.
    assert 5 <= sum("faces" in line for line in listener.lines) <= 7
    assert head.fold(0).finished


def test_the_more_workers_a_head_has_the_rarer_are_messages_and_states(head, tmp_path, monkeypatch):
    # Long enough for several messages on a fast machine, too.
    config = head.config.model_copy(update={"train": head.config.train.model_copy(update={"epochs": 100})})
    head = replace(head, config=config)
    monkeypatch.setattr("foldmark.cluster.outbox.MESSAGES", 2000)
    monkeypatch.setattr("foldmark.cluster.outbox.STATE_BYTES", 1e3)
    messages = list(train(send(head, tmp_path, pixels=read_pixels(head.store), workers=1000).get))
    assert sum("state" in message for message in messages) == 1  # the next one would be hours away


def test_an_error_names_the_heads_folder_and_comes_with_the_state(head, tmp_path):
    replay = Replay(head.fold(0), [])
    sent = send(head, tmp_path, pixels=read_pixels(head.store))
    for message in train(sent.get):
        if "result" not in message:
            replay.take(message)
    head.fold(0).path.mkdir(parents=True, exist_ok=True)
    whole = tmp_path / "whole"
    bad = replace(head, folder=RunFolder(whole))
    train_fold(bad, prepare_fold(bad, 0), torch.device("cpu"))
    state = load_checkpoint(bad.fold(0).checkpoint)
    ruined = {name: torch.full_like(weight, torch.nan) for name, weight in state["averaged"].items()}
    save_checkpoint(head.fold(0).checkpoint, {**state, "averaged": ruined})
    (*_, last) = train(send(head, tmp_path, pixels=read_pixels(head.store)).get)
    assert last["error"].startswith(f"{head.fold(0).path}: the weights are not finite")
    assert "train.lr_factor=" in last["error"]


def test_crops_come_from_a_workers_own_disk_where_they_are_the_same(head, tmp_path):
    info, pixels = describe_store(head.store), read_pixels(head.store)
    own = find_crops(info, head.store.file.parent, None)
    sent = find_crops(info, tmp_path / "nowhere", pixels)
    assert all(np.array_equal(own[row], sent[row]) for row in range(len(own)))
    assert np.array_equal(own[3], head.store[3])
    (tmp_path / "cache2").mkdir()
    (tmp_path / "cache2" / info.file_name).write_bytes(bytes(len(pixels.tobytes())))
    assert find_crops(info, tmp_path / "cache2", None) is None


def test_a_worker_that_lacks_the_crops_says_so_and_makes_nothing(head, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert list(train(send(head, tmp_path).get)) == [{"lacks": "crops"}]
    assert not (tmp_path / "scratch").exists()


def test_what_a_killed_worker_left_is_removed_by_the_next_and_what_is_in_use_stays(tmp_path):
    left, used = tmp_path / "task-left", tmp_path / "task-used"
    for folder in (left, used):
        folder.mkdir()
    with lock_folder(used, None), scratch_folder(tmp_path, "task") as mine:
        assert mine.is_dir()
        assert used.is_dir()
        assert not left.exists()
    assert not mine.exists()


def test_a_checkpoint_that_cannot_be_used_is_refused_before_it_is_sent(head, tmp_path):
    head.fold(0).path.mkdir(parents=True)
    head.fold(0).checkpoint.write_bytes(pickle.dumps("no state"))
    with pytest.raises(UserError, match="last.pt"):
        send(head, tmp_path)
