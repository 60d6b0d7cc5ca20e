"""Points for faces: the model's prediction in the crop, cropping again around the predicted face, test-time
augmentation (TTA), and the way back to the original picture."""

import numpy as np
import torch

from foldmark.core import geometry
from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.markup import Markup
from foldmark.data.crops import Crops, CropStore, warp
from foldmark.models.net import PointRegressor


def predict_points(
    model: PointRegressor, store: CropStore | Crops, rows: np.ndarray, config: Config, markup: Markup
) -> tuple[np.ndarray, np.ndarray]:
    """points_px (len(rows), k, 2) in the original pictures, in the way that `config.predict` sets, and spread_px
    (len(rows), k): how far the predictions that were averaged lie from their mean, root mean square.

    realign: the detector's boxes scatter and faces tilt, so the face is cropped again with the turn, scale and place that align
    the prediction to the mean face, and predicted again (after Dollar et al. 2010, Cascaded Pose Regression).
    flip, shift: TTA, the mean with the predictions for the flipped crop and for crops that are shifted a little towards each
    corner.
    """
    size, predict = config.crop.size, config.predict
    mirror = markup.mirror if predict.flip else None
    mean_crop = model.mean_points_crop.cpu().double().numpy()
    means_px, spreads_px = [], []
    for start in range(0, len(rows), predict.batch):
        part = rows[start : start + predict.batch]
        crops = [store[row] for row in part]
        store_to_crop = np.repeat(geometry.centre_affine(store.size, size)[None], len(crops), axis=0)
        for _ in range(predict.realign):
            points_store = predict_crops(model, crops, store_to_crop, size)[0]
            store_to_crop = geometry.align(points_store, mean_crop)
        shifted = [geometry.similarity(size, size, shift=shift) for shift in tta_shifts(predict.shift * size[0])]
        points_store = np.concatenate(
            [predict_crops(model, crops, geometry.compose(move, store_to_crop), size, mirror) for move in shifted]
        )
        points_px = geometry.apply(geometry.invert(store.px_to_store[part]), points_store)
        means_px.append(points_px.mean(axis=0))
        spreads_px.append(np.sqrt(np.square(points_px - means_px[-1]).sum(axis=3).mean(axis=0)))
    return np.concatenate(means_px), np.concatenate(spreads_px)


def tta_shifts(shift_crop: float) -> list[tuple[float, float]]:
    """The shifts (x, y) of TTA in crop pixels: none, and that far towards each corner."""
    corners = [(x * shift_crop, y * shift_crop) for x in (-1, 1) for y in (-1, 1)]
    return [(0.0, 0.0), *(corners if shift_crop else [])]


@torch.inference_mode()
def predict_crops(
    model: PointRegressor,
    crops: list[np.ndarray],
    store_to_crop: np.ndarray,
    size: tuple[int, int],
    mirror: np.ndarray | None = None,
) -> np.ndarray:
    """points_store (1, n, k, 2) of some store crops, each predicted once through its affine (n, 2, 3); with `mirror`, the
    markup's left for right, (2, n, k, 2): the second from the flipped crops. Raises UserError where a model that diverged
    predicts points that are not finite."""
    warped = np.stack([warp(crop, affine, size) for crop, affine in zip(crops, store_to_crop, strict=True)])
    pictures = torch.from_numpy(warped)[:, None].to(model.mean_points_crop.device)
    model.eval()
    points_crop = [model(pictures).cpu().double().numpy()]
    if mirror is not None:
        flipped = model(pictures.flip(3)).cpu().double().numpy()
        points_crop.append(geometry.apply(geometry.flip(size[0]), flipped)[:, mirror])
    if not np.isfinite(points_crop).all():
        raise UserError('the model predicts points that are not finite; train at a lower rate with SET="train.lr_factor=0.3".')
    return geometry.apply(geometry.invert(store_to_crop), np.stack(points_crop))
