"""Finding faces in a photo with dlib's frontal detector, the one that the boxes of iBUG 300-W come from."""

from functools import cache

import cv2
import numpy as np

from foldmark.core.errors import UserError
from foldmark.data.twins import box_overlap

# The detector sees faces of 80 pixels and more. It looks at a copy of at most this many pixels on the longer side, and again
# at twice and four times its size while there may be smaller faces.
FIRST_LOOK, LAST_LOOK, MOST_ENLARGED = 1600, 3200, 4
# Where all faces found are larger than this in the copy, no smaller one is expected behind them.
SMALLEST_SURE = 120
# Two looks at one face overlap at least so much, two faces beside each other less.
SAME_FACE = 0.3


def find_faces(grey: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) left, top, width, height, in pixels of this picture, uint8 (height, width), of the faces in it, from left
    to right. Raises UserError where dlib is not installed."""
    longest = max(grey.shape)
    scale = min(1.0, FIRST_LOOK / longest)
    boxes_px, enlarged = _look(grey, scale), 1
    while 2 * enlarged <= MOST_ENLARGED and 2 * scale * longest <= LAST_LOOK:
        if len(boxes_px) and scale * boxes_px[:, 2].min() > SMALLEST_SURE:
            break
        scale, enlarged = 2 * scale, 2 * enlarged
        for box_px in _look(grey, scale):
            if not len(boxes_px) or box_overlap(box_px, boxes_px).max() < SAME_FACE:
                boxes_px = np.vstack([boxes_px, box_px])
    return boxes_px[np.argsort(boxes_px[:, 0], kind="stable")]


def _look(grey: np.ndarray, scale: float) -> np.ndarray:
    size = tuple(max(1, round(side * scale)) for side in grey.shape[::-1])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    seen = grey if scale == 1 else cv2.resize(grey, size, interpolation=way)
    found = detector()(np.ascontiguousarray(seen))
    boxes = [[face.left(), face.top(), face.width(), face.height()] for face in found]
    return np.array(boxes, np.float64).reshape(-1, 4) / scale


@cache
def detector():
    """dlib's detector, made once. Raises UserError where dlib is not installed."""
    try:
        import dlib
    except ImportError:
        raise UserError(
            "finding faces needs dlib, which is not installed; make photos installs it (or pip install dlib-bin), and photos "
            "whose boxes are given do without."
        ) from None
    return dlib.get_frontal_face_detector()
