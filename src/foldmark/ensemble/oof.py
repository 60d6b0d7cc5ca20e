"""Blends: one prediction from several experiments, weighted by what their out-of-fold (OOF) predictions are worth together.

Weights fitted on OOF predictions flatter the figure of those same predictions, so it is computed nested: each fold is
blended with weights that were fitted on the others.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.metrics import face_nme
from foldmark.data.twins import find_twins, join_twins
from foldmark.ensemble.ensemble import joint_spread, read_experiment_oof

LEAST_WEIGHT = 0.02  # an experiment with less is left out of the blend


@dataclass(frozen=True)
class Blend:
    """weights: (m,) of the experiments, none negative, sum 1. oof_px: (n, k, 2) nested. The NMEs are of the n faces in percent:
    of the plain mean, of nested fitted weights, and of each experiment alone (m,)."""

    weights: np.ndarray
    oof_px: np.ndarray
    fitted: bool
    nme_mean: float
    nme_nested: float
    nme_alone: np.ndarray


@dataclass(frozen=True)
class BlendedOof:
    """The OOF predictions of a blend of run folders: rows (n,) of the training faces, the fold of each (n,), the blend of
    their points, and spread_px (n, k) as `joint_spread` gives it."""

    rows: np.ndarray
    folds: np.ndarray
    blend: Blend
    spread_px: np.ndarray


def blend_oof(folders: list[Path], configs: list[Config], faces: Faces) -> BlendedOof:
    """Blend the OOF predictions of these run folders, each with its mirror twins joined where its config says so.

    Raises UserError for experiments that do not hold out the same faces in the same folds: their predictions together would
    have seen what they are judged on.
    """
    parts = [read_experiment_oof(folder) for folder in folders]
    first = parts[0]
    for folder, part in zip(folders[1:], parts[1:], strict=True):
        if not (np.array_equal(part.rows, first.rows) and np.array_equal(part.folds, first.folds)):
            raise UserError(
                f"{folder}: holds out other faces than {folders[0]}, so the two cannot be blended honestly; "
                "train the same folds of both, with the same split (folds.file)."
            )
    held_out = faces.take(first.rows)
    twins = find_twins(held_out)
    points_px = np.stack(
        [
            join_twins(part.points_px, held_out, twins) if config.predict.twins else part.points_px
            for part, config in zip(parts, configs, strict=True)
        ]
    )
    result = blend(points_px, held_out, first.folds)
    variances = np.stack([np.square(part.spread_px) for part in parts])
    return BlendedOof(first.rows, first.folds, result, joint_spread(points_px, variances, result.weights))


def blend(points_px: np.ndarray, faces: Faces, folds: np.ndarray) -> Blend:
    """Blend the OOF predictions (m, n, k, 2) of m experiments that share the split `folds` (n,). Fitted weights are taken
    only where they are worth it, nested; else all weigh the same."""
    count = len(points_px)
    equal = np.full(count, 1 / count)
    mean_px = weighted(points_px, equal)
    nested_px = np.empty_like(mean_px)
    for fold in np.unique(folds):
        held_out = folds == fold
        others = without_idle(fit_weights(points_px[:, ~held_out], faces.take(~held_out)))
        nested_px[held_out] = weighted(points_px[:, held_out], others)
    nme_mean, nme_nested = (float(face_nme(oof_px, faces).mean()) for oof_px in (mean_px, nested_px))
    fitted = nme_nested < nme_mean
    return Blend(
        weights=without_idle(fit_weights(points_px, faces)) if fitted else equal,
        oof_px=nested_px if fitted else mean_px,
        fitted=fitted,
        nme_mean=nme_mean,
        nme_nested=nme_nested,
        nme_alone=np.array([face_nme(alone_px, faces).mean() for alone_px in points_px]),
    )


def without_idle(weights: np.ndarray) -> np.ndarray:
    """The weights (m,) with 0 for those that say next to nothing: such an experiment is not worth the time that its nets take."""
    kept = np.where(weights < LEAST_WEIGHT, 0, weights)
    return kept / kept.sum()


def weighted(points_px: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.tensordot(weights, points_px, axes=1)


def fit_weights(points_px: np.ndarray, faces: Faces) -> np.ndarray:
    """The weights (m,), none negative, sum 1, that give m predictions (m, n, k, 2) the lowest NME together. The NME is convex
    in them, so there is one lowest."""
    count = len(points_px)
    if count == 1:
        return np.ones(1)
    errors = (points_px - faces.points_px) / faces.eye_distance_px[:, None, None]

    def nme_and_slope(weights: np.ndarray) -> tuple[float, np.ndarray]:
        joint = weighted(errors, weights)
        distance = np.linalg.norm(joint, axis=2)
        direction = joint / np.maximum(distance, 1e-12)[..., None]
        slope = (errors * direction).sum(axis=3).mean(axis=(1, 2))
        return distance.mean() * 100, slope * 100

    solution = minimize(
        nme_and_slope,
        np.full(count, 1 / count),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
    )
    weights = np.clip(solution.x, 0, 1)
    return weights / weights.sum()
