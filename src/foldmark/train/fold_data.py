"""The training and held-out data of one fold."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from foldmark.core import geometry
from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE, read_bytes
from foldmark.data.crops import Crops, CropStore
from foldmark.data.folds import read_split
from foldmark.runs.binding import check_finished, describe_fold
from foldmark.runs.run import Run
from foldmark.runs.run_folder import RunFolder

# Of a file of unlabelled faces.
LARGEST_UNLABELLED = 4096 * MEGABYTE
ARRAYS = ("pictures", "boxes_px", "points_px", "trust", "px_to_store", "size")


@dataclass(frozen=True)
class FoldData:
    """A fold's row numbers into n faces, and where the points of each are: the run's faces and, after them, unlabelled ones."""

    fold: int
    training_rows: np.ndarray
    held_out_rows: np.ndarray
    store: CropStore | Crops  # their n crops
    pictures: list[str]
    boxes_px: np.ndarray  # (n, 4)
    points_store: np.ndarray  # (n, k, 2) to learn: the truth or, with train.teacher, for training faces what lies between
    mean_crop: np.ndarray  # (k, 2) mean training face
    px_per_crop: np.ndarray  # (n, 2) original pixels a crop pixel, x and y
    face_weight: torch.Tensor  # (n,) weight of a face in the loss, 1 on average over the training faces

    @property
    def seed(self) -> int:
        """The fold's number as a part of random seeds, which must not be negative: ALL_FACES is -1."""
        return self.fold % 2**16

    def count_steps(self, batch: int) -> int:
        """The steps of an epoch."""
        return len(self.training_rows) // batch


def prepare_fold(run: Run, fold: int) -> FoldData:
    """Raises UserError if the fold has fewer training faces than a batch holds, and as `read_teachers` and `read_unlabelled`
    do."""
    training_rows = run.training_rows(fold)
    if len(training_rows) < run.config.train.batch:
        raise UserError(f"train.batch: {run.config.train.batch} is more than the {len(training_rows)} training faces; lower it.")
    store, pictures, boxes_px, points_px = run.store, run.faces.pictures, run.faces.boxes_px, run.faces.points_px
    if run.config.train.teacher:
        taught, share = read_teachers(run, fold), run.config.train.teacher_share
        points_px = points_px.copy()
        points_px[training_rows] += share * (taught - points_px[training_rows])
    trust = np.ones(len(points_px))
    if run.config.train.unlabelled:
        extra = read_unlabelled(run.places.root / run.config.train.unlabelled, run.faces.markup.count)
        store, pictures = extra.store, [*pictures, *extra.pictures]
        training_rows = np.append(training_rows, len(points_px) + np.arange(len(extra.pictures)))
        boxes_px, points_px = np.concatenate([boxes_px, extra.boxes_px]), np.concatenate([points_px, extra.points_px])
        trust = np.concatenate([trust, extra.trust])
    store_to_crop = geometry.centre_affine(store.size, run.config.crop.size)
    crop_to_px = geometry.invert(geometry.compose(store_to_crop, store.px_to_store))
    points_store = geometry.apply(store.px_to_store, points_px)
    px_per_crop = crop_to_px[:, [0, 1], [0, 1]]
    # The competition counts pixels of the picture, so a large face counts more; NME counts all faces alike.
    weight = px_per_crop.mean(axis=1) ** run.config.train.large_faces * trust
    return FoldData(
        fold=fold,
        training_rows=training_rows,
        held_out_rows=run.held_out_rows(fold),
        store=store,
        pictures=pictures,
        boxes_px=boxes_px,
        points_store=points_store,
        mean_crop=geometry.apply(store_to_crop, points_store[training_rows]).mean(axis=0),
        px_per_crop=px_per_crop,
        face_weight=torch.from_numpy(weight / weight[training_rows].mean()).float(),
    )


def read_teachers(run: Run, fold: int) -> np.ndarray:
    """points_px (n, k, 2) of the fold's n training faces: the mean of the teachers' out-of-fold predictions, none by a model that
    has seen the face, or a face that the fold holds out. Raises UserError where a teacher is not trained that far, or
    has seen one."""
    names, rows = run.config.train.teacher or [], run.training_rows(fold)
    return np.mean([_read_teacher(run, fold, name)[rows] for name in names], axis=0)


def _read_teacher(run: Run, fold: int, name: str) -> np.ndarray:
    """A teacher's out-of-fold points_px (n, k, 2) of the run's n faces; of those that it has none of, what is not a number."""
    folder, where = RunFolder(run.places.run(name)), f"train.teacher: {name}"
    if not folder.finished:
        raise UserError(f"{where}: has no finished fold; train it first, with the same DATA_ROOT.")
    config, split = folder.read_config(), read_split(folder.split_file, run.faces)
    if config.data.points != run.config.data.points or config.data.set != run.config.data.set:
        raise UserError(f"{where}: learned other points; name a run of the same data.set and data.points.")
    if (split[run.held_out_rows(fold)] != config.folds.leave_out).any():
        raise UserError(
            f"{where}: its models have seen faces that fold {fold} holds out, so the figure would flatter; name a run with the "
            f"same folds.file and folds.leave_out={fold}, as make distill trains it."
        )
    points_px = np.full_like(run.faces.points_px, np.nan)
    for finished in folder.finished:
        check_finished(finished, describe_fold(config, run.faces, split, finished.number))
        rows, prediction = finished.read_oof(run.faces)
        points_px[rows] = prediction.points_px
    missing = int(np.isnan(points_px[run.training_rows(fold)]).any(axis=(1, 2)).sum())
    if missing:
        raise UserError(f"{where}: has no out-of-fold points of {missing} training faces; train its other folds first.")
    return points_px


@dataclass(frozen=True)
class UnlabelledFaces:
    """m faces without labels that a net learns beside those of its run, with the points of an ensemble for truth.

    `make distill` keeps them in cache/ as two files: <name>.npz, and <name>.u8 with the crops of the run's faces and, after
    these, theirs. pictures, boxes_px (m, 4), points_px (m, k, 2). trust: (m,) weight of a face in the loss, from 0 to 1. store:
    both crops.
    """

    store: CropStore
    pictures: list[str]
    boxes_px: np.ndarray
    points_px: np.ndarray
    trust: np.ndarray


def find_pixels(file: Path) -> Path:
    """The file of the crops beside that of the points."""
    return file.with_suffix(".u8")


def read_unlabelled(file: Path, points: int) -> UnlabelledFaces:
    """Raises UserError for files that are missing or damaged, or of faces with another number of points."""
    pixels = find_pixels(file)
    try:
        with np.load(BytesIO(read_bytes(file, LARGEST_UNLABELLED))) as stored:
            content = {name: stored[name] for name in ARRAYS}
        width, height = content["size"].tolist()
        px_to_store, count = content["px_to_store"], len(content["pictures"])
        if content["points_px"].shape != (count, points, 2) or not np.isfinite(content["points_px"]).all():
            raise ValueError("not the points of these faces")
        if pixels.stat().st_size != len(px_to_store) * width * height:
            raise ValueError(f"{pixels.name} has another size")
    except Exception as error:  # a damaged archive raises nearly anything
        raise UserError(
            f"{file}: the unlabelled faces cannot be read ({error}); make distill with the same UNLABELLED writes them again."
        ) from None
    store = CropStore(pixels, (width, height), px_to_store)
    return UnlabelledFaces(store, content["pictures"].tolist(), content["boxes_px"], content["points_px"], content["trust"])
