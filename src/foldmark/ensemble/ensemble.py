"""From finished folds to one prediction: the nets of an experiment's folds average in the original frame, mirror twins
join, and several experiments blend with their weights."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import atomic_path
from foldmark.core.metrics import scores
from foldmark.data.crops import CropStore, open_store, refuse_damaged
from foldmark.data.twins import find_twins, join_twins
from foldmark.models.checkpoint import load_checkpoint
from foldmark.models.inference import predict_points
from foldmark.models.net import build_model
from foldmark.runs.experiment import CACHE
from foldmark.runs.run import finished_folds, read_oof, read_summary


@dataclass(frozen=True)
class Member:
    """One experiment's part in an ensemble: the mean of what its folds' checkpoints give, times its weight."""

    config: Config
    checkpoints: list[Path]
    weight: float = 1.0


@dataclass(frozen=True)
class Oof:
    """An experiment's out-of-fold (OOF) predictions, by rising row: rows (n,) of the training faces, the fold of each (n,),
    points_px (n, k, 2) and spread_px (n, k)."""

    rows: np.ndarray
    folds: np.ndarray
    points_px: np.ndarray
    spread_px: np.ndarray


def ensemble_points(
    members: list[Member], faces: Faces, device: torch.device, progress=None, *, anew: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """points_px (n, k, 2) of the test faces, and spread_px (n, k): how far the members and their looks lie from the
    ensemble, root mean square, on average over the folds.

    progress: called with the number of checkpoints done. anew: predict even what is kept. Raises UserError if a test
    picture is damaged.
    """
    means_px, variances = [], []
    twins, done = find_twins(faces), 0
    for member in members:
        store = open_store(faces, member.config.crop, CACHE)
        refuse_damaged(faces, store, "every test face needs its rows; restore the picture.")
        parts = []
        for checkpoint in member.checkpoints:
            parts.append(fold_points(checkpoint, member.config, faces, store, device, anew=anew))
            done += 1
            if progress:
                progress(done)
        mean_px, variance = mean_of_folds(parts)
        means_px.append(join_twins(mean_px, faces, twins) if member.config.predict.twins else mean_px)
        variances.append(variance)
    return blend_members(means_px, variances, [member.weight for member in members])


def mean_of_folds(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """One experiment's points_px (n, k, 2) and their variance (n, k), from the points_px and spread_px of each fold's net."""
    mean_px = sum(points_px / len(parts) for points_px, _ in parts)
    return mean_px, sum(np.square(spread_px) / len(parts) for _, spread_px in parts)


def blend_members(means_px: list[np.ndarray], variances: list[np.ndarray], weights: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """The ensemble's points_px (n, k, 2) and spread_px (n, k), from those of its members as `mean_of_folds` gives them."""
    total = sum(weight * mean_px for weight, mean_px in zip(weights, means_px, strict=True))
    return total, joint_spread(np.stack(means_px), np.stack(variances), np.array(weights))


def joint_spread(points_px: np.ndarray, variances: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Root mean square distance (n, k) from the blend of m members (m, n, k, 2), each with a variance of its own (m, n, k)."""
    blend_px = np.tensordot(weights, points_px, axes=1)
    apart = np.square(points_px - blend_px).sum(axis=3)
    return np.sqrt(np.tensordot(weights, apart + variances, axes=1))


def fold_points(
    checkpoint: Path, config: Config, faces: Faces, store: CropStore, device: torch.device, *, anew: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """points_px (n, k, 2) and spread_px (n, k) of one fold's net; kept beside it, because predicting takes longer than
    reading."""
    stored = checkpoint.parent / "test.npz"
    written = str(checkpoint.stat().st_mtime_ns) if checkpoint.exists() else ""
    made_from = np.array([store.file.name, config.predict.model_dump_json(), checkpoint.name, written])
    if stored.is_file() and not anew:
        with np.load(stored) as content:
            if np.array_equal(content["made_from"], made_from):
                return content["points_px"], content["spread_px"]
    model = load_model(checkpoint, config, faces.markup.count, device)
    points_px, spread_px = predict_points(model, store, np.arange(len(faces)), config, faces.markup)
    with atomic_path(stored) as temporary, temporary.open("wb") as file:
        np.savez(file, points_px=points_px, spread_px=spread_px, made_from=made_from)
    return points_px, spread_px


def load_model(checkpoint: Path, config: Config, points: int, device: torch.device) -> torch.nn.Module:
    state = load_checkpoint(checkpoint, device)
    if state is None:
        raise UserError(f"{checkpoint}: no such checkpoint, though the fold is finished; remove its folder and train it again.")
    model = build_model(config, torch.zeros(points, 2), seed=0).to(device)
    try:
        model.load_state_dict(state["averaged"])
    except RuntimeError:
        raise UserError(f"{checkpoint}: holds another net than today's code makes of its config; train it again.") from None
    return model.eval()


def read_experiment_oof(folder: Path) -> Oof:
    """The OOF predictions of a run's finished folds. Raises UserError if there is none."""
    folds = require_finished(folder)
    parts = [read_oof(folder / f"fold{fold}") for fold in folds]
    rows, points_px, spread_px = (np.concatenate(part) for part in zip(*parts, strict=True))
    numbers = np.repeat(folds, [len(part[0]) for part in parts])
    order = np.argsort(rows)
    return Oof(rows[order], numbers[order], points_px[order], spread_px[order])


def oof_scores(folder: Path, faces: Faces) -> tuple[list[dict], dict[str, float]]:
    """Each finished fold's summary, and MAE and NME over all out-of-fold (OOF) predictions together."""
    oof = read_experiment_oof(folder)
    overall = scores(oof.points_px, faces.take(oof.rows))
    return [read_summary(folder / f"fold{fold}") for fold in finished_folds(folder)], {"faces": len(oof.rows), **overall}


def require_finished(folder: Path) -> list[int]:
    folds = finished_folds(folder)
    if not folds:
        raise UserError(f"{folder}: no finished fold to predict with; run make train with the same settings first.")
    return folds
