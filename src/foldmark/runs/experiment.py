"""What the user's settings mean: the experiment's name, config and data. Without torch, so that a wrong setting is
answered at once."""

import glob
from pathlib import Path

from foldmark.core.config import CONFIG_FOLDER, Config, load_variants
from foldmark.core.errors import UserError
from foldmark.data.sets import Data, find_data, pick_set
from foldmark.show.terminal import console
from foldmark.synthetic.sets import NOTICE, make_synthetic_data

# Crops, synthetic faces and measured speeds: all that can be made again.
CACHE = Path("cache")
RUNS = Path("runs")


def experiment(data_root: Path, config: str | None, name: str | None, overrides: list[str]) -> tuple[str, Config, Data]:
    """The name, config and data that the user's settings mean, for what takes one config."""
    label, members, data = experiments(data_root, config, name, overrides)
    if len(members) > 1:
        raise UserError(f"CONFIG={config}: is a blend of {', '.join(members)}; name one of them.")
    return label, next(iter(members.values())), data


def experiments(
    data_root: Path, config: str | None, name: str | None, overrides: list[str]
) -> tuple[str, dict[str, Config], Data]:
    """The name, the experiments with their configs, and the data that the user's settings mean: one experiment of that name,
    or those that a blend names. On synthetic faces experiments get names of their own, so that a run on real ones never mixes
    with them; under a name of the user's a blend's experiments get it in front of theirs."""
    # A typing error in a key should not wait for faces to be generated.
    kinds = {variant.data.set for variant in load_variants(config or "resnet18", overrides).values()}
    if len(kinds) > 1:
        raise UserError(f"CONFIG={config}: its configs are for different data sets, so they cannot be blended.")
    data = find_data_or_synthesise(data_root, kinds.pop())
    chosen = config or ("synthetic" if data.synthetic else "resnet18")
    variants = load_variants(chosen, overrides)
    label, runs = _names(chosen, list(variants), name, data.synthetic)
    run_of = dict(zip(variants, runs, strict=True))
    configs = [_with_run_to_start_from(config, run_of, data.synthetic) for config in variants.values()]
    return label, dict(zip(runs, configs, strict=True)), data


def _names(config: str, members: list[str], name: str | None, synthetic: bool) -> tuple[str, list[str]]:
    """What `experiments` calls the whole, and each of its members."""
    label, *runs = (_run_name(stem, synthetic) for stem in (Path(config).stem, *members))
    label = name or label
    if len(members) == 1:
        return label, [label]
    return label, [f"{name}-{run}" if name else run for run in runs]


def _run_name(stem: str, synthetic: bool) -> str:
    return f"{stem}-synthetic" if synthetic and stem != "synthetic" else stem


def _with_run_to_start_from(config: Config, run_of: dict[str, str], synthetic: bool) -> Config:
    """The config with train.start as the name of a run: where it names a config, what `experiments` calls that one's run."""
    start = config.train.start
    if start is None:
        return config
    run = run_of.get(start) or _run_name(start, synthetic and (CONFIG_FOLDER / f"{start}.yaml").is_file())
    return config.model_copy(update={"train": config.train.model_copy(update={"start": run})})


def find_data_or_synthesise(data_root: Path, kind: str) -> Data:
    """The real set of this kind, or the synthetic one, which is announced loudly."""
    data = find_data(data_root, kind)
    if data is None or data.synthetic:
        console.print(NOTICE.format(root=data_root, how_to_get=pick_set(kind).how_to_get))
    return data or make_synthetic_data(kind, CACHE)


def trained(config: str | None, name: str | None) -> tuple[str, list[str]]:
    """The name of an experiment that is trained, and the runs that it consists of, as the user's settings for `train` mean
    it; found among the runs, so that no data set is needed. One on real faces comes before one on synthetic ones.

    Raises UserError if there is none.
    """
    if name and not config and (RUNS / name).is_dir():
        return name, [name]
    # Without a config, what `train` makes of none: first with the real faces, else with synthetic ones.
    choices = [(name or stem, [name or stem]) for stem in ("resnet18", "synthetic")]
    if config:
        choices = [_names(config, list(load_variants(config)), name, synthetic) for synthetic in (False, True)]
    for label, runs in choices:
        if all(any(RUNS.glob(f"{glob.escape(run)}/fold*/summary.json")) for run in runs):
            return label, runs
    raise UserError(f"{RUNS / choices[0][0]}: no finished fold to predict with; run make train with the same settings first.")
