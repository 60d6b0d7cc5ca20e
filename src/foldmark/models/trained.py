"""Trained models, loaded from checkpoints to predict with; among them the aligner: a small model that finds where a face lies, so
that a large one is trained on aligned crops alone and looks once.

A fold takes the aligner of its own fold, which has not seen what it holds out, into its checkpoint: a run folder needs no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from foldmark.core.config import Config, check_config
from foldmark.core.errors import UserError
from foldmark.models.checkpoint import load_checkpoint
from foldmark.models.net import PointRegressor, build_model
from foldmark.models.weights import load_source
from foldmark.runs.fold_folder import FoldFolder
from foldmark.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Aligner:
    """A trained model, prepared to predict, and the config that it was trained with."""

    model: PointRegressor
    config: Config

    def state_dict(self) -> dict[str, Any]:
        return {"config": self.config.model_dump(mode="json"), "weights": self.model.state_dict()}


def read_aligner(source: FoldFolder, config: Config) -> dict[str, Any]:
    """The aligner's state, as `Aligner.state_dict` gives it, from the finished fold of another run. config: that of the run which
    takes it. Raises UserError where that fold is not finished, or its points or crops do not fit."""
    state, own = load_source("model.aligner", source), RunFolder(source.path.parent).read_config()
    if own.model.aligner or not own.crop.square or own.data.points != config.data.points:
        what = "has an aligner itself" if own.model.aligner else "learns other points, or crops that are not square"
        raise UserError(f"model.aligner: {source.path.parent} {what}; name a run of the same points without one.")
    return {"config": own.model_dump(mode="json"), "weights": state["averaged"]}


def load_aligner(state: Mapping[str, Any], points: int, device: torch.device) -> Aligner:
    """The aligner of that state, for so many points. Raises UserError for a config that this version cannot read, RuntimeError
    or KeyError for weights of another model."""
    config = check_config(state["config"], "model.aligner")
    model = build_model(config, torch.zeros(points, 2), seed=0).to(device)
    model.load_state_dict(state["weights"])
    return Aligner(model.eval().requires_grad_(False), config)


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
