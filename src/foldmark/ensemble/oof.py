"""Out-of-fold (OOF) predictions: what models predict for faces that they were not trained on, of one experiment or of a blend."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.metrics import bootstrap_interval, compute_scores, face_nme, region_nme
from foldmark.core.prediction import Prediction
from foldmark.data.folds import read_split
from foldmark.runs.binding import check_finished, describe_fold
from foldmark.runs.fold_folder import FoldFolder
from foldmark.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Oof:
    """OOF predictions of n faces, by rising row.

    rows: (n,) of the training faces. folds: (n,) the fold that holds out each.
    prediction: of the n faces, in the original pictures. faces: the n faces.
    """

    rows: np.ndarray
    folds: np.ndarray
    prediction: Prediction
    faces: Faces

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def points_px(self) -> np.ndarray:
        """The predicted points (n, k, 2)."""
        return self.prediction.points_px

    @cached_property
    def nme(self) -> np.ndarray:
        """NME in percent of each face (n,)."""
        return face_nme(self.points_px, self.faces)

    @cached_property
    def mae_px(self) -> np.ndarray:
        """Mean absolute error in original pixels of each face (n,)."""
        return np.abs(self.points_px - self.faces.points_px).mean(axis=(1, 2))

    def scores(self) -> dict[str, float]:
        """The number of faces and the figures of `compute_scores` over all of them."""
        return {"faces": len(self), **compute_scores(self.points_px, self.faces)}

    def interval(self, values: np.ndarray | None = None) -> tuple[float, float]:
        """The 95 % interval of the mean NME, or of other values (n,) of these faces."""
        return bootstrap_interval(self.nme if values is None else values, self.faces.groups)

    def regions(self) -> dict[str, float]:
        """The NME in percent of each region of the markup."""
        return region_nme(self.points_px, self.faces)

    def same_split(self, other: "Oof") -> bool:
        """Whether both hold out the same faces in the same folds."""
        return np.array_equal(self.rows, other.rows) and np.array_equal(self.folds, other.folds)


def read_oof(folder: RunFolder, faces: Faces) -> Oof:
    """The OOF predictions of a run's finished folds. faces: those that the run learns. Raises UserError if no fold is
    finished."""
    folds = folder.require_finished()
    split, config = read_split(folder.split_file, faces), folder.read_config()
    for fold in folds:
        check_finished(fold, describe_fold(config, faces, split, fold.number))
    parts = [_read_fold(fold, faces, split) for fold in folds]
    rows = np.concatenate([rows for rows, _ in parts])
    numbers = np.repeat([fold.number for fold in folds], [len(rows) for rows, _ in parts])
    prediction = Prediction(*(np.concatenate(arrays) for arrays in zip(*(vars(part).values() for _, part in parts), strict=True)))
    order = np.argsort(rows)
    return Oof(rows[order], numbers[order], prediction.take(order), faces.take(rows[order]))


def _read_fold(fold: FoldFolder, faces: Faces, split: np.ndarray) -> tuple[np.ndarray, Prediction]:
    """A fold's OOF predictions, after their faces were compared with the split, and their figures with the summary: folds of
    earlier versions have nothing else to compare. Raises UserError where they differ."""
    rows, prediction = fold.read_oof(faces)
    if (split[rows] != fold.number).any():
        raise UserError(
            f"{fold.path}: holds out other faces than {fold.path.parent / 'split.csv'} says, so its models may have seen them; "
            "restore the split, or remove that fold and train it again."
        )
    found, noted = compute_scores(prediction.points_px, faces.take(rows)), fold.require_summary()
    # The same numbers, however they are summed.
    if noted["faces"] != len(rows) or not all(np.isclose(found[key], noted[key], rtol=1e-6) for key in ("mae_px", "nme")):
        raise UserError(
            f"{fold.path}: its predictions give NME {found['nme']:.2f} % on this data, and {fold.summary_file.name} says "
            f"{noted['nme']:.2f} %; restore the data set and the fold, or remove that fold and train it again."
        )
    return rows, prediction


def require_same_split(folders: Sequence[RunFolder], parts: Sequence[Oof]) -> None:
    """Raise UserError for experiments that do not hold out the same faces in the same folds: blended, their predictions would
    have seen the faces that they are judged on."""
    for folder, part in zip(folders, parts, strict=True):
        if not part.same_split(parts[0]):
            raise UserError(
                f"{folder.path}: holds out other faces than {folders[0].path}, so the two cannot be blended honestly; "
                "train the same folds of both, with the same split (folds.file)."
            )
