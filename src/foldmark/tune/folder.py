"""The folder of a search: what it keeps in `runs/<name>/`. No other file knows the names of the files in it.

search.json            what was searched: its keys, folds and seed, and the base config
study.db               the trials, by Optuna
trial0/, trial1/, ...  their run folders; trial0 is the base config. Only it and the best keep their checkpoints
trials.csv             a row for each trial
<name>-best.yaml       the best trial's config
report.html, figures/  the page
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from foldmark.core.config import Config, check_config, list_differences
from foldmark.core.errors import UserError
from foldmark.core.files import read_record, write_text
from foldmark.data.crops import CropStore
from foldmark.runs.experiment import Experiment
from foldmark.runs.run import Run
from foldmark.runs.run_folder import RunFolder
from foldmark.tune.search_file import SearchFile
from foldmark.tune.space import Space

FIX = "restore it, or remove the folder and search again"


class Begun(BaseModel):
    """What a search was begun with, and cannot change any more: its trials would not compare."""

    folds: list[int]
    seed: int
    keys: dict[str, Any]
    config: dict[str, Any]


@dataclass(frozen=True)
class SearchFolder:
    """The folder of one search."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def begun_file(self) -> Path:
        return self.path / "search.json"

    @property
    def study_file(self) -> Path:
        return self.path / "study.db"

    @property
    def trials_table(self) -> Path:
        return self.path / "trials.csv"

    @property
    def best_config(self) -> Path:
        return self.path / f"{self.name.removesuffix('-synthetic')}-best.yaml"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def trial(self, number: int) -> RunFolder:
        return RunFolder(self.path / f"trial{number}")

    def refuse_changes(self, search: SearchFile, base: Config) -> None:
        """Raise UserError where another search was begun here, or a training. The budget and the final folds may differ."""
        if not self.begun_file.exists():
            if RunFolder(self.path).config_file.exists():
                raise UserError(f"{self.path}: is the run of a training; name the search otherwise with NAME=...")
            return
        begun, asked = read_record(self.begun_file, Begun, FIX), _describe(search, base)
        changed = [key for key in ("folds", "seed", "keys") if getattr(begun, key) != getattr(asked, key)]
        changed += list_differences(check_config(begun.config, str(self.begun_file)), base)
        if changed:
            raise UserError(
                f"{self.path}: was begun as another search: {', '.join(changed)}; "
                "name a new one with NAME=..., or remove that folder."
            )

    def begin(self, search: SearchFile, base: Config) -> None:
        """Note what is searched."""
        if not self.begun_file.exists():
            write_text(self.begun_file, _describe(search, base).model_dump_json(indent=1))

    def drop_checkpoints(self, number: int) -> None:
        """Remove the checkpoints of a trial that has ended and is not the best: they are most of its size."""
        for fold in self.trial(number).path.glob("fold*"):
            for checkpoint in fold.glob("*.pt"):
                checkpoint.unlink()


@dataclass(frozen=True)
class Search:
    """A search: its folder, what it searches and on which folds, and the experiment of its base."""

    folder: SearchFolder
    file: SearchFile
    base: Experiment
    space: Space


def _describe(search: SearchFile, base: Config) -> Begun:
    content = search.model_dump(mode="json")
    return Begun(folds=search.folds, seed=search.seed, keys=content["keys"], config=base.model_dump(mode="json"))


def is_trial(folder: Path) -> bool:
    """Whether this run folder is a trial of a search: its OOF figure chose it among others, so that figure is too low."""
    return SearchFolder(folder.parent).begun_file.is_file()


def drop_crops(run: Run, used: Sequence[Run], began: float) -> None:
    """Remove the crops of a run that none of the others uses, if they were cut since it began (seconds since 1970): older ones
    are used elsewhere."""
    files = [one.store.file for one in (run, *used) if isinstance(one.store, CropStore)]
    if files and files[0] not in files[1:] and files[0].is_file() and files[0].stat().st_mtime >= began:
        files[0].with_suffix(".json").unlink(missing_ok=True)
        files[0].unlink()
