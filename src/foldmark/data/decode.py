"""One picture file to pixels: in grey as training reads it, and photos of one's own upright, in grey or in colour."""

import io
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from foldmark.core.files import MEGABYTE, read_bytes

# Pillow opens more, among them PostScript, for which it starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
MAX_PIXELS = 200_000_000
MAX_BYTES = 1024 * MEGABYTE
BACKGROUND = "white"  # behind transparent parts of a photo

T = TypeVar("T")


def read_grey(path: Path) -> np.ndarray:
    """Decode one picture file to grey uint8 (height, width). Raises ValueError saying what is wrong with the file."""

    def grey(picture: Image.Image) -> np.ndarray:
        # JPEG keeps brightness apart from colour: a draft decodes only that.
        picture.draft("L", None)
        return to_grey(picture)

    return decode(picture_bytes(path), grey)


def picture_bytes(path: Path) -> bytes:
    """The bytes of a picture file. Raises ValueError saying why there are none."""
    try:
        content = read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    if not content:
        raise ValueError("is empty (0 bytes)")
    return content


def decode(content: bytes, convert: Callable[[Image.Image], T]) -> T:
    """What `convert` makes of the picture in these bytes. Raises ValueError saying what is wrong with it."""
    return _with_picture(io.BytesIO(content), convert)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, as its header states them. Raises ValueError saying what is wrong with the file."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("is not a file")
        with path.open("rb") as file:
            return _with_picture(file, lambda picture: picture.size)
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None


def to_grey(picture: Image.Image) -> np.ndarray:
    """An opened picture of any mode as grey uint8 (height, width)."""
    if picture.mode.startswith("I;16") or picture.mode == "I":
        return (np.asarray(picture, np.float64) / 257).clip(0, 255).astype(np.uint8)
    return np.asarray(picture.convert("L"))


def read_photo(path: Path) -> np.ndarray:
    """A photo in grey uint8 (height, width), turned upright as its EXIF note says, transparent parts on white. Raises
    ValueError saying what is wrong with the file."""

    def grey(picture: Image.Image) -> np.ndarray:
        picture.draft("L", None)
        return grey_photo(picture)

    return decode(picture_bytes(path), grey)


def grey_photo(image: "np.ndarray | Image.Image | str | Path") -> np.ndarray:
    """An image in grey uint8 (height, width): an array uint8 (height, width) or RGB (height, width, 3) as it is; a Pillow
    image or a picture file turned upright as its EXIF note says. Raises ValueError for anything else."""
    if isinstance(image, str | Path):
        return read_photo(Path(image))
    if isinstance(image, Image.Image):
        return to_grey(_on_background(ImageOps.exif_transpose(image)))
    if not isinstance(image, np.ndarray):
        raise ValueError(f"is a {type(image).__name__}; give an array, a Pillow image or a path")
    if image.dtype != np.uint8 or not (image.ndim == 2 or image.ndim == 3 and image.shape[2] == 3) or not image.size:
        raise ValueError(f"is {image.dtype} {image.shape}; an array is uint8 (height, width) or RGB (height, width, 3)")
    return to_grey(Image.fromarray(np.ascontiguousarray(image)))


def colour_photo(path: Path, longest: int, *, upright: bool = True) -> np.ndarray:
    """A photo to show: RGB uint8, its longer side at most `longest` pixels; upright, or as the file holds it. Raises
    ValueError saying what is wrong with the file."""

    def colour(picture: Image.Image) -> np.ndarray:
        # JPEG decodes at a half, a quarter or an eighth for a fraction of the time.
        picture.draft("RGB", (longest, longest))
        picture = _on_background(ImageOps.exif_transpose(picture) if upright else picture)
        if picture.mode.startswith("I"):
            picture = Image.fromarray(to_grey(picture))
        picture = picture.convert("RGB")
        picture.thumbnail((longest, longest))
        return np.asarray(picture)

    return decode(picture_bytes(path), colour)


def _with_picture(file: BinaryIO, convert: Callable[[Image.Image], T]) -> T:
    """The only place that has Pillow open a file."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_formats()) as picture:
                return convert(picture)
    except UnidentifiedImageError:
        raise ValueError(f"is not a picture in a format that is read ({', '.join(_formats())})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"has more than {MAX_PIXELS // 10**6} million pixels") from None
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise ValueError(f"is damaged ({error})") from None


@cache
def _formats() -> tuple[str, ...]:
    try:
        import pillow_heif
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener()
    return *FORMATS, "HEIF"


def _on_background(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, BACKGROUND), picture)
