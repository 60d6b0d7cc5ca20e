"""The tasks of a worker: it trains in a scratch folder of its own and gives messages, which the head takes. Without Ray."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from foldmark.cluster.outbox import Outbox
from foldmark.cluster.scratch import own_temporary_folder, scratch_folder
from foldmark.cluster.task import FoldTask, RunTask, find_crops, open_task, read_result, unpack
from foldmark.core.errors import DivergedError, UserError
from foldmark.models.device import describe_device, find_problem
from foldmark.runs.run import Run
from foldmark.train.fold_data import prepare_fold
from foldmark.train.loop import train_fold
from foldmark.train.state import measure_training

# What the head sends, by name; None for what it has not sent.
Fetch = Callable[[str], Any]


def describe(fetch: Fetch) -> Iterator[dict]:
    """The hardware of a worker, and what its device answers if it cannot compute."""
    device, threads = fetch("settings")
    torch.set_num_threads(threads)
    yield {"hardware": describe_device(torch.device(device)), "problem": find_problem(torch.device(device))}


def measure(fetch: Fetch) -> Iterator[dict]:
    """The fastest way to compute here."""
    device, threads, config, points, steps = unpack(fetch("measure"))
    torch.set_num_threads(threads)
    try:
        yield {"speed": measure_training(config, points, torch.device(device), steps).model_dump_json()}
    except UserError as error:
        yield {"error": str(error)}


def train(fetch: Fetch) -> Iterator[dict]:
    """Train a fold. Its messages are those of an Outbox, the last one with the files of the finished fold as `result`, or with
    the sentence of a UserError as `error`; `lacks` says that the crops have to be sent."""
    run_task: RunTask = unpack(fetch("run"))
    task: FoldTask = unpack(fetch("fold"))
    crops = find_crops(run_task.store, Path("cache"), fetch("crops"))
    if crops is None:
        yield {"lacks": "crops"}
        return
    torch.set_num_threads(task.threads)
    yield {"device": task.device}
    with scratch_folder(task.base or own_temporary_folder(), "task") as root:
        run = open_task(run_task, task, crops, root)
        outbox, ended = Outbox(run.fold(task.fold), run.config.train, task.workers), dict[str, Any]()
        # In a thread, because this one has to wait for the head.
        thread = Thread(target=_train, args=(run, task, outbox, ended), daemon=True)
        thread.start()
        while not outbox.done.wait(outbox.message_seconds):
            message = outbox.collect()
            if message:
                yield message
        thread.join()
        if "bug" in ended:
            raise ended["bug"]
        if "error" in ended:
            # So that the state is the one that the sentence speaks of.
            error = ended["error"].replace(str(root), str(task.head))
            yield outbox.collect(last=True) | {"error": error, "diverged": ended["diverged"]}
            return
        message = outbox.collect()
        message.pop("state", None)
        yield message | {"result": read_result(run.fold(task.fold)), "summary": ended["summary"]}


def _train(run: Run, task: FoldTask, outbox: Outbox, ended: dict) -> None:
    try:
        data = replace(task.data, store=run.store) if task.data else prepare_fold(run, task.fold)
        ended["summary"] = train_fold(run, data, torch.device(task.device), [outbox])
    except UserError as error:
        ended["error"], ended["diverged"] = str(error), isinstance(error, DivergedError)
    except BaseException as error:
        ended["bug"] = error
    finally:
        outbox.done.set()


TASKS: dict[str, Callable[[Fetch], Iterator[dict]]] = {"describe": describe, "measure": measure, "train": train}
