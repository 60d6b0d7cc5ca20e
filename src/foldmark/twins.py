"""Mirror twins: pictures of a list that are each other's mirror image, `X.jpg` and `X_mirror.jpg`, as the iBUG archive has
them. Each twin's prediction, mirrored back, joins the other's."""

from collections import defaultdict
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from foldmark import geometry
from foldmark.faces import Faces

# Twins were boxed by the detector one by one, so their boxes are alike, not equal.
LEAST_OVERLAP = 0.5


def find_twins(faces: Faces) -> np.ndarray:
    """Row of each face's mirror twin (n,), -1 where the list has none: the twin picture's face whose box, mirrored, covers
    the same place."""
    rows_of = defaultdict(lambda: ([], []))
    for row, picture in enumerate(faces.pictures):
        path = PurePosixPath(picture)
        rows_of[path.with_name(path.stem.removesuffix("_mirror"))][path.stem.endswith("_mirror")].append(row)
    twins = np.full(len(faces), -1)
    for plain, mirrored in rows_of.values():
        free = list(mirrored)
        for row in plain if mirrored else []:
            boxes_px = mirrored_boxes(faces.boxes_px[free], picture_width(faces, row))
            overlap = box_overlap(faces.boxes_px[row], boxes_px)
            if len(free) and overlap.max() >= LEAST_OVERLAP:
                twin = free.pop(int(overlap.argmax()))
                twins[row], twins[twin] = twin, row
    return twins


def join_twins(points_px: np.ndarray, faces: Faces, twins: np.ndarray) -> np.ndarray:
    """points_px (n, k, 2) in which each face with a twin has the mean of its own points and its twin's, mirrored back."""
    joined = points_px.copy()
    for row in np.flatnonzero(twins >= 0):
        mirrored = geometry.apply(geometry.flip(picture_width(faces, row)), points_px[twins[row]])[faces.markup.mirror]
        joined[row] = (points_px[row] + mirrored) / 2
    return joined


def picture_width(faces: Faces, row: int) -> float:
    """Width in pixels as the label file states it, else as the picture's own header does."""
    if faces.sizes_px[row, 0]:
        return faces.sizes_px[row, 0]
    with Image.open(faces.path(row)) as picture:
        return picture.width


def mirrored_boxes(boxes_px: np.ndarray, width: float) -> np.ndarray:
    """Boxes (n, 4) left, top, width, height as they stand in the mirror image of a picture of that width."""
    mirrored = boxes_px.copy()
    mirrored[:, 0] = width - boxes_px[:, 0] - boxes_px[:, 2]
    return mirrored


def box_overlap(box_px: np.ndarray, boxes_px: np.ndarray) -> np.ndarray:
    """Intersection over union (n,) of a box with boxes (n, 4)."""
    start = np.maximum(box_px[:2], boxes_px[:, :2])
    end = np.minimum(box_px[:2] + box_px[2:], boxes_px[:, :2] + boxes_px[:, 2:])
    shared = np.clip(end - start, 0, None).prod(axis=1)
    return shared / (box_px[2:].prod() + boxes_px[:, 2:].prod(axis=1) - shared)
