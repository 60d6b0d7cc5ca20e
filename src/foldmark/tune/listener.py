"""A trial's training reports its epochs, and is ended where the study gives it up."""

from collections.abc import Callable

import numpy as np

from foldmark.train.listener import Listener


class Pruned(Exception):
    """The trial is given up: others were better after as many epochs."""


class TrialListener(Listener):
    """Reports the held-out NME of each epoch of one of the trial's folds.

    report: takes a step, counted over all epochs of all folds of the trial, and the NME; whether to give the trial up.
    before: the steps of the folds before. last: the step after which there is nothing left to save.
    """

    def __init__(self, report: Callable[[int, float], bool], before: int, last: int) -> None:
        self.report, self.before, self.last = report, before, last

    def epoch(self, row: dict, points_px: np.ndarray | None) -> None:
        step = self.before + row["epoch"]
        if self.report(step, row["nme"]) and step < self.last:
            raise Pruned
