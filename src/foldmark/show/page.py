"""Pages to read and hand in: one HTML file with its pictures inside, which needs no network."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader
from pydantic import BaseModel

from foldmark.core.errors import UserError
from foldmark.core.files import read_record, write_text
from foldmark.show.terminal import plain_text

KINDS = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
WIDEST = 2000  # pixels; larger pictures are shrunk into the page
WEBP_QUALITY = 84
PHOTO_SHARE = 0.25  # a PNG that WebP makes this much smaller is a photo; drawings stay PNG, and sharp
SECTIONS_FILE = "sections.json"  # beside a page: its sections as data


@dataclass(frozen=True)
class Picture:
    """A PNG, SVG or JPEG file, its caption and, where that is not enough, a description for screen readers."""

    file: Path
    caption: str
    described: str = ""

    @property
    def source(self) -> str:
        return encode_data_uri(self.file.read_bytes(), KINDS[self.file.suffix])

    @property
    def alt(self) -> str:
        return self.described or self.caption


@dataclass(frozen=True)
class FacePicture:
    """A face that can be enlarged, with points (k, 2) in its pixels that can be shown and hidden: the truth, the prediction or
    both. `jpeg` is the picture, `lines` join the points."""

    name: str
    jpeg: bytes
    size: tuple[int, int]
    truth: np.ndarray | None
    prediction: np.ndarray | None
    lines: list[list[int]]
    caption: str

    @property
    def source(self) -> str:
        return encode_data_uri(self.jpeg, "image/jpeg")

    @property
    def layers(self) -> dict[str, tuple[str, str]]:
        """For each kind of points the SVG paths of its lines and of its dots."""
        given = {"truth": self.truth, "prediction": self.prediction}
        return {kind: (self._lines(points), _dots(points)) for kind, points in given.items() if points is not None}

    def _lines(self, points: np.ndarray) -> str:
        return "".join("M" + "L".join(_place(points[index]) for index in line) for line in self.lines)


def _dots(points: np.ndarray) -> str:
    # A line of no length with round ends is a dot: one path draws all of them.
    return "".join(f"M{_place(point)}h0" for point in points)


def _place(point: np.ndarray) -> str:
    # SVG counts from the edge of the first pixel, the points from its centre.
    return f"{point[0] + 0.5:.1f} {point[1] + 0.5:.1f}"


@dataclass(frozen=True)
class Section:
    """A heading and, in this order where given, text, a link to a file beside the page, pictures, a table, small pictures in a
    grid, faces to enlarge, commands, and long listings folded under their titles."""

    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    table: Sequence[dict[str, str]] = ()
    grid: Sequence[Picture] = ()
    faces: Sequence[FacePicture] = ()
    commands: str = ""
    listings: dict[str, str] = field(default_factory=dict)
    link: str = ""


@dataclass(frozen=True)
class Chapter:
    """A part of a report."""

    title: str
    sections: Sequence[Section] = ()


@dataclass(frozen=True)
class Missing:
    """A section that a report leaves out, and the make target (with its own variables) that makes it."""

    what: str
    command: str


class _StoredPicture(BaseModel):
    file: Path  # relative to the page's folder
    caption: str
    described: str = ""


class _StoredSection(BaseModel):
    title: str
    text: str = ""
    pictures: list[_StoredPicture] = []
    table: list[dict[str, str]] = []
    grid: list[_StoredPicture] = []
    commands: str = ""
    listings: dict[str, str] = {}


class _StoredPage(BaseModel):
    title: str
    sections: list[_StoredSection]


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page, and beside it its sections without their faces, as data that `read_chapter` reads."""
    write_text(path, _environment().get_template("page.html").render(title=title, sections=sections))
    relative = [
        replace(
            section,
            pictures=[replace(picture, file=picture.file.relative_to(path.parent)) for picture in section.pictures],
            grid=[replace(picture, file=picture.file.relative_to(path.parent)) for picture in section.grid],
        )
        for section in sections
    ]
    page = _StoredPage.model_validate({"title": title, "sections": relative}, from_attributes=True)
    write_text(path.with_name(SECTIONS_FILE), page.model_dump_json(indent=1))


def read_chapter(folder: Path) -> Chapter:
    """The page in this folder as a chapter of a report. Raises UserError where the page or one of its pictures is missing or
    damaged."""
    page = read_record(folder / SECTIONS_FILE, _StoredPage, "make the page again")

    def read(stored: _StoredPicture) -> Picture:
        file = folder / stored.file
        if not (file.resolve().is_relative_to(folder.resolve()) and is_picture(file)):
            raise UserError(f"{file}: missing or damaged; make the page again.")
        return Picture(file, stored.caption, stored.described)

    sections = [
        Section(
            title=stored.title,
            text=stored.text,
            pictures=[read(picture) for picture in stored.pictures],
            table=stored.table,
            grid=[read(picture) for picture in stored.grid],
            commands=stored.commands,
            listings=stored.listings,
        )
        for stored in page.sections
    ]
    return Chapter(page.title, sections)


def is_picture(path: Path) -> bool:
    """Whether this is a file that a page can show."""
    try:
        content = path.read_bytes() if path.is_file() and path.suffix in KINDS else b""
    except OSError:
        return False
    return bool(content) and (path.suffix == ".svg" or _decode(content) is not None)


def _decode(content: bytes) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def write_report(path: Path, title: str, lead: str, chapters: Sequence[Chapter], missing: Sequence[Missing]) -> None:
    template = _environment().get_template("report.html")
    write_text(path, template.render(title=title, lead=lead, chapters=chapters, missing=missing))


def encode_data_uri(content: bytes, kind: str) -> str:
    if kind == "image/png":
        content, kind = _lighter(content)
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _lighter(png: bytes) -> tuple[bytes, str]:
    """A PNG as WebP where it is a photo, and no wider than a page can use."""
    picture = _decode(png)
    if picture is None:
        return png, "image/png"
    if picture.shape[1] > WIDEST:
        size = (WIDEST, round(picture.shape[0] * WIDEST / picture.shape[1]))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        png = cv2.imencode(".png", picture)[1].tobytes()
    webp = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])[1].tobytes()
    return (webp, "image/webp") if len(webp) < PHOTO_SHARE * len(png) else (png, "image/png")


def _environment() -> Environment:
    loader = PackageLoader("foldmark.show")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_plain_lines)
    environment.tests["figure"] = lambda value: value.lstrip("+-")[:1].isdigit()
    return environment


def _plain_lines(value: object) -> object:
    """Text without control characters, which names may hold; pages of others should not have this machine's paths, either."""
    if type(value) is not str or value.startswith("data:"):
        return value
    return "\n".join(map(plain_text, value.split("\n")))
