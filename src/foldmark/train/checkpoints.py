"""Checkpoints by time, written in a thread beside training, and metrics.csv; the check of finished folds."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pandas
import torch

from foldmark.core.files import write_text
from foldmark.models.checkpoint import load_latest_checkpoint, push_checkpoint
from foldmark.models.device import synchronise
from foldmark.runs.binding import check_finished, describe_fold, is_unchanged
from foldmark.runs.fold_folder import FoldFolder
from foldmark.runs.run import Run

log = logging.getLogger(__name__)

# Copying and writing checkpoints may take this share of the time, unless one a minute takes more.
SHARE = 0.02
FIRST_AFTER = 10.0  # seconds; from the first one on it is known how long one takes


class CheckpointWriter:
    """Writes a fold's checkpoints in a thread of its own; a context manager that waits for the last one.

    longest: seconds of work at most between two checkpoints.

    Training waits only for the copy of its state. An error of the disk is raised by the next call.
    """

    def __init__(self, folder: FoldFolder, longest: float) -> None:
        self.folder, self.longest = folder, longest
        self.wait = min(FIRST_AFTER, longest)
        self.written = time.monotonic()
        self._thread, self._writing = ThreadPoolExecutor(1), Future[None]()
        self._writing.set_result(None)

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, *_: object) -> None:
        # Wait for a write that was begun. Its error is not raised here: it would hide the one that stopped training.
        self._thread.shutdown()

    @property
    def due(self) -> bool:
        return time.monotonic() - self.written >= self.wait

    def write(self, get_state: Callable[[], dict]) -> None:
        """Copy the state and have it written, with its metrics.csv. Raises UserError where the last one could not be written."""
        started = time.monotonic()
        self.finish()
        state = copy_state(get_state())
        self.written, self.wait = time.monotonic(), self.longest  # until it is known how long writing takes
        self._writing = self._thread.submit(self._write, state, self.written - started)

    def finish(self) -> None:
        """Wait until the last state is written. Raises UserError where it could not be."""
        self._writing.result()

    def _write(self, state: dict, copy_seconds: float) -> None:
        started = time.monotonic()
        push_checkpoint(self.folder, state)
        write_metrics(self.folder, state["history"])
        self.wait = min(self.longest, (copy_seconds + time.monotonic() - started) / SHARE)


def copy_state(state: dict) -> dict:
    """A copy of a state of nested dicts and lists in the processor's memory, which training does not change any more."""
    devices = set[torch.device]()

    def copy(value: object) -> object:
        if isinstance(value, torch.Tensor):
            devices.add(value.device)
            host = torch.empty_like(value, device="cpu", pin_memory=value.device.type == "cuda")
            return host.copy_(value, non_blocking=True)
        if isinstance(value, dict):
            return {key: copy(one) for key, one in value.items()}
        return [copy(one) for one in value] if isinstance(value, list | tuple) else value

    copied = {key: copy(value) for key, value in state.items()}
    for device in devices:
        synchronise(device)
    return copied


def write_metrics(fold: FoldFolder, history: list[dict]) -> None:
    """The rows of an epoch each as metrics.csv."""
    write_text(fold.metrics_file, pandas.DataFrame(history).to_csv(index=False))


def check_finished_folds(run: Run) -> None:
    """Check the files of every finished fold of a run, and write again the metrics.csv that its checkpoint holds where that is
    lost. Raises UserError for files that are missing, replaced, or of another config, split or data set."""
    for fold in run.folder.finished:
        check_finished(fold, describe_fold(run.config, run.faces, run.folds, fold.number))
        if not is_unchanged(fold.metrics_file, fold.require_summary()):
            history = (load_latest_checkpoint(fold) or {}).get("history", [])
            write_metrics(fold, history)
            log.info(f"{fold.metrics_file}: not there or damaged, so written again from {fold.checkpoint.name}.")
