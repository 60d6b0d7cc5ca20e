"""Rebuild a competition file from the checkpoints that its record names, and say whether it is the same."""

from pathlib import Path

import numpy as np
import torch

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import file_sha256
from foldmark.data.sets import Data
from foldmark.ensemble.ensemble import ensemble_points
from foldmark.models.device import pick_device
from foldmark.runs.run import environment
from foldmark.show.terminal import console, show_progress
from foldmark.submission.format import DECIMALS, read_submission, submission_text
from foldmark.submission.plausibility import face_name
from foldmark.submission.record import Provenance, changed_checkpoints, digest_of_list, read_provenance


def verify(csv: Path, data: Data, device_name: str) -> None:
    """Predict the test list again from the recorded checkpoints, not from kept predictions, and compare with the file.

    Prints that it is identical; raises UserError that says how far off it is, or why it cannot be rebuilt.
    """
    record = read_provenance(csv)
    if record.test_list != digest_of_list(data.test):
        raise UserError(f"{csv}: was made for another test list than {data.folder} holds; name its folder with DATA_ROOT=...")
    problems = changed_checkpoints(record)
    if problems:
        raise UserError(f"{csv}: cannot be rebuilt, because {', '.join(problems)}; restore what is gone, or run make csv again.")
    device = pick_device(device_name)
    with show_progress("predicting the test list", sum(len(experiment.folds) for experiment in record.experiments)) as done:
        members = [experiment.member for experiment in record.experiments]
        points_px, _ = ensemble_points(members, data.test, device, done, anew=True)
    if csv.read_bytes() != submission_text(points_px).encode():
        changed = "" if file_sha256(csv) == record.sha256 else "; it has been changed since it was made"
        others = _other_circumstances(record, data, device)
        circumstances = f"; it was made with {', '.join(others)}" if others else ""
        difference = _largest_difference(csv, points_px, data.test)
        raise UserError(f"{csv}: {difference}{changed}{circumstances}; make csv writes it anew.")
    experiments = ", ".join(f"{len(experiment.folds)} of {experiment.name}" for experiment in record.experiments)
    console.print(f"{csv}: identical to the last byte to what its checkpoints give ({experiments}; {len(data.test)} faces).")
    console.print(f"Next: make submit, or once it is scored: make score FILE={csv} LB=<score>", markup=False)


def _largest_difference(csv: Path, points_px: np.ndarray, faces: Faces) -> str:
    written_px, findings = read_submission(csv, len(faces))
    if findings:
        return f"is not what its checkpoints give, nor a complete file: {findings[0].problem}"
    apart = np.abs(written_px - points_px.round(DECIMALS))
    face, point, axis = np.unravel_index(apart.argmax(), apart.shape)
    largest = apart[face, point, axis]
    if largest < 0.5 * 10**-DECIMALS:
        return "holds the values that its checkpoints give, in other characters"
    differing = int((apart >= 0.5 * 10**-DECIMALS).sum())
    return (
        f"is up to {largest:.{DECIMALS}f} px off what its checkpoints give, the most in {'xy'[axis]} of point {point} of "
        f"{face_name(face, faces)}; {differing:,} of {apart.size:,} values differ"
    )


def _other_circumstances(record: Provenance, data: Data, device: torch.device) -> list[str]:
    """What was otherwise when the file was made: the usual reason for small differences."""
    now, then = environment(data)["versions"], record.environment.get("versions", {})
    others = [
        f"{package} {then.get(package)} (now {version})" for package, version in now.items() if then.get(package) != version
    ]
    return others + ([f"device {record.device} (now {device})"] if record.device != str(device) else [])
