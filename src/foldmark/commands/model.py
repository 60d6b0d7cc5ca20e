"""`foldmark model`: a variant's layers, parameters and operations."""

from collections.abc import Sequence

import torch

from foldmark.core.config_file import load_config
from foldmark.data.sets import pick_set
from foldmark.models.net import build_model, list_layers
from foldmark.runs.experiment import Session


def show_model(session: Session, model: str, overrides: Sequence[str]) -> None:
    """Print a variant's layers, parameters and operations."""
    config = load_config(model, session.places.configs, overrides)
    points = len(config.data.points) if config.data.points else pick_set(config.data.set).markup.count
    print(list_layers(build_model(config, torch.zeros(points, 2), seed=0), config))
