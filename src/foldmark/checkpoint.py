"""Checkpoints: plain tensors and numbers, written so that they cannot be torn, loaded so that they cannot run code."""

import io
import pickle
from pathlib import Path

import torch

from foldmark.errors import UserError
from foldmark.files import write_bytes


def save_checkpoint(path: Path, state: dict) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts."""
    # Through memory, because torch hides which error the disk gave.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getbuffer())


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> dict | None:
    """The state in that file, None if there is no such file. Raises UserError for a file that is damaged or unsafe."""
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # unpickling damaged bytes raises nearly anything
        reason = "holds more than plain tensors" if isinstance(error, pickle.UnpicklingError) else "is damaged"
        raise UserError(f"{path}: {reason}, so it is not loaded; remove it and run the same command again.") from None
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds no training state, so it is not loaded; remove it and run the same command again.")
    return state
