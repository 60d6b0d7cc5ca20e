"""The space of a search: its keys with their values, checked against the base config, and the configs in it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from foldmark.core.config import NOT_PART_OF_A_RUN, Config, change_config, list_keys
from foldmark.core.errors import UserError
from foldmark.tune.search_file import Range, SearchFile

DIGITS = 4  # of sampled numbers: what is trained is what is written

# Keys that say by what a trial is judged; with other values its figure would not compare with those of the others.
JUDGING = {"train.seed", "train.validate_every", "data", "folds"}
VALIDATION = {"train.validate_every": 1, "train.validate_share": 1.0}


@dataclass(frozen=True)
class Key:
    """A key that is searched: a range, or the JSON of each value to choose from. whole: takes whole numbers only."""

    name: str
    base: Any
    values: Range | list[str]
    whole: bool = False

    def read(self, stored: float | str) -> Any:
        """The value of what the study holds."""
        if isinstance(self.values, list):
            return json.loads(str(stored))
        if stored == self.base or self.whole:
            return stored
        return min(max(float(f"{stored:.{DIGITS}g}"), self.values.low), self.values.high)

    def store(self, value: Any) -> Any:
        """What the study holds of a value."""
        return _to_json(value) if isinstance(self.values, list) else value

    @property
    def ends(self) -> list[Any]:
        """The values that stand for all others: those to choose from, or the ends of the range."""
        if isinstance(self.values, list):
            return [json.loads(value) for value in self.values]
        kind = int if self.whole else float
        return [kind(self.values.low), kind(self.values.high)]

    def holds(self, value: Any) -> bool:
        if isinstance(self.values, list):
            return _to_json(value) in self.values
        return isinstance(value, int | float) and self.values.low <= value <= self.values.high


@dataclass(frozen=True)
class Space:
    """The keys that are searched around a base config. where: the file that names them, for errors."""

    base: Config
    keys: list[Key]
    where: str

    @property
    def base_values(self) -> dict[str, Any]:
        return {key.name: key.base for key in self.keys}

    def make_config(self, values: Mapping[str, Any]) -> Config:
        """The base config with these values. Raises UserError where they do not fit each other."""
        return change_config(self.base, values, self.where)

    def list_ends(self) -> Iterator[Config]:
        """The base config with each end of each key."""
        for key in self.keys:
            for end in key.ends:
                yield self.make_config({key.name: end})


def make_space(base: Config, search: SearchFile, where: str) -> Space:
    """The space that a search file describes around this config. Raises UserError for a key that is unknown or cannot be
    searched, for values that the config refuses, and for a range without the base's own value."""
    return Space(base, [_make_key(base, name, values, where) for name, values in search.keys.items()], where)


def validate_each_epoch(config: Config) -> Config:
    """The config of a trial, which is judged after each of its epochs; training is the same."""
    return change_config(config, VALIDATION)


def _make_key(base: Config, name: str, values: Range | list[Any], where: str) -> Key:
    keys = [key for key in list_keys() if "." in key]
    if name not in keys:
        near = get_close_matches(name, keys, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else "src/foldmark/core/config.py lists all."
        raise UserError(f"{where}: keys: unknown key {name}; {hint}")
    section, field = name.split(".")
    if {name, section} & JUDGING:
        raise UserError(f"{where}: keys: {name} is the same in all trials, or their figures would not compare; remove it.")
    if name in NOT_PART_OF_A_RUN:
        raise UserError(f"{where}: keys: {name} does not change what is trained, so there is nothing to search; remove it.")

    def read(value: Any) -> Any:
        return change_config(base, {name: value}, f"{where}: keys").model_dump(mode="json")[section][field]

    own = base.model_dump(mode="json")[section][field]
    if isinstance(values, list):
        choices = list(dict.fromkeys(_to_json(read(value)) for value in values))
        if len(choices) < 2:
            raise UserError(f"{where}: keys: {name} has one value; list at least two to choose from, or remove it.")
        key = Key(name, own, choices)
    else:
        annotation = type(getattr(base, section)).model_fields[field].annotation
        kinds = {annotation, *get_args(annotation)}
        if not kinds & {int, float}:
            example = f"[{_to_json(own)}, ...]"
            raise UserError(f"{where}: keys: {name} takes no range; list its values to choose from, such as {example}.")
        whole = float not in kinds
        for end in (values.low, values.high):
            read(int(end) if whole and end == int(end) else end)
        key = Key(name, own, values, whole)
    if not key.holds(own):
        raise UserError(f"{where}: keys: {name} is {_to_json(own)} in the base config, which is not among the values; add it.")
    return key


def _to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
