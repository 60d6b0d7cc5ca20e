"""The crop store: every face cut out, greyed, scaled and kept as uint8 on disk, so that pictures are decoded once.

A store crop is larger than the model's crop by a margin, so that augmentation can turn and shift it without running
into an edge. Its affine maps the original picture to the store crop exactly; the way back is the inverse.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from pydantic import BaseModel

from foldmark.core import geometry
from foldmark.core.config import CropConfig
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import atomic_path, digest, file_sha256, lock_folder, read_record, require_space, write_text
from foldmark.core.progress import Done, Progress, no_progress
from foldmark.data.decode import read_grey

# Part of the key of every store: raise it when the cutting below changes.
FORMAT = 1
MOST_WINDOW_PIXELS = 400_000_000


log = logging.getLogger(__name__)


class StoreNotes(BaseModel):
    """The record beside a store: the digest of its pixels, and row -> what is wrong with its picture."""

    sha256: str
    damaged: dict[int, str]


@dataclass(frozen=True)
class Crops:
    """n store crops in memory, read like a CropStore: crops (n, height, width) uint8 of that size (width, height), and
    px_to_store (n, 2, 3), original picture to store crop."""

    crops: np.ndarray
    size: tuple[int, int]
    px_to_store: np.ndarray
    damaged: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.crops[row]


@dataclass
class CropStore:
    """n store crops of one size (width, height): `crops[row]` reads one (height, width) uint8 array.

    px_to_store: (n, 2, 3) original picture to store crop.
    damaged: row -> what is wrong with its picture; such rows hold zeros.
    """

    file: Path
    size: tuple[int, int]
    px_to_store: np.ndarray
    damaged: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._descriptor: int | None = None

    def __len__(self) -> int:
        return len(self.px_to_store)

    def __getitem__(self, row: int) -> np.ndarray:
        # Plain reads rather than a memory map: the page cache serves both, but a map would count as this process's memory.
        if self._descriptor is None:
            self._descriptor = os.open(self.file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        width, height = self.size
        count = width * height
        if hasattr(os, "pread"):
            content = os.pread(self._descriptor, count, row * count)
        else:
            os.lseek(self._descriptor, row * count, os.SEEK_SET)
            content = os.read(self._descriptor, count)
        return np.frombuffer(content, np.uint8).reshape(height, width)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_descriptor": None}


def store_size(config: CropConfig) -> tuple[int, int]:
    """Width and height of a store crop; even with the crop's, so that its middle is cut pixel for pixel."""
    width, height = (side + 2 * round(side * (config.margin - 1) / 2) for side in config.size)
    return width, height


def open_store(
    faces: Faces, config: CropConfig, cache: Path, *, workers: int | None = None, progress: Progress = no_progress
) -> CropStore:
    """The store of these faces, built first if it is not there. Its name is the digest of all that it depends on.

    Raises UserError when the disk is too full. Damaged pictures do not raise; they are listed in `damaged`, and the caller
    decides.
    """
    key = digest([FORMAT, config.model_dump(), [_fingerprint(faces, row) for row in range(len(faces))]])
    pixels, notes = cache / f"crops-{key}.u8", cache / f"crops-{key}.json"
    damaged = _read_whole(pixels, notes, faces, config)
    if damaged is None:
        # Folds may be trained side by side: one process builds, the others wait for it.
        with lock_folder(cache / "building", None):
            damaged = _read_whole(pixels, notes, faces, config)
            if damaged is None:
                with progress("cutting out faces", len(faces)) as done:
                    damaged = _build(pixels, _cut_all(_jobs(faces, config), workers), _bytes(faces, config), done)
                write_text(notes, StoreNotes(sha256=file_sha256(pixels), damaged=damaged).model_dump_json())
    px_to_store = np.stack([_cut(box_px, config)[1] for box_px in faces.boxes_px])
    return CropStore(pixels, store_size(config), px_to_store, damaged)


