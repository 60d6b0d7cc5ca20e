"""Checkpoints: plain tensors and numbers, written so that they cannot be torn, loaded so that they cannot run code."""

import io
import logging
import pickle
from pathlib import Path

import torch

from foldmark.core.errors import UserError
from foldmark.core.files import write_bytes
from foldmark.runs.fold_folder import FoldFolder

log = logging.getLogger(__name__)


def to_bytes(state: dict) -> memoryview:
    """The content of a checkpoint file: a state of tensors, numbers, strings, lists and dicts."""
    # Through memory, because torch hides which error the disk gave.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> dict | None:
    """The state in that file, None if there is no such file. Raises UserError for a file that is damaged or unsafe."""
    if not path.exists():
        return None
    fix = "remove it and run the same command again"
    # Reading a pipe would wait for ever.
    if not path.is_file():
        raise UserError(f"{path}: is not a file; {fix}.")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # unpickling damaged bytes raises nearly anything
        reason = "holds more than plain tensors" if isinstance(error, pickle.UnpicklingError) else "is damaged"
        raise UserError(f"{path}: {reason}, so it is not loaded; {fix}.") from None
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds no training state, so it is not loaded; {fix}.")
    return state


def push_checkpoint(fold: FoldFolder, state: dict) -> None:
    """Write a state as the fold's last one and keep the one before it, so that one of the two is always good."""
    push_checkpoint_bytes(fold, to_bytes(state))


def push_checkpoint_bytes(fold: FoldFolder, content: bytes | memoryview) -> None:
    """`push_checkpoint` of a state that is in bytes already."""
    if fold.checkpoint.exists():
        fold.checkpoint.replace(fold.previous_checkpoint)
    write_bytes(fold.checkpoint, content)


def load_latest_checkpoint(fold: FoldFolder) -> dict | None:
    """The fold's last state or, where that is damaged or was never written to its end, the one before; None without any.

    Raises UserError if neither can be used.
    """
    try:
        state = load_checkpoint(fold.checkpoint)
    except UserError:
        state = load_checkpoint(fold.previous_checkpoint)
        if state is None:
            raise
        previous = fold.previous_checkpoint.name
        log.info(f"{fold.checkpoint}: damaged or unsafe, so not loaded; going on from the earlier {previous} beside it.")
        # Else the next state would push it over the good one.
        fold.checkpoint.unlink()
        return state
    return load_checkpoint(fold.previous_checkpoint) if state is None else state
