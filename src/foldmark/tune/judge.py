"""How good a trial is, and how far the best one is to be believed: the lowest of many figures is low by luck, too."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldmark.core.metrics import bootstrap_interval
from foldmark.ensemble.oof import Oof, read_oof
from foldmark.runs.run import Run

Interval = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """The base and the best trial on the held-out faces of the same folds: mean OOF NME in percent with its 95 % interval, and
    the best's gain, positive where it is better, with that of the mean difference face by face."""

    folds: list[int]
    faces: int
    base: float
    base_interval: Interval
    best: float
    best_interval: Interval
    gain: float
    gain_interval: Interval


def judge(run: Run, folds: Sequence[int]) -> float:
    """The OOF NME of a run over the held-out faces of these folds, in percent. Raises UserError where one is not finished."""
    nme, _ = _read_nme(run, folds)
    return float(nme.mean())


def compare_runs(base: Run, best: Run, folds: Sequence[int]) -> Comparison:
    """Both runs on these folds, which they have finished. Raises UserError where one is not."""
    (base_nme, oof), (best_nme, _) = _read_nme(base, folds), _read_nme(best, folds)
    groups = [group for group, fold in zip(oof.faces.groups, oof.folds, strict=True) if fold in folds]
    gain = base_nme - best_nme
    return Comparison(
        folds=sorted(folds),
        faces=len(gain),
        base=float(base_nme.mean()),
        base_interval=bootstrap_interval(base_nme, groups),
        best=float(best_nme.mean()),
        best_interval=bootstrap_interval(best_nme, groups),
        gain=float(gain.mean()),
        gain_interval=bootstrap_interval(gain, groups),
    )


def explain_gain(searched: Comparison, final: Comparison, trials: int) -> list[str]:
    """What the search gained, in sentences: on the folds that chose the best trial, on those that judged none, and how much of
    the first the search itself explains."""
    where = f"fold{'s' * (len(final.folds) > 1)} {' '.join(map(str, final.folds))}"
    sentences = [
        f"On the faces that chose it among {trials} trials, the best is {_say(searched)} than the base.",
        f"On {where}, which judged no trial, it is {_say(final)}.",
    ]
    if final.gain <= 0:
        return [
            *sentences,
            "So all of its gain is explained by the search itself: the lowest of many figures is low by luck, too.",
        ]
    luck = round(searched.gain, 2) - round(final.gain, 2)  # of the figures as they are shown
    explained = f"{luck:.2f} of the {searched.gain:.2f}" if luck > 0 else "nothing of it"
    sentences.append(f"So the search itself explains {explained}: the lowest of many figures is low by luck, too.")
    if final.gain_interval[0] <= 0:
        sentences.append("The interval there holds 0: it is not shown that the best is better than the base on other faces.")
    return sentences


def _say(one: Comparison) -> str:
    low, high = one.gain_interval
    if one.gain > 0:
        return f"{one.gain:.2f} % NME better ({low:.2f} to {high:.2f})"
    return f"{-one.gain:.2f} % NME worse ({-high:.2f} to {-low:.2f})"


def _read_nme(run: Run, folds: Sequence[int]) -> tuple[np.ndarray, Oof]:
    """NME (n,) in percent of each held-out face of these folds, and all that the run has predicted."""
    for fold in folds:
        run.fold(fold).require_summary()
    oof = read_oof(run.folder, run.faces)
    return oof.nme[np.isin(oof.folds, folds)], oof
