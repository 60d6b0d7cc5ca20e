"""Points for faces: the model's prediction in the crop, cropping again around the predicted face, test-time
augmentation (TTA), and the way back to the original picture."""

import copy
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from foldmark.core import geometry
from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.markup import Markup
from foldmark.core.prediction import Prediction
from foldmark.data.crops import Crops, CropStore, find_other_crop, warp
from foldmark.models.backbones import Backbone
from foldmark.models.blur import BlurPool
from foldmark.models.net import PointRegressor
from foldmark.models.resample import find_sampling, resample

# Pictures in a batch where the config names no number; on a device it is halved until they fit.
CPU_BATCH, DEVICE_BATCH = 32, 1024


def prepare_model(model: PointRegressor) -> PointRegressor:
    """A copy of the model to predict with: each batch norm of the backbone is folded into the conv before it, and the weights are
    in channels_last, which is faster on the CPU (benchmarks/README.md)."""
    from torch.fx import GraphModule, Tracer  # slow to import
    from torch.fx.experimental.optimization import fuse

    class Layers(Tracer):
        def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
            # A blur's kernel depends on its input's shape, which tracing does not know.
            return isinstance(module, BlurPool) or super().is_leaf_module(module, qualified_name)

    prepared = copy.deepcopy(model).eval().requires_grad_(False)
    graph = GraphModule(prepared.backbone, Layers().trace(prepared.backbone))
    prepared.backbone = cast(Backbone, fuse(graph, no_trace=True))
    return prepared.to(memory_format=torch.channels_last)


def predict_points(
    model: PointRegressor, store: CropStore | Crops, rows: np.ndarray, config: Config, markup: Markup
) -> Prediction:
    """The points of these rows (n,) of the store in the original pictures, in the way that `config.predict` sets.

    model.aligner: the detector's boxes scatter and faces tilt, so a small model's points place the first crop: with the turn,
    scale and place that align them to the mean face (after Dollar et al. 2010, Cascaded Pose Regression).
    realign: the face is cropped again so, by the model's own prediction, and predicted again.
    flip, shift: TTA, the mean with the predictions for the flipped crop and for crops that are shifted a little towards each
    corner. With two realignments or more, the plain prediction that aligned the last crop is averaged with the flipped one of the
    last crop; a plain pass over the last crop would change little.
    """
    size, predict = config.crop.size, config.predict
    predictor = CropPredictor(model, store, config, markup)
    mean_crop = model.mean_points_crop.cpu().double().numpy()
    cuts = place_crops(model, store, rows, config, markup)
    points_store, votes_store = np.empty((0, len(rows), markup.count, 2)), np.empty((0, len(rows), markup.count))
    for _ in range(predict.realign):
        points_store, votes_store = predictor.look(rows, cuts[None])
        cuts = geometry.align(points_store[0], mean_crop)
    reuses_last = predict.flip and predict.realign >= 2
    flips = (False, True) if predict.flip else (False,)
    views = [(shift, flip) for shift in tta_shifts(predict.shift * size[0]) for flip in flips][reuses_last:]
    shifted = np.stack([geometry.compose(geometry.similarity(size, size, shift=shift), cuts) for shift, _ in views])
    last, last_votes = predictor.look(rows, shifted, np.array([flip for _, flip in views]))
    averaged = np.concatenate([points_store, last]) if reuses_last else last
    votes = np.concatenate([votes_store, last_votes]) if reuses_last else last_votes
    points_px = geometry.apply(geometry.invert(store.px_to_store[rows]), averaged)
    mean_px = points_px.mean(axis=0)
    spread_px = np.sqrt(np.square(points_px - mean_px).sum(axis=3).mean(axis=0))
    votes_px = np.sqrt(np.square(votes).mean(axis=0)) / geometry.scale_of(store.px_to_store[rows])[:, None]
    return Prediction(mean_px, spread_px, votes_px)


def place_crops(model: PointRegressor, store: CropStore | Crops, rows: np.ndarray, config: Config, markup: Markup) -> np.ndarray:
    """Where a model first looks for these rows (n,) of the store, as affines `store_to_crop` (n, 2, 3): as its aligner says, or
    at the crop about the box."""
    crop = config.crop
    if model.aligner is None:
        return np.repeat(geometry.centre_affine(store.size, crop.size)[None], len(rows), axis=0)
    own = model.aligner.config
    cut, scale = find_other_crop(store.size, crop, own.crop)
    predictor = CropPredictor(model.aligner.model, store, own, markup, oversample=count_oversampling(scale))
    points_store = predictor.predict(rows, np.repeat(cut[None], len(rows), axis=0)[None])[0]
    return geometry.align(points_store, model.mean_points_crop.cpu().double().numpy())


