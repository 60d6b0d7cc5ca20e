"""Search files, such as configs/search.yaml: what `make tune` searches, for how long, and on which folds."""

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from foldmark.core.config import Config, Section
from foldmark.core.config_file import read_tree
from foldmark.core.errors import UserError
from foldmark.core.files import is_file


class Range(Section):
    """The values of a key from `low` to `high`, sampled evenly or, with log, evenly in their logarithm."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _rises(self) -> "Range":
        if not self.low < self.high:
            raise ValueError("low must be lower than high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range begins above 0")
        return self


class SearchFile(Section):
    """The settings of a search. At least one of `trials` and `minutes` limits it."""

    base: str  # the config to start from, which is trial 0
    folds: list[int] = Field(min_length=1)  # their out-of-fold NME judges the trials
    final_folds: list[int] = Field(min_length=1)  # judge no trial: on them the best and the base are compared once more
    trials: int | None = Field(None, ge=2, le=100_000)
    minutes: float | None = Field(None, gt=0)  # no trial begins later
    seed: int = Field(0, ge=0, lt=2**31)
    keys: dict[str, Range | list[Any]] = Field(min_length=1)  # a range, or the list of values to choose from

    @model_validator(mode="after")
    def _fits_together(self) -> "SearchFile":
        both = set(self.folds) & set(self.final_folds)
        if both:
            raise ValueError(f"fold {min(both)} is in folds and in final_folds; the final judgement needs folds of its own")
        if self.trials is None and self.minutes is None:
            raise ValueError("trials, minutes: one of them has to limit the search")
        return self


def load_search(path: Path, folds: list[int] | None = None) -> SearchFile:
    """The search file at this path, with other folds to judge by where some are given. Raises UserError with the first thing that
    is wrong in it."""
    if not is_file(path):
        raise UserError(f"{path}: no such search file; SEARCH= names one, configs/search.yaml is an example.")
    tree = read_tree(path)
    if tree and set(tree) <= set(Config.model_fields):
        raise UserError(f"{path}: is a config, not a search; make tune CONFIG={path} searches from it.")
    try:
        return SearchFile.model_validate(tree | ({"folds": folds} if folds else {}))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"] if part not in ("Range", "list[any]"))
        message = problem["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {f'{key}: ' if key else ''}{message[0].lower()}{message[1:]}.") from None
