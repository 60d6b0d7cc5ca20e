"""The run folder: what one experiment holds, `runs/<experiment>/`.

config.yaml          the resolved config
split.csv            which face is in which fold
environment.json     versions, revision, machine
ensemble.json        when folds are finished: the calibration of their uncertainty (see ensemble_fit.py)
fold0/metrics.csv    one row per epoch: the truth that W&B shows
fold0/last.pt        to go on from; when the fold is finished, the net it ended with
fold0/previous.pt    the state before, until the fold is finished
fold0/oof.npz        predictions for the held-out faces: rows (n,), points_px (n, k, 2), spread_px (n, k)
fold0/summary.json   the fold's figures; it is there only when the fold is finished
"""

import json
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from foldmark.core.config import Config, check_config, config_text, differences, drop_retired, read_yaml, with_overrides
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import atomic_path, write_text
from foldmark.core.progress import Progress, no_progress
from foldmark.data.crops import CropStore, open_store, refuse_damaged
from foldmark.data.folds import group_faces, hold_out_last, make_folds, read_split, write_split
from foldmark.data.sets import Data
from foldmark.runs.experiment import CACHE, RUNS


@dataclass(frozen=True)
class Run:
    """One experiment, ready to train: its folder, its faces with their fold numbers, and their crops."""

    folder: Path
    config: Config
    faces: Faces
    folds: np.ndarray
    store: CropStore

    def fold_folder(self, fold: int) -> Path:
        return self.folder / f"fold{fold}"

    def held_out_rows(self, fold: int) -> np.ndarray:
        return np.flatnonzero((self.folds == fold) & self._usable)

    def training_rows(self, fold: int) -> np.ndarray:
        return np.flatnonzero((self.folds != fold) & self._usable)

    @property
    def _usable(self) -> np.ndarray:
        return ~np.isin(np.arange(len(self.faces)), list(self.store.damaged))


def open_run(name: str, config: Config, data: Data, progress: Progress = no_progress) -> Run:
    """Make the run folder of this experiment, or open it to go on. Raises UserError if it was made with another config
    or other data."""
    folder = RUNS / name
    if (folder / "config.yaml").exists():
        _refuse_changes(folder, stored_config(folder), config)
    faces = data.train if config.data.points is None else data.train.pick_points(config.data.points)
    split = folder / "split.csv"
    new = not split.exists()
    if new and not config.folds.file:
        groups = group_faces(faces)
        if config.folds.hold_out_last:
            folds = hold_out_last(faces, groups, config.folds.hold_out_last)
        else:
            folds = make_folds(faces, groups, config.folds.count, config.folds.seed)
    else:
        folds = read_split(config.folds.file if new else split, faces)
    store = open_store(faces, config.crop, CACHE, progress=progress)
    if not config.data.skip_damaged:
        refuse_damaged(faces, store, 'mend or remove these faces, or leave them out with SET="data.skip_damaged=true".')
    if config.train.start and not (folder / "config.yaml").exists():
        folder_to_start_from(config, faces, folds)
    # Only now that nothing is wrong with the input does the run folder come to be.
    if new and config.folds.file:
        write_text(split, config.folds.file.read_text(encoding="utf-8"))
    elif new:
        write_split(split, faces, groups, folds)
    if not (folder / "config.yaml").exists():
        write_text(folder / "environment.json", json.dumps(environment(data), indent=1))
        write_text(folder / "config.yaml", config_text(config))
    return Run(folder, config, faces, folds, store)


def folder_to_start_from(config: Config, faces: Faces, folds: np.ndarray) -> Path:
    """The run folder that train.start names. Raises UserError if it has no finished fold, or holds out other faces than `folds`
    (n,) does."""
    folder = RUNS / config.train.start
    if not finished_folds(folder):
        raise UserError(f"train.start: {folder} has no finished fold; train it first, with the same DATA_ROOT.")
    split = folder / "split.csv"
    if not np.array_equal(read_split(split, faces), folds):
        raise UserError(
            f"train.start: {folder} has other folds, so its nets have seen what this run holds out; "
            f'take its folds with SET="folds.file={split}".'
        )
    return folder


def stored_config(folder: Path, overrides: list[str] | None = None) -> Config:
    """The config that this run was made with, but for settings that are no part of it, which overrides may change. Raises
    UserError for other overrides that say otherwise."""
    path = folder / "config.yaml"
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path}: cannot be read; restore it, or train under another name with NAME=...") from None
    try:
        stored = check_config(drop_retired(tree), str(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from None
    asked = with_overrides(stored.model_dump(), overrides or [], str(path))
    _refuse_changes(folder, stored, asked)
    return asked


def wanted_folds(run: Run, asked: list[int] | None) -> list[int]:
    there = range(run.folds.max() + 1)
    for fold in asked or []:
        if fold not in there:
            raise UserError(f'FOLDS="{fold}": this experiment has folds 0 to {there[-1]}.')
    return sorted(set(asked)) if asked else list(there)


def read_summary(fold_folder: Path) -> dict | None:
    """The figures of a finished fold, None for one that is not."""
    path = fold_folder / "summary.json"
    return json.loads(path.read_text()) if path.is_file() else None


def finished_folds(folder: Path) -> list[int]:
    folds = [path.parent.name.removeprefix("fold") for path in folder.glob("fold*/summary.json")]
    return sorted(int(fold) for fold in folds if fold.isdigit())


def trained_on_synthetic(folder: Path) -> bool:
    """Whether this run learnt from faces that Foldmark generates."""
    path = folder / "environment.json"
    try:
        return bool(json.loads(path.read_text()).get("synthetic_faces"))
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{path}: cannot be read, so nothing says whether this run saw real faces; restore it.") from None


def write_oof(fold_folder: Path, rows: np.ndarray, points_px: np.ndarray, spread_px: np.ndarray) -> None:
    with atomic_path(fold_folder / "oof.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, rows=rows, points_px=points_px, spread_px=spread_px)


def read_oof(fold_folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rows, points_px and spread_px as `write_oof` took them."""
    with np.load(fold_folder / "oof.npz") as stored:
        return stored["rows"], stored["points_px"], stored["spread_px"]


def _refuse_changes(folder: Path, stored: Config, asked: Config) -> None:
    changed = differences(stored, asked)
    if changed:
        raise UserError(
            f"{folder} was made with another config: {', '.join(changed)}; "
            "name a new experiment with NAME=..., or remove that folder."
        )


def environment(data: Data) -> dict:
    """What a result may depend on beside settings and data: versions, revision and machine."""
    packages = ["foldmark", "torch", "torchvision", "numpy", "opencv-python-headless", "albumentations", "wandb"]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {package: _version(package) for package in packages},
        "revision": _revision(),
        "synthetic_faces": data.synthetic,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def _revision() -> str | None:
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
