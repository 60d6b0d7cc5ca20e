"""The reader of iBUG 300-W (Sagonas et al. 2013) as dlib publishes it.

The archive holds `labels_ibug_300W_train.xml` (boxes and 68 points) and, for the competition,
`labels_ibug_300W_test_parsed.xml` (boxes only), both in dlib's XML format.
"""

import re
from pathlib import Path, PurePosixPath
from xml.parsers import expat

import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import MEGABYTE, read_bytes
from foldmark.core.markup import IBUG68, Markup
from foldmark.data.labels import find_folder, parse_number, refuse_links_outside

IBUG_FOLDER = "ibug_300W_large_face_landmark_dataset"
TRAIN_XML = "labels_ibug_300W_train.xml"
TEST_XML = "labels_ibug_300W_test_parsed.xml"
LARGEST = 512 * MEGABYTE  # the published training list has 13

# In these sources several faces of one photo are files of their own, distinguished by a trailing number; in lfpw the
# number is the photo's name.
SOURCES_WITH_FACE_NUMBERS = {"afw", "helen", "ibug"}

# The split of the papers (Ren et al. 2014, Face Alignment at 3000 FPS): the folders of the test faces with the part that each is
# of, and how many faces there are to test and to train on. Mirror twins are no part of it.
STANDARD_TEST_FOLDERS = {"helen/testset": "common", "lfpw/testset": "common", "ibug": "challenge"}
STANDARD_TEST_FACES = {"common": 554, "challenge": 135}
STANDARD_TRAINING_FACES = 3148


def standard_part(picture: str) -> str | None:
    """The part of the standard 300-W test faces that a picture or its mirror twin is of; None for one to train on."""
    return STANDARD_TEST_FOLDERS.get(str(PurePosixPath(picture).parent))


def is_mirror(picture: str) -> bool:
    """Whether a picture is the mirror twin that the archive adds to each."""
    return PurePosixPath(picture).stem.endswith("_mirror")


def photo_name(picture: str) -> str:
    """The photo that a face was cut from: mirror twins and faces of one photo share it."""
    path = PurePosixPath(picture)
    stem = path.stem.removesuffix("_mirror")
    if path.parts[0] in SOURCES_WITH_FACE_NUMBERS:
        stem = re.sub(r"_\d+$", "", stem)
    return str(path.with_name(stem))


def find_ibug(data_root: Path) -> Path | None:
    """The folder of the iBUG archive, as `find_folder` looks for it."""
    return find_folder(data_root, lambda folder: folder.name == IBUG_FOLDER or (folder / TRAIN_XML).is_file())


def read_ibug(xml: Path, *, with_points: bool, markup: Markup = IBUG68) -> Faces:
    """Read a label file in dlib's XML format: each box is one face, in the order of the file.

    Points are ordered by their name. Raises UserError, which names the file, the picture and the fix, for anything
    that is not a complete, finite annotation.
    """
    pictures, boxes, points, sizes = [], [], [], []
    for image, image_boxes in _images(xml):
        picture = _picture_name(image, xml)
        where = f"{xml}: {picture}"
        size = [_number(image.get(key, "0"), where, key) for key in ("width", "height")]
        for box, parts in image_boxes:
            edges = [_number(box.get(key), where, "box", key) for key in ("left", "top", "width", "height")]
            if edges[2] <= 0 or edges[3] <= 0:
                raise UserError(f"{where}: the box has no area (width {edges[2]:g}, height {edges[3]:g}); correct or remove it.")
            pictures.append(picture)
            boxes.append(edges)
            sizes.append(size)
            if with_points:
                points.append(_points(parts, markup, where))
    if not pictures:
        raise UserError(f"{xml}: no face in it; expected <image> entries that hold a <box>.")
    refuse_links_outside(xml.parent, pictures, xml)
    return Faces(
        root=xml.parent,
        pictures=pictures,
        boxes_px=np.array(boxes),
        labels_px=np.array(points) if with_points else None,
        sizes_px=np.array(sizes),
        groups=[photo_name(picture) for picture in pictures],
        markup=markup,
    )


Attributes = dict[str, str]


def _images(xml: Path) -> list[tuple[Attributes, list[tuple[Attributes, list[Attributes]]]]]:
    """Each <image> with its boxes, each box with its parts. A DTD is refused: hostile XML needs one."""
    images: list[tuple[Attributes, list[tuple[Attributes, list[Attributes]]]]] = []

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
        parser.Parse(read_bytes(xml, LARGEST), True)
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


def _number(text: str | None, where: str, *what: str) -> float:
    # 600,000 calls a data set: the message is put together only where there is one.
    try:
        number = parse_number(text or "")
    except ValueError:
        raise UserError(f"{where}: {' '.join(what)} is {text!r}, not a number; correct the label file.") from None
    if not abs(number) < 1e6:
        raise UserError(f"{where}: {' '.join(what)} is {text}, not a pixel position; correct the label file.")
    return number


def _points(parts: list[Attributes], markup: Markup, where: str) -> np.ndarray:
    if len(parts) != markup.count:
        raise UserError(f"{where}: {len(parts)} points where {markup.count} are needed; correct or remove this face.")
    points_px = {}
    for part in parts:
        name = part.get("name", "")
        if not (name.isascii() and name.isdigit() and len(name) <= 3) or int(name) >= markup.count:
            raise UserError(f"{where}: a point is named {name!r}; names run from 00 to {markup.count - 1}.")
        points_px[int(name)] = [_number(part.get(axis), where, "point", name, axis) for axis in ("x", "y")]
    missing = sorted(set(range(markup.count)) - set(points_px))
    if missing:
        raise UserError(f"{where}: point {missing[0]:02d} is missing and another is there twice; correct or remove this face.")
    return np.array([points_px[number] for number in range(markup.count)])
