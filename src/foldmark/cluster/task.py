"""What a worker is sent to train a fold: plain data, no file of the data set."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foldmark.core.config import Config
from foldmark.core.faces import Faces
from foldmark.core.files import file_sha256, read_bytes
from foldmark.data.crops import Crops, CropStore
from foldmark.models.checkpoint import load_latest_checkpoint, to_bytes
from foldmark.models.net import build_model
from foldmark.models.weights import read_pretrained
from foldmark.runs.fold_folder import FoldFolder
from foldmark.runs.places import Places
from foldmark.runs.run import Run, find_source_fold
from foldmark.runs.run_folder import RunFolder
from foldmark.train.fold_data import FoldData

LARGEST = 2**36  # bytes of a checkpoint


@dataclass(frozen=True)
class StoreInfo:
    """A crop store without its pixels: the name and digest of its file, the size of a crop and what CropStore holds beside it."""

    file_name: str
    sha256: str
    size: tuple[int, int]
    px_to_store: np.ndarray
    damaged: dict[int, str]


@dataclass(frozen=True)
class RunTask:
    """What all folds of a run share. files: by their path below the project's root."""

    name: str
    config: Config
    faces: Faces
    folds: np.ndarray
    store: StoreInfo
    files: dict[str, bytes]


@dataclass(frozen=True)
class FoldTask:
    """A fold to train, or to go on with.

    threads: of the processor. head: the root of the head's project, which errors name. base: where the worker makes its scratch
    folder; None: in the machine's folder for temporary files. workers: how many train for this head. data: of a fold that learns
    from teachers, whose runs are at the head alone, without its crops.
    """

    fold: int
    files: dict[str, bytes]
    device: str
    threads: int
    head: Path
    base: Path | None
    workers: int
    data: FoldData | None = None


def describe_store(store: CropStore) -> StoreInfo:
    """Raises UserError for a file that cannot be read."""
    return StoreInfo(store.file.name, file_sha256(store.file), store.size, store.px_to_store, store.damaged)


def read_pixels(store: CropStore) -> np.ndarray:
    """The crops of a store, uint8 (n, height, width)."""
    width, height = store.size
    return np.fromfile(store.file, np.uint8).reshape(len(store), height, width)


def find_crops(info: StoreInfo, cache: Path, pixels: np.ndarray | None) -> CropStore | Crops | None:
    """The crops of a store: from the same file on this machine's own disk, by its digest, else from pixels (n, height, width)
    that were sent; None where there are neither."""
    file = cache / info.file_name
    if file.is_file() and file_sha256(file) == info.sha256:
        return CropStore(file, info.size, info.px_to_store, info.damaged)
    return None if pixels is None else Crops(pixels, info.size, info.px_to_store, info.damaged)


def make_run_task(run: Run, store: StoreInfo) -> RunTask:
    """Raises UserError where the weights to start from cannot be had."""
    config, places, files = run.config, run.places, dict[str, bytes]()
    if config.model.weights:
        with torch.device("meta"):
            backbone = build_model(config, torch.zeros(1, 2), seed=0).backbone
        files[places.relative(places.sent_weights)] = bytes(to_bytes(read_pretrained(backbone, config.model.weights)))
    name = run.folder.path.relative_to(places.runs).as_posix()  # of a search or a part with its folder in front
    return RunTask(name, config, run.faces, run.folds, store, files)


def list_fold_files(run: Run, fold: int, device_type: str) -> dict[str, bytes]:
    """What a worker needs of the head's runs to begin a fold or to go on with it: its last checkpoint, the way to compute and,
    for one that takes models of another run, the same fold there. Raises UserError for a checkpoint that cannot be used."""
    folder, places = run.fold(fold), run.places
    paths = [run.folder.speed_file(device_type)]
    if load_latest_checkpoint(folder) is not None:
        paths.append(folder.checkpoint if folder.checkpoint.exists() else folder.previous_checkpoint)
    else:
        for key in run.config.sources:
            source = find_source_fold(run, key, fold)
            of_run = RunFolder(source.path.parent)
            paths += [of_run.split_file, of_run.config_file, source.summary_file, source.checkpoint]
    return {places.relative(path): read_bytes(path, LARGEST) for path in paths if path.is_file()}


def open_task(run_task: RunTask, task: FoldTask, crops: CropStore | Crops, root: Path) -> Run:
    """The run of a task in a worker's own folder, as `open_run` opens it at the head."""
    places = Places(root)
    for name, content in {**run_task.files, **task.files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    folder = RunFolder(places.run(run_task.name))
    return Run(folder, run_task.config, run_task.faces, run_task.folds, crops, places)


def read_result(fold: FoldFolder) -> dict[str, bytes]:
    """The files of a finished fold by their names."""
    paths = (*fold.results, fold.summary_file)
    return {path.name: read_bytes(path, LARGEST) for path in paths}


def pack(content: object) -> bytes:
    return pickle.dumps(content, pickle.HIGHEST_PROTOCOL)


def unpack(content: bytes) -> Any:
    """What the head packed. A worker trusts the head that it takes tasks from."""
    return pickle.loads(content)
