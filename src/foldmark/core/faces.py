"""The table of faces: one row per face, and the iBUG 300-W reader that fills it.

The published archive holds `labels_ibug_300W_train.xml` (boxes and 68 points) and, for the competition,
`labels_ibug_300W_test_parsed.xml` (boxes only), both in dlib's XML format.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from xml.parsers import expat

import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.markup import IBUG68, Markup

IBUG_FOLDER = "ibug_300W_large_face_landmark_dataset"
TRAIN_XML = "labels_ibug_300W_train.xml"
TEST_XML = "labels_ibug_300W_test_parsed.xml"

# In these sources several faces of one photo are files of their own, told apart by a trailing number; in lfpw the
# number is the photo's name.
SOURCES_WITH_FACE_NUMBERS = {"afw", "helen", "ibug"}


@dataclass(frozen=True)
class Faces:
    """A table of n faces.

    root: folder that the picture paths start from.
    pictures: n paths with forward slashes, as the label file writes them.
    boxes_px: (n, 4) left, top, width, height in the original picture.
    points_px: (n, k, 2) in the original picture; None where the points are withheld.
    sizes_px: (n, 2) width, height of the picture as the label file states them, 0 where it does not.
    groups: n names; faces that share one belong together in a split: one photo or, where the set names them, one person.
    eye_distance_px: (n,) between the outer eye corners, which the NME is measured in; None without points.
    """

    root: Path
    pictures: list[str]
    boxes_px: np.ndarray
    points_px: np.ndarray | None
    sizes_px: np.ndarray
    groups: list[str]
    markup: Markup = IBUG68
    eye_distance_px: np.ndarray | None = None

    def __post_init__(self) -> None:
        # Kept apart from the points, so that picking some of them does not lose the measure of their error.
        if self.points_px is not None and self.eye_distance_px is None:
            left, right = self.markup.eyes
            distance = np.linalg.norm(self.points_px[:, left] - self.points_px[:, right], axis=1)
            object.__setattr__(self, "eye_distance_px", distance)

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, rows: np.ndarray) -> "Faces":
        """The faces of these rows (indices or a mask), in that order."""
        rows = np.arange(len(self))[rows]
        return replace(
            self,
            pictures=[self.pictures[row] for row in rows],
            boxes_px=self.boxes_px[rows],
            points_px=None if self.points_px is None else self.points_px[rows],
            sizes_px=self.sizes_px[rows],
            groups=[self.groups[row] for row in rows],
            eye_distance_px=None if self.eye_distance_px is None else self.eye_distance_px[rows],
        )

    def pick_points(self, points: list[int]) -> "Faces":
        """The faces with only these points of their markup. Raises UserError for points that a flip would lose."""
        markup = self.markup.pick(points)
        return replace(self, markup=markup, points_px=None if self.points_px is None else self.points_px[:, points])

    def path(self, row: int) -> Path:
        return self.root / self.pictures[row]

    @property
    def sources(self) -> list[str]:
        """The collection each picture comes from: the first folder of its path."""
        return [PurePosixPath(picture).parts[0] if "/" in picture else "." for picture in self.pictures]


def photo_name(picture: str) -> str:
    """The photo that a face was cut from: mirror twins and faces of one photo share it."""
    path = PurePosixPath(picture)
    stem = path.stem.removesuffix("_mirror")
    if path.parts[0] in SOURCES_WITH_FACE_NUMBERS:
        stem = re.sub(r"_\d+$", "", stem)
    return str(path.with_name(stem))


def find_folder(data_root: Path, holds_it: Callable[[Path], bool]) -> Path | None:
    """The first folder, `data_root` itself or up to two levels below it, for which `holds_it` is true; None without one.

    Hidden folders are passed over: that is where unfinished sets are.
    """
    below = [path for pattern in ("*", "*/*") for path in sorted(data_root.glob(pattern))]
    shown = [path for path in below if not any(part.startswith(".") for part in path.relative_to(data_root).parts)]
    return next((folder for folder in [data_root, *shown] if folder.is_dir() and holds_it(folder)), None)


def find_ibug(data_root: Path) -> Path | None:
    """The folder of the iBUG archive, as `find_folder` looks for it."""
    return find_folder(data_root, lambda folder: folder.name == IBUG_FOLDER or (folder / TRAIN_XML).is_file())


def read_ibug(xml: Path, *, with_points: bool) -> Faces:
    """Read a dlib XML label file: each box is one face, in the order of the file.

    Points are ordered by their name. Raises UserError, which names the file, the picture and the mend, for anything
    that is not a complete, finite annotation.
    """
    pictures, boxes, points, sizes = [], [], [], []
    for image, image_boxes in _images(xml):
        picture = _picture_name(image, xml)
        where = f"{xml}: {picture}"
        size = [_number(image.get(key, "0"), f"{where}: {key}") for key in ("width", "height")]
        for box, parts in image_boxes:
            edges = [_number(box.get(key), f"{where}: box {key}") for key in ("left", "top", "width", "height")]
            if edges[2] <= 0 or edges[3] <= 0:
                raise UserError(f"{where}: the box has no area (width {edges[2]:g}, height {edges[3]:g}); correct or remove it.")
            pictures.append(picture)
            boxes.append(edges)
            sizes.append(size)
            if with_points:
                points.append(_points(parts, where))
    if not pictures:
        raise UserError(f"{xml}: no face in it; expected <image> entries that hold a <box>.")
    refuse_links_outside(xml.parent, pictures, xml)
    return Faces(
        root=xml.parent,
        pictures=pictures,
        boxes_px=np.array(boxes),
        points_px=np.array(points) if with_points else None,
        sizes_px=np.array(sizes),
        groups=[photo_name(picture) for picture in pictures],
    )


def refuse_links_outside(root: Path, pictures: list[str], listed_in: Path) -> None:
    """Raise UserError for a picture that a link takes out of the data folder."""
    home = root.resolve()
    folders = {}
    for picture in pictures:
        path = root / picture
        # Folders are few and slow to resolve, files are many.
        if path.parent not in folders:
            folders[path.parent] = path.parent.resolve()
        real = path.resolve() if path.is_symlink() else folders[path.parent]
        if not real.is_relative_to(home):
            raise UserError(
                f"{listed_in}: {picture!r} leaves the data folder through a link; put the picture itself below {root}."
            )


Attributes = dict[str, str]


def _images(xml: Path) -> list[tuple[Attributes, list[tuple[Attributes, list[Attributes]]]]]:
    """Each <image> with its boxes, each box with its parts. A DTD is refused: it is where hostile XML hides."""
    images = []

    def start(tag: str, attributes: Attributes) -> None:
        if tag == "image":
            images.append((attributes, []))
        elif tag == "box" and images:
            images[-1][1].append((attributes, []))
        elif tag == "part" and images and images[-1][1]:
            images[-1][1][-1][1].append(attributes)

    def refuse(*_: object) -> None:
        raise UserError(f"{xml}: declares a DTD, which label files do not need and which can be hostile; remove it.")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        with xml.open("rb") as file:
            parser.ParseFile(file)
    except FileNotFoundError:
        raise UserError(f"{xml}: no such file; unpack the whole iBUG archive, or point DATA_ROOT at its parent.") from None
    except OSError as error:
        raise UserError(f"{xml}: cannot be read ({error.strerror}).") from None
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise UserError(f"{xml}: not a complete XML file ({error}); fetch or unpack it again.") from None
    return images


def _picture_name(image: Attributes, xml: Path) -> str:
    name = image.get("file")
    if not name:
        raise UserError(f"{xml}: an <image> has no file name; add its file='...'.")
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or not name.isprintable():
        raise UserError(f"{xml}: {name!r} is not the name of a picture; correct its file='...'.")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise UserError(f"{xml}: {name!r} leaves the data folder; picture paths must stay below {xml.parent}.")
    return "/".join(parts)


def plain_number(text: str) -> float:
    """The number that a label file's text states. Raises ValueError for what only Python takes for one: 1_0, other scripts'
    digits."""
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return float(text)


def _number(text: str | None, where: str) -> float:
    try:
        number = plain_number(text or "")
    except ValueError:
        raise UserError(f"{where} is {text!r}, not a number; correct the label file.") from None
    if not abs(number) < 1e6:
        raise UserError(f"{where} is {text}, not a pixel position; correct the label file.")
    return number


def _points(parts: list[Attributes], where: str) -> np.ndarray:
    points_px = np.full((IBUG68.count, 2), np.nan)
    if len(parts) != IBUG68.count:
        raise UserError(f"{where}: {len(parts)} points where {IBUG68.count} are needed; correct or remove this face.")
    for part in parts:
        name = part.get("name", "")
        if not re.fullmatch("[0-9]{1,3}", name) or int(name) >= IBUG68.count:
            raise UserError(f"{where}: a point is named {name!r}; names run from 00 to {IBUG68.count - 1}.")
        points_px[int(name)] = [_number(part.get(axis), f"{where}: point {name} {axis}") for axis in ("x", "y")]
    if np.isnan(points_px).any():
        missing = int(np.flatnonzero(np.isnan(points_px[:, 0]))[0])
        raise UserError(f"{where}: point {missing:02d} is missing and another is there twice; correct or remove this face.")
    return points_px
