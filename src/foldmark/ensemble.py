"""From finished folds to one prediction: each fold's net predicts the test list, and the mean is taken in the original
frame."""

from pathlib import Path

import numpy as np
import torch

from foldmark.checkpoint import load_checkpoint
from foldmark.config import Config
from foldmark.crops import CropStore, open_store, refuse_damaged
from foldmark.errors import UserError
from foldmark.experiment import CACHE
from foldmark.faces import Faces
from foldmark.files import atomic_path
from foldmark.metrics import scores
from foldmark.model import build_model
from foldmark.predict import predict_points
from foldmark.run import finished_folds, read_oof, read_summary


def ensemble_points(folder: Path, config: Config, faces: Faces, device: torch.device, progress=None) -> np.ndarray:
    """points_px (n, k, 2) of the test faces: the mean over the run's finished folds.

    progress: called with the number of folds done. Raises UserError if no fold is finished or a test picture is damaged.
    """
    folds = require_finished(folder)
    store = open_test_store(faces, config)
    total = np.zeros((len(faces), faces.markup.count, 2))
    for done, fold in enumerate(folds, start=1):
        total += fold_points(folder / f"fold{fold}", config, faces, store, device)
        if progress:
            progress(done)
    return total / len(folds)


def open_test_store(faces: Faces, config: Config) -> CropStore:
    """The crops of the test faces. Raises UserError if a picture is damaged."""
    store = open_store(faces, config.crop, CACHE)
    refuse_damaged(faces, store, "every test face needs its rows; restore the picture.")
    return store


def fold_points(folder: Path, config: Config, faces: Faces, store: CropStore, device: torch.device) -> np.ndarray:
    """points_px (n, k, 2) of one fold's net; kept beside the net, because predicting takes longer than reading."""
    weights = folder / f"{config.predict.checkpoint}.pt"
    stored = folder / "test.npz"
    written = str(weights.stat().st_mtime_ns) if weights.exists() else ""
    made_from = np.array([store.file.name, config.predict.model_dump_json(), weights.name, written])
    if stored.is_file():
        with np.load(stored) as content:
            if np.array_equal(content["made_from"], made_from):
                return content["points_px"]
    points_px = checkpoint_points(weights, config, faces, store, device)
    with atomic_path(stored) as temporary, temporary.open("wb") as file:
        np.savez(file, points_px=points_px, made_from=made_from)
    return points_px


def checkpoint_points(weights: Path, config: Config, faces: Faces, store: CropStore, device: torch.device) -> np.ndarray:
    """points_px (n, k, 2) that the net in this checkpoint gives."""
    model = load_model(weights, config, faces.markup.count, device)
    return predict_points(model, store, np.arange(len(faces)), config, faces.markup, device)


def load_model(weights: Path, config: Config, points: int, device: torch.device) -> torch.nn.Module:
    state = load_checkpoint(weights, device)
    if state is None:
        raise UserError(f"{weights}: no such checkpoint, though the fold is finished; remove its folder and train it again.")
    model = build_model(config, torch.zeros(points, 2), seed=0).to(device)
    model.load_state_dict(state["averaged"])
    return model.eval()


def oof_scores(folder: Path, faces: Faces) -> tuple[list[dict], dict[str, float]]:
    """Each finished fold's summary, and MAE and NME over all out-of-fold (OOF) predictions together."""
    folds = require_finished(folder)
    rows, points_px = zip(*(read_oof(folder / f"fold{fold}") for fold in folds), strict=True)
    rows = np.concatenate(rows)
    overall = scores(np.concatenate(points_px), faces.take(rows))
    return [read_summary(folder / f"fold{fold}") for fold in folds], {"faces": len(rows), **overall}


def require_finished(folder: Path) -> list[int]:
    folds = finished_folds(folder)
    if not folds:
        raise UserError(f"{folder}: no finished fold to predict with; run make train with the same settings first.")
    return folds
