"""Prediction and its test-time augmentation: every look comes back to the same place in the original picture."""

import numpy as np
import pytest
import torch
from torch import nn

from foldmark.core import geometry
from foldmark.core.config import check_config
from foldmark.data.crops import open_store
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.models.inference import predict_points, tta_shifts


class Unmoved(nn.Module):
    """A net that answers the mean face, `error` crop pixels too far right, whatever it sees."""

    def __init__(self, mean_points_crop: torch.Tensor, error: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean_points_crop", mean_points_crop)
        self.error = error

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        points = self.mean_points_crop.clone()
        points[:, 0] += self.error
        return points.expand(len(crops), -1, -1)


@pytest.fixture(scope="module")
def set_up(synthetic_root, tmp_path_factory):
    faces = read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)
    config = check_config({"crop": {"size": 64}, "predict": {"realign": 0}}, "test")
    store = open_store(faces, config.crop, tmp_path_factory.mktemp("cache"), workers=1)
    mirror = np.array(faces.markup.mirror)
    points = np.random.default_rng(0).uniform(10, 50, (68, 2))
    symmetric = (points + geometry.apply(geometry.flip(64), points)[mirror]) / 2
    return faces, store, config, torch.from_numpy(symmetric).float()


def predicted(set_up, error=0.0, **predict):
    faces, store, config, mean = set_up
    config = config.model_copy(update={"predict": config.predict.model_copy(update=predict)})
    return predict_points(Unmoved(mean, error), store, np.arange(6), config, faces.markup)


def px_per_crop(set_up):
    _, store, _, _ = set_up
    return 1 / store.px_to_store[:6, 0, 0]


def test_one_look_has_no_spread(set_up):
    points_px, spread_px = predicted(set_up, flip=False)
    assert points_px.shape == (6, 68, 2)
    assert spread_px.shape == (6, 68)
    assert not spread_px.any()


def test_the_flipped_look_comes_back_to_the_same_place(set_up):
    plain, _ = predicted(set_up, flip=False)
    both, spread_px = predicted(set_up, flip=True)
    assert np.abs(plain - both).max() < 1e-3
    assert spread_px.max() < 1e-3


def test_looks_that_disagree_average_and_their_spread_says_by_how_much(set_up):
    """A net that is off to the right in every crop is off to the left in the flipped one."""
    exact, _ = predicted(set_up, flip=False)
    both, spread_px = predicted(set_up, error=3.0, flip=True)
    assert np.abs(exact - both).max() < 1e-3
    assert np.allclose(spread_px, 3.0 * px_per_crop(set_up)[:, None], rtol=1e-3)


def test_shifted_looks_of_a_net_that_stands_still_scatter_about_its_answer(set_up):
    """This net answers the same wherever the face is, so each look comes back shifted the other way."""
    plain, _ = predicted(set_up, flip=False)
    shifted, spread_px = predicted(set_up, flip=False, shift=0.03)
    assert np.abs(plain - shifted).max() < 1e-3
    expected = 0.03 * 64 * np.sqrt(2 * 4 / 5) * px_per_crop(set_up)
    assert np.allclose(spread_px, expected[:, None], rtol=1e-3)


def test_the_shifts_look_towards_each_corner():
    assert tta_shifts(0) == [(0, 0)]
    assert sorted(tta_shifts(2)) == [(-2, -2), (-2, 2), (0, 0), (2, -2), (2, 2)]
