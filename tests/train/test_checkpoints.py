"""Checkpoints and validations by time."""

import threading

import numpy as np
import pandas
import pytest
import torch

from foldmark.core.errors import UserError
from foldmark.models.checkpoint import load_checkpoint
from foldmark.runs.fold_folder import FoldFolder
from foldmark.train import checkpoints
from foldmark.train.checkpoints import CheckpointWriter
from foldmark.train.progress import NotFiniteError, Progress


@pytest.fixture
def fold(tmp_path) -> FoldFolder:
    path = tmp_path / "fold0"
    path.mkdir()
    return FoldFolder(path)


def state(number: int) -> dict:
    return {"weights": torch.full((1000,), float(number)), "history": [{"epoch": number, "nme": 1.0}]}


def test_a_state_is_copied_at_once_and_written_beside_training(fold):
    weights = torch.zeros(3)
    with CheckpointWriter(fold, longest=60) as writer:
        writer.write(lambda: {"weights": weights, "history": [{"epoch": 1}], "nested": [{"more": weights}]})
        weights += 7
        writer.finish()
        stored = load_checkpoint(fold.checkpoint)
        assert not stored["weights"].any()
        assert not stored["nested"][0]["more"].any()
        writer.write(lambda: state(2))
    # Leaving waits for the last one; the one before stays beside it.
    assert load_checkpoint(fold.checkpoint)["weights"][0] == 2
    assert not load_checkpoint(fold.previous_checkpoint)["weights"].any()
    assert pandas.read_csv(fold.metrics_file)["epoch"].tolist() == [2]


def test_the_next_is_due_when_copying_and_writing_take_a_fiftieth_of_the_time_and_after_a_minute_at_the_latest(fold, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])

    def pass_time(seconds: float, then):
        def slow(*given):
            now[0] += seconds
            return then(*given)

        return slow

    with CheckpointWriter(fold, longest=60) as writer:
        assert not writer.due
        now[0] += checkpoints.FIRST_AFTER
        assert writer.due
        for copying, writing, wait in ((0.1, 0, 5), (0.1, 0.4, 25), (0.5, 0, 25), (0.1, 3, 60), (3, 0, 60)):
            monkeypatch.setattr(checkpoints, "push_checkpoint", pass_time(writing, lambda *_: None))
            writer.write(pass_time(copying, lambda: state(1)))
            written = writer.written
            writer.finish()
            now[0] = written + wait - 0.01
            assert not writer.due
            now[0] += 0.02
            assert writer.due
    with CheckpointWriter(fold, longest=0) as writer:
        assert writer.due
        writer.write(lambda: state(2))
        assert writer.due


def test_none_is_due_while_one_is_written(fold, monkeypatch):
    now, hold = [100.0], threading.Event()
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoints, "push_checkpoint", lambda *_: hold.wait(60))
    with CheckpointWriter(fold, longest=60) as writer:
        writer.write(lambda: state(1))
        now[0] += 59.9
        assert not writer.due
        hold.set()


def test_a_disk_error_in_the_writer_is_raised_in_training(fold):
    fold.checkpoint.mkdir()
    (fold.checkpoint / "file").touch()
    fold.previous_checkpoint.mkdir()
    (fold.previous_checkpoint / "file").touch()
    with CheckpointWriter(fold, longest=60) as writer:
        writer.write(lambda: state(1))
        with pytest.raises((OSError, UserError)):
            writer.finish()


def train(progress: Progress, steps: int, loss: float = 1.0) -> None:
    for _ in range(steps):
        progress.add_step(torch.tensor([loss, 2.0, 3.0, 4.0]))
        progress.add_seconds(1.0)


@pytest.fixture
def progress() -> Progress:
    return Progress(steps_per_epoch=4, epochs=3, batch=8, rate=lambda step: float(step))


def test_an_epochs_row_is_of_all_its_steps_whenever_they_were_read_and_stored(progress):
    train(progress, 3, loss=1.0)
    assert progress.read(None) == ([], 2.0)
    again = Progress(steps_per_epoch=4, epochs=3, batch=8, rate=lambda step: float(step))
    again.load_state_dict(progress.state_dict())
    train(again, 1, loss=5.0)
    again.end_epoch({"nme": 3.0}, np.zeros(2), 0.5)
    train(again, 1)
    ((row, points),), _ = again.read(12.3)
    assert (row["epoch"], row["loss"], row["train_mae_px"], row["lr"], row["seconds"]) == (1, 2.0, 2.0, 3.0, 4.0)
    assert (row["faces_per_second"], row["memory_mb"], row["nme"], row["mae_px"]) == (8.0, 12, 3.0, None)
    assert len(points) == 2
    assert again.history == [row]


def test_the_first_loss_that_is_not_finite_is_named_by_its_step(progress):
    train(progress, 4)
    progress.end_epoch({}, None, 0.0)
    progress.read(None)
    train(progress, 2)
    train(progress, 1, loss=float("nan"))
    train(progress, 1, loss=float("inf"))
    with pytest.raises(NotFiniteError) as raised:
        progress.read(None)
    assert raised.value.step == 6


def test_validations_stay_within_their_share_of_the_time(progress):
    assert progress.can_validate(0.02)
    train(progress, 4)
    progress.end_epoch({"nme": 1.0}, None, 1.0)
    assert not progress.can_validate(0.02)
    assert progress.can_validate(1)
    progress.add_seconds(95 - 4)
    assert not progress.can_validate(0.02)
    progress.add_seconds(4)
    assert progress.can_validate(0.02)
