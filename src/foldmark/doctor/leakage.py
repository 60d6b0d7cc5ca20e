"""How much a plain KFold would flatter: which held-out faces have their mirror twin, another face of their photo or a
byte-identical copy among the faces that are trained on. Trains nothing."""

from pathlib import Path

import numpy as np
from rich.box import SIMPLE
from rich.table import Table
from sklearn.model_selection import KFold

from foldmark.core.config import FoldsConfig
from foldmark.data.folds import group_faces, make_folds, write_split
from foldmark.data.sets import Data
from foldmark.data.twins import find_twins
from foldmark.show.terminal import console

PLAIN_SPLIT = Path("runs/leakage/plain-kfold.csv")


def plain_folds(count: int, seed: int, faces: int) -> np.ndarray:
    """Fold number (n,) of each face as scikit-learn's shuffled KFold gives it, which knows nothing of photos."""
    folds = np.empty(faces, int)
    for fold, (_, held_out) in enumerate(KFold(count, shuffle=True, random_state=seed).split(np.zeros(faces))):
        folds[held_out] = fold
    return folds


def leaks(folds: np.ndarray, groups: np.ndarray, twins: np.ndarray) -> dict[str, int]:
    """How many of the held-out faces have been seen in training, each counted when it is held out: as their mirror twin, or
    as anything of their group."""
    with_twin = (twins >= 0) & (folds[twins] != folds)
    folds_of_group = [set(folds[groups == group]) for group in range(groups.max() + 1)]
    with_group = np.array([len(folds_of_group[group]) > 1 for group in groups])
    return {"mirror twin": int(with_twin.sum()), "photo, twin or copy": int(with_group.sum())}


def report_leakage(data: Data, config: FoldsConfig) -> None:
    """Print the leaks of a plain KFold beside those of our split, and write the plain split for whoever wants to measure."""
    faces = data.train
    groups, twins = group_faces(faces), find_twins(faces)
    plain = plain_folds(config.count, config.seed, len(faces))
    splits = {"plain KFold": plain, "Foldmark": make_folds(faces, groups, config.count, config.seed)}
    found = {name: leaks(folds, groups, twins) for name, folds in splits.items()}
    table = Table(box=SIMPLE)
    for title in ("split", *(f"held-out faces whose {kind} was trained on" for kind in found["Foldmark"])):
        table.add_column(title)
    for name, counts in found.items():
        table.add_row(name, *(f"{count:,} of {len(faces):,} ({100 * count / len(faces):.1f} %)" for count in counts.values()))
    console.print(table, soft_wrap=False)
    # Every face a group of its own: that is what a plain KFold believes.
    write_split(PLAIN_SPLIT, faces, np.arange(len(faces)), plain)
    console.print(
        f"made: {PLAIN_SPLIT}. To see what it does to the figure: make train NAME=plain "
        f'SET="folds.file={PLAIN_SPLIT} train.epochs=2", and the same without folds.file under another NAME.',
        markup=False,
    )
