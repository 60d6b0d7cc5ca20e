"""Inspect each picture file, on all cores: its format, whether it decodes, its perceptual hash; and find which
pictures are the same under two names, byte for byte or alike to the eye."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from foldmark.core.faces import Faces
from foldmark.core.progress import Progress, no_progress
from foldmark.data.decode import decode, picture_bytes, to_grey

# File name extensions and the format that they promise.
PROMISED = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".gif": "GIF"}
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
HASH_SIDE = 16
# A thumbnail whose brightness varies less (standard deviation, of 255) is as good as blank: its hash would be noise.
BLANK = 3
# Bits of 256 in which two pictures may differ and still count as one photo. On the 5,132 pictures of the 300-W subset all 49
# such pairs were one photo, rescaled, re-cropped or re-captioned; the first two strangers came at 42.
ALIKE_BITS = 40


@dataclass(frozen=True)
class Sight:
    """The properties of one picture file. Where `problem` says why it does not decode, nothing else is known.

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


def inspect_pictures(paths: list[Path], progress: Progress = no_progress, workers: int | None = None) -> list[Sight]:
    """The sight of each picture file."""
    workers = workers or os.cpu_count() or 1
    sights = []
    with progress("looking at pictures", len(paths)) as done, ExitStack() as stack:
        look: Callable[..., Iterator[Sight]] = map
        if workers > 1 and len(paths) >= 64:
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn")))
            look = partial(pool.map, chunksize=32)
        for sight in look(inspect_picture, paths):
            sights.append(sight)
            done(len(sights))
    return sights


def inspect_faces(faces: Faces, progress: Progress = no_progress) -> list[Sight]:
    """The sight of each face's picture (n); a picture with several faces is looked at once."""
    paths = [faces.path(row) for row in range(len(faces))]
    pictures = list(dict.fromkeys(paths))
    seen = dict(zip(pictures, inspect_pictures(pictures, progress), strict=True))
    return [seen[path] for path in paths]


def inspect_picture(path: Path) -> Sight:
    try:
        content = picture_bytes(path)
        return Sight(**decode(content, _look), digest=hashlib.blake2b(content, digest_size=16).hexdigest())
    except ValueError as error:
        return Sight(problem=str(error))


def has_wrong_extension(path: Path, sight: Sight) -> bool:
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
    grey = Image.fromarray(to_grey(picture))
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), np.int16)
    return {**known, "blank": bool(small.std() < BLANK), "bits": _rising(small), "mirror_bits": _rising(small[:, ::-1])}


def _rising(small: np.ndarray) -> np.ndarray:
    return (small[:, 1:] > small[:, :-1]).ravel()


def find_same_bytes(sights: list[Sight]) -> list[tuple[int, int]]:
    """Pairs (first, other) of picture numbers whose files hold the same bytes."""
    first: dict[str, int] = {}
    pairs = []
    for number, sight in enumerate(sights):
        if sight.digest and first.setdefault(sight.digest, number) != number:
            pairs.append((first[sight.digest], number))
    return pairs


def find_alike(sights: list[Sight]) -> list[tuple[int, int]]:
    """Pairs (lower, higher) of picture numbers that look the same, as they are or mirrored. Blank and damaged pictures look
    like nothing."""
    seen = np.array([number for number, sight in enumerate(sights) if sight.bits is not None and not sight.blank], dtype=int)
    if len(seen) < 2:
        return []
    # As +1 and -1, the product of two hashes counts agreeing bits less differing ones: one matrix product for all pairs.
    plain, mirrored = (
        np.stack([getattr(sights[number], name) for number in seen]).astype(np.float32) * 2 - 1
        for name in ("bits", "mirror_bits")
    )
    near = HASH_SIDE**2 - 2 * ALIKE_BITS
    pairs: list[tuple[int, int]] = []
    # In blocks, so that a large set does not need all pairs in memory at once.
    for start in range(0, len(seen), 1024):
        block = plain[start : start + 1024]
        rows, columns = np.nonzero((block @ plain.T >= near) | (block @ mirrored.T >= near))
        later = columns > rows + start
        pairs += zip(seen[rows[later] + start].tolist(), seen[columns[later]].tolist(), strict=True)
    return pairs


def count_differing_bits(bits: np.ndarray, other: np.ndarray) -> int:
    return int((bits != other).sum())
