"""The record of a competition file: `<name>.json` beside `<name>.csv` says what it was made from, and holds its sha256."""

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import digest, file_sha256, lock_file, read_record, write_text
from foldmark.data.sets import Data
from foldmark.runs.places import Places
from foldmark.runs.run_folder import RunFolder
from foldmark.submission.format import pick_format

# The settings that change what a checkpoint predicts are in these sections, but for the keys that only say how to compute it.
PREDICTING = ("data", "crop", "model", "predict")
COMPUTING = {"data.skip_damaged", "predict.batch"}


class Figures(BaseModel):
    """Out-of-fold (OOF) figures: of how many faces, MAE in original pixels, NME in percent."""

    faces: int
    mae_px: float
    nme: float


class FoldRecord(BaseModel):
    """One fold's model: its checkpoint, relative to the project's root, the checkpoint's sha256, and the fold's OOF figures."""

    fold: int
    checkpoint: str
    sha256: str
    oof: Figures


class ExperimentRecord(BaseModel):
    """One experiment's part: the mean over its folds, times its weight; the weights of a file sum to 1."""

    name: str
    weight: float = 1.0
    config: Config
    folds: list[FoldRecord] = Field(min_length=1)


class Circumstances(BaseModel):
    """On what a file is made: small differences between two machines come from here.

    threads: of the CPU, None where an older record does not say. environment: as a run folder's environment.json holds it.
    """

    device: str
    threads: int | None = None
    environment: dict


class Origin(Circumstances):
    """The sources of a competition file: the experiments, and the OOF figures of their blend."""

    experiments: list[ExperimentRecord] = Field(min_length=1)
    oof: Figures


class Provenance(Origin):
    """The record of a competition file.

    replaces: sha256 of the file that was replaced. test_list: digest of the list's pictures and boxes. test_pictures: digest of
    the pictures' sizes in bytes. layout: digest of the file's format. All but test_list are None where an older record does not
    say.
    """

    csv: str
    sha256: str
    replaces: str | None = None
    made: str
    faces: int
    test_list: str
    test_pictures: str | None = None
    layout: str | None = None


@dataclass(frozen=True)
class CsvState:
    """How a competition file compares with what would be made now.

    record: its record, None where there is none that can be read. edited: it is not the file that its record describes, so it may
    hold somebody's work. reason: why it is edited or stale; empty where it is current or missing.
    """

    record: Provenance | None = None
    edited: bool = False
    reason: str = ""

    @property
    def current(self) -> bool:
        return self.record is not None and not self.reason


def describe_experiment(places: Places, folder: RunFolder, config: Config, weight: float = 1.0) -> ExperimentRecord:
    """The record of the finished folds of a run folder, with the sha256 of the checkpoints that predict."""
    records = [
        FoldRecord(
            fold=fold.number,
            checkpoint=places.relative(fold.checkpoint),
            sha256=file_sha256(fold.checkpoint),
            oof=Figures.model_validate(fold.require_summary()),
        )
        for fold in folder.finished
    ]
    return ExperimentRecord(name=folder.name, weight=weight, config=config, folds=records)


def save_csv(csv: Path, points_px: np.ndarray, origin: Origin, data: Data) -> Provenance:
    """Check predictions (n, k, 2) of the test list and write them as a competition file with its record; the record. Raises
    UserError as `Format.write` does."""
    file_format, crop = pick_format(data.set), origin.experiments[0].config.crop
    with lock_file(csv):
        file_format.require_plausible(csv, points_px, data.test, crop)
        record = Provenance(
            csv=csv.name,
            sha256=hashlib.sha256(file_format.text(points_px, data.test).encode()).hexdigest(),
            replaces=file_sha256(csv) if csv.is_file() else None,
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            faces=len(data.test),
            test_list=digest_list(data.test),
            test_pictures=digest_pictures(data.test),
            layout=file_format.digest,
            **origin.model_dump(),
        )
        # The record first: a crash in between leaves the old file, which it names, and never a file without a record.
        write_text(record_path(csv), record.model_dump_json(indent=1) + "\n")
        file_format.write(csv, points_px, data.test, crop)
    return record


def record_path(csv: Path) -> Path:
    """Where the record of a competition file is."""
    return csv.with_suffix(".json")


