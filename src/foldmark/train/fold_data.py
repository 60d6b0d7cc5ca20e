"""The training and held-out data of one fold."""

from dataclasses import dataclass

import numpy as np
import torch

from foldmark.core import geometry
from foldmark.core.errors import UserError
from foldmark.runs.run import Run


@dataclass(frozen=True)
class FoldData:
    """A fold's row numbers into the run's faces, and where the points of all n faces are."""

    fold: int
    training_rows: np.ndarray
    held_out_rows: np.ndarray
    points_store: np.ndarray  # (n, k, 2)
    mean_crop: np.ndarray  # (k, 2) mean training face
    px_per_crop: np.ndarray  # (n, 2) original pixels a crop pixel, x and y
    face_weight: torch.Tensor  # (n,) weight of a face in the loss, 1 on average over the training faces

    def count_steps(self, batch: int) -> int:
        """The steps of an epoch."""
        return len(self.training_rows) // batch


def prepare_fold(run: Run, fold: int) -> FoldData:
    """Raises UserError if the fold has fewer training faces than a batch holds."""
    training_rows = run.training_rows(fold)
    if len(training_rows) < run.config.train.batch:
        raise UserError(f"train.batch: {run.config.train.batch} is more than the {len(training_rows)} training faces; lower it.")
    store_to_crop = geometry.centre_affine(run.store.size, run.config.crop.size)
    crop_to_px = geometry.invert(geometry.compose(store_to_crop, run.store.px_to_store))
    points_store = geometry.apply(run.store.px_to_store, run.faces.points_px)
    px_per_crop = crop_to_px[:, [0, 1], [0, 1]]
    # The competition counts pixels of the picture, so a large face counts more; NME counts all faces alike.
    weight = px_per_crop.mean(axis=1) ** run.config.train.large_faces
    return FoldData(
        fold=fold,
        training_rows=training_rows,
        held_out_rows=run.held_out_rows(fold),
        points_store=points_store,
        mean_crop=geometry.apply(store_to_crop, points_store[training_rows]).mean(axis=0),
        px_per_crop=px_per_crop,
        face_weight=torch.from_numpy(weight / weight[training_rows].mean()).float(),
    )
