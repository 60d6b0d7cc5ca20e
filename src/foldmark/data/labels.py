"""What the readers of label files share: finding a set's folder, numbers that are plainly numbers, paths that stay inside."""

from collections.abc import Callable
from pathlib import Path

from foldmark.core.errors import UserError


def find_folder(data_root: Path, holds_it: Callable[[Path], bool]) -> Path | None:
    """The first folder, `data_root` itself or up to two levels below it, for which `holds_it` is true; None without one.

    Hidden folders are skipped: unfinished sets are kept there.
    """
    below = [path for pattern in ("*", "*/*") for path in sorted(data_root.glob(pattern))]
    shown = [path for path in below if not any(part.startswith(".") for part in path.relative_to(data_root).parts)]
    return next((folder for folder in [data_root, *shown] if folder.is_dir() and holds_it(folder)), None)


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


def plain_number(text: str) -> float:
    """The number that a label file's text states. Raises ValueError for what only Python reads as one: 1_0, digits of other
    scripts."""
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return float(text)
