"""What training tells those who listen, and in which order; and how jobs run."""

import numpy as np
import pytest
import torch

from foldmark.core.config import check_config
from foldmark.core.errors import UserError
from foldmark.data.crops import open_store
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.runs.places import Places
from foldmark.runs.run import Run
from foldmark.runs.run_folder import RunFolder
from foldmark.train.executors import InOrder
from foldmark.train.fold_data import prepare_fold
from foldmark.train.listener import Listener
from foldmark.train.loop import train_fold


class Recorder(Listener):
    """Writes down what it is told; stops training when a line is as asked."""

    def __init__(self, stop_at: str = "") -> None:
        self.lines, self.stop_at = [], stop_at

    def note(self, line: str) -> None:
        self.lines.append(line)
        if line == self.stop_at:
            raise KeyboardInterrupt

    def begin(self, epochs_done: int) -> None:
        self.note(f"begin {epochs_done}")

    def batch(self, epochs_done: float, mae_px: float) -> None:
        self.note(f"batch {epochs_done:.2f}")

    def epoch(self, row: dict, points_px: np.ndarray | None) -> None:
        self.note(f"epoch {row['epoch']}{'' if points_px is None else f' of {len(points_px)} faces'}")

    def end(self, summary: dict) -> None:
        self.note(f"end {summary['epochs']}")


@pytest.fixture
def run(synthetic_root, tmp_path) -> Run:
    settings = {
        "model": {"name": "cnn", "head": "flat", "channels": [4, 8], "hidden": 16},
        "crop": {"size": 32},
        "train": {"epochs": 3, "batch": 16, "validate_every": 2, "validate_share": 1, "checkpoint_seconds": 0},
    }
    config = check_config(settings, "test")
    faces = read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True).take(np.arange(48))
    places = Places(tmp_path)
    store = open_store(faces, config.crop, places.cache)
    return Run(RunFolder(places.run("a")), config, faces, np.repeat([0, 1, 1], 16), store, places)


# Whoever is told of an epoch that ends is not told of its last batch, but where it is validated first.
WHOLE = ["batch 0.50", "epoch 1", "batch 1.50", "batch 2.00", "epoch 2 of 16 faces"]
LAST = ["batch 2.50", "batch 3.00", "epoch 3 of 16 faces", "end 3"]


def test_each_listener_is_told_begin_batches_epochs_and_end(run):
    listeners = [Recorder(), Recorder()]
    summary = train_fold(run, prepare_fold(run, 0), torch.device("cpu"), listeners)
    assert [listener.lines for listener in listeners] == [["begin 0", *WHOLE, *LAST]] * 2
    assert summary["epochs"] == 3
    assert run.fold(0).finished


def test_a_resumed_fold_begins_where_it_stands(run):
    with pytest.raises(KeyboardInterrupt):
        train_fold(run, prepare_fold(run, 0), torch.device("cpu"), [Recorder(stop_at="epoch 2 of 16 faces")])
    again = Recorder()
    train_fold(run, prepare_fold(run, 0), torch.device("cpu"), [again])
    # The last checkpoint is that of the step before.
    assert again.lines == ["begin 1", *WHOLE[3:], *LAST]


def test_a_fold_is_finished_only_when_its_listeners_have_been_told_the_end(run):
    with pytest.raises(KeyboardInterrupt):
        train_fold(run, prepare_fold(run, 0), torch.device("cpu"), [Recorder(stop_at="end 3")])
    assert not run.fold(0).finished
    again = Recorder()
    train_fold(run, prepare_fold(run, 0), torch.device("cpu"), [again])
    assert again.lines == ["begin 3", "end 3"]
    assert run.fold(0).finished


def test_jobs_run_in_the_order_they_were_submitted_and_only_when_asked_for():
    started = []

    def train(fold: int) -> dict:
        if fold == 9:
            raise UserError("fold 9: a sentence.")
        started.append(fold)
        return {"fold": fold}

    executor = InOrder(train)
    for fold in (2, 0, 1):
        executor.submit(fold)
    assert not started
    assert list(executor.results()) == [(2, {"fold": 2}), (0, {"fold": 0}), (1, {"fold": 1})]
    assert started == [2, 0, 1]
    executor.submit(9)
    with pytest.raises(UserError, match="a sentence"):
        list(executor.results())
