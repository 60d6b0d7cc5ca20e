"""Rebuild a competition file from the checkpoints that its record names, and compare."""

from pathlib import Path

import numpy as np
import torch

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import file_sha256
from foldmark.core.progress import Progress, no_progress
from foldmark.data.sets import Data
from foldmark.ensemble.ensemble import Member, Predicting, ensemble_points
from foldmark.models.device import pick_device
from foldmark.runs.environment import describe_environment
from foldmark.runs.experiment import Session
from foldmark.runs.places import Places
from foldmark.runs.run_folder import FoldFolder
from foldmark.submission.format import FORMATS, Format
from foldmark.submission.record import ExperimentRecord, Provenance, changed_checkpoints, digest_of_list, read_provenance


def members_of(experiments: list[ExperimentRecord], places: Places) -> list[Member]:
    """The experiments of a record as members of an ensemble."""
    return [
        Member(one.config, [FoldFolder((places.root / fold.checkpoint).parent) for fold in one.folds], one.weight)
        for one in experiments
    ]


def verify(csv: Path, data: Data, session: Session, progress: Progress = no_progress) -> str:
    """Predict the test list again from the recorded checkpoints, not from stored predictions, and compare with the file.

    Returns the sentence that it is identical. Raises UserError that says how far off it is, or why it cannot be rebuilt.
    """
    record, file_format = read_provenance(csv), FORMATS[data.set]
    if record.test_list != digest_of_list(data.test):
        raise UserError(f"{csv}: was made for another test list than {data.folder} holds; name its folder with DATA_ROOT=...")
    problems = changed_checkpoints(record, session.places)
    if problems:
        raise UserError(f"{csv}: cannot be rebuilt, because {', '.join(problems)}; restore what is gone, or run make csv again.")
    device = pick_device(session.device)
    how = Predicting(device, session.places.cache, anew=True)
    points_px, _ = ensemble_points(members_of(record.experiments, session.places), data.test, how, progress)
    if csv.read_bytes() != file_format.text(points_px, data.test).encode():
        changed = "" if file_sha256(csv) == record.sha256 else "; it has been changed since it was made"
        others = _other_circumstances(record, session.places, device)
        circumstances = f"; it was made with {', '.join(others)}" if others else ""
        difference = _largest_difference(csv, points_px, data.test, file_format)
        raise UserError(f"{csv}: {difference}{changed}{circumstances}; make csv writes it anew.")
    experiments = ", ".join(f"{len(experiment.folds)} of {experiment.name}" for experiment in record.experiments)
    return f"{csv}: identical to the last byte to what its checkpoints give ({experiments}; {len(data.test)} faces)."


def _largest_difference(csv: Path, points_px: np.ndarray, faces: Faces, file_format: Format) -> str:
    written_px, findings = file_format.read(csv, faces)
    if findings:
        return f"is not what its checkpoints give, nor a complete file: {findings[0].problem}"
    rounding = 0.5 * 10**-file_format.decimals
    apart = np.abs(written_px - points_px.round(file_format.decimals))
    face, point, axis = np.unravel_index(apart.argmax(), apart.shape)
    largest = apart[face, point, axis]
    if largest < rounding:
        return "holds the values that its checkpoints give, in other characters"
    differing = int((apart >= rounding).sum())
    return (
        f"is up to {largest:.{file_format.decimals}f} px off what its checkpoints give, the most in {'xy'[axis]} of point "
        f"{point} of {file_format.name_face(face, faces)}; {differing:,} of {apart.size:,} values differ"
    )


def _other_circumstances(record: Provenance, places: Places, device: torch.device) -> list[str]:
    """What was different when the file was made: the usual reason for small differences."""
    now, then = describe_environment(places.root, synthetic=False)["versions"], record.environment.get("versions", {})
    others = [
        f"{package} {then.get(package)} (now {version})" for package, version in now.items() if then.get(package) != version
    ]
    return others + ([f"device {record.device} (now {device})"] if record.device != str(device) else [])
