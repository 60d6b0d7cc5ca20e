"""Building a synthetic data set: on all cores, and whole or not at all."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.files import explain_error
from foldmark.core.progress import Progress, no_progress


def build_once(dataset: Path, labels: tuple[str, ...], fill: Callable[[Path], None]) -> Path:
    """Let `fill(folder)` draw a data set and return its folder, `dataset`. One that has its label files is left as it is.

    It is built in a folder beside it and renamed at the end, so an interrupted call leaves nothing that looks
    complete. Raises UserError where something else stands in its place, and where the disk does not take it.
    """
    try:
        return _build(dataset, labels, fill)
    except OSError as error:
        raise explain_error(error, dataset) from error


def _build(dataset: Path, labels: tuple[str, ...], fill: Callable[[Path], None]) -> Path:
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


def run_jobs(work: Callable, jobs: list, workers: int | None, progress: Progress = no_progress) -> list:
    """`work(job)` of every job, in order, in as many processes (default: one per core)."""
    workers = workers or os.cpu_count() or 1
    results = []
    with progress("making synthetic faces", len(jobs)) as done, ExitStack() as stack:
        run: Callable[..., Iterator] = map
        if workers > 1 and len(jobs) > 1:
            # "spawn": a forked child of a process that has started threads or CUDA may hang.
            spawn = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(workers, spawn, initializer=cv2.setNumThreads, initargs=(1,))
            run = partial(stack.enter_context(pool).map, chunksize=4)
        for result in run(work, jobs):
            results.append(result)
            done(len(results))
    return results


def write_jpeg(path: Path, picture: np.ndarray, quality: int) -> None:
    """Write a uint8 picture (H, W, 3) RGB."""
    encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    path.write_bytes(encoded[1].tobytes())
