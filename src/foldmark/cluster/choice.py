"""Where folds are trained, as the user asks with DEVICE, WORKERS and CLUSTER."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from foldmark.cluster.connection import join_ray, require_ray, start_ray
from foldmark.cluster.engine import RayEngine
from foldmark.cluster.nodes import Allotment
from foldmark.core.errors import UserError
from foldmark.models.device import pick_device
from foldmark.runs.experiment import Session
from foldmark.train.executors import Engine, OneProcess


@contextmanager
def open_engine(session: Session) -> Iterator[Engine]:
    """The engine that the session asks for: this process, workers on this machine, or those of a cluster. Raises UserError for
    what there is not."""
    workers = _read_workers(session.workers or ("auto" if session.cluster else "1"))
    if session.cluster:
        with join_ray(session.cluster):
            allotment = _share_cluster(session.device, workers)
            with RayEngine(allotment, pick_device("auto" if allotment.device == "cuda" else "cpu")) as engine:
                yield engine
        return
    device = pick_device(session.device)
    if workers == 1:
        yield OneProcess(device)
        return
    if device.type == "mps" or device.index is not None:
        raise UserError(f"WORKERS={session.workers}: DEVICE={session.device} is one device; leave WORKERS out.")
    allotment = _share_machine(device, workers)
    if allotment.workers == 1:
        yield OneProcess(device)
        return
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    cores = max(count_cores(), (allotment.workers or 1) * allotment.cpus)
    with start_ray(cores, gpus) as folder, RayEngine(allotment, device, folder / "scratch") as engine:
        yield engine


def count_cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share_machine(device: torch.device, workers: int | None) -> Allotment:
    """What each fold gets of this machine; workers: None for as many as pay."""
    cores = count_cores()
    if device.type == "cuda":
        gpus = torch.cuda.device_count()
        workers = workers or gpus
        return Allotment("cuda", 1, 1 / math.ceil(workers / gpus), max(1, cores // workers), workers)
    # One thread a fold is the best use of cores: side by side, they need not wait for each other.
    threads = _asked_threads() or (1 if workers is None else max(1, cores // workers))
    return Allotment("cpu", threads, 0, threads, workers or max(1, cores // threads))


def _share_cluster(device: str, workers: int | None) -> Allotment:
    resources = require_ray().cluster_resources()
    gpus = resources.get("GPU", 0)
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"DEVICE={device}: a cluster has cpu and cuda; use DEVICE=auto.")
    if device == "cuda" and not gpus:
        raise UserError(
            "DEVICE=cuda: no machine of the cluster has a GPU that Ray knows; use DEVICE=cpu, or start Ray there again."
        )
    if device == "cpu" or not gpus:
        threads = _asked_threads() or 1
        return Allotment("cpu", threads, 0, threads, workers)
    return Allotment("cuda", 1, 1, max(1, int(resources.get("CPU", 1) / gpus)), workers)


def _asked_threads() -> int | None:
    """OMP_NUM_THREADS, which PyTorch takes its threads from."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdigit() and int(text) else None


def _read_workers(text: str) -> int | None:
    """How many folds at a time; None: as many as there is room for. Raises UserError for anything else."""
    if text == "auto":
        return None
    if text.isdigit() and 0 < int(text) <= 10_000:
        return int(text)
    raise UserError(f"WORKERS={text}: write how many folds to train at a time, or auto.")
