"""What the user's options mean: the session, the data and the experiment. Synthetic faces are announced here."""

from pathlib import Path
from typing import Any

from foldmark.core.errors import UserError
from foldmark.core.files import expand_user
from foldmark.data.sets import Data
from foldmark.runs.experiment import Experiment, Session, Settings, data_set_of, make_experiment
from foldmark.runs.places import Places
from foldmark.show.terminal import console, show_progress
from foldmark.synthetic.sets import load_data, synthetic_notice


def make_session(given: Any) -> Session:
    """The session in the current folder with what the user gave of device, wandb and notes."""
    options = {key: getattr(given, key) for key in ("device", "wandb", "notes") if hasattr(given, key)}
    return Session(Places(Path.cwd()), **options)


def read_settings(given: Any) -> Settings:
    return Settings(given.config or None, given.name or None, given.overrides)


def open_data(given: Any, kind: str) -> Data:
    """The data set of this kind below the user's DATA_ROOT, or synthetic faces, which are announced."""
    places = make_session(given).places
    root = expand_user(Path(given.data_root), "DATA_ROOT") if given.data_root else places.data
    data = load_data(root, kind, places.cache, show_progress)
    if data.synthetic:
        console.print(synthetic_notice(root, data))
    return data


def open_experiment(given: Any) -> Experiment:
    """The experiment that the user's options mean, with its data."""
    places, settings = make_session(given).places, read_settings(given)
    data = open_data(given, data_set_of(places, settings))
    return make_experiment(places, settings, data)


def parse_folds(text: str) -> list[int] | None:
    """The fold numbers in a text such as "0 1"; None for all. Raises UserError for anything else."""
    try:
        return [int(fold) for fold in text.replace(",", " ").split()] or None
    except ValueError:
        raise UserError(f'FOLDS="{text}": write fold numbers, such as FOLDS="0 1".') from None
