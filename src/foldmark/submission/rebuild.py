"""Rebuild a competition file from the checkpoints that its record names, and compare."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import file_sha256
from foldmark.core.progress import Progress, no_progress
from foldmark.data.sets import Data
from foldmark.ensemble.ensemble import Member, Predicting, predict_ensemble
from foldmark.models.device import pick_device
from foldmark.runs.environment import describe_environment
from foldmark.runs.experiment import Session
from foldmark.runs.fold_folder import FoldFolder
from foldmark.runs.places import Places
from foldmark.submission.format import Format, pick_format
from foldmark.submission.record import (
    Circumstances,
    ExperimentRecord,
    digest_list,
    digest_pictures,
    find_changed_checkpoints,
    read_provenance,
)

# The same checkpoints on another number of threads gave points up to 0.0135 px apart, which no leaderboard shows.
TOLERANCE_PX = 0.05


@dataclass(frozen=True)
class Difference:
    """How far a file is from what its checkpoints give: the largest difference, None where rows are missing, and words for it."""

    largest_px: float | None
    words: str


def find_members(experiments: list[ExperimentRecord], places: Places) -> list[Member]:
    """The experiments of a record as members of an ensemble."""
    return [
        Member(one.config, [FoldFolder((places.root / fold.checkpoint).parent) for fold in one.folds], one.weight)
        for one in experiments
    ]


def describe_circumstances(device: torch.device, places: Places, *, synthetic: bool) -> Circumstances:
    """On what a file is made here and now. synthetic: whether the faces are synthetic."""
    environment = describe_environment(places.root, synthetic=synthetic)
    return Circumstances(device=str(device), threads=torch.get_num_threads(), environment=environment)


def verify(csv: Path, data: Data, session: Session, progress: Progress = no_progress) -> str:
    """Predict the test list again from the recorded checkpoints, not from stored predictions, and compare with the file.

    Returns a sentence: identical, or the same to TOLERANCE_PX with the reason. Raises UserError that says how far off the file
    is, or why it cannot be rebuilt.
    """
    record, file_format = read_provenance(csv), pick_format(data.set)
    edited = file_sha256(csv) != record.sha256
    if record.test_list != digest_list(data.test):
        raise UserError(f"{csv}: was made for another test list than {data.folder} holds; name its folder with DATA_ROOT=...")
    problems = find_changed_checkpoints(record, session.places)
    if problems:
        raise UserError(f"{csv}: cannot be rebuilt, because {', '.join(problems)}; restore what is gone, or run make csv again.")
    device = pick_device(session.device)
    how = Predicting(device, session.places.cache, use_kept=False)
    members = find_members(record.experiments, session.places)
    points_px = predict_ensemble(members, data.test, how, progress).points_px
    experiments = ", ".join(f"{len(experiment.folds)} of {experiment.name}" for experiment in record.experiments)
    made_from = f"what its checkpoints give ({experiments}; {len(data.test)} faces)"
    if csv.read_bytes() == file_format.text(points_px, data.test).encode():
        return f"{csv}: identical to the last byte to {made_from}."
    difference = _compare(csv, points_px, data.test, file_format)
    others = _other_circumstances(record, describe_circumstances(device, session.places, synthetic=data.synthetic))
    if record.test_pictures not in (None, digest_pictures(data.test)):
        others.append("other test pictures")
    made_with = f"it was made with {', '.join(others)}" if others else "the record names no reason"
    if edited or difference.largest_px is None or difference.largest_px > TOLERANCE_PX:
        changed = "; it has been changed since it was made" if edited else ""
        raise UserError(f"{csv}: {difference.words}{changed}; {made_with}; move it away and run make csv to have it made again.")
    return f"{csv}: the same to {TOLERANCE_PX} px as {made_from}, not to the last byte: it {difference.words}; {made_with}."


def _compare(csv: Path, points_px: np.ndarray, faces: Faces, file_format: Format) -> Difference:
    written_px, findings = file_format.read(csv, faces)
    if findings:
        return Difference(None, f"is not what its checkpoints give, nor a complete file: {findings[0].problem}")
    rounding = 0.5 * 10**-file_format.decimals
    apart = np.abs(written_px - points_px.round(file_format.decimals))
    face, point, axis = np.unravel_index(apart.argmax(), apart.shape)
    largest = float(apart[face, point, axis])
    if largest < rounding:
        return Difference(0.0, "holds the values that its checkpoints give, in other characters")
    differing = int((apart >= rounding).sum())
    return Difference(
        largest,
        f"is up to {largest:.{file_format.decimals}f} px off what its checkpoints give, the most in {'xy'[axis]} of point "
        f"{point} of {file_format.name_face(int(face), faces)}; {differing:,} of {apart.size:,} values differ",
    )


def _other_circumstances(then: Circumstances, now: Circumstances) -> list[str]:
    """What was different when the file was made: the usual reason for small differences."""
    pairs = [("device", then.device, now.device), ("platform", *(side.environment.get("platform") for side in (then, now)))]
    if now.device == "cpu" and then.threads is not None:
        pairs.append(("threads", then.threads, now.threads))
    versions_then, versions_now = (side.environment.get("versions", {}) for side in (then, now))
    pairs += [(package, versions_then.get(package), version) for package, version in versions_now.items()]
    return [f"{what} {before} (now {after})" for what, before, after in pairs if before != after]
