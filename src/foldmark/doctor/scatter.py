"""How the boxes sit on their faces: how far tilt, size and place scatter, which is what augmentation has to cover."""

from dataclasses import dataclass

import numpy as np

from foldmark.core import geometry
from foldmark.core.faces import Faces


@dataclass(frozen=True)
class BoxScatter:
    """Standard deviations over the faces: tilt in degrees, the face's size over the box's as a share, and the face's place in
    the box as a share of the box's longer side (the mean of x and y)."""

    tilt_degrees: float
    size: float
    place: float

    def augmentation(self, enlargement: float) -> dict[str, float]:
        """The uniform augmentation that scatters as widely, in the units of config.AugmentConfig; `enlargement` is crop over
        box."""
        wide = 3**0.5  # a uniform spread of +- a has the standard deviation a / sqrt(3)
        return {
            "rotate": round(wide * self.tilt_degrees, 1),
            "scale": round(float(np.expm1(wide * self.size)), 2),
            "shift": round(wide * self.place / enlargement, 3),
        }


def measure_box_scatter(faces: Faces) -> BoxScatter:
    """Measure how the similarity that lays the mean face onto a face, both relative to their boxes, differs between faces."""
    left_top, wide_high = faces.boxes_px[:, None, :2], faces.boxes_px[:, None, 2:]
    points_box = (faces.points_px - left_top - wide_high / 2) / wide_high.max(axis=2, keepdims=True)
    mean_box = points_box.mean(axis=0)
    mean_to_face = geometry.invert(geometry.align(points_box, mean_box))
    place = geometry.apply(mean_to_face, np.broadcast_to(mean_box.mean(axis=0), (len(faces), 1, 2)))[:, 0]
    right = mean_to_face[:, :, 0]
    return BoxScatter(
        tilt_degrees=float(np.degrees(np.arctan2(right[:, 1], right[:, 0])).std()),
        size=float(np.log(np.linalg.norm(right, axis=1)).std()),
        place=float(place.std(axis=0).mean()),
    )
