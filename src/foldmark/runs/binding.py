"""What a fold's files belong to, as digests: a checkpoint or predictions of another fold, split, config or data set would give
wrong figures in silence, so the files carry their binding and it is compared wherever they are used."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from foldmark.core.config import NOT_PART_OF_A_RUN, Config
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import digest, file_sha256
from foldmark.runs.fold_folder import ALL_FACES, FoldFolder

# What differs, in words: the first that applies is named, because another fold has another split, and so on.
DIFFERENCES = {
    "config": "another config",
    "faces": "other faces (pictures, boxes or points)",
    "fold": "another fold",
    "split": "another split, so it may have been trained on what is held out here",
}


def find_held_out(folds: np.ndarray, fold: int) -> np.ndarray:
    """Which faces (n,) a fold holds out, none where it is ALL_FACES; folds: (n,) of each face, -1 for never held out."""
    return (folds == fold) & (fold != ALL_FACES)


def describe_fold(config: Config, faces: Faces, folds: np.ndarray, fold: int) -> dict[str, str | int]:
    """The binding of a fold: its number, and digests of the config, of the faces that the run learns, and of which of them the
    fold holds out; folds: (n,) of each face. The order of the faces does not matter."""
    settings = config.model_dump(mode="json", exclude_defaults=True)
    for key in NOT_PART_OF_A_RUN:
        section, name = key.split(".")
        settings.get(section, {}).pop(name, None)
    order = sorted(range(len(faces)), key=lambda row: (faces.pictures[row], faces.boxes_px[row].tolist()))
    names = [faces.pictures[row] for row in order]
    contents = [np.ascontiguousarray(array[order], np.float64).tobytes() for array in (faces.boxes_px, faces.points_px)]
    return {
        "config": digest({section: keys for section, keys in settings.items() if keys}),
        "faces": digest([names, *(hashlib.sha256(content).hexdigest() for content in contents)]),
        "fold": fold,
        "split": digest([names, find_held_out(folds[order], fold).tolist()]),
    }


def find_difference(binding: object, expected: Mapping[str, object]) -> str | None:
    """What a stored binding says otherwise than expected, in words; None if nothing. Files made before there were bindings have
    none, and pass."""
    stored = binding if isinstance(binding, dict) else {}
    return next((words for key, words in DIFFERENCES.items() if key in stored and stored[key] != expected[key]), None)


def describe_files(fold: FoldFolder) -> dict[str, str]:
    """The digests of what training wrote into a fold folder, for its summary."""
    return {path.name: file_sha256(path) for path in fold.results}


def is_unchanged(path: Path, summary: Mapping[str, Any]) -> bool:
    """Whether a file of a finished fold is the one that its summary names. One that is not named, as in folds made before there
    were bindings, only has to be there."""
    written = (summary.get("files") or {}).get(path.name)
    return path.is_file() and written in (None, file_sha256(path))


def check_finished(fold: FoldFolder, expected: Mapping[str, object]) -> None:
    """Raise UserError where a finished fold's checkpoint or OOF predictions are missing or were replaced, or where the fold was
    trained with another config, on other faces or with another split than expected (`describe_fold`)."""
    check_binding(fold, expected)
    require_unchanged(fold, *(path for path in fold.results if path != fold.metrics_file))


def check_binding(fold: FoldFolder, expected: Mapping[str, object]) -> None:
    """Raise UserError where a finished fold was trained with another config, on other faces or with another split than
    expected."""
    difference = find_difference(fold.require_summary().get("binding"), expected)
    if difference:
        raise UserError(f"{fold.path}: was trained with {difference}; restore what was changed, or remove it and train again.")


def require_unchanged(fold: FoldFolder, *paths: Path) -> None:
    """Raise UserError for files of a finished fold that are missing or were replaced."""
    summary = fold.require_summary()
    for path in paths:
        if not is_unchanged(path, summary):
            problem = "is not the file that training wrote" if path.is_file() else "is missing, though the fold is finished"
            raise UserError(f"{path}: {problem}; restore it, or remove {fold.path} and run make train again.")
