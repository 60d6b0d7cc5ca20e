"""Points for faces: the net's answer in the crop, the crop cut anew where the answer puts the face, flipped and averaged,
and mapped back to the original picture."""

import numpy as np
import torch
from torch import nn

from foldmark import geometry
from foldmark.augment import centre_affine, warp
from foldmark.config import Config
from foldmark.crops import CropStore
from foldmark.markup import Markup


def predict_points(
    model: nn.Module, store: CropStore, rows: np.ndarray, config: Config, markup: Markup, device: torch.device
) -> np.ndarray:
    """points_px (len(rows), k, 2) in the original pictures, in the way that `config.predict` sets.

    realign: the detector's boxes scatter and faces tilt, so the face is cut anew with the turn, scale and place that lay
    the prediction onto the mean face, and predicted again (after Dollar et al. 2010, Cascaded Pose Regression).
    flip: test-time augmentation (TTA): the mean with the prediction for the flipped crop, flipped back.
    """
    size = config.crop.size
    mean_crop = model.mean_points_crop.cpu().double().numpy()
    points_store = []
    for start in range(0, len(rows), config.predict.batch):
        crops = [store[row] for row in rows[start : start + config.predict.batch]]
        store_to_crop = np.repeat(centre_affine(store.size, size)[None], len(crops), axis=0)
        for _ in range(config.predict.realign):
            points = look(model, crops, store_to_crop, size, markup, device)
            store_to_crop = np.stack([geometry.align(face, mean_crop) for face in points])
        points_store.append(look(model, crops, store_to_crop, size, markup, device, flip=config.predict.flip))
    return geometry.apply(geometry.invert(store.px_to_store[rows]), np.concatenate(points_store))


@torch.inference_mode()
def look(
    model: nn.Module,
    crops: list[np.ndarray],
    store_to_crop: np.ndarray,
    size: tuple[int, int],
    markup: Markup,
    device: torch.device,
    *,
    flip: bool = False,
) -> np.ndarray:
    """points_store (n, k, 2) of some store crops, seen once through these affines (n, 2, 3)."""
    seen = np.stack([warp(crop, affine, size) for crop, affine in zip(crops, store_to_crop, strict=True)])
    seen = torch.from_numpy(seen)[:, None].to(device)
    model.eval()
    points_crop = model(seen).cpu().double().numpy()
    if flip:
        flipped = model(seen.flip(3)).cpu().double().numpy()
        points_crop = (points_crop + geometry.apply(geometry.flip(size[0]), flipped)[:, markup.mirror]) / 2
    return geometry.apply(geometry.invert(store_to_crop), points_crop)