def _read_whole(pixels: Path, notes: Path, faces: Faces, config: CropConfig) -> dict[int, str] | None:
    """The damaged rows of a complete store; None where there is none, or one that has to be rebuilt."""
    # The notes are written last: where they are, the store is complete.
    if not notes.exists() and not pixels.exists():
        return None
    try:
        stored = read_record(notes, StoreNotes, "")
        same = pixels.is_file() and pixels.stat().st_size == _bytes(faces, config) and file_sha256(pixels) == stored.sha256
        same = same and all(0 <= row < len(faces) for row in stored.damaged)
    except (UserError, OSError):
        same = False
    if not same:
        log.info("%s: incomplete; the faces are cropped again", pixels)
        return None
    # A picture may have become readable without being changed.
    jobs = _jobs(faces, config)
    repaired = any(_cut_one(jobs[row])[1] != problem for row, problem in stored.damaged.items())
    return None if repaired else stored.damaged


def _bytes(faces: Faces, config: CropConfig) -> int:
    width, height = store_size(config)
    return len(faces) * width * height


def _build(pixels: Path, crops: Iterator[tuple[bytes, str]], size: int, done: Done) -> dict[int, str]:
    """Write all crops, `size` bytes; which are damaged, and how."""
    require_space(pixels.parent, size, "the crop store")
    # No other process builds now, so what a killed one left belongs to nobody.
    for left in pixels.parent.glob(".crops-*.partial"):
        left.unlink(missing_ok=True)
    damaged = {}
    with atomic_path(pixels) as temporary, temporary.open("wb") as file:
        for row, (crop, problem) in enumerate(crops):
            if problem:
                damaged[row] = problem
            file.write(crop)
            done(row + 1)
    return damaged


def cut(picture: np.ndarray, window: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """Cut a window (left, top, width, height in whole pixels), padded with the edge's own pixels where it leaves the
    picture, and scale it to `size` (width, height). The same as the affine `geometry.resize`, but averaging when it
    shrinks."""
    left, top, width, height = window
    rows = np.clip(np.arange(top, top + height), 0, picture.shape[0] - 1)
    columns = np.clip(np.arange(left, left + width), 0, picture.shape[1] - 1)
    inside = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    patch = inside[(rows - rows[0])[:, None], columns - columns[0]]
    shrinks = size[0] < width or size[1] < height
    return cv2.resize(patch, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def warp(store_crop: np.ndarray, store_to_crop: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample a store crop to `size` (width, height); beyond its edges the edge pixels repeat."""
    return cv2.warpAffine(store_crop, store_to_crop, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def find_other_crop(store_size: tuple[int, int], crop: CropConfig, other: CropConfig) -> tuple[np.ndarray, float]:
    """Where another config cuts the same box: store crop to that crop (2, 3), and how many of its pixels one of this config's is.
    store_size: of the store of `crop`. Both cut squares."""
    scale = crop.enlargement / other.enlargement * other.size[0] / crop.size[0]
    down = (crop.down - other.down) / other.enlargement * other.size[1]
    to_other = geometry.similarity(crop.size, other.size, scale=scale, shift=(0, down))
    return geometry.compose(to_other, geometry.centre_affine(store_size, crop.size)), scale


def cut_crops(picture: np.ndarray, boxes_px: np.ndarray, config: CropConfig) -> Crops:
    """The store crops of the faces in these boxes (n, 4) of one grey picture (height, width) uint8, as a store on disk would
    hold them. Raises ValueError for a box that does not fit the picture."""
    size, crops, affines = store_size(config), [], []
    for box_px in boxes_px:
        place, affine = _cut(box_px, config)
        problem = describe_misfit((picture.shape[1], picture.shape[0]), (0, 0), place)
        if problem:
            raise ValueError(problem)
        crops.append(cut(picture, place, size))
        affines.append(affine)
    return Crops(np.array(crops, np.uint8).reshape(-1, size[1], size[0]), size, np.array(affines).reshape(-1, 2, 3))


def join_crops(parts: list[Crops]) -> Crops:
    """Crops of one size, one after the other."""
    crops, affines = (np.concatenate(arrays) for arrays in zip(*((part.crops, part.px_to_store) for part in parts), strict=True))
    return Crops(crops, parts[0].size, affines)


def refuse_damaged(faces: Faces, store: CropStore, hint: str) -> None:
    """Raise UserError that lists the first damaged pictures, if there are any."""
    if store.damaged:
        listed = "; ".join(f"{faces.path(row)} {problem}" for row, problem in list(store.damaged.items())[:5])
        more = f"; and {len(store.damaged) - 5} more" if len(store.damaged) > 5 else ""
        raise UserError(f"{listed}{more}: {hint}")


def describe_misfit(size: tuple[int, int], stated_size: tuple[float, float], window: tuple[int, int, int, int]) -> str:
    """Why a picture (width, height) does not fit what the label file says: its stated size, or the window (left, top,
    width, height) of its store crop; empty if it fits."""
    if all(stated_size) and size != tuple(stated_size):
        return f"is {size[0]}x{size[1]} pixels, but the label file says {stated_size[0]:g}x{stated_size[1]:g}"
    left, top, width, height = window
    # A typing error in a box must not ask for terabytes of padding, nor give a crop without a pixel of the picture.
    far_off = left >= size[0] or top >= size[1] or left + width <= 0 or top + height <= 0
    if far_off or max(width, height) > 20 * max(size) or width * height > MOST_WINDOW_PIXELS:
        return f"has a box that does not fit it (the crop would be {width}x{height} pixels at {left}, {top})"
    return ""


def store_window(box_px: np.ndarray, config: CropConfig) -> tuple[int, int, int, int]:
    """The window (left, top, width, height) in the original picture that a store crop shows."""
    return window(box_px, config, store_size(config)[0] / config.size[0])


def window(box_px: np.ndarray, config: CropConfig, margin: float = 1.0) -> tuple[int, int, int, int]:
    """The window (left, top, width, height) in the original picture that the model sees, times `margin` about its centre."""
    if config.square:
        left, top, side = geometry.square_window(box_px, config.enlargement * margin, config.down)
        return left, top, side, side
    return geometry.box_window(box_px, config.enlargement * margin)


def _cut(box_px: np.ndarray, config: CropConfig) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """The window in the original picture of one store crop, and the affine from picture to crop."""
    width, height = store_size(config)
    left, top, wide, high = store_window(box_px, config)
    return (left, top, wide, high), geometry.resize(width / wide, height / high, left, top)


def _fingerprint(faces: Faces, row: int) -> list:
    try:
        stat = faces.path(row).stat()
        content = [stat.st_size, stat.st_mtime_ns]
    except OSError:
        content = None
    return [str(faces.path(row).absolute()), content, faces.boxes_px[row].tolist(), faces.sizes_px[row].tolist()]


def _jobs(faces: Faces, config: CropConfig) -> list[tuple]:
    return [
        (faces.path(row), tuple(faces.sizes_px[row]), _cut(faces.boxes_px[row], config)[0], store_size(config))
        for row in range(len(faces))
    ]


def _cut_all(jobs: list[tuple], workers: int | None) -> Iterator[tuple[bytes, str]]:
    workers = workers or os.cpu_count() or 1
    if workers == 1 or len(jobs) < 64:
        yield from map(_cut_one, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_cut_one, jobs, chunksize=32)


def _cut_one(job: tuple) -> tuple[bytes, str]:
    path, stated_size, window, store = job
    cv2.setNumThreads(1)
    try:
        picture = read_grey(path)
        problem = describe_misfit((picture.shape[1], picture.shape[0]), stated_size, window)
        if problem:
            raise ValueError(problem)
    except ValueError as error:
        return bytes(store[0] * store[1]), str(error)
    return cut(picture, window, store).tobytes(), ""
