"""Shift consistency measures what it says: nothing for points that stay on the face, the shift itself for those that do
not."""

import numpy as np
import pytest
import torch

from foldmark.core import geometry
from foldmark.core.config import Config
from foldmark.data.crops import open_store
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.models.consistency import SHIFTS, measure_shift_consistency
from foldmark.runs.places import Places
from foldmark.runs.run import Run
from foldmark.runs.run_folder import RunFolder


class OnCpu(torch.nn.Module):
    """A model without weights; its mean face only says where it computes."""

    aligner = None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean_points_crop", torch.zeros(68, 2))

    def predict(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points_crop = self(crops)
        return points_crop, torch.zeros_like(points_crop[..., 0])


class Still(OnCpu):
    """Predicts the same whatever it sees."""

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return torch.full((len(crops), 68, 2), 60.0)


class Follows(OnCpu):
    """Finds where the crop agrees best with its own middle, seen first: so it knows how far the crop has moved."""

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "first"):
            self.first = crops
        moves = []
        for crop, first in zip(crops[:, 0].float(), self.first[:, 0].float(), strict=True):
            candidates = [(x, y) for x in range(9) for y in range(9)]
            errors = [(crop[20 + y : 100 + y, 20 + x : 100 + x] - first[20:100, 20:100]).abs().mean() for x, y in candidates]
            moves.append(candidates[int(torch.stack(errors).argmin())])
        return torch.tensor(moves, dtype=torch.float32)[:, None].repeat(1, 68, 1) + 50


@pytest.fixture
def run(synthetic_root, tmp_path) -> Run:
    config = Config()
    faces = read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True).take(np.arange(4))
    places = Places(tmp_path)
    store = open_store(faces, config.crop, places.cache)
    return Run(RunFolder(places.run("a")), config, faces, np.zeros(4, int), store, places)


def test_points_that_stand_in_the_crop_move_by_the_shift(run):
    rows = np.arange(4)
    store_to_px = geometry.invert(run.store.px_to_store)
    crop_to_px = geometry.compose(store_to_px, geometry.invert(geometry.centre_affine(run.store.size, run.config.crop.size)))
    px_per_crop = crop_to_px[:, [0, 1], [0, 1]].mean(axis=1)
    expected = 100 * np.mean(SHIFTS) * px_per_crop / run.faces.eye_distance_px
    assert measure_shift_consistency(Still(), run, rows) == pytest.approx(expected, rel=1e-6)


def test_points_that_stay_on_the_face_do_not_move(run):
    assert measure_shift_consistency(Follows(), run, np.arange(4)) == pytest.approx(np.zeros(4), abs=1e-3)
