"""From finished folds to one prediction: the models of an experiment's folds are averaged in the original frame, mirror twins are
joined, and several experiments are blended by their weights."""

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from foldmark.core.config import Config
from foldmark.core.faces import Faces
from foldmark.core.files import atomic_path, file_sha256, read_kept
from foldmark.core.prediction import Prediction
from foldmark.core.progress import Progress, no_progress
from foldmark.data.crops import CropStore, open_store, refuse_damaged
from foldmark.data.twins import find_twins, join_twins
from foldmark.ensemble.blend import blend_predictions
from foldmark.models.inference import predict_points, prepare_model
from foldmark.models.trained import load_model
from foldmark.runs.fold_folder import FoldFolder


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
    """The ensemble's prediction of the test faces; spread and votes are root mean squares over members and folds. Raises
    UserError if a test picture is damaged."""
    means: list[Prediction] = []
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
            mean = average_folds(parts)
            if member.config.predict.twins:
                mean = replace(mean, points_px=join_twins(mean.points_px, faces, twins))
            means.append(mean)
    return blend_predictions(means, np.array([member.weight for member in members]))


def average_folds(parts: list[Prediction]) -> Prediction:
    """One experiment's prediction from that of each fold's model. How far the folds lie apart is no part of its spread: out of
    fold, where the spread is calibrated, one model predicts a face."""
    zeros = np.zeros_like(parts[0].spread_px)
    return Prediction(
        sum((part.points_px / len(parts) for part in parts), np.zeros_like(parts[0].points_px)),
        np.sqrt(sum((np.square(part.spread_px) / len(parts) for part in parts), zeros)),
        np.sqrt(sum((np.square(part.votes_px) / len(parts) for part in parts), zeros)),
    )


def _predict_fold(fold: FoldFolder, config: Config, faces: Faces, store: CropStore, how: Predicting) -> Prediction:
    """The prediction of one fold's model; kept beside it, because predicting takes longer than reading."""
    sha256 = file_sha256(fold.checkpoint) if fold.checkpoint.is_file() else ""
    made_from = np.array([store.file.name, config.predict.model_dump_json(), sha256, "with votes"])
    kept = read_kept(fold.test_predictions, lambda content: _parse_kept(content, made_from)) if how.use_kept else None
    if kept:
        return kept
    model = prepare_model(load_model(fold.checkpoint, config, faces.markup.count, how.device))
    prediction = predict_points(model, store, np.arange(len(faces)), config, faces.markup)
    with atomic_path(fold.test_predictions) as temporary, temporary.open("wb") as file:
        np.savez(file, **vars(prediction), made_from=made_from)
    return prediction


def _parse_kept(content: bytes, made_from: np.ndarray) -> Prediction | None:
    """Kept predictions, None where they have another origin."""
    with np.load(BytesIO(content)) as stored:
        if not np.array_equal(stored["made_from"], made_from):
            return None
        return Prediction(*(stored[name] for name in ("points_px", "spread_px", "votes_px")))
