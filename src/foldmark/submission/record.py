"""The record of a competition file: `<name>.json` beside `<name>.csv` says what it was made from, and holds its sha256."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, Field

from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import digest, file_sha256, read_record, write_text
from foldmark.data.sets import Data
from foldmark.runs.places import Places
from foldmark.runs.run_folder import RunFolder
from foldmark.submission.format import record_path


class Figures(BaseModel):
    """Out-of-fold (OOF) figures: of how many faces, MAE in original pixels, NME in percent."""

    faces: int
    mae_px: float
    nme: float


class FoldRecord(BaseModel):
    """One fold's net: the checkpoint that predicted, its hash, and the fold's out-of-fold figures."""

    fold: int
    checkpoint: str  # relative to the project's root
    sha256: str
    oof: Figures


class ExperimentRecord(BaseModel):
    """One experiment's part: the mean over its folds, times its weight; the weights of a file sum to 1."""

    name: str
    weight: float = 1.0
    config: Config
    folds: list[FoldRecord] = Field(min_length=1)


class Provenance(BaseModel):
    """All that a competition file was made from. `environment` is what a run folder's environment.json holds."""

    csv: str
    sha256: str
    made: str
    faces: int
    test_list: str  # digest of its pictures and boxes
    device: str
    environment: dict
    experiments: list[ExperimentRecord] = Field(min_length=1)
    oof: Figures


class Circumstances(BaseModel):
    """On what a file is made; small differences between two machines come from here. environment: as a run folder's
    environment.json holds it."""

    device: str
    environment: dict


def experiment_record(places: Places, folder: RunFolder, config: Config, weight: float = 1.0) -> ExperimentRecord:
    """The record of the finished folds of a run folder, with the digests of the checkpoints that predict."""
    records = [
        FoldRecord(
            fold=fold.number,
            checkpoint=places.relative(fold.checkpoint),
            sha256=file_sha256(fold.checkpoint),
            oof=Figures(**fold.summary),
        )
        for fold in folder.finished
    ]
    return ExperimentRecord(name=folder.name, weight=weight, config=config, folds=records)


def write_provenance(
    csv: Path, experiments: list[ExperimentRecord], oof: dict, data: Data, circumstances: Circumstances
) -> Provenance:
    """Write the record of a competition file that was just written, and return it."""
    record = Provenance(
        csv=csv.name,
        sha256=file_sha256(csv),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        faces=len(data.test),
        test_list=digest_of_list(data.test),
        **circumstances.model_dump(),
        experiments=experiments,
        oof=Figures(**oof),
    )
    write_text(record_path(csv), record.model_dump_json(indent=1) + "\n")
    return record


@dataclass(frozen=True)
class CsvState:
    """How a competition file stands to what would be made now. record: of what it was made from, if it is ours and unchanged.
    edited: its content is not what its record says. reason: why it is stale, empty where it is missing."""

    record: Provenance | None = None
    edited: bool = False
    reason: str = ""

    @property
    def current(self) -> bool:
        return self.record is not None and not self.edited and not self.reason


def csv_state(csv: Path, experiments: list[ExperimentRecord], data: Data, places: Places) -> CsvState:
    """The state of a competition file, if `experiments` are what it would be made from now."""
    if not csv.is_file():
        return CsvState()
    if not record_path(csv).is_file():
        return CsvState(edited=True)
    record = read_provenance(csv)
    if file_sha256(csv) != record.sha256:
        return CsvState(record, edited=True)
    if record.test_list != digest_of_list(data.test):
        return CsvState(record, reason="was made for another test list")
    if [one.model_dump() for one in record.experiments] != [one.model_dump() for one in experiments]:
        return CsvState(record, reason="was made from other checkpoints or settings")
    return CsvState(record)


def read_provenance(csv: Path) -> Provenance:
    """The record beside a competition file. Raises UserError if there is none or it is damaged."""
    if not csv.is_file():
        raise UserError(f"{csv}: no such file; `make csv` writes it.")
    path = record_path(csv)
    if not path.exists():
        raise UserError(f"{path}: no such record, so nothing says what {csv.name} was made from; run make csv again.")
    return read_record(path, Provenance, "run make csv again")


def changed_checkpoints(record: Provenance, places: Places) -> list[str]:
    """Which of the record's checkpoints are not there any more, or not the same."""
    problems = []
    for fold in (fold for experiment in record.experiments for fold in experiment.folds):
        checkpoint = places.root / fold.checkpoint
        if not checkpoint.is_file():
            problems.append(f"{checkpoint} is missing")
        elif file_sha256(checkpoint) != fold.sha256:
            problems.append(f"{checkpoint} has changed")
    return problems


def digest_of_list(faces: Faces) -> str:
    return digest([faces.pictures, faces.boxes_px.tolist()])
