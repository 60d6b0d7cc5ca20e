"""What one head takes from many workers, which only pretend to train: `python benchmarks/cluster.py --workers 10 100 1000`.

Each worker ends an epoch every 0.12 s, as an H100 might. Epochs come in messages, a second or more apart, and are replayed into
the head's files and listeners by the same code as real ones. --state-mb: the size of a state, which each worker then sends as
often as the head's rule for so many workers lets it; 0: none, as in folds of a few seconds. --wandb: each fold is an offline W&B
run, too, to which the head logs the figures of each epoch.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from foldmark.cluster.connection import require_ray, start_ray
from foldmark.cluster.engine import RayEngine
from foldmark.cluster.identity import identify
from foldmark.cluster.nodes import Allotment
from foldmark.cluster.outbox import MESSAGES, STATE_BYTES
from foldmark.core.config import Config
from foldmark.data.crops import open_store
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.report.wandb import collect_epoch_values
from foldmark.runs.places import Places
from foldmark.runs.run import Run
from foldmark.runs.run_folder import RunFolder
from foldmark.show.tracker import RunInfo, Tracker, start
from foldmark.synthetic.ibug import write_synthetic_faces
from foldmark.train.fold_data import FoldData, prepare_fold
from foldmark.train.listener import Listener

EPOCH = 0.12  # seconds
PROCESSES = 4  # that the pretended workers share
FIGURES = dict.fromkeys(("loss", "train_mae_px", "lr", "seconds", "faces_per_second", "memory_mb", "mae_px", "nme"), 1.5)


class Pretender:
    """Many workers in one process: each call of `serve` is one, with a stream of its own to the head."""

    async def serve(self, epochs: int, workers: int, state_bytes: int, identity: dict[str, str]) -> AsyncIterator[dict]:
        yield {"hello": {"node": "pretended", "host": "pretended", "identity": identity}}
        yield {"device": "pretended"}
        started, done, state_at = time.monotonic(), 0, time.monotonic()
        while done < epochs:
            await asyncio.sleep(max(1.0, workers / MESSAGES))
            now = min(epochs, int((time.monotonic() - started) / EPOCH))
            rows = [{"epoch": epoch, "sent": time.time()} for epoch in range(done + 1, now + 1)]
            message: dict[str, Any] = {"events": [("epoch", (row, None)) for row in rows]}
            done = now
            if state_bytes and time.monotonic() - state_at >= state_bytes * workers / STATE_BYTES:
                message["state"] = {"metrics.csv": b"epoch\n", "last.pt": np.random.default_rng(done).bytes(state_bytes)}
                state_at = time.monotonic()
            yield message
        files = dict.fromkeys(("metrics.csv", "oof.npz", "last.pt", "summary.json"), b"{}")
        yield {"events": [], "result": files, "summary": {"epochs": epochs}}


@dataclass
class Count(Listener):
    """Counts what arrives: epochs in order, and the seconds each took from the worker to here; logs what metrics.csv holds of an
    epoch to a W&B run, and counts the seconds of that."""

    tracker: Tracker
    epochs: list[int] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    logging: float = 0.0

    def epoch(self, row: dict, points_px: np.ndarray | None) -> None:
        self.epochs.append(row["epoch"])
        self.lags.append(time.time() - row["sent"])
        started = time.perf_counter()
        self.tracker.log(collect_epoch_values(FIGURES | {"epoch": row["epoch"]}), row["epoch"])
        self.logging += time.perf_counter() - started


class PretendedTask:
    """Stands for Ray's remote function: its calls go round the processes."""

    def __init__(self, actors: list[Any], *settings: Any) -> None:
        self.actors, self.settings, self.calls = actors, settings, 0

    def options(self, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(remote=self._remote)

    def _remote(self, *_: Any) -> Any:
        self.calls += 1
        actor = self.actors[self.calls % len(self.actors)]
        return actor.serve.options(num_returns="streaming").remote(*self.settings, identify())


def make_run(folder: Path) -> tuple[Run, FoldData]:
    """A small run, whose faces and crops nobody trains on."""
    write_synthetic_faces(folder / "set", train_faces=24, test_faces=4, seed=1)
    faces, config = read_ibug(folder / "set" / IBUG_FOLDER / TRAIN_XML, with_points=True), Config()
    places = Places(folder)
    store = open_store(faces, config.crop, places.cache)
    run = Run(RunFolder(places.run("a")), config, faces, np.arange(len(faces)) % 2, store, places)
    return run, prepare_fold(run, 0)


def measure(run: Run, data: FoldData, workers: int, epochs: int, state_bytes: int, wandb: bool) -> dict[str, object]:
    """One fold on each of so many pretended workers, all at the same time."""
    with start_ray(workers, 0), ExitStack() as trackers:
        ray = require_ray()
        actor = ray.remote(num_cpus=0, max_concurrency=1000)(Pretender)
        processes = [actor.remote() for _ in range(PROCESSES)]
        task = PretendedTask(processes, epochs, workers, state_bytes)
        with RayEngine(Allotment("cpu", 1, 0, 1, workers), torch.device("cpu"), task=task) as engine:
            infos = [RunInfo("pretended", f"fold{n}", "train", {}, run.places.root / f"wandb{n}") for n in range(workers)]
            mode = "offline" if wandb else "disabled"
            counts = [Count(trackers.enter_context(start(info, mode))) for info in infos]

            def train(number: int) -> dict:
                here = replace(run, folder=RunFolder(run.places.run(f"{workers}-{number}")))
                return engine.train_fold(here, data, [counts[number]])

            executor = engine.executor(train)
            for number in range(workers):
                executor.submit(number)
            started, used = time.monotonic(), time.process_time()
            for _ in executor.results():
                pass
            seconds, used = time.monotonic() - started, time.process_time() - used
    whole = sum(count.epochs == list(range(1, epochs + 1)) for count in counts)
    lags = np.concatenate([count.lags for count in counts])
    calls: dict[str, object] = (
        {"ms a W&B call": round(1e3 * sum(count.logging for count in counts) / (workers * epochs), 2)} if wandb else {}
    )
    return calls | {
        "workers": workers,
        "state MB": state_bytes / 1e6,
        "epochs": workers * epochs,
        "whole folds": whole,
        "seconds": round(seconds, 1),
        "at least": round(epochs * EPOCH, 1),
        "epochs/s": round(workers * epochs / seconds),
        "head's cores": round(used / seconds, 2),
        "lag median s": round(float(np.median(lags)), 2),
        "lag 99 % s": round(float(np.quantile(lags, 0.99)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 200, 1000])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--state-mb", type=float, default=0)
    parser.add_argument("--wandb", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, data = make_run(Path(folder))
        for workers in asked.workers:
            figures = measure(run, data, workers, asked.epochs, int(asked.state_mb * 1e6), asked.wandb)
            print(", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
