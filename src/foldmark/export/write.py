"""Write the files of an exported net. Both are compared with torch before either appears."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from foldmark.core import geometry
from foldmark.core.errors import UserError
from foldmark.core.files import atomic_path
from foldmark.core.metrics import face_nme
from foldmark.core.progress import Progress, no_progress
from foldmark.export import convert
from foldmark.export.facts import ALIGNER_OUTPUTS, Facts, Figures, Precision
from foldmark.export.looks import Nets, look, place_crops, predict_faces
from foldmark.export.predictor import load_onnx
from foldmark.export.source import Source

MOST_DIFFERENCE = 0.01  # crop pixels between onnxruntime and torch, of points and standard deviations in floats
MOST_LOSS = 0.1  # by so much may int8 raise the NME in percent


def export_net(source: Source, paths: dict[Precision, Path], progress: Progress = no_progress) -> dict[Precision, Facts]:
    """Write a net to these paths, in floats and in int8, and give what each file says of itself. Raises UserError, and writes
    neither, where a file does not give what torch gives."""
    convert.require_packages()
    with progress("exporting", 5) as done, atomic_path(paths["fp32"]) as fp32, atomic_path(paths["int8"]) as int8:
        in_torch = measure(source, source.in_torch)
        done(1)
        model, aligner = convert.to_onnx(source.net, source.run.config.crop.size), None
        if source.aligner and source.aligner_crop:
            # In floats in both files: it is small.
            aligner = convert.to_onnx(source.aligner, source.aligner_crop.size, ALIGNER_OUTPUTS).SerializeToString()
        done(2)
        floats = _write(source, "fp32", (model, aligner), fp32, lambda nets: compare_floats(source, nets, in_torch))
        done(3)
        model = convert.quantise(model, source.range_crops)
        done(4)
        integers = _write(source, "int8", (model, aligner), int8, lambda nets: compare_integers(source, nets, in_torch))
        done(5)
    return {"fp32": floats, "int8": integers}


def _write(
    source: Source, precision: Precision, models: tuple[object, bytes | None], path: Path, compare: Callable[[Nets], Figures]
) -> Facts:
    path.write_bytes(convert.write_facts(models[0], source.describe(precision, {}), models[1]))
    facts = source.describe(precision, source.choose_figures(compare(load_onnx(path).nets)))
    path.write_bytes(convert.write_facts(models[0], facts, models[1]))
    return facts


def measure(source: Source, nets: Nets) -> Figures:
    """The figures of a file's nets on the faces to compare on: NME in percent, and the root mean square of error over standard
    deviation, which is 1 where that is right."""
    run, rows = source.run, source.test_rows
    faces = run.faces.take(rows)
    found = predict_faces(nets, source.describe("fp32", {}), run.store, rows)
    errors = (found.points_px - faces.points_px) / found.std_px[..., None]
    return {
        "faces": len(rows),
        "nme_percent": round(float(face_nme(found.points_px, faces).mean()), 4),
        "error_over_std": round(float(np.sqrt(np.square(errors).mean())), 3),
    }


def compare_floats(source: Source, nets: Nets, in_torch: Figures) -> Figures:
    """The figures of the nets in floats. Raises UserError where they give others than torch."""
    run, facts, rows = source.run, source.describe("fp32", {}), source.test_rows
    # Where the aligner puts the corners of a crop, and from the same crops points and standard deviations; a face at the limit of
    # what is unlike may fall to either side of it.
    ours, theirs = (place_crops(one.aligner, facts, run.store, rows) for one in (nets, source.in_torch))
    side = facts.crop.size[0] - 1
    corners = geometry.apply(geometry.invert(theirs), np.array([[0, 0], [side, 0], [0, side], [side, side]]))
    pairs = [(geometry.apply(ours, corners), geometry.apply(theirs, corners))]
    pairs += zip(*(look(one.net, facts, run.store, rows, theirs)[:2] for one in (nets, source.in_torch)), strict=True)
    difference = max(float(np.abs(one - expected).max()) for one, expected in pairs)
    # Written so that what is not a number is refused, too.
    if not difference <= MOST_DIFFERENCE:
        raise UserError(
            f"{source.fold.path}: its ONNX model gives points up to {difference:.3g} crop pixels from torch's, more than "
            f"{MOST_DIFFERENCE}, so nothing was written; install the versions in requirements-export.lock."
        )
    return {**measure(source, nets), "nme_percent_in_torch": in_torch["nme_percent"], "largest_difference_px": difference}


def compare_integers(source: Source, nets: Nets, in_torch: Figures) -> Figures:
    """The figures of the net in int8. Raises UserError where it loses too much."""
    figures = measure(source, nets)
    loss = figures["nme_percent"] - in_torch["nme_percent"]
    if not loss <= MOST_LOSS:
        raise UserError(
            f"{source.fold.path}: in int8 its NME is {figures['nme_percent']:.2f} % where torch's is "
            f"{in_torch['nme_percent']:.2f} %, which is more than {MOST_LOSS} worse, so nothing was written; install the "
            "versions in requirements-export.lock."
        )
    return {**figures, "nme_percent_in_torch": in_torch["nme_percent"], "nme_percent_lost": round(loss, 4)}
