"""Points for faces: the net's answer in the crop, the crop cut anew where the answer puts the face, flipped and averaged,
and mapped back to the original picture."""

import numpy as np
import torch
from torch import nn

from foldmark.core import geometry
from foldmark.core.config import Config
from foldmark.core.markup import Markup
from foldmark.data.crops import Crops, CropStore, warp


def predict_points(
    model: nn.Module, store: CropStore | Crops, rows: np.ndarray, config: Config, markup: Markup, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """points_px (len(rows), k, 2) in the original pictures, in the way that `config.predict` sets, and spread_px
    (len(rows), k): how far the looks that were averaged lie from their mean, root mean square.

    realign: the detector's boxes scatter and faces tilt, so the face is cut anew with the turn, scale and place that lay
    the prediction onto the mean face, and predicted again (after Dollar et al. 2010, Cascaded Pose Regression).
    flip, shift: test-time augmentation (TTA): the mean with what is seen in the flipped crop and in crops that are shifted
    a little towards each corner.
    """
    size = config.crop.size
    mean_crop = model.mean_points_crop.cpu().double().numpy()
    means_px, spreads_px = [], []
    for start in range(0, len(rows), config.predict.batch):
        part = rows[start : start + config.predict.batch]
        crops = [store[row] for row in part]
        store_to_crop = np.repeat(geometry.centre_affine(store.size, size)[None], len(crops), axis=0)
        for _ in range(config.predict.realign):
            points = look(model, crops, store_to_crop, size, markup, device)[0]
            store_to_crop = geometry.align(points, mean_crop)
        looks = [
            look(
                model,
                crops,
                geometry.compose(geometry.similarity(size, size, shift=move), store_to_crop),
                size,
                markup,
                device,
                flip=config.predict.flip,
            )
            for move in moves(config.predict.shift * size[0])
        ]
        points_px = geometry.apply(geometry.invert(store.px_to_store[part]), np.concatenate(looks))
        means_px.append(points_px.mean(axis=0))
        spreads_px.append(np.sqrt(np.square(points_px - means_px[-1]).sum(axis=3).mean(axis=0)))
    return np.concatenate(means_px), np.concatenate(spreads_px)


def moves(shift_crop: float) -> list[tuple[float, float]]:
    """The shifts (x, y) that TTA looks at: none, and that far towards each corner."""
    corners = [(x * shift_crop, y * shift_crop) for x in (-1, 1) for y in (-1, 1)]
    return [(0.0, 0.0), *(corners if shift_crop else [])]


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
    """points_store (1, n, k, 2) of some store crops, seen once through these affines (n, 2, 3); with `flip` (2, n, k, 2),
    the second as seen in the flipped crops."""
    seen = np.stack([warp(crop, affine, size) for crop, affine in zip(crops, store_to_crop, strict=True)])
    seen = torch.from_numpy(seen)[:, None].to(device)
    model.eval()
    points_crop = [model(seen).cpu().double().numpy()]
    if flip:
        flipped = model(seen.flip(3)).cpu().double().numpy()
        points_crop.append(geometry.apply(geometry.flip(size[0]), flipped)[:, markup.mirror])
    return geometry.apply(geometry.invert(store_to_crop), np.stack(points_crop))
