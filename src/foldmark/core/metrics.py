"""The figures that count: the competition's MAE in original pixels, the NME in percent, and the course's MSE."""

import numpy as np

from foldmark.core.faces import Faces

FAILURE = 8.0  # percent; a face with a larger NME counts as failed


def mae_px(points_px: np.ndarray, faces: Faces) -> float:
    """The competition's metric: mean |predicted - true| over all coordinates, in original pixels."""
    return float(np.abs(points_px - faces.points_px).mean())


def face_nme(points_px: np.ndarray, faces: Faces) -> np.ndarray:
    """Normalised mean error of each face, in percent (n,): the mean distance of a point from its truth over the distance
    of the outer eye corners (Sagonas et al. 2013). Points are (n, k, 2) in original pixels."""
    distances = np.linalg.norm(points_px - faces.points_px, axis=2)
    return 100 * distances.mean(axis=1) / faces.eye_distance_px


def face_mse(points_px: np.ndarray, faces: Faces) -> np.ndarray:
    """Mean squared error of each face (n,) in relative units: x over the width and y over the height of its box, which on
    IMM is the whole picture. Points are (n, k, 2) in original pixels."""
    relative = (points_px - faces.points_px) / faces.boxes_px[:, None, 2:]
    return np.square(relative).mean(axis=(1, 2))


def mean_face_px(training: Faces, faces: Faces) -> np.ndarray:
    """What knowing only the boxes gives: the mean training face (k, 2), relative to its box, laid into each face's box;
    points_px (n, k, 2)."""
    boxes = training.boxes_px[:, None]
    mean = ((training.points_px - boxes[..., :2]) / boxes[..., 2:]).mean(axis=0)
    return faces.boxes_px[:, None, :2] + mean * faces.boxes_px[:, None, 2:]


def scores(points_px: np.ndarray, faces: Faces) -> dict[str, float]:
    return {
        "mae_px": mae_px(points_px, faces),
        "nme": float(face_nme(points_px, faces).mean()),
        "mse": float(face_mse(points_px, faces).mean()),
    }


def region_nme(points_px: np.ndarray, faces: Faces) -> dict[str, float]:
    """The NME in percent of each region of the markup."""
    return {name: float(errors.mean()) for name, errors in face_region_nme(points_px, faces).items()}


def face_region_nme(points_px: np.ndarray, faces: Faces) -> dict[str, np.ndarray]:
    """The NME in percent (n,) of each face in each region of the markup."""
    distances = np.linalg.norm(points_px - faces.points_px, axis=2) / faces.eye_distance_px[:, None]
    return {name: 100 * distances[:, points].mean(axis=1) for name, points in faces.markup.regions.items()}


def failures(nme: np.ndarray) -> float:
    """The share of faces, in percent, whose NME (n,) is over 8 %."""
    return float(100 * (nme > FAILURE).mean())
