"""The reader of the IMM Face Database (Nordstrom et al. 2004): 240 pictures `PP-V{m|f}.jpg` of 40 people PP in six views
V, each with an `.asf` file of 58 points."""

import re
from codecs import BOM_UTF8
from pathlib import Path

import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import MEGABYTE, read_bytes
from foldmark.core.markup import IMM58
from foldmark.data.decode import picture_size
from foldmark.data.labels import find_folder, parse_number, refuse_links_outside

IMM_FOLDER = "imm_face_db"
SYNTHETIC_NOTE = "SYNTHETIC.txt"

# The six views of a person.
VIEWS = {1: "neutral", 2: "smile", 3: "turned to own right", 4: "turned to own left", 5: "spot light", 6: "free"}

NAME = re.compile(r"(?P<person>\d\d)-(?P<view>[1-6])(?P<sex>[mf])")


def find_imm(data_root: Path) -> Path | None:
    """The folder with IMM's .asf files, as `find_folder` looks for it."""
    return find_folder(data_root, lambda folder: any(NAME.fullmatch(path.stem) for path in folder.glob("*.asf")))


def read_imm(folder: Path) -> Faces:
    """Read all .asf files of a folder, by name. A face's box is its whole picture, its group the person.

    Raises UserError, which names the file and the fix, for anything that is not a complete, finite annotation.
    """
    files = sorted(folder.glob("*.asf"))
    if not files:
        raise UserError(f"{folder}: no .asf file in it; unpack the whole IMM archive, or point DATA_ROOT at its parent.")
    pictures, points, sizes, people = [], [], [], []
    for file in files:
        name = NAME.fullmatch(file.stem)
        if not name:
            raise UserError(f"{file}: IMM names are person-view-sex, such as 01-1m.asf; rename it or move it away.")
        points_relative, picture = _read_asf(file)
        refuse_links_outside(folder, [picture], file)
        try:
            size = picture_size(folder / picture)
        except ValueError as problem:
            raise UserError(f"{folder / picture}: {problem}, though {file.name} names it; restore it.") from None
        pictures.append(picture)
        points.append(points_relative * size)
        sizes.append(size)
        people.append(name["person"])
    sizes_px = np.array(sizes, dtype=float)
    return Faces(
        root=folder,
        pictures=pictures,
        boxes_px=np.concatenate([np.zeros_like(sizes_px), sizes_px], axis=1),
        labels_px=np.array(points),
        sizes_px=sizes_px,
        groups=people,
        markup=IMM58,
    )


def view_of(picture: str) -> str:
    """What view of the person a picture of the set shows, in words."""
    _, view_and_sex = Path(picture).stem.split("-")
    return VIEWS[int(view_and_sex[0])]


def _read_asf(file: Path) -> tuple[np.ndarray, str]:
    """Points (58, 2) relative to the picture's width and height, ordered by their number, and the picture's name."""
    try:
        text = read_bytes(file, MEGABYTE).removeprefix(BOM_UTF8).decode("ascii")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{file}: cannot be read as text; fetch or unpack it again.") from None
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) != IMM58.count + 2 or lines[0] != str(IMM58.count):
        raise UserError(
            f"{file}: {max(0, len(lines) - 2)} points where {IMM58.count} are needed; fetch it again or move it away."
        )
    points = np.full((IMM58.count, 2), np.nan)
    for line in lines[1:-1]:
        # Some files carry three more columns, all zero.
        columns = line.split()
        if len(columns) not in (7, 10) or not re.fullmatch("[0-9]{1,3}", columns[4]):
            raise UserError(f"{file}: {line!r} is not a point (path, type, x, y, number, from, to); correct the file.")
        number = int(columns[4])
        if number >= IMM58.count or not np.isnan(points[number, 0]):
            raise UserError(f"{file}: point {number} is there twice or beyond {IMM58.count - 1}; correct the file.")
        points[number] = [_relative(columns[2], file), _relative(columns[3], file)]
    return points, _picture_name(lines[-1], file)


def _relative(text: str, file: Path) -> float:
    try:
        number = parse_number(text)
    except ValueError:
        number = np.nan
    # A point may lie a little off its picture, but not whole pictures away.
    if not -1 < number < 2:
        raise UserError(f"{file}: {text} is not a position relative to the picture, 0 to 1; correct the file.")
    return number


def _picture_name(text: str, file: Path) -> str:
    if Path(text).stem != file.stem or Path(text).name != text:
        raise UserError(f"{file}: names the picture {text!r} where {file.stem}.jpg is expected; correct its last line.")
    return text
