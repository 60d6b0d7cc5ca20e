"""Prediction and its test-time augmentation: every look comes back to the same place in the original picture."""

import numpy as np
import pytest
import torch
from torch import nn

from foldmark.core import geometry
from foldmark.core.config import check_config
from foldmark.data.crops import open_store
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.models.inference import predict_points, prepare_model, tta_shifts
from foldmark.models.net import build_model
from foldmark.models.trained import Aligner


class Unmoved(nn.Module):
    """A net that answers the mean face, `error` crop pixels too far right, whatever it sees."""

    aligner = None

    def __init__(self, mean_points_crop: torch.Tensor, error: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean_points_crop", mean_points_crop)
        self.error = error

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        points = self.mean_points_crop.clone()
        points[:, 0] += self.error
        return points.expand(len(crops), -1, -1)

    def predict(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points_crop = self(crops)
        return points_crop, torch.ones_like(points_crop[..., 0])


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
    prediction = predicted(set_up, flip=False)
    assert prediction.points_px.shape == (6, 68, 2)
    assert prediction.spread_px.shape == (6, 68)
    assert not prediction.spread_px.any()


def test_votes_are_in_pixels_of_the_picture(set_up):
    """The votes of this net lie a crop pixel off, in every look."""
    for flip in (False, True):
        assert np.allclose(predicted(set_up, flip=flip).votes_px, px_per_crop(set_up)[:, None])


def test_the_flipped_look_comes_back_to_the_same_place(set_up):
    plain = predicted(set_up, flip=False)
    both = predicted(set_up, flip=True)
    assert np.abs(plain.points_px - both.points_px).max() < 1e-3
    assert both.spread_px.max() < 1e-3


def test_looks_that_disagree_average_and_their_spread_says_by_how_much(set_up):
    """A net that is off to the right in every crop is off to the left in the flipped one."""
    exact = predicted(set_up, flip=False)
    both = predicted(set_up, error=3.0, flip=True)
    assert np.abs(exact.points_px - both.points_px).max() < 1e-3
    assert np.allclose(both.spread_px, 3.0 * px_per_crop(set_up)[:, None], rtol=1e-3)


def test_shifted_looks_of_a_net_that_stands_still_scatter_about_its_answer(set_up):
    """This net answers the same wherever the face is, so each look comes back shifted the other way."""
    plain = predicted(set_up, flip=False)
    shifted = predicted(set_up, flip=False, shift=0.03)
    assert np.abs(plain.points_px - shifted.points_px).max() < 1e-3
    expected = 0.03 * 64 * np.sqrt(2 * 4 / 5) * px_per_crop(set_up)
    assert np.allclose(shifted.spread_px, expected[:, None], rtol=1e-3)


def test_the_shifts_look_towards_each_corner():
    assert tta_shifts(0) == [(0, 0)]
    assert sorted(tta_shifts(2)) == [(-2, -2), (-2, 2), (0, 0), (2, -2), (2, 2)]


@pytest.mark.parametrize("blur", ["none", "all"])
def test_a_prepared_model_predicts_the_same_points(set_up, blur):
    faces, store, config, _ = set_up
    settings = {"crop": {"size": 64}, "model": {"head": "cells", "blur": blur}, "predict": {"realign": 2, "flip": True}}
    config = check_config(settings, "test")
    model = build_model(config, torch.rand(68, 2) * 64, seed=0).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    prepared = prepare_model(model)
    assert blur == "all" or not any(isinstance(module, nn.BatchNorm2d) for module in prepared.backbone.modules())
    plain = predict_points(model, store, np.arange(40), config, faces.markup)
    folded = predict_points(prepared, store, np.arange(40), config, faces.markup)
    # cv2 resamples at 32nds of a pixel, so that a hair's breadth can move a crop that far.
    assert np.abs(plain.points_px - folded.points_px).max() < 0.05
    assert np.median(np.abs(plain.points_px - folded.points_px)) < 0.001
    assert np.abs(plain.spread_px - folded.spread_px).max() < 0.05
    assert np.abs(plain.votes_px - folded.votes_px).max() < 0.05


class Counting(Unmoved):
    """Counts the pictures it sees, and has no memory for more than a few at once."""

    def __init__(self, mean_points_crop: torch.Tensor, most: int = 10**6) -> None:
        super().__init__(mean_points_crop)
        self.seen, self.most = 0, most

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        if len(crops) > self.most:
            raise torch.OutOfMemoryError
        self.seen += len(crops)
        return super().forward(crops)


@pytest.mark.parametrize(("realign", "flip", "passes"), [(0, False, 1), (0, True, 2), (1, True, 3), (2, True, 3), (2, False, 3)])
def test_so_many_passes_a_face(set_up, realign, flip, passes):
    faces, store, config, mean = set_up
    config = config.model_copy(update={"predict": config.predict.model_copy(update={"realign": realign, "flip": flip})})
    model = Counting(mean)
    predict_points(model, store, np.arange(6), config, faces.markup)
    assert model.seen == 6 * passes


def test_a_batch_that_does_not_fit_the_memory_is_halved(set_up):
    faces, store, config, mean = set_up
    small, large = Counting(mean, most=3), Counting(mean)
    one, other = (predict_points(model, store, np.arange(20), config, faces.markup).points_px for model in (small, large))
    assert np.array_equal(one, other)
    with pytest.raises(torch.OutOfMemoryError):
        predict_points(Counting(mean, most=0), store, np.arange(2), config, faces.markup)


@pytest.mark.parametrize(
    "crop", [{"size": 32, "down": 0.2}, {"size": 48, "enlargement": 1.2, "down": 0.1}, {"size": 96, "enlargement": 1.6}]
)
def test_an_aligner_places_the_crop_whatever_the_size_and_place_of_its_own(set_up, crop, tmp_path):
    """A model that answers its mean face wherever the crop lies then says what the aligner said, which has the same face."""
    faces, store, config, mean = set_up
    own = check_config({"crop": crop, "predict": {"realign": 0, "flip": False}}, "test")
    answer = Unmoved(mean * own.crop.size[0] / 64)
    own_store = open_store(faces, own.crop, tmp_path, workers=1)
    said_px = predict_points(answer, own_store, np.arange(6), own, faces.markup).points_px
    model = Unmoved(mean)
    model.aligner = Aligner(answer, own)
    config = config.model_copy(update={"predict": config.predict.model_copy(update={"flip": False})})
    points_px = predict_points(model, store, np.arange(6), config, faces.markup).points_px
    # Both stores are cut at whole pixels of the picture.
    assert np.abs(points_px - said_px).max() < 1.1
    model.aligner = None
    assert np.abs(predict_points(model, store, np.arange(6), config, faces.markup).points_px - said_px).max() > 3.0
