"""The user's settings resolved: the experiment's name, configs and data. Without torch, so that a wrong setting is answered at
once."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foldmark.core.config import Config, change_config
from foldmark.core.config_file import load_config, load_variants
from foldmark.core.errors import UserError
from foldmark.core.files import is_file
from foldmark.data.sets import Data
from foldmark.runs.places import Places, check_name
from foldmark.runs.run_folder import RunFolder

# The configs that are used where the user names none: for real faces and for synthetic ones.
DEFAULT_CONFIG, SYNTHETIC_CONFIG = "resnet18", "synthetic"


@dataclass(frozen=True)
class Session:
    """How a command works: where, on which device (auto, cpu, cuda ...), what W&B does (offline, online, disabled) and the notes
    that it shows; how many folds at a time (a number, auto, or nothing), and on which Ray cluster (auto, an address, or none)."""

    places: Places
    device: str = "auto"
    wandb: str = "offline"
    notes: str = ""
    workers: str = ""
    cluster: str = ""


@dataclass(frozen=True)
class Settings:
    """The user's settings: a config's name or path, an experiment's name (None: the config's) and overrides of its keys."""

    config: str | None = None
    name: str | None = None
    overrides: Sequence[str] = ()


@dataclass(frozen=True)
class Experiment:
    """An experiment or a blend of several: its name, the config of each member by the name of its run, and the data. sources: the
    runs whose models the members take and that a config describes, in the order in which to train them."""

    name: str
    members: dict[str, Config]
    data: Data
    overrides: Sequence[str] = field(default=())
    sources: dict[str, Config] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """The config of the only member. Raises UserError for a blend."""
        if len(self.members) > 1:
            raise UserError(f"CONFIG={self.name}: is a blend of {', '.join(self.members)}; name one of them.")
        return next(iter(self.members.values()))

    def folders(self, places: Places) -> list[RunFolder]:
        """The run folder of each member."""
        return [RunFolder(places.run(name)) for name in self.members]


def data_set_of(places: Places, settings: Settings) -> str:
    """The data set that the asked configs are for. Raises UserError for a config that cannot be read, or for a blend over several
    sets. Comes before the data, so that a typing error in a key need not wait for it."""
    if settings.name:
        check_name(settings.name)
    variants = load_variants(settings.config or DEFAULT_CONFIG, places.configs, settings.overrides)
    sets = {config.data.set for config in variants.values()}
    if len(sets) > 1:
        raise UserError(f"CONFIG={settings.config}: its configs are for different data sets, so they cannot be blended.")
    return sets.pop()


def make_experiment(places: Places, settings: Settings, data: Data) -> Experiment:
    """The experiment that the user's settings mean with this data. On synthetic faces experiments get names of their own, so that
    a run on real ones never mixes with them; under a name of the user's a blend's members get it in front of theirs."""
    chosen = settings.config or (SYNTHETIC_CONFIG if data.synthetic else DEFAULT_CONFIG)
    variants = load_variants(chosen, places.configs, settings.overrides)
    name, runs = _name_runs(chosen, list(variants), settings.name, data.synthetic)
    run_of = dict(zip(variants, runs, strict=True))
    naming = _Naming(places, name, run_of, data.synthetic)
    sources = {run: config for config in variants.values() for run, config in naming.list_sources(config).items()}
    configs = [naming.name_sources(config) for config in variants.values()]
    return Experiment(name, dict(zip(runs, configs, strict=True)), data, settings.overrides, sources)


def find_trained(places: Places, settings: Settings) -> tuple[str, list[str]]:
    """The name of a trained experiment and the runs that it consists of, as these settings mean it for `train`; found among the
    runs, so that no data set is needed. One on real faces comes before one on synthetic ones.

    Raises UserError if there is none.
    """
    config, name = settings.config, settings.name
    if name and not config and places.run(check_name(name)).is_dir():
        return name, [name]
    choices = [(name or stem, [name or stem]) for stem in (DEFAULT_CONFIG, SYNTHETIC_CONFIG)]
    if config:
        variants = list(load_variants(config, places.configs))
        choices = [_name_runs(config, variants, name, synthetic) for synthetic in (False, True)]
    for label, runs in choices:
        if all(any(places.runs.glob(f"{glob.escape(run)}/fold*/summary.json")) for run in runs):
            return label, runs
    raise UserError(
        f"{places.run(choices[0][0])}: no finished fold to predict with; run make train with the same settings first."
    )


def _name_runs(config: str, members: list[str], name: str | None, synthetic: bool) -> tuple[str, list[str]]:
    """The name of the whole, and of the run of each member."""
    label, *runs = (_name_run(stem, synthetic) for stem in (Path(config).stem, *members))
    label = check_name(name or label)
    if members == [Path(config).stem]:
        return label, [label]
    return label, [check_name(f"{name}-{run}" if name else run) for run in runs]


def _name_run(stem: str, synthetic: bool) -> str:
    return f"{stem}-synthetic" if synthetic and stem != SYNTHETIC_CONFIG else stem


@dataclass(frozen=True)
class _Naming:
    """How an experiment of this name names the runs whose models it takes. run_of: the run of each member by its config."""

    places: Places
    name: str
    run_of: dict[str, str]
    synthetic: bool

    def name_sources(self, config: Config) -> Config:
        """The config with the name of a run, where train.start or model.aligner names a config."""
        return change_config(config, {key: self._name_source(source, config) for key, source in config.sources.items()})

    def list_sources(self, config: Config) -> dict[str, Config]:
        """The runs that this config needs and that are no members, each after those which it needs itself, with the config of its
        name and the data and folds of this one. Of the runs themselves nothing is read: only training needs them."""
        sources: dict[str, Config] = {}
        for source in config.sources.values():
            if source in self.run_of or not self._is_config(source):
                continue
            own = self._load(source).model_copy(update={"data": config.data, "folds": config.folds})
            sources |= self.list_sources(own)
            sources[self._name_source(source, config)] = self.name_sources(own)
        return sources

    def _name_source(self, source: str, config: Config) -> str:
        """The run of a source of this config: under the experiment's name where its data or folds are others than the source's
        own, whose run may be there, too."""
        if source in self.run_of or not self._is_config(source):
            return self.run_of.get(source, source)
        own = self._load(source)
        if (own.data, own.folds) != (config.data, config.folds):
            return check_name(f"{self.name}-{source}")
        return _name_run(source, self.synthetic)

    def _load(self, source: str) -> Config:
        return load_config(source, self.places.configs)

    def _is_config(self, source: str) -> bool:
        return is_file(self.places.configs / f"{source}.yaml")
