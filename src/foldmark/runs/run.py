"""A run: an experiment with its faces, folds and crops, ready to train or to be looked at."""

import json
from dataclasses import dataclass

import numpy as np

from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import lock_folder, write_text
from foldmark.core.progress import Progress, no_progress
from foldmark.data.crops import Crops, CropStore, open_store, refuse_damaged
from foldmark.data.folds import group_faces, make_split, read_split, write_split
from foldmark.data.lookalikes import inspect_faces
from foldmark.data.sets import Data
from foldmark.runs.binding import check_binding, describe_fold, find_held_out, require_unchanged
from foldmark.runs.environment import describe_environment
from foldmark.runs.fold_folder import FoldFolder
from foldmark.runs.places import FROM_WANDB, Places
from foldmark.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Run:
    """An opened experiment: its folder and config, the faces that it learns (`run.faces`, the only owner of them: with the points
    that its config picks), the fold (n,) of each, and their crops."""

    folder: RunFolder
    config: Config
    faces: Faces
    folds: np.ndarray
    store: CropStore | Crops
    places: Places

    @property
    def name(self) -> str:
        return self.folder.name

    def fold(self, number: int) -> FoldFolder:
        return self.folder.fold(number)

    def held_out_rows(self, fold: int) -> np.ndarray:
        return np.flatnonzero(find_held_out(self.folds, fold) & self._usable)

    def training_rows(self, fold: int) -> np.ndarray:
        chosen, left_out = ~find_held_out(self.folds, fold) & self._usable, self.config.folds.leave_out
        return np.flatnonzero(chosen if left_out is None else chosen & (self.folds != left_out))

    def select_folds(self, asked: list[int] | None) -> list[int]:
        """The asked folds, or all of them. Raises UserError for a fold that is not there."""
        count, left_out = self.folds.max() + 1, self.config.folds.leave_out
        there = [fold for fold in range(count) if fold != left_out]
        for fold in asked or []:
            if fold not in there:
                without = "" if left_out is None else f" without {left_out}, which folds.leave_out leaves out"
                raise UserError(f'FOLDS="{fold}": this experiment has folds 0 to {count - 1}{without}.')
        return sorted(set(asked)) if asked else there

    @property
    def _usable(self) -> np.ndarray:
        return ~np.isin(np.arange(len(self.faces)), list(self.store.damaged))


def open_run(places: Places, name: str, config: Config, data: Data, progress: Progress = no_progress) -> Run:
    """Make the run folder of this experiment, or open it to resume. Raises UserError if it was made with another config or other
    data."""
    folder = RunFolder(places.run(name))
    if folder.config_file.exists():
        folder.refuse_changes(folder.read_config(), config)
        faces = pick_faces(data, config)
        return Run(
            folder, config, faces, read_split(folder.split_file, faces), _open_crops(faces, config, places, progress), places
        )
    faces = pick_faces(data, config)
    folds, groups = _choose_folds(config, data, progress)
    store = _open_crops(faces, config, places, progress)
    for key in config.sources:
        find_source(places, config, key, faces, folds)
    # The folder is made only now that nothing is wrong with the input, and by one process of those that start it together.
    with lock_folder(folder.path, None):
        if folder.config_file.exists():
            folder.refuse_changes(folder.read_config(), config)
            folds = read_split(folder.split_file, faces)
        else:
            if groups is not None:
                write_split(folder.split_file, faces, groups, folds)
            elif config.folds.file:
                write_text(folder.split_file, config.folds.file.read_text(encoding="utf-8"))
            environment = describe_environment(places.root, synthetic=data.synthetic)
            write_text(folder.environment_file, json.dumps(environment, indent=1))
            folder.write_config(config)
    return Run(folder, config, faces, folds, store, places)


def _open_crops(faces: Faces, config: Config, places: Places, progress: Progress) -> CropStore:
    """The crops of these faces. Raises UserError for damaged pictures, unless the config leaves them out."""
    store = open_store(faces, config.crop, places.cache, progress=progress)
    if not config.data.skip_damaged:
        refuse_damaged(faces, store, 'fix or remove these faces, or leave them out with SET="data.skip_damaged=true".')
    return store


def pick_faces(data: Data, config: Config) -> Faces:
    """The training faces of a data set with the points that this config learns."""
    return data.train if config.data.points is None else data.train.pick_points(config.data.points)


def find_source(places: Places, config: Config, key: str, faces: Faces, folds: np.ndarray) -> RunFolder:
    """The run folder that a key of `config.sources` names. Raises UserError if it has no finished fold, or holds out other faces
    than `folds` (n,) does."""
    folder = RunFolder(places.source(config.sources[key]))
    if not folder.finished:
        raise UserError(f"{key}: {folder.path} has no finished fold; train it first, with the same DATA_ROOT.")
    left_out = config.folds.leave_out
    if left_out is not None and folder.read_config().folds.leave_out != left_out:
        raise UserError(
            f"{key}: the models of {folder.path} have seen faces of fold {left_out}, which folds.leave_out keeps unseen; name a "
            f"run with folds.leave_out={left_out}."
        )
    if not np.array_equal(read_split(folder.split_file, faces), folds):
        raise UserError(
            f"{key}: {folder.path} has other folds, so its models have seen what this run holds out; "
            f'take its folds with SET="folds.file={folder.split_file}".'
        )
    return folder


def find_source_fold(run: Run, key: str, fold: int) -> FoldFolder:
    """The fold with that number of the run that a key of `config.sources` names. Raises UserError as `find_source` does, and for
    a fold that is not finished, was trained otherwise than its run says, or whose checkpoint was replaced."""
    folder = find_source(run.places, run.config, key, run.faces, run.folds)
    source, config = folder.fold(fold), folder.read_config()
    if not source.finished:
        raise UserError(f"{key}: {source.path} is not finished; train it first, with the same DATA_ROOT.")
    # The checkpoint of a copy from W&B was compared with its digest when it was fetched; the copy has no binding.
    if not run.config.sources[key].startswith(FROM_WANDB):
        if config.data.points == run.config.data.points:
            check_binding(source, describe_fold(config, run.faces, run.folds, fold))
        require_unchanged(source, source.checkpoint)
    return source


def _choose_folds(config: Config, data: Data, progress: Progress) -> tuple[np.ndarray, np.ndarray | None]:
    """The fold (n,) of each face and, for a split that is not taken from a file, the group (n,) of each."""
    settings, faces = config.folds, data.train
    if settings.file:
        return read_split(settings.file, faces, named=True), None
    alike = settings.alike and data.kind.lookalikes
    groups = group_faces(faces, inspect_faces(faces, progress) if alike else None)
    return make_split(faces, settings, groups), groups
