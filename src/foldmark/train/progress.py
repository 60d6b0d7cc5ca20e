"""How far the training of a fold is: the steps done, their figures, and the rows of metrics.csv."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from foldmark.core.metrics import METRICS

# The figures of a step.
FIGURES = ("loss", "train_mae_px", "train_mse", "train_mse_crop")


class NotFiniteError(ArithmeticError):
    """The loss of a step is not finite."""

    def __init__(self, step: int, loss: float) -> None:
        self.step, self.loss = step, loss


class EndedEpoch(NamedTuple):
    """An epoch that is trained: its seconds and, where it was validated, its scores and predictions (n, k, 2)."""

    seconds: float
    scores: dict[str, float]
    points_px: np.ndarray | None


class Progress:
    """The steps of a fold and their figures, which stay on the device until they are read.

    rate: the learning rate of a step.
    """

    def __init__(self, steps_per_epoch: int, epochs: int, batch: int, rate: Callable[[int], float]) -> None:
        self.steps_per_epoch, self.epochs, self.batch, self.rate = steps_per_epoch, epochs, batch, rate
        self.steps = 0
        self.history: list[dict] = []  # rows of metrics.csv
        # Seconds of the running epoch and of all training, both without validation, and of all validations and of the last one.
        self.times = dict.fromkeys(("epoch", "training", "validation", "last validation"), 0.0)
        self._read: list[list[float]] = []  # figures of the steps whose epoch is not in the history yet
        self._unread: list[torch.Tensor] = []
        self._ended: list[EndedEpoch] = []

    @property
    def done(self) -> bool:
        return self.steps >= self.epochs * self.steps_per_epoch

    @property
    def at_epoch_end(self) -> bool:
        return self.steps % self.steps_per_epoch == 0

    @property
    def epochs_done(self) -> float:
        """With a fraction."""
        return self.steps / self.steps_per_epoch

    def state_dict(self) -> dict:
        return {"steps": self.steps, "history": list(self.history), "figures": list(self._read), "times": dict(self.times)}

    def load_state_dict(self, stored: dict) -> None:
        self.history = list(stored["history"])
        self.steps = self.count_steps(stored)
        self._read = [list(figures) for figures in stored.get("figures", [])]
        self.times |= {key: float(seconds) for key, seconds in stored.get("times", {}).items()}

    def count_steps(self, stored: dict) -> int:
        """The steps that a checkpoint has seen. Those of earlier versions, written after each epoch, and those of finished folds
        hold no more than the history."""
        return int(stored.get("steps", len(stored.get("history", [])) * self.steps_per_epoch))

    def add_step(self, figures: torch.Tensor) -> None:
        """Count a step with its FIGURES (4,), which are not read yet."""
        self._unread.append(figures)
        self.steps += 1

    def add_seconds(self, seconds: float) -> None:
        self.times["epoch"] += seconds
        self.times["training"] += seconds

    def end_epoch(self, scores: dict[str, float], points_px: np.ndarray | None, validation_seconds: float) -> None:
        """The running epoch is over, with its validation if it had one."""
        self._ended.append(EndedEpoch(self.times["epoch"], scores, points_px))
        self.times["epoch"] = 0.0
        if scores:
            self.times["last validation"] = validation_seconds
            self.times["validation"] += validation_seconds

    def can_validate(self, share: float) -> bool:
        """Whether one more validation keeps them within this share of the time. The first one shows what they cost."""
        expected = self.times["validation"] + self.times["last validation"]
        return not expected or expected <= share * (self.times["training"] + expected)

    def read(self, memory_mb: float | None) -> tuple[list[tuple[dict, np.ndarray | None]], float | None]:
        """Read the figures of the steps since the last reading. The epochs that ended, each with its row of metrics.csv and its
        predictions, and the MAE in px of the last step of the epoch that runs. Raises NotFiniteError at the first such loss."""
        if self._unread:
            figures = torch.stack(self._unread).cpu().double().numpy()
            bad = np.flatnonzero(~np.isfinite(figures[:, 0]))
            if len(bad):
                raise NotFiniteError(self.steps - len(figures) + int(bad[0]), float(figures[bad[0], 0]))
            self._unread.clear()
            self._read += figures.tolist()
        epochs = []
        while self._ended:
            ended = self._ended.pop(0)
            epochs.append((self._describe_epoch(ended, memory_mb), ended.points_px))
        return epochs, self._read[-1][FIGURES.index("train_mae_px")] if self._read else None

    def _describe_epoch(self, ended: EndedEpoch, memory_mb: float | None) -> dict:
        figures, self._read = self._read[: self.steps_per_epoch], self._read[self.steps_per_epoch :]
        epoch = len(self.history) + 1
        row = {
            "epoch": epoch,
            **dict(zip(FIGURES, np.mean(figures, axis=0).tolist(), strict=True)),
            "lr": self.rate(epoch * self.steps_per_epoch - 1),
            "seconds": round(ended.seconds, 2),
            "faces_per_second": round(self.steps_per_epoch * self.batch / max(ended.seconds, 1e-9), 1),
            "memory_mb": memory_mb and round(memory_mb),
            **dict.fromkeys([*METRICS, "mse_crop"]),
            **ended.scores,
        }
        self.history.append(row)
        return row
