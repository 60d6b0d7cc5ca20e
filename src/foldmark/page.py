"""A page to read and hand in: one HTML file with its pictures inside, that opens from disk without a network."""

from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader

from foldmark.files import write_text


@dataclass(frozen=True)
class Picture:
    """A PNG file and what it shows; `caption` is also what a screen reader says."""

    file: Path
    caption: str

    @property
    def source(self) -> str:
        return f"data:image/png;base64,{b64encode(self.file.read_bytes()).decode()}"


@dataclass(frozen=True)
class Section:
    """A heading with, in this order where given, text, a table, pictures (wide below each other, or small ones in a
    grid), and preformatted text."""

    title: str
    text: str = ""
    table: list[dict[str, str]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    grid: list[Picture] = field(default_factory=list)
    listing: str = ""


def write_page(path: Path, title: str, sections: list[Section]) -> None:
    environment = Environment(loader=PackageLoader("foldmark"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    write_text(path, environment.get_template("page.html").render(title=title, sections=sections))
