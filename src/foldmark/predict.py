"""Points for faces: the net's answer in the crop, flipped and averaged if wanted, mapped back to the original picture."""

import numpy as np
import torch
from torch import nn

from foldmark import geometry
from foldmark.augment import PlainFaces, centre_affine
from foldmark.config import Config
from foldmark.crops import CropStore
from foldmark.markup import Markup


@torch.inference_mode()
def predict_points(
    model: nn.Module,
    store: CropStore,
    rows: np.ndarray,
    config: Config,
    markup: Markup,
    device: torch.device,
    *,
    flip: bool,
    side: int | None = None,
) -> np.ndarray:
    """points_px (len(rows), k, 2) in the original pictures.

    flip: test-time augmentation (TTA): the mean with the prediction for the flipped crop, flipped back.
    side: side in pixels of what the net sees, if it is still training on smaller pictures of the crop.
    """
    size, model = config.crop.size, model.eval()
    faces = PlainFaces(store, size, side)
    points_crop = []
    for start in range(0, len(rows), config.predict.batch):
        crops = torch.stack([faces[row] for row in rows[start : start + config.predict.batch]]).to(device)
        points = model(crops).cpu().double().numpy()
        if flip:
            flipped = model(crops.flip(3)).cpu().double().numpy()
            points = (points + geometry.apply(geometry.flip(size), flipped)[:, markup.mirror]) / 2
        points_crop.append(points)
    px_to_crop = geometry.compose(centre_affine(store.side, size), store.px_to_store[rows])
    return geometry.apply(geometry.invert(px_to_crop), np.concatenate(points_crop))
