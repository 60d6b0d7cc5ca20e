"""From finished folds to one prediction: the models of an experiment's folds are averaged in the original frame, mirror twins are
joined, and several experiments are blended by their weights."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from foldmark.core.config import Config
from foldmark.core.faces import Faces
from foldmark.core.files import atomic_path, file_sha256, read_kept
from foldmark.core.progress import Progress, no_progress
from foldmark.data.crops import CropStore, open_store, refuse_damaged
from foldmark.data.twins import find_twins, join_twins
from foldmark.ensemble.blend import combine_spreads
from foldmark.models.inference import predict_points, prepare_model
from foldmark.models.trained import load_model
from foldmark.runs.run_folder import FoldFolder

Prediction = tuple[np.ndarray, np.ndarray]  # points_px (n, k, 2) and spread_px (n, k)


@dataclass(frozen=True)
class Member:
    """One experiment's part in an ensemble: the mean over the models of its folds, times its weight."""

    config: Config
    folds: list[FoldFolder]
    weight: float = 1.0


@dataclass(frozen=True)
class Predicting:
    """How to predict: on which device, with which folder for the crops, and whether to use kept predictions."""

    device: torch.device
    cache: Path
    use_kept: bool = True


def predict_ensemble(members: list[Member], faces: Faces, how: Predicting, progress: Progress = no_progress) -> Prediction:
    """points_px (n, k, 2) of the test faces, and spread_px (n, k): how far the members' TTA predictions lie from the ensemble,
    root mean square, on average over the folds. Raises UserError if a test picture is damaged."""
    means_px, variances = [], []
    twins, count = find_twins(faces), 0
    with progress("predicting the test list", sum(len(member.folds) for member in members)) as done:
        for member in members:
            store = open_store(faces, member.config.crop, how.cache)
            refuse_damaged(faces, store, "every test face needs its rows; restore the picture.")
            parts = []
            for fold in member.folds:
                parts.append(_predict_fold(fold, member.config, faces, store, how))
                count += 1
                done(count)
            mean_px, variance = average_folds(parts)
            means_px.append(join_twins(mean_px, faces, twins) if member.config.predict.twins else mean_px)
            variances.append(variance)
    return blend_members(means_px, variances, [member.weight for member in members])


def average_folds(parts: list[Prediction]) -> Prediction:
    """One experiment's points_px (n, k, 2) and their variance (n, k), from the points_px and spread_px of each fold's model."""
    points_px, spread_px = parts[0]
    mean_px = sum((points_px / len(parts) for points_px, _ in parts), np.zeros_like(points_px))
    return mean_px, sum((np.square(spread_px) / len(parts) for _, spread_px in parts), np.zeros_like(spread_px))


def blend_members(means_px: list[np.ndarray], variances: list[np.ndarray], weights: list[float]) -> Prediction:
    """The ensemble's points_px (n, k, 2) and spread_px (n, k), from those of its members as `average_folds` gives them."""
    total = sum((weight * mean_px for weight, mean_px in zip(weights, means_px, strict=True)), np.zeros_like(means_px[0]))
    return total, combine_spreads(np.stack(means_px), np.stack(variances), np.array(weights))


def _predict_fold(fold: FoldFolder, config: Config, faces: Faces, store: CropStore, how: Predicting) -> Prediction:
    """The prediction of one fold's model; kept beside it, because predicting takes longer than reading."""
    sha256 = file_sha256(fold.checkpoint) if fold.checkpoint.is_file() else ""
    made_from = np.array([store.file.name, config.predict.model_dump_json(), sha256])
    kept = read_kept(fold.test_predictions, lambda content: _parse_kept(content, made_from)) if how.use_kept else None
    if kept:
        return kept
    model = prepare_model(load_model(fold.checkpoint, config, faces.markup.count, how.device))
    points_px, spread_px = predict_points(model, store, np.arange(len(faces)), config, faces.markup)
    with atomic_path(fold.test_predictions) as temporary, temporary.open("wb") as file:
        np.savez(file, points_px=points_px, spread_px=spread_px, made_from=made_from)
    return points_px, spread_px


def _parse_kept(content: bytes, made_from: np.ndarray) -> Prediction | None:
    """Kept predictions, None where they have another origin."""
    with np.load(BytesIO(content)) as stored:
        same = np.array_equal(stored["made_from"], made_from)
        return (stored["points_px"], stored["spread_px"]) if same else None
