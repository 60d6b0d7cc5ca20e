"""One look at each picture file, on all cores: what kind of file it is, whether it decodes, and what it looks like."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from foldmark.data.crops import as_grey, decode, picture_bytes

# File name extensions and the format that they promise.
PROMISED = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".gif": "GIF"}
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
HASH_SIDE = 16
# A thumbnail whose brightness varies less (standard deviation, of 255) is as good as blank: its hash would be noise.
BLANK = 3


@dataclass(frozen=True)
class Sight:
    """What one look at a picture file shows. Where `problem` says why it does not decode, nothing else is known.

    size: width, height as stored. turned: its EXIF says that it is to be turned for showing, which training does not do.
    digest: of the file's bytes. bits, mirror_bits: (256,) bool perceptual hash of the picture and of its mirror image
    (difference hash: whether brightness rises from each cell of a 17x16 grid to the next).
    """

    problem: str = ""
    size: tuple[int, int] = (0, 0)
    format: str = ""
    mode: str = ""
    turned: bool = False
    blank: bool = False
    digest: str = ""
    bits: np.ndarray | None = None
    mirror_bits: np.ndarray | None = None


def inspect_pictures(paths: list[Path], progress: Callable[[int], None] | None = None, workers: int | None = None) -> list[Sight]:
    """The sight of each picture file. progress: called with the number done."""
    workers = workers or os.cpu_count() or 1
    sights = []

    def collect(found: Sight) -> None:
        sights.append(found)
        if progress:
            progress(len(sights))

    if workers == 1 or len(paths) < 64:
        for path in paths:
            collect(inspect_picture(path))
        return sights
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for found in pool.map(inspect_picture, paths, chunksize=32):
            collect(found)
    return sights


def inspect_picture(path: Path) -> Sight:
    try:
        content = picture_bytes(path)
        return Sight(**decode(content, _look), digest=hashlib.blake2b(content, digest_size=16).hexdigest())
    except ValueError as error:
        return Sight(problem=str(error))


def lying_extension(path: Path, sight: Sight) -> bool:
    return bool(sight.format) and sight.format != PROMISED.get(path.suffix.lower(), sight.format)


def _look(picture: Image.Image) -> dict:
    known = {
        "size": picture.size,
        "format": picture.format,
        "mode": picture.mode,
        "turned": picture.getexif().get(ORIENTATION, 1) != 1,
    }
    # JPEG can be decoded at an eighth of its size; damage still shows, because all of the file is read.
    picture.draft("L", (64, 64))
    grey = Image.fromarray(as_grey(picture))
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), np.int16)
    return {**known, "blank": bool(small.std() < BLANK), "bits": _rising(small), "mirror_bits": _rising(small[:, ::-1])}


def _rising(small: np.ndarray) -> np.ndarray:
    return (small[:, 1:] > small[:, :-1]).ravel()