def read_provenance(csv: Path) -> Provenance:
    """The record beside a competition file. Raises UserError if there is none or it is damaged."""
    if not csv.is_file():
        raise UserError(f"{csv}: no such file; `make csv` writes it.")
    path, remake = record_path(csv), f"move {csv.name} away and run make csv"
    if not path.exists():
        raise UserError(f"{path}: no such record, so the models behind {csv.name} are unknown; {remake}.")
    return read_record(path, Provenance, remake)


def csv_state(csv: Path, experiments: list[ExperimentRecord], data: Data) -> CsvState:
    """The state of a competition file, if `experiments` are what it would be made from now."""
    if not csv.exists():
        return CsvState()
    if not csv.is_file():
        return CsvState(edited=True, reason="is not a file")
    if not record_path(csv).is_file():
        return CsvState(edited=True, reason="has no record of its models")
    try:
        record = read_provenance(csv)
    except UserError:
        return CsvState(edited=True, reason="has a damaged record of its models")
    sha256 = file_sha256(csv)
    if sha256 == record.replaces != record.sha256:
        return CsvState(record, reason="was to be replaced by a file that was not written")
    if sha256 != record.sha256:
        return CsvState(record, edited=True, reason="was edited after it was made")
    return CsvState(record, reason=_find_change(record, experiments, data))


def find_changed_checkpoints(record: Provenance, places: Places) -> list[str]:
    """Which of the record's checkpoints are missing or have changed."""
    problems = []
    for fold in (fold for experiment in record.experiments for fold in experiment.folds):
        checkpoint = places.root / fold.checkpoint
        if not checkpoint.is_file():
            problems.append(f"{checkpoint} is missing")
        elif file_sha256(checkpoint) != fold.sha256:
            problems.append(f"{checkpoint} has changed")
    return problems


def digest_list(faces: Faces) -> str:
    return digest([faces.pictures, faces.boxes_px.tolist()])


def digest_pictures(faces: Faces) -> str:
    # Sizes, because reading all pictures would take as long as predicting, and their times differ on another machine.
    paths = (faces.path(row) for row in range(len(faces)))
    return digest([path.stat().st_size if path.is_file() else None for path in paths])


def _find_change(record: Provenance, experiments: list[ExperimentRecord], data: Data) -> str:
    """The first difference between what a file was made from and what it would be made from now; empty if there is none."""
    if record.test_list != digest_list(data.test):
        return "was made for another test list"
    if record.test_pictures not in (None, digest_pictures(data.test)):
        return "was made before test pictures changed"
    if record.layout not in (None, pick_format(data.set).digest):
        return "was made in another format"
    was, now = ({one.name: one for one in side} for side in (record.experiments, experiments))
    if list(was) != list(now):
        return f"was made from {' + '.join(was)}, and now from {' + '.join(now)}"
    changes = [_find_change_of(was[name], now[name]) for name in now]
    return next(filter(None, changes), "")


def _find_change_of(was: ExperimentRecord, now: ExperimentRecord) -> str:
    for key, value in _predicting_settings(now.config).items():
        before = _predicting_settings(was.config)[key]
        if value != before:
            return f"was made with {key}={before}, and now {key}={value}"
    folds_was, folds_now = ({fold.fold: fold.sha256 for fold in side.folds} for side in (was, now))
    if list(folds_was) != list(folds_now):
        before, after = (" ".join(map(str, folds)) for folds in (folds_was, folds_now))
        return f"was made from folds {before} of {now.name}, and now {after} are finished"
    retrained = [str(fold) for fold, sha256 in folds_now.items() if sha256 != folds_was[fold]]
    if retrained:
        return f"was made before fold {', '.join(retrained)} of {now.name} was trained again"
    # Weights are fitted, so the last digits depend on the machine.
    if not math.isclose(was.weight, now.weight, abs_tol=1e-6):
        return f"was made with weight {was.weight:.4f} of {now.name}, and now {now.weight:.4f}"
    return ""


def _predicting_settings(config: Config) -> dict:
    tree = config.model_dump(mode="json", include=set(PREDICTING))
    settings = {f"{section}.{key}": value for section, keys in tree.items() for key, value in keys.items()}
    return {key: value for key, value in settings.items() if key not in COMPUTING}