def count_oversampling(scale: float) -> int:
    """How many times larger crops are cut, and averaged down, that show so much less (scale) than the store's."""
    return max(1, round(1 / scale))


def tta_shifts(shift_crop: float) -> list[tuple[float, float]]:
    """The shifts (x, y) of TTA in crop pixels: none, and that far towards each corner."""
    corners = [(x * shift_crop, y * shift_crop) for x in (-1, 1) for y in (-1, 1)]
    return [(0.0, 0.0), *(corners if shift_crop else [])]


class CropPredictor:
    """A model that predicts crops of a store's faces, each cut by an affine of its own. oversample: crops are cut so many times
    larger and averaged down, for a model that sees the faces much smaller than the store holds them."""

    def __init__(
        self, model: PointRegressor, store: CropStore | Crops, config: Config, markup: Markup, *, oversample: int = 1
    ) -> None:
        self.model, self.store, self.size, self.markup = model.eval(), store, config.crop.size, markup
        self.oversample, self.device = oversample, model.mean_points_crop.device
        self.batch = config.predict.batch or (CPU_BATCH if self.device.type == "cpu" else DEVICE_BATCH)

    def predict(self, rows: np.ndarray, store_to_crop: np.ndarray) -> np.ndarray:
        """points_store (v, n, k, 2) of these rows (n,) of the store in v views, each with affines (v, n, 2, 3)."""
        return self.look(rows, store_to_crop)[0]

    @torch.inference_mode()
    def look(self, rows: np.ndarray, store_to_crop: np.ndarray, flips: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The points that `predict` gives, and how far the votes for them lie from them (v, n, k) in store pixels; with views
        flipped or not (v,), None: not. Raises UserError where a model that diverged predicts points that are not finite."""
        views, count = store_to_crop.shape[:2]
        flipped = np.repeat(np.zeros(views, bool) if flips is None else flips, count)
        rows, affines = np.tile(rows, views), store_to_crop.reshape(-1, 2, 3)
        parts, start = [(np.empty((0, self.markup.count, 2)), np.empty((0, self.markup.count)))], 0
        while start < len(rows):
            part = slice(start, start + self.batch)
            try:
                parts.append(self._predict_batch(rows[part], affines[part], flipped[part]))
            except torch.OutOfMemoryError:
                if self.batch == 1:
                    raise
                self.batch //= 2
                continue
            start += self.batch
        points_crop, votes_crop = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if not np.isfinite(points_crop).all():
            raise UserError(
                'the model predicts points that are not finite; train at a lower rate with SET="train.lr_factor=0.3".'
            )
        points_crop[flipped] = geometry.apply(geometry.flip(self.size[0]), points_crop[flipped])[:, self.markup.mirror]
        votes_crop[flipped] = votes_crop[flipped][:, self.markup.mirror]
        points_store = geometry.apply(geometry.invert(affines), points_crop)
        votes_store = votes_crop / geometry.scale_of(affines)[:, None]
        return points_store.reshape(views, count, -1, 2), votes_store.reshape(views, count, -1)

    def _predict_batch(self, rows: np.ndarray, store_to_crop: np.ndarray, flips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        crops, times = [self.store[row] for row in rows], self.oversample
        size = (times * self.size[0], times * self.size[1])
        affines = geometry.compose(geometry.resize(times, times), store_to_crop)
        if self.device.type == "cpu":
            warped = [warp(crop, affine, size) for crop, affine in zip(crops, affines, strict=True)]
            pictures = torch.from_numpy(np.stack(warped))[:, None]
        else:
            sampling = find_sampling(affines, self.store.size, size).to(self.device)
            pictures = resample(torch.from_numpy(np.stack(crops))[:, None].to(self.device), sampling, size)
            pictures = pictures.round().to(torch.uint8)
        if times > 1:
            pictures = avg_pool2d(pictures.float(), times).round().to(torch.uint8)
        flipped = torch.from_numpy(flips).to(self.device)[:, None, None, None]
        points_crop, votes_crop = self.model.predict(torch.where(flipped, pictures.flip(3), pictures))
        return points_crop.cpu().double().numpy(), votes_crop.cpu().double().numpy()
