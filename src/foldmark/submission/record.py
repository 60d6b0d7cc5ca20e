"""The record of a competition file: `<name>.json` beside `<name>.csv` says what it was made from, and holds its sha256."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from foldmark.core.config import Config, drop_retired
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import digest, file_sha256, read_record, write_text
from foldmark.data.sets import Data
from foldmark.runs.run import environment, read_summary
from foldmark.submission.format import record_path


class Figures(BaseModel):
    """Out-of-fold (OOF) figures: of how many faces, MAE in original pixels, NME in percent."""

    faces: int
    mae_px: float
    nme: float


class FoldRecord(BaseModel):
    """One fold's net: the checkpoint that predicted, its hash, and the fold's out-of-fold figures."""

    fold: int
    checkpoint: Path
    sha256: str
    oof: Figures


class ExperimentRecord(BaseModel):
    """One experiment's part: the mean over its folds, times its weight; the weights of a file sum to 1."""

    name: str
    weight: float = 1.0
    config: Annotated[Config, BeforeValidator(drop_retired)]
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


def experiment_record(folder: Path, config: Config, folds: list[int], weight: float = 1.0) -> ExperimentRecord:
    """The record of these finished folds of a run folder, with the hashes of the checkpoints that predict."""
    records = []
    for fold in folds:
        checkpoint = folder / f"fold{fold}" / "last.pt"
        oof = Figures(**read_summary(folder / f"fold{fold}"))
        records.append(FoldRecord(fold=fold, checkpoint=checkpoint, sha256=file_sha256(checkpoint), oof=oof))
    return ExperimentRecord(name=folder.name, weight=weight, config=config, folds=records)


def write_provenance(csv: Path, experiments: list[ExperimentRecord], oof: dict, data: Data, device: str) -> Provenance:
    """Write the record of a competition file that was just written, and return it."""
    record = Provenance(
        csv=csv.name,
        sha256=file_sha256(csv),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        faces=len(data.test),
        test_list=digest_of_list(data.test),
        device=device,
        environment=environment(data),
        experiments=experiments,
        oof=Figures(**oof),
    )
    write_text(record_path(csv), record.model_dump_json(indent=1) + "\n")
    return record


def read_provenance(csv: Path) -> Provenance:
    """The record beside a competition file. Raises UserError if there is none or it is damaged."""
    if not csv.is_file():
        raise UserError(f"{csv}: no such file; `make csv` writes it.")
    path = record_path(csv)
    if not path.exists():
        raise UserError(f"{path}: no such record, so nothing says what {csv.name} was made from; run make csv again.")
    return read_record(path, Provenance, "run make csv again")


def changed_checkpoints(record: Provenance) -> list[str]:
    """Which of the record's checkpoints are not there any more, or not the same."""
    problems = []
    for fold in (fold for experiment in record.experiments for fold in experiment.folds):
        if not fold.checkpoint.is_file():
            problems.append(f"{fold.checkpoint} is missing")
        elif file_sha256(fold.checkpoint) != fold.sha256:
            problems.append(f"{fold.checkpoint} has changed")
    return problems


def digest_of_list(faces: Faces) -> str:
    return digest([faces.pictures, faces.boxes_px.tolist()])
