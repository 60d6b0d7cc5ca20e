"""Which photos the user means: folders, list files, single pictures and iBUG label files; and the boxes given with them."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.faces import plain_number, read_ibug

SIDECAR = ".box"
LIST = ".txt"


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
    listed = {}
    for source in sources:
        for photo in _photos_of(source):
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
            numbers = [plain_number(number) for number in re.split(r"[\s,;]+", line)]
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
        try:
            below = [path for path in sorted(source.rglob("*")) if path.is_file()]
        except OSError as error:
            raise UserError(f"{source}: cannot be read ({error.strerror}).") from None
        return [_plain(path) for path in below if not _passed_over(path.relative_to(source))]
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; name a folder of photos, a photo, a list (.txt) or an iBUG .xml.")
    if source.suffix.lower() == LIST:
        try:
            lines = source.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{source}: cannot be read as a list of pictures ({error}).") from None
        return [_plain(source.parent / line.strip()) for line in lines if line.strip()]
    return [_plain(source)]


def _readable(name: str) -> str:
    """A file's name may hold bytes that are no text."""
    return name.encode("utf-8", "backslashreplace").decode()


def _passed_over(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts) or path.suffix.lower() == SIDECAR


def _plain(path: Path) -> PhotoSource:
    sidecar = path.with_name(path.name + SIDECAR)
    if not sidecar.is_file():
        return PhotoSource(path, "", None, "detector")
    try:
        text = sidecar.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{sidecar}: cannot be read ({error}).") from None
    return PhotoSource(path, "", parse_boxes(text, str(sidecar)), "sidecar")


def _labelled(xml: Path) -> list[PhotoSource]:
    faces = read_ibug(xml, with_points=False)
    rows: dict[str, list[int]] = {}
    for row, picture in enumerate(faces.pictures):
        rows.setdefault(picture, []).append(row)
    return [PhotoSource(faces.path(of[0]), "", faces.boxes_px[of], "label file", upright=False) for of in rows.values()]
