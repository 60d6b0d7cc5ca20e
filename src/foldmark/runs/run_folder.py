"""The run folder: what one experiment keeps in `runs/<experiment>/`. No other file knows the names of the files in it.

config.yaml          the resolved config
split.csv            which face is in which fold
environment.json     versions, revision, machine
ensemble.json        calibration of the uncertainty, when folds are finished (ensemble/fit.py)
nested.json          of a net that learned all faces: the figures of nets made as it was, on faces that they have not seen
fold0/, fold1/ ...   the folds (fold_folder.py)
all/                 a net that learned all faces, in place of folds
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foldmark.core.config import Config, apply_overrides, check_config, drop_retired, format_config, list_differences
from foldmark.core.errors import UserError
from foldmark.core.files import is_locked, read_text, write_text
from foldmark.core.yaml_values import read_yaml
from foldmark.runs.fold_folder import ALL_FACES, ALL_NAME, FoldFolder

# A copy under another spelling of the number, such as fold00, would count a fold twice.
FOLD_NAME = re.compile("fold(0|[1-9][0-9]*)")
NOTHING_HELD_OUT = (
    "its net learned all faces, so no out-of-fold figure of it exists; use make export, or .venv/bin/foldmark predict --run."
)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one experiment."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def split_file(self) -> Path:
        return self.path / "split.csv"

    @property
    def environment_file(self) -> Path:
        return self.path / "environment.json"

    @property
    def ensemble_file(self) -> Path:
        return self.path / "ensemble.json"

    @property
    def nested_file(self) -> Path:
        return self.path / "nested.json"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def speed_file(self, device_type: str) -> Path:
        return self.path / f"speed-{device_type}.json"

    def fold(self, number: int) -> FoldFolder:
        return FoldFolder(self.path / (ALL_NAME if number == ALL_FACES else f"fold{number}"))

    @property
    def finished(self) -> list[FoldFolder]:
        """The finished folds, by their numbers."""
        return self._folds_with("summary.json")

    def require_finished(self) -> list[FoldFolder]:
        """The finished folds. Raises UserError if there is none, or where one has predictions but lost its summary: the figures
        of the others alone would be taken for those of the experiment."""
        for fold in self._folds_with("oof.npz"):
            if not fold.finished and not is_locked(fold.path):
                raise UserError(f"{fold.path}: has predictions but no summary.json; run make train again, which finishes it.")
        folds = self.finished
        if not folds:
            none = "no finished fold to predict with; run make train with the same settings first."
            raise UserError(f"{self.path}: {NOTHING_HELD_OUT if self.fold(ALL_FACES).finished else none}")
        return folds

    def _folds_with(self, file_name: str) -> list[FoldFolder]:
        folders = [path.parent for path in self.path.glob(f"fold*/{file_name}")]
        return sorted((FoldFolder(path) for path in folders if FOLD_NAME.fullmatch(path.name)), key=lambda fold: fold.number)

    def read_config(self, overrides: Sequence[str] = ()) -> Config:
        """The config that this run was made with, but for settings that are no part of it, which overrides may change. Raises
        UserError for other overrides that differ from it."""
        try:
            tree = read_yaml(read_text(self.config_file))
        except (OSError, ValueError):
            raise UserError(
                f"{self.config_file}: cannot be read; restore it, or train under another name with NAME=..."
            ) from None
        try:
            stored = check_config(drop_retired(tree), str(self.config_file))
        except ValueError as error:
            raise UserError(f"{self.config_file}: {error}.") from None
        asked = apply_overrides(stored.model_dump(), overrides, str(self.config_file))
        self.refuse_changes(stored, asked)
        return asked

    def write_config(self, config: Config) -> None:
        write_text(self.config_file, format_config(config))

    def refuse_changes(self, stored: Config, asked: Config) -> None:
        """Raise UserError where the asked config would give another result than the stored one."""
        changed = list_differences(stored, asked)
        if changed:
            raise UserError(
                f"{self.path} was made with another config: {', '.join(changed)}; "
                "name a new experiment with NAME=..., or remove that folder."
            )

    def read_environment(self) -> dict:
        try:
            environment = json.loads(read_text(self.environment_file))
        except (OSError, ValueError):
            environment = None
        # Earlier versions wrote drawn_faces.
        if isinstance(environment, dict) and "drawn_faces" in environment:
            environment["synthetic_faces"] = environment["drawn_faces"]
        whole = isinstance(environment, dict) and {"python", "platform", "versions", "revision"} <= set(environment)
        if not whole or not isinstance(environment.get("synthetic_faces"), bool):
            raise UserError(
                f"{self.environment_file}: cannot be read, so it is not known whether this run saw real faces; restore it."
            )
        return environment

    @property
    def synthetic(self) -> bool:
        """Whether this run learned from synthetic faces."""
        return self.read_environment()["synthetic_faces"]
