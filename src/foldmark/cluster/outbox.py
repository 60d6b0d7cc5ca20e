"""What a worker tells the head of a fold in training: events at once, states by time, the newest only."""

import time
from threading import Event, Lock

import numpy as np

from foldmark.core.config import TrainConfig
from foldmark.runs.fold_folder import FoldFolder
from foldmark.train.listener import Listener

# Predictions of held-out faces, a megabyte or so, are for pictures: about so many times in a training, as W&B shows them.
PICTURES = 5
# A message a second from each of so many workers, and so many bytes of states a second from all of them, are what a head is sent:
# more workers send less often. Measured: benchmarks/README.md.
MESSAGES, STATE_BYTES = 200, 50e6


class Outbox(Listener):
    """A listener whose events the head takes from another thread, collected into messages.

    A message has `events`, calls of a listener as (name, arguments), and where the fold wrote a new one its `state`: the bytes of
    its last checkpoint and of the metrics.csv that belongs to it. What the head is too slow for is not kept: of the batches
    the last one, of the states the newest. workers: how many tell the same head.
    """

    def __init__(self, folder: FoldFolder, train: TrainConfig, workers: int) -> None:
        self.folder, self.train, self.workers = folder, train, workers
        self.done = Event()
        self._events: list[tuple[str, tuple]] = []
        self._lock = Lock()
        self._pictures_at = 0.0
        self._sent, self._sent_at, self._state_seconds = self._stamp(), time.monotonic(), 0.0

    @property
    def message_seconds(self) -> float:
        """At least between two messages."""
        return max(1.0, self.workers / MESSAGES)

    def begin(self, epochs_done: int) -> None:
        self._add("begin", epochs_done)

    def batch(self, epochs_done: float, mae_px: float) -> None:
        self._add("batch", epochs_done, mae_px)

    def epoch(self, row: dict, points_px: np.ndarray | None) -> None:
        if points_px is not None and row["epoch"] >= self._pictures_at:
            self._pictures_at = row["epoch"] + self.train.epochs / PICTURES
        else:
            points_px = None
        self._add("epoch", row, points_px)

    def collect(self, last: bool = False) -> dict:
        """The next message, empty where there is nothing to tell. last: with the newest state, however new."""
        with self._lock:
            events, self._events = self._events, []
        message: dict = {"events": events} if events else {}
        stamp = self._stamp()
        if stamp and stamp != self._sent and (last or time.monotonic() - self._sent_at >= self._state_seconds):
            # Metrics first: they may lag behind the state, never the other way round.
            try:
                metrics, state = self.folder.metrics_file.read_bytes(), self.folder.checkpoint.read_bytes()
            except FileNotFoundError:  # between two renames
                return message
            message["state"] = {self.folder.metrics_file.name: metrics, self.folder.checkpoint.name: state}
            self._sent, self._sent_at = stamp, time.monotonic()
            self._state_seconds = max(self.train.checkpoint_seconds, len(state) * self.workers / STATE_BYTES)
        return message

    def _add(self, name: str, *arguments: object) -> None:
        with self._lock:
            if name == "batch" and self._events and self._events[-1][0] == "batch":
                self._events.pop()
            self._events.append((name, arguments))

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self.folder.metrics_file.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino
