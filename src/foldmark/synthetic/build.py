"""Building a synthetic data set: on all cores, and whole or not at all."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from foldmark.core.errors import UserError


def build_once(dataset: Path, labels: tuple[str, ...], fill: Callable[[Path], None]) -> Path:
    """Let `fill(folder)` draw a data set and return its folder, `dataset`. One that has its label files is left as it is.

    It is built in a folder beside it and renamed at the end, so an interrupted call leaves nothing that looks
    complete. Raises UserError where something else stands in its place.
    """

    def complete() -> bool:
        return all((dataset / name).is_file() for name in labels)

    if complete():
        return dataset
    if dataset.exists():
        raise UserError(f"{dataset}: is there but lacks {' and '.join(labels)}; move it away and run the same command again.")
    dataset.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".synthetic-", dir=dataset.parent) as scratch:
        build = Path(scratch) / dataset.name
        build.mkdir()
        fill(build)
        try:
            build.rename(dataset)
        except OSError:
            # Another process drew the same set meanwhile: its result is as good.
            if not complete():
                raise
    return dataset


def run_jobs(work: Callable, jobs: list, workers: int | None) -> list:
    """`work(job)` of every job, in order, in as many processes (default: one per core)."""
    workers = workers or os.cpu_count() or 1
    if workers == 1 or len(jobs) < 2:
        return [work(job) for job in jobs]
    # "spawn": a forked child of a process that has started threads or CUDA may hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(pool.map(work, jobs, chunksize=4))


def write_jpeg(path: Path, picture: np.ndarray, quality: int) -> None:
    """Write a uint8 picture (H, W, 3) RGB."""
    encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    path.write_bytes(encoded[1].tobytes())
