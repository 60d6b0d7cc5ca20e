"""What W&B adds to a training step: the same training with W&B disabled and offline in turn, in the current folder.

    python benchmarks/wandb_cost.py [ROUNDS]

Synthetic faces, the config resnet18 with crops of 64 px at batch 8. For a step of the training's loop, it prints processor
time of all threads of the process, wall time, and processor time of the training's thread in the W&B listener.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

from foldmark.core.config_file import load_config
from foldmark.data.sets import find_data
from foldmark.report.wandb import Group, WandbListener
from foldmark.runs.places import Places
from foldmark.runs.run import open_run
from foldmark.synthetic.ibug import write_synthetic_faces
from foldmark.train import loop
from foldmark.train.fold_data import prepare_fold

CHANGES = ["folds.count=2", "crop.size=64", "train.batch=8", "train.epochs=3", "train.validate_share=0"]


class Timed(WandbListener):
    """The W&B listener, with the processor time that it takes of the training's thread."""

    seconds = 0.0

    def batch(self, epochs_done: float, mae_px: float) -> None:
        started = time.thread_time()
        super().batch(epochs_done, mae_px)
        self.seconds += time.thread_time() - started

    def epoch(self, row: dict, points_px: np.ndarray | None) -> None:
        started = time.thread_time()
        super().epoch(row, points_px)
        self.seconds += time.thread_time() - started


def measure(places: Places, name: str, mode: str) -> tuple[float, float, float]:
    """Processor time of the process, wall time and the listener's processor time, in ms a step."""
    data = find_data(Path("data"), "ibug")
    assert data is not None
    run = open_run(places, name, load_config("resnet18", places.configs, CHANGES), data)
    with Group(name, mode).start(f"{name}-fold0", {}, run.fold(0).path) as tracker:
        listener = Timed(tracker, run, 0)
        training = loop.FoldTraining(run, prepare_fold(run, 0), torch.device("cpu"), [listener])
        training.resume()
        with loop.CheckpointWriter(run.fold(0), 1) as writer:  # an epoch is shown once a checkpoint has it
            started = time.process_time(), time.perf_counter()
            training.train(writer)
            spent = time.process_time() - started[0], time.perf_counter() - started[1]
    each = 1000 / training.progress.steps
    return spent[0] * each, spent[1] * each, listener.seconds * each


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(1)
    if not Path("data").exists():
        write_synthetic_faces(Path("data"), train_faces=96, test_faces=4, seed=1)
    places = Places(Path.cwd())
    measure(places, "warm-up", "disabled")
    spent: dict[str, list] = {"disabled": [], "offline": []}
    for number in range(rounds):
        for mode in spent:
            spent[mode].append(measure(places, f"{mode}{number}", mode))
    for mode, figures in spent.items():
        for what, column in zip(("process CPU", "wall", "listener CPU"), np.array(figures).T, strict=True):
            print(f"{mode:9} {what:13} median {np.median(column):8.2f} ms a step, {column.min():.2f} to {column.max():.2f}")


if __name__ == "__main__":
    main()
