"""Mirror twins: pictures of a list that are each other's mirror image, `X.jpg` and `X_mirror.jpg`, as the iBUG archive has
them. Each twin's prediction, mirrored back, joins the other's."""

from collections import defaultdict
from contextlib import suppress
from pathlib import PurePosixPath

import numpy as np

from foldmark.core import geometry
from foldmark.core.faces import Faces
from foldmark.data.decode import picture_size
from foldmark.data.ibug import is_mirror

# Twins were boxed by the detector one by one, so their boxes are alike, not equal.
LEAST_OVERLAP = 0.5


def find_twins(faces: Faces) -> np.ndarray:
    """Row of each face's mirror twin (n,), -1 where the list has none: the twin picture's face whose box, mirrored, covers
    the same place. Where a picture cannot be read, its width is unknown, and only single faces are twins."""
    widths = read_picture_sizes(faces)[:, 0]
    rows_of: dict[PurePosixPath, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for row, picture in enumerate(faces.pictures):
        path = PurePosixPath(picture)
        rows_of[path.with_name(path.stem.removesuffix("_mirror"))][is_mirror(picture)].append(row)
    twins = np.full(len(faces), -1)
    for plain, mirrored in rows_of.values():
        free, single = list(mirrored), len(plain) == len(mirrored) == 1
        for row in plain if mirrored else []:
            overlap = box_overlap(faces.boxes_px[row], mirror_boxes(faces.boxes_px[free], widths[row]))
            overlap = np.where(np.isnan(overlap), 1.0 if single else 0.0, overlap)
            if free and overlap.max() >= LEAST_OVERLAP:
                twin = free.pop(int(overlap.argmax()))
                twins[row], twins[twin] = twin, row
    return twins


def find_twin_pairs(faces: Faces) -> np.ndarray:
    """Rows (m, 2) of each face and its mirror twin."""
    twins = find_twins(faces)
    mirrored = np.array([is_mirror(picture) for picture in faces.pictures])
    rows = np.flatnonzero((twins >= 0) & ~mirrored)
    return np.stack([rows, twins[rows]], axis=1)


def join_twins(points_px: np.ndarray, faces: Faces, twins: np.ndarray) -> np.ndarray:
    """points_px (n, k, 2) in which each face with a twin has the mean of its own points and its twin's, mirrored back."""
    joined, widths = points_px.copy(), read_picture_sizes(faces)[:, 0]
    for row in np.flatnonzero((twins >= 0) & np.isfinite(widths)):
        mirrored = geometry.apply(geometry.flip(widths[row]), points_px[twins[row]])[faces.markup.mirror]
        joined[row] = (points_px[row] + mirrored) / 2
    return joined


def read_picture_sizes(faces: Faces) -> np.ndarray:
    """Width and height (n, 2) of the pictures, from the label file or the picture's header; NaN where neither tells."""
    sizes_px = np.where(faces.sizes_px > 0, faces.sizes_px, np.nan)
    for row in np.flatnonzero(np.isnan(sizes_px).any(axis=1)).tolist():
        # Whoever needs the picture itself says what is wrong with it.
        with suppress(ValueError):
            sizes_px[row] = picture_size(faces.path(row))
    return sizes_px


def mirror_boxes(boxes_px: np.ndarray, width: float) -> np.ndarray:
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
