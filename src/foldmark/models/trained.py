"""Trained models, loaded from checkpoints to predict with."""

from pathlib import Path

import torch

from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.models.aligner import load_aligner
from foldmark.models.checkpoint import load_checkpoint
from foldmark.models.net import PointRegressor, build_model


def load_model(checkpoint: Path, config: Config, points: int, device: torch.device) -> PointRegressor:
    """The model of that checkpoint with its averaged weights and aligner, for so many points. Raises UserError where the
    file is missing, damaged, or of another model than this config's."""
    state = load_checkpoint(checkpoint, device)
    if state is None:
        raise UserError(f"{checkpoint}: no such checkpoint, though the fold is finished; remove its folder and train it again.")
    model = build_model(config, torch.zeros(points, 2), seed=0).to(device)
    try:
        model.load_state_dict(state["averaged"])
        if config.model.aligner:
            model.aligner = load_aligner(state["aligner"], points, device)
    except (RuntimeError, KeyError, TypeError):
        raise UserError(f"{checkpoint}: holds another model than today's code makes of its config; train it again.") from None
    return model.eval()
