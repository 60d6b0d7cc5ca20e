"""The frames that points could be in by mistake, and the ways in which a mirror twin's points are wrongly mirrored."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foldmark.core import geometry
from foldmark.core.config import CropConfig
from foldmark.core.faces import Faces
from foldmark.data.crops import window

# Mean distance of a twin's points, mirrored back, from the picture's, in units of the box's longer side. The largest of 358
# real pairs, predicted by one model without averaging over flips, is 0.029.
TWINS_APART = 0.05

# Of a face in its box, in units of the box's longer side: means over the predictions for 716 real test faces.
USUAL_CENTRE, USUAL_SPREAD = (0.0, 0.06), 0.35

# The crop that students of the course cut most often: the raw box, squeezed to 224x224.
COURSE_CROP = CropConfig(size=(224, 224), enlargement=1.0, square=False)


@dataclass(frozen=True)
class Frame:
    """What is wrong with points if they are in this frame, the fix, and points_px (n, k, 2) once that is undone.

    single: whether one face alone may be in it, not only the file as a whole.
    """

    defect: str
    problem: str
    fix: str
    points_px: np.ndarray
    single: bool = True


def list_frames(points: np.ndarray, faces: Faces, sizes_px: np.ndarray, crop: CropConfig) -> list[Frame]:
    """The frames that points (n, k, 2) of these faces could be in by mistake, the likelier first.

    sizes_px: (n, 2) of the pictures, NaN where unknown. crop: how the models' crops were cut.
    """
    corners, sides = faces.boxes_px[:, None, :2], faces.boxes_px[:, None, 2:]
    from_crop = geometry.invert(_px_to_crop(faces, crop))
    right_edge = sizes_px[:, None, :1] - 1
    size = "{}x{}".format(*crop.size)
    inverse = "map them through the inverse of each crop's affine to pixels of the original picture."
    whole = "multiply and shift them to pixels of the original picture."
    # Absurd values overflow, and then fit nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        mirrored = np.concatenate([right_edge - points[..., :1], points[..., 1:]], axis=2)
        return [
            Frame("swapped x/y", "x and y are swapped", "write x before y.", points[..., ::-1]),
            Frame("crop pixels", f"the points are in pixels of the {size} crop", inverse, geometry.apply(from_crop, points)),
            Frame(
                "crop pixels",
                "the points are in pixels of the raw box scaled to 224x224",
                inverse,
                geometry.apply(geometry.invert(_px_to_crop(faces, COURSE_CROP)), points),
            ),
            Frame("crop pixels", "the points are counted from the box's corner", "add the box's left and top.", points + corners),
            Frame("0..1", "the points are relative to the box, 0 to 1", whole, corners + points * sides),
            Frame("0..1", "the points are relative to the picture, 0 to 1", whole, points * sizes_px[:, None]),
            Frame(
                "0..1",
                f"the points are relative to the {size} crop, 0 to 1",
                inverse,
                geometry.apply(from_crop, points * crop.size),
            ),
            Frame(
                "left and right",
                "the left and the right points are exchanged, as by a flip undone without the swap",
                "swap the left with the right points wherever x is mirrored.",
                points[:, faces.markup.mirror],
            ),
            Frame(
                "mirrored",
                "the points are those of the mirrored picture",
                "mirror them back with x' = width - 1 - x and swap the left with the right points.",
                mirrored[:, faces.markup.mirror],
            ),
            Frame("mirrored", "x is counted from the right edge", "write width - 1 - x.", mirrored),
            Frame(
                "order",
                "the faces stand in the alphabetical order of their pictures",
                "write them in the order of the test list.",
                points[np.argsort(np.argsort(faces.pictures))],
                single=False,
            ),
            _some_crop(points, faces, inverse),
        ]


def _some_crop(points: np.ndarray, faces: Faces, fix: str) -> Frame:
    """The frame of a crop of unknown size, in which all faces lie about alike, whatever their boxes."""
    centres = points.mean(axis=1)
    spreads = np.sqrt(np.square(points - centres[:, None]).sum(axis=2).mean(axis=1))
    centre, spread = np.nanmedian(centres, axis=0), max(np.nanmedian(spreads), 1e-12)
    middles = faces.boxes_px[:, :2] + faces.boxes_px[:, 2:] / 2
    in_box = (points - centre) / spread * USUAL_SPREAD + USUAL_CENTRE
    points_px = middles[:, None] + in_box * faces.boxes_px[:, 2:].max(axis=1)[:, None, None]
    problem = f"the points look like those of a crop about {2 * centre[0]:.3g} wide"
    return Frame("crop pixels", problem, fix, points_px, single=False)


def split_wrong_twins(
    points_px: np.ndarray, faces: Faces, sizes_px: np.ndarray, pairs: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Of pairs (m, 2) of twins, those whose points do not agree once mirrored and swapped, but agree better with less: in
    words which step was left out, and the pairs."""
    points, twins = points_px[pairs[:, 0]], points_px[pairs[:, 1]]
    sides = faces.boxes_px[pairs[:, 0], 2:].max(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        mirrored = twins * [-1, 1] + (sizes_px[pairs[:, 1], None] - 1) * [1, 0]
        back = [mirrored[:, faces.markup.mirror], mirrored, twins[:, faces.markup.mirror], twins]
        apart = np.stack([np.linalg.norm(candidate - points, axis=2).mean(axis=1) / sides for candidate in back])
    both, fewer = apart[0], apart[1:]
    # An unknown width leaves a NaN, which is never more than anything: such pairs are not judged.
    wrong = (both > TWINS_APART) & (np.nan_to_num(fewer, nan=np.inf).min(axis=0) < both / 2)
    nearest = np.nan_to_num(fewer, nan=np.inf).argmin(axis=0)
    problems = (
        "with x mirrored but left and right not swapped",
        "with left and right swapped but x not mirrored",
        "as they are, neither mirrored nor swapped",
    )
    for step, problem in enumerate(problems):
        if (wrong & (nearest == step)).any():
            yield problem, pairs[wrong & (nearest == step)]


def _px_to_crop(faces: Faces, crop: CropConfig) -> np.ndarray:
    """The affine (n, 2, 3) from each picture to the crop that a model of this config first sees."""
    affines = []
    for box_px in faces.boxes_px:
        left, top, width, height = window(box_px, crop)
        affines.append(geometry.resize(crop.size[0] / width, crop.size[1] / height, left, top))
    return np.stack(affines)
