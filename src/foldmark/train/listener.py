"""Listeners to a fold's training. The command decides who listens: the terminal, W&B, the sheet of faces."""

from typing import Protocol

import numpy as np


class Listener(Protocol):
    """The calls of `train_fold`, in this order: begin, for each epoch its batches and its end, end."""

    def place(self, where: str) -> None:
        """Told by an engine of several devices before begin, and again with begin where a fold is moved: the machine and device
        that train from here on; empty where the fold waits for one."""
        return

    def begin(self, epochs_done: int) -> None:
        """Training starts; so many epochs were done before, by another process."""
        return

    def batch(self, epochs_done: float, mae_px: float) -> None:
        """A batch is done: the epochs so far, with a fraction, and the batch's training MAE in original pixels."""
        return

    def epoch(self, row: dict, points_px: np.ndarray | None) -> None:
        """An epoch is done: its row of metrics.csv and, where it was validated, the held-out faces' predictions (n, k, 2)."""
        return

    def end(self, summary: dict) -> None:
        """Training is over: the fold's figures. Its checkpoint, metrics and OOF predictions are written; its summary.json, which
        marks it as finished, is written after all listeners return."""
        return
