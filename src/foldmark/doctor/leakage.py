"""How many held-out faces are known from training by their mirror twin, another face of their photo or a copy of it: with our
split, and with a plain KFold."""

import numpy as np

from foldmark.core.config import FoldsConfig
from foldmark.core.faces import Faces
from foldmark.data.twins import find_twins


def count_leakage(faces: Faces, groups: np.ndarray, folds: np.ndarray, settings: FoldsConfig) -> dict[str, dict[str, int]]:
    """By split, what `count_leaks` counts. groups, folds: (n,) of the faces."""
    twins = find_twins(faces)
    splits = {"plain KFold": make_plain_folds(settings.count, settings.seed, len(faces)), "Foldmark": folds}
    return {name: count_leaks(of, groups, twins) for name, of in splits.items()}


def make_plain_folds(count: int, seed: int, faces: int) -> np.ndarray:
    """Fold number (n,) of each face as scikit-learn's shuffled KFold gives it, which knows nothing of photos."""
    order = np.arange(faces)
    np.random.RandomState(seed % 2**32).shuffle(order)  # noqa: NPY002
    folds = np.empty(faces, int)
    for fold, rows in enumerate(np.array_split(order, count)):
        folds[rows] = fold
    return folds


def count_leaks(folds: np.ndarray, groups: np.ndarray, twins: np.ndarray) -> dict[str, int]:
    """How many of the held-out faces are known from training: by their mirror twin, or by any face of their group."""
    held_out = folds >= 0
    by_twin = held_out & (twins >= 0) & (folds[twins] != folds)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    lowest, highest = (reduce.reduceat(folds[order], starts) for reduce in (np.minimum, np.maximum))
    is_split = dict(zip(groups[order][starts].tolist(), (lowest != highest).tolist(), strict=True))
    by_group = held_out & np.array([is_split[group] for group in groups.tolist()], dtype=bool)
    return {"mirror twin": int(by_twin.sum()), "photo, twin or copy": int(by_group.sum())}
