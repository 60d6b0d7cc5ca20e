"""Calls to W&B and its service that cannot take longer than their limit, and how it is set up."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from foldmark.core.errors import UserError
from foldmark.show.wandb_file import Content

NETWORK_LIMIT = 15  # seconds; only a hanging service or network reaches it
UPLOAD_LIMIT = 300  # what an online run may still send when it ends, its checkpoint above all; one file in `make sync`


def call_with_limit(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of `call`, which runs in a thread. Raises TimeoutError when it takes longer; the thread is left behind."""
    outcome: Future[Any] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:
            outcome.set_exception(error)

    Thread(target=work, daemon=True).start()
    return outcome.result(seconds)


def tear_down() -> None:
    """End W&B's own process: else its exit hook prints a traceback, or waits for a dead service."""

    def work() -> None:
        import wandb

        wandb.teardown()

    with suppress(Exception):
        call_with_limit(5, work)


def require_mode(mode: str, variable: str) -> None:
    """Raise UserError, which names the variable, for what is no mode of W&B's."""
    if mode not in ("offline", "online", "disabled"):
        raise UserError(f"{variable}={mode}: no such mode; use offline, online or disabled.")


def stay_in_this_folder() -> None:
    """Keep W&B from writing outside wandb/, and from looking up a host name for an offline run. Folders that the user has set
    are kept. These are relative, so that an experiment's folder can move between training and upload."""
    logging.raiseExceptions = False  # on a full disk, each line of W&B's own log would print a traceback
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_DATA_DIR", "wandb")
    os.environ.setdefault("WANDB_CACHE_DIR", "wandb/cache")


def limit_retries() -> dict[str, str]:
    """Environment variables with which an upload by W&B's client gives up after minutes; by itself it tries for hours."""
    retries = {"FILE_STREAM": (3, 2 * NETWORK_LIMIT), "GRAPHQL": (3, 2 * NETWORK_LIMIT), "FILE_TRANSFER": (1, UPLOAD_LIMIT)}
    limits = dict[str, str]()
    for what, (times, seconds) in retries.items():
        limits |= {f"WANDB__{what}_RETRY_MAX": str(times), f"WANDB__{what}_RETRY_WAIT_MAX_SECONDS": "5"}
        limits[f"WANDB__{what}_TIMEOUT_SECONDS"] = str(seconds)
    return limits


def is_set(variable: str, *, default: bool) -> bool:
    """An environment variable that is 1 or 0. Raises UserError for anything else."""
    value = os.environ.get(variable) or str(int(default))
    if value not in ("0", "1"):
        raise UserError(f"{variable}={value}: is 0 or 1.")
    return value == "1"


def read_last_step(path: str) -> int:
    """The last step that the service has of the history of the run entity/project/id, -1 for a run that it does not know.
    Raises an error of W&B's where the service does not answer."""
    import wandb

    try:
        return int(wandb.Api(timeout=NETWORK_LIMIT - 5).run(path).lastHistoryStep)
    except wandb.errors.CommError as error:
        if "Could not find run" in str(error):
            return -1
        raise


def record_artifacts(run: Any) -> None:
    """Have W&B write the artifacts of an online run, those of its tables too, into the run's file, as it does offline: else
    `make sync` could not send those that were lost on the way."""
    interface = run._interface

    def publish(run: Any, artifact: Any, aliases: Any, tags: Any, step: int, **how: Any) -> None:
        interface.publish_artifact(run, artifact, aliases, tags, **how)

    interface.deliver_artifact = publish


def has_arrived(path: str, content: Content) -> bool:
    """Whether the service has all content of the run entity/project/id: W&B's client leaves out what it could not send, without a
    word. Raises an error of W&B's where the service does not answer."""
    import wandb

    api = wandb.Api(timeout=NETWORK_LIMIT - 5)
    run = api.run(path)
    if int(run.lastHistoryStep) < content.last_step:
        return False
    if content.media and not content.media <= {file.name for file in run.files(per_page=1000) if file.size}:
        return False
    for kind, name, digest in content.artifacts:
        try:
            versions = api.artifacts(kind, f"{run.entity}/{run.project}/{name}")  # those that are whole
            if all(version.digest != digest for version in versions):
                return False
        except ValueError:  # no artifact of that name
            return False
    return True


def mark_uploaded(file: Path) -> None:
    """Mark a run's file as W&B does."""
    file.with_name(f"{file.name}.synced").touch()


def is_uploaded(file: Path) -> bool:
    """Whether a run's file is marked as uploaded."""
    return file.with_name(f"{file.name}.synced").exists()


def shorten_error(error: Exception) -> str:
    """An error's message on one line, cut to 120 characters."""
    return " ".join(str(error).split())[:120] or type(error).__name__
