"""Pages to read and hand in: one HTML file with its pictures inside, that opens from disk without a network."""

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader

from foldmark.core.files import write_text

KINDS = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
WIDEST = 2000  # pixels; larger pictures are shrunk into the page
WEBP_QUALITY = 84
PHOTO_SHARE = 0.25  # a PNG that WebP makes this much smaller is a photo; lines and letters stay PNG, and sharp


@dataclass(frozen=True)
class Picture:
    """A PNG, SVG or JPEG file, what it shows and, where that is not enough, what a screen reader says instead."""

    file: Path
    caption: str
    described: str = ""

    @property
    def source(self) -> str:
        return data_uri(self.file.read_bytes(), KINDS[self.file.suffix])

    @property
    def alt(self) -> str:
        return self.described or self.caption


@dataclass(frozen=True)
class FacePicture:
    """A face that can be enlarged, with points (k, 2) in its pixels over it that can be shown and hidden: the truth, the
    prediction or both. `jpeg` is the picture, `lines` join the points."""

    name: str
    jpeg: bytes
    size: tuple[int, int]
    truth: np.ndarray | None
    prediction: np.ndarray | None
    lines: list[list[int]]
    caption: str

    @property
    def source(self) -> str:
        return data_uri(self.jpeg, "image/jpeg")

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
    """A heading with, in this order where given, text, pictures, a table, small pictures in a grid, faces to enlarge, commands,
    and long listings, which fold away under their titles."""

    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    table: Sequence[dict[str, str]] = ()
    grid: Sequence[Picture] = ()
    faces: Sequence[FacePicture] = ()
    commands: str = ""
    listings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Chapter:
    """A part of a report: sections or, where the part has a page of its own, the HTML of that page's sections."""

    title: str
    sections: Sequence[Section] = ()
    html: str = ""


@dataclass(frozen=True)
class Missing:
    """What a report leaves out, and the make target that makes it, with its own variables."""

    what: str
    command: str


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    write_text(path, _environment().get_template("page.html").render(title=title, sections=sections))


def write_report(path: Path, title: str, lead: str, chapters: Sequence[Chapter], missing: Sequence[Missing]) -> None:
    template = _environment().get_template("report.html")
    write_text(path, template.render(title=title, lead=lead, chapters=chapters, missing=missing))


def page_sections(path: Path) -> tuple[str, str]:
    """Title and sections of a page that `write_page` wrote, as HTML to stand in a report: headings one level lower, photos
    made smaller."""
    text = path.read_text(encoding="utf-8")
    title = re.search(r"<h1>(.*?)</h1>", text, re.DOTALL)
    sections = "\n".join(re.findall(r"<section.*?</section>", text, re.DOTALL))
    lowered = re.sub(r"(</?h)2>", r"\g<1>3>", sections)
    smaller = re.sub(r"data:image/png;base64,([^\"]*)", lambda found: data_uri(b64decode(found[1]), "image/png"), lowered)
    return title[1] if title else path.parent.name, smaller


def data_uri(content: bytes, kind: str) -> str:
    if kind == "image/png":
        content, kind = _lighter(content)
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _lighter(png: bytes) -> tuple[bytes, str]:
    """A PNG as WebP where it is a photo, and no wider than a page can use."""
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        return png, "image/png"
    if picture.shape[1] > WIDEST:
        size = (WIDEST, round(picture.shape[0] * WIDEST / picture.shape[1]))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        png = cv2.imencode(".png", picture)[1].tobytes()
    webp = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])[1].tobytes()
    return (webp, "image/webp") if len(webp) < PHOTO_SHARE * len(png) else (png, "image/png")


def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("foldmark.show"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.tests["figure"] = lambda value: value.lstrip("+-")[:1].isdigit()
    return environment
