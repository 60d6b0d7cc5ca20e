"""Parse the user's options: `read_<what>(given)` for each. Synthetic faces are announced here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from foldmark.core.config import Config, split_overrides
from foldmark.core.config_file import load_config
from foldmark.core.errors import UserError
from foldmark.core.files import expand_user
from foldmark.data.sets import Data
from foldmark.runs.experiment import Experiment, Session, Settings, data_set_of, make_experiment
from foldmark.runs.places import Places, check_name
from foldmark.show.terminal import say, show_progress
from foldmark.show.wandb_calls import require_mode
from foldmark.synthetic.sets import load_data, synthetic_notice
from foldmark.tune.folder import Search, SearchFolder
from foldmark.tune.search_file import load_search
from foldmark.tune.space import make_space
from foldmark.tune.study import require_optuna


def read_session(given: Any) -> Session:
    """The session in the current folder, with device, wandb, notes, workers and cluster where the command has them. Raises
    UserError for an unknown mode of W&B's."""
    options = {key: getattr(given, key) for key in ("device", "wandb", "notes", "workers", "cluster") if hasattr(given, key)}
    session = Session(Places(Path.cwd()), **options)
    require_mode(session.wandb, "WANDB")
    return session


def read_given(given: Any) -> Any:
    """All options as they are."""
    return given


def read_file(given: Any) -> Path:
    """The competition file."""
    return Path(given.need("file"))


def read_model(given: Any) -> str:
    """The config whose model is shown."""
    return given.need("model")


def read_sources(given: Any) -> dict[str, str | None]:
    """The addresses of data sets by the source's variable; None for the published one."""
    return {variable: getattr(given, variable.lower()) for variable in ("IBUG", "TEST_LIST", "IMM")}


def read_variables(given: Any) -> dict[str, str]:
    """The variables that make an experiment what it is, as the user set them; empty where the command does not take one."""
    return {variable: getattr(given, variable.lower(), None) or "" for variable in ("CONFIG", "NAME", "DATA_ROOT")}


def read_overrides(given: Any) -> list[str]:
    """The config overrides; one SET may hold several."""
    return [override for text in given.set for override in split_overrides(text)]


def read_folds(given: Any) -> list[int] | None:
    """The fold numbers in a text such as "0 1"; None for all. Raises UserError for anything else."""
    numbers = given.folds.replace(",", " ").split()
    if not all(number.isdecimal() for number in numbers):
        raise UserError(f'FOLDS="{given.folds}": write fold numbers, such as FOLDS="0 1".')
    return [int(number) for number in numbers] or None


def read_unlabelled(given: Any) -> Path | None:
    """The folder of unlabelled pictures, None where none is named."""
    return expand_user(Path(given.unlabelled), "UNLABELLED") if given.unlabelled else None


def read_data_root(given: Any) -> Path:
    """The folder of the data sets."""
    return expand_user(Path(given.data_root), "DATA_ROOT") if given.data_root else read_session(given).places.data


def read_experiment(given: Any) -> Experiment:
    """The experiment, with its data."""
    places = read_session(given).places
    settings = Settings(given.config or None, given.name or None, read_overrides(given))
    return make_experiment(places, settings, open_data(places, read_data_root(given), data_set_of(places, settings)))


def read_data(given: Any) -> Data:
    """The data set of the config, for commands that take no more of it."""
    places = read_session(given).places
    kind = data_set_of(places, Settings(given.config)) if given.config else Config().data.set
    return open_data(places, read_data_root(given), kind)


def open_data(places: Places, root: Path, kind: str) -> Data:
    """The data set of this kind below a root, or synthetic faces, which are announced."""
    data = load_data(root, kind, places.cache, show_progress)
    if data.synthetic:
        for line in synthetic_notice(root, data).splitlines():
            say(line)
    return data


def read_search(given: Any) -> Search:
    """The search: its file, the base experiment, which on synthetic faces is the config for these unless one is named, and the
    space. A wrong key or range is answered before the data is opened."""
    require_optuna()
    places, session_folds = read_session(given).places, read_folds(given)
    path = expand_user(Path(given.search), "SEARCH") if given.search else places.configs / "search.yaml"
    file = load_search(path, session_folds)
    settings = Settings(given.config or file.base, given.name or None, read_overrides(given))
    kind = data_set_of(places, settings)
    make_space(load_config(settings.config or file.base, places.configs, settings.overrides), file, str(path))
    data = open_data(places, read_data_root(given), kind)
    if data.synthetic and not given.config:
        settings = replace(settings, config=None)
    experiment = make_experiment(places, settings, data)
    name = given.name or check_name(f"{experiment.name}-search")
    return Search(SearchFolder(places.run(name)), file, experiment, make_space(experiment.config, file, str(path)))
