"""Why a face is easy or hard, in numbers: how far its pose, place, expression, light and shape are from the training
faces'."""

import numpy as np

from foldmark.core import geometry
from foldmark.core.faces import Faces

# A trait this many spreads from the training mean is worth naming.
UNUSUAL = 1.5


def measure_traits(faces: Faces, greys: np.ndarray) -> dict[str, np.ndarray]:
    """Traits (n,) of faces with all points of their markup. greys: (n, 2) mean and spread of each picture's grey."""
    points, markup = faces.points_px, faces.markup
    left, right = (points[:, corner] for corner in markup.require_eyes())
    across = right - left
    distance = np.linalg.norm(across, axis=1)
    along = across / distance[:, None]
    down = np.stack([-along[:, 1], along[:, 0]], axis=1)
    nose = points[:, markup.nose_tip] - (left + right) / 2
    lips = points[:, markup.regions.get("lips") or markup.regions["outer lips"]]
    lips_across, lips_down = (np.ptp((lips * axis[:, None]).sum(axis=2), axis=1) for axis in (along, down))
    return {
        "turn": (nose * along).sum(axis=1) / distance,
        "tilt": np.degrees(np.arctan2(across[:, 1], across[:, 0])),
        "nod": (nose * down).sum(axis=1) / distance,
        "size": distance,
        "mouth": lips_down / lips_across,
        "smile": lips_across / distance,
        "light": greys[:, 0],
        "contrast": greys[:, 1],
    }


def find_nearest_training_face(faces: Faces, training_rows: np.ndarray, row: int) -> tuple[int, float]:
    """The training face of the most similar shape, and how far its points lie from this face's after the best turn, scale
    and shift: mean distance in percent of the outer-eye distance."""
    distances = []
    for other in training_rows:
        laid = geometry.apply(geometry.align(faces.points_px[other], faces.points_px[row]), faces.points_px[other])
        distances.append(np.linalg.norm(laid - faces.points_px[row], axis=1).mean())
    best = int(np.argmin(distances))
    return int(training_rows[best]), 100 * distances[best] / faces.eye_distance_px[row]


def describe_unusual_traits(faces: Faces, greys: np.ndarray, training_rows: np.ndarray, rows: np.ndarray) -> list[str]:
    """For each face the traits in which it is unusual among the training faces, at most three, the most unusual first.

    faces: all, with their whole markup; greys as in `measure_traits`.
    """
    values = measure_traits(faces, greys)
    found = []
    for row in rows:
        unusual = []
        for name, all_values in values.items():
            mean, spread = all_values[training_rows].mean(), all_values[training_rows].std()
            if abs(all_values[row] - mean) > UNUSUAL * spread:
                unusual.append((-abs(all_values[row] - mean) / spread, _words(name, all_values[row], mean)))
        found.append("; ".join(words for _, words in sorted(unusual)[:3]) or "pose, size, expression and light as usual")
    return found


def explain_faces(faces: Faces, greys: np.ndarray, training_rows: np.ndarray, rows: np.ndarray) -> list[str]:
    """A sentence a face: the traits in which it is unusual among the training faces, the most unusual first, how far its
    nose is from the mean one, and how near the nearest training face is.

    faces: all, with their whole markup; greys as in `measure_traits`.
    """
    noses = (faces.points_px[:, faces.markup.nose_tip] - faces.boxes_px[:, :2]) / faces.boxes_px[:, 2:]
    from_mean_nose = np.linalg.norm(noses - noses[training_rows].mean(axis=0), axis=1)
    sentences = []
    for row, found in zip(rows, describe_unusual_traits(faces, greys, training_rows, rows), strict=True):
        other, percent = find_nearest_training_face(faces, training_rows, row)
        sentences.append(
            f"{found}; nose {100 * from_mean_nose[row]:.0f} % of the picture's side from its mean; "
            f"nearest training shape {faces.pictures[other]}, {percent:.1f} % of the eye distance away"
        )
    return sentences


def _words(name: str, value: float, mean: float) -> str:
    side = "right" if value > mean else "left"
    return {
        "turn": f"head turned to the picture's {side} (nose {100 * abs(value):.0f} % of the eye distance off the middle)",
        "tilt": f"head tilted ({value:+.0f} degrees)",
        "nod": f"head {'lowered' if value > mean else 'raised'} (nose {100 * value:.0f} % of the eye distance below the eyes)",
        "size": f"face {'larger' if value > mean else 'smaller'} than usual (eye distance {value:.0f} px, mean {mean:.0f})",
        "mouth": f"mouth {'wide open or laughing' if value > mean else 'pressed'} ({100 * value:.0f} % as high as wide)",
        "smile": f"mouth {'stretched' if value > mean else 'narrow'} ({100 * value:.0f} % of the eye distance wide)",
        "light": f"{'bright' if value > mean else 'dark'} picture (mean grey {value:.0f}, usually {mean:.0f})",
        "contrast": f"{'hard' if value > mean else 'flat'} light (spread of grey {value:.0f}, usually {mean:.0f})",
    }[name]
