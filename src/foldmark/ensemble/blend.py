"""Blends: one prediction from several experiments, weighted by how well their out-of-fold (OOF) predictions do together.

Weights fitted on OOF predictions flatter the figure of those same predictions, so it is computed nested: each fold is blended
with weights that were fitted on the other folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foldmark.core.config import Config
from foldmark.core.faces import Faces
from foldmark.core.metrics import face_nme
from foldmark.core.prediction import Prediction
from foldmark.data.twins import find_twins, join_twins
from foldmark.ensemble.oof import Oof, read_oof, require_same_split
from foldmark.runs.run_folder import RunFolder

LEAST_WEIGHT = 0.02  # an experiment with less is left out of the blend


@dataclass(frozen=True)
class Blend:
    """weights: (m,) of the experiments, none negative, sum 1; fitted, or equal. The NMEs are means over the faces in percent: of
    equal weights, and of fitted weights (nested; None with one fold, which leaves no other to fit them on)."""

    weights: np.ndarray
    fitted: bool
    nme_mean: float
    nme_nested: float | None


def blend_oof(folders: Sequence[RunFolder], configs: Sequence[Config], faces: Faces) -> tuple[Oof, Blend]:
    """Blend the OOF predictions of these runs, each with its mirror twins joined where its config says so. faces: those that the
    runs learn. Raises UserError for runs with different splits."""
    parts = [read_oof(folder, faces) for folder in folders]
    require_same_split(folders, parts)
    first = parts[0]
    twins = find_twins(first.faces)
    members = [
        replace(part.prediction, points_px=join_twins(part.points_px, first.faces, twins))
        if config.predict.twins
        else part.prediction
        for part, config in zip(parts, configs, strict=True)
    ]
    blend, blended_px = fit_blend(np.stack([member.points_px for member in members]), first.faces, first.folds)
    blended = replace(blend_predictions(members, blend.weights), points_px=blended_px)
    return replace(first, prediction=blended), blend


def blend_predictions(members: Sequence[Prediction], weights: np.ndarray) -> Prediction:
    """The blend of m members by their weights (m,); its spread is that about the blend's points."""
    points_px = np.stack([member.points_px for member in members])
    # Summed in this order, so that a CSV keeps its bits.
    blend_px = sum((weight * one for weight, one in zip(weights, points_px, strict=True)), np.zeros_like(points_px[0]))
    apart = np.square(points_px - blend_px).sum(axis=3)
    spread = np.stack([np.square(member.spread_px) for member in members])
    votes = np.stack([np.square(member.votes_px) for member in members])
    return Prediction(blend_px, np.sqrt(weighted_sum(apart + spread, weights)), np.sqrt(weighted_sum(votes, weights)))


def fit_blend(points_px: np.ndarray, faces: Faces, folds: np.ndarray) -> tuple[Blend, np.ndarray]:
    """Blend the OOF predictions (m, n, k, 2) of m experiments that share the split `folds` (n,), and give the nested blend
    (n, k, 2). Fitted weights are used only where they give a lower nested NME than equal ones. With one fold the weights are
    equal."""
    count = len(points_px)
    equal = np.full(count, 1 / count)
    mean_px = weighted_sum(points_px, equal)
    nme_mean = float(face_nme(mean_px, faces).mean())
    if len(np.unique(folds)) == 1:
        return Blend(equal, fitted=False, nme_mean=nme_mean, nme_nested=None), mean_px
    nested_px = np.empty_like(mean_px)
    for fold in np.unique(folds):
        held_out = folds == fold
        others = drop_small_weights(fit_weights(points_px[:, ~held_out], faces.take(~held_out)))
        nested_px[held_out] = weighted_sum(points_px[:, held_out], others)
    nme_nested = float(face_nme(nested_px, faces).mean())
    fitted = nme_nested < nme_mean
    weights = drop_small_weights(fit_weights(points_px, faces)) if fitted else equal
    return Blend(weights, fitted, nme_mean, nme_nested), nested_px if fitted else mean_px


def drop_small_weights(weights: np.ndarray) -> np.ndarray:
    """The weights (m,) with those below LEAST_WEIGHT at 0: such an experiment is not worth the time that its models take."""
    kept = np.where(weights < LEAST_WEIGHT, 0, weights)
    return kept / kept.sum()


def weighted_sum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The blend (n, ...) of the values (m, n, ...) of m members."""
    return np.tensordot(weights, values, axes=1)


def fit_weights(points_px: np.ndarray, faces: Faces) -> np.ndarray:
    """The weights (m,), none negative, sum 1, that give m predictions (m, n, k, 2) the lowest NME together. The NME is convex
    in them, so there is one lowest."""
    count = len(points_px)
    if count == 1:
        return np.ones(1)
    errors = (points_px - faces.points_px) / faces.eye_distance_px[:, None, None]

    def nme_and_slope(weights: np.ndarray) -> tuple[float, np.ndarray]:
        joint = weighted_sum(errors, weights)
        distance = np.linalg.norm(joint, axis=2)
        direction = joint / np.maximum(distance, 1e-12)[..., None]
        slope = (errors * direction).sum(axis=3).mean(axis=(1, 2))
        return distance.mean() * 100, slope * 100

    # scipy.optimize takes a while to load, and few commands fit a blend.
    from scipy.optimize import minimize

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
