"""Reading one photo of the user's own: upright as every viewer shows it, in grey for the nets, in colour for people."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from foldmark.data.crops import as_grey, decode, picture_bytes

PAPER = "white"


def read_photo(path: Path) -> np.ndarray:
    """A photo in grey uint8 (height, width), turned upright as its EXIF note says, what is see-through on white. Raises
    ValueError saying what is wrong with the file."""

    def grey(picture: Image.Image) -> np.ndarray:
        # As crops.read_grey does: JPEG keeps brightness apart from colour.
        picture.draft("L", None)
        return grey_photo(picture)

    return decode(picture_bytes(path), grey)


def grey_photo(image: "np.ndarray | Image.Image | str | Path") -> np.ndarray:
    """An image in grey uint8 (height, width): an array uint8 (height, width) or RGB (height, width, 3) as it is; a Pillow
    image or a picture file turned upright as its EXIF note says. Raises ValueError for anything else."""
    if isinstance(image, str | Path):
        return read_photo(Path(image))
    if isinstance(image, Image.Image):
        return as_grey(_on_paper(ImageOps.exif_transpose(image)))
    if not isinstance(image, np.ndarray):
        raise ValueError(f"is a {type(image).__name__}; give an array, a Pillow image or a path")
    if image.dtype != np.uint8 or not (image.ndim == 2 or image.ndim == 3 and image.shape[2] == 3) or not image.size:
        raise ValueError(f"is {image.dtype} {image.shape}; an array is uint8 (height, width) or RGB (height, width, 3)")
    return as_grey(Image.fromarray(np.ascontiguousarray(image)))


def colour_photo(path: Path, longest: int, *, upright: bool = True) -> np.ndarray:
    """A photo for people: RGB uint8, its longer side at most `longest` pixels; upright, or as the file holds it. Raises
    ValueError saying what is wrong with the file."""

    def colour(picture: Image.Image) -> np.ndarray:
        # JPEG decodes at a half, a quarter or an eighth for a fraction of the time.
        picture.draft("RGB", (longest, longest))
        picture = _on_paper(ImageOps.exif_transpose(picture) if upright else picture)
        if picture.mode.startswith("I"):
            picture = Image.fromarray(as_grey(picture))
        picture = picture.convert("RGB")
        picture.thumbnail((longest, longest))
        return np.asarray(picture)

    return decode(picture_bytes(path), colour)


def _on_paper(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, PAPER), picture)
