"""The user's own photos: which are meant (folders, list files, single pictures, label files), and the boxes of the faces in them,
given or found by dlib's frontal detector, which also found the boxes of iBUG 300-W."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.files import read_text
from foldmark.data.ibug import read_ibug
from foldmark.data.labels import parse_number
from foldmark.data.twins import box_overlap

SIDECAR = ".box"
LIST = ".txt"

# The detector sees faces of 80 pixels and more. It looks at a copy of at most this many pixels on the longer side, and again
# at twice and four times its size while there may be smaller faces.
FIRST_LOOK, LAST_LOOK, MOST_ENLARGED = 1600, 3200, 4
# Where all faces found are larger than this in the copy, no smaller one is expected behind them.
SMALLEST_SURE = 120
# Two looks at one face overlap at least so much, two faces beside each other less.
SAME_FACE = 0.3


@dataclass(frozen=True)
class PhotoSource:
    """A photo to predict: its path; its name, unique among those of one run; boxes_px (n, 4) where they are given, and by
    what. upright: turned as its EXIF note says; the boxes of a label file are in the file's own pixels."""

    path: Path
    name: str
    boxes_px: np.ndarray | None
    boxes_from: str
    upright: bool = True


def find_photos(sources: list[Path], box: str | None = None) -> list[PhotoSource]:
    """All photos of these sources, each once. box: "x,y,w,h" for the only one.

    A folder means all its files and those of the folders below, but hidden ones and sidecars. A `.txt` file lists pictures, a
    line each, from its own folder on. An `.xml` file is one in dlib's format with boxes. A photo's boxes may stand in a
    sidecar beside it, `<photo>.box`, a line "x,y,w,h" each. Raises UserError for a source or box that cannot be used.
    """
    listed: dict[Path, PhotoSource] = {}
    for source in sources:
        try:
            photos = _photos_of(source)
        except OSError as error:
            raise UserError(f"{source}: cannot be read ({error.strerror}).") from None
        for photo in photos:
            # Not resolved: a link keeps the place where the user put it.
            listed.setdefault(Path(os.path.abspath(photo.path)), photo)  # noqa: PTH100
    if not listed:
        raise UserError(f"{', '.join(map(str, sources))}: no photo in it; name a folder with photos in it, or photos.")
    home = Path(os.path.commonpath([path.parent for path in listed]))
    photos = [replace(photo, name=_readable(path.relative_to(home).as_posix())) for path, photo in listed.items()]
    if box is None:
        return photos
    if len(photos) > 1:
        raise UserError(
            f"BOX={box}: is for one photo, and there are {len(photos)}; name the photo, or write the box into "
            f"{photos[0].name}{SIDECAR}, as it would be called for the first of them, beside it."
        )
    return [replace(photos[0], boxes_px=parse_boxes(box, "BOX"), boxes_from="BOX")]


def refuse_writing_into(sources: list[Path], out: Path) -> None:
    """Raise UserError where results would stand among the photos, and be taken for photos the next time."""
    for source in sources:
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise UserError(
                f"{source}: the results would go into {out}, within the photos; name another folder with photos, or other "
                "results with foldmark predict --out."
            )


def parse_boxes(text: str, where: str) -> np.ndarray:
    """Boxes (n, 4) from lines "x,y,w,h", or from JSON's [[x, y, w, h], ...]. Raises UserError for anything else."""
    boxes = []
    for line in filter(None, (line.strip(" \t,[") for line in re.split(r"[\r\n\]]", text))):
        try:
            numbers = [parse_number(number) for number in re.split(r"[\s,;]+", line)]
        except ValueError:
            numbers = []
        if len(numbers) != 4 or not np.isfinite(numbers).all() or min(numbers[2:]) <= 0:
            raise UserError(f"{where}: {line[:80]!r} is not a box; write x,y,w,h in pixels, left and top edge, width and height.")
        boxes.append(numbers)
    if not boxes:
        raise UserError(f"{where}: no box in it; write x,y,w,h in pixels, left and top edge, width and height, a line a face.")
    return np.array(boxes)


def _photos_of(source: Path) -> list[PhotoSource]:
    if source.suffix.lower() == ".xml":
        return _labelled(source)
    if source.is_dir():
        below = [path for path in sorted(source.rglob("*")) if path.is_file()]
        return [_plain(path) for path in below if not _passed_over(path.relative_to(source))]
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; name a folder of photos, a photo, a list (.txt) or an iBUG .xml.")
    if source.suffix.lower() == LIST:
        try:
            lines = read_text(source).splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{source}: cannot be read as a list of pictures ({error}).") from None
        return [_plain(source.parent / line.strip()) for line in lines if line.strip()]
    return [_plain(source)]


def _readable(name: str) -> str:
    """A file's name may hold bytes that are no text."""
    return name.encode("utf-8", "backslashreplace").decode()


def _passed_over(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts) or path.suffix.lower() == SIDECAR


def _plain(path: Path) -> PhotoSource:
    try:
        sidecar = path.with_name(path.name + SIDECAR)
        # Where the name is too long to exist, there is none.
        text = read_text(sidecar) if os.path.lexists(sidecar) else None
        if text is None:
            return PhotoSource(path, "", None, "detector")
    except (OSError, ValueError) as error:
        raise UserError(f"{sidecar}: cannot be read ({error}).") from None
    return PhotoSource(path, "", parse_boxes(text, str(sidecar)), "sidecar")


def _labelled(xml: Path) -> list[PhotoSource]:
    faces = read_ibug(xml, with_points=False)
    rows: dict[str, list[int]] = {}
    for row, picture in enumerate(faces.pictures):
        rows.setdefault(picture, []).append(row)
    return [PhotoSource(faces.path(of[0]), "", faces.boxes_px[of], "label file", upright=False) for of in rows.values()]


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
    found = load_detector()(np.ascontiguousarray(seen))
    boxes = [[face.left(), face.top(), face.width(), face.height()] for face in found]
    return np.array(boxes, np.float64).reshape(-1, 4) / scale


@cache
def load_detector() -> Callable[[np.ndarray], Any]:
    """dlib's detector, made once. Raises UserError where dlib is not installed."""
    try:
        import dlib
    except ImportError:
        raise UserError(
            "finding faces needs dlib, which is not installed; make photos installs it (or pip install dlib-bin), and photos "
            "whose boxes are given do without."
        ) from None
    return dlib.get_frontal_face_detector()
