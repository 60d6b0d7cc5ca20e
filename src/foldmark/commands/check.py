"""`make check`: the data doctor's findings as tables in the terminal, check.json, and a sheet of the odd faces."""

import json
from pathlib import Path

import numpy as np

from foldmark.core.config import Config
from foldmark.core.faces import Faces
from foldmark.core.files import write_text
from foldmark.data.decode import read_grey
from foldmark.data.sets import Data
from foldmark.doctor.diagnosis import Diagnosis, diagnose
from foldmark.doctor.finding import NOTE, UNSAFE, WARNING, Finding
from foldmark.runs.experiment import Experiment, Session
from foldmark.show.overlay import draw_points, draw_sheet, save_png
from foldmark.show.terminal import make_command, say, say_made, say_table, show_progress

SHEET_FACES = 48
COLOURS = {UNSAFE: "red", WARNING: "yellow", NOTE: "cyan"}


def check(session: Session, experiment: Experiment, variables: dict[str, str]) -> int:
    """Check all faces, show the findings and write them into runs/check. The exit code: 0 if training is safe, else 2.

    variables: as the user has set them for make."""
    diagnosis = diagnose(experiment.data, experiment.config, show_progress)
    _show(diagnosis, experiment.config)
    say_made(", ".join(map(str, _write(diagnosis, experiment.data, session.places.check))))
    following = make_command("train", variables)
    say(f"training is NOT safe: {'; '.join(diagnosis.unsafe)}." if diagnosis.unsafe else f"training is safe. Next: {following}")
    return 0 if diagnosis.safe else 2


def _show(diagnosis: Diagnosis, config: Config) -> None:
    counts = [
        {"source": source, "train": f"{of['train']:,}", "test": f"{of['test']:,}"} for source, of in diagnosis.counts.items()
    ]
    say_table(counts, title="faces")
    if diagnosis.folds:
        say("faces held out by fold: " + "  ".join(f"{fold}: {size:,}" for fold, size in diagnosis.folds.items()))
    if diagnosis.leakage:
        faces = sum(diagnosis.folds.values())
        known = [
            {"split": split, **{f"known by their {kind}": _share(count, faces) for kind, count in leaks.items()}}
            for split, leaks in diagnosis.leakage.items()
        ]
        say_table(known, title="held-out faces that are known from training")
    if diagnosis.scatter:
        scatter = diagnosis.scatter
        settings = " ".join(f"augment.{key}={value:g}" for key, value in scatter.augmentation(config.crop.enlargement).items())
        say(
            f"boxes scatter about the faces (standard deviations): tilt {scatter.tilt_degrees:.1f} degrees, size "
            f"{100 * scatter.size:.1f} %, place {100 * scatter.place:.1f} % of the box; as wide is {settings}"
        )
    levels = [finding.level if finding.found else "ok" for finding in diagnosis.findings]
    rows = [
        {
            "": level,
            "check": finding.check,
            "found": f"{len(finding.found):,}",
            "of": f"{finding.of:,}",
            "share": f"{100 * len(finding.found) / finding.of:.1f} %" if finding.found else "",
            "what follows": [_examples(finding), finding.meaning] if finding.found else "",
        }
        for level, finding in zip(levels, diagnosis.findings, strict=True)
    ]
    say_table(rows, title="findings", styles=[COLOURS.get(level, "dim") for level in levels])


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({100 * count / total:.1f} %)"


def _examples(finding: Finding) -> str:
    more = f" and {len(finding.found) - 2:,} more" if len(finding.found) > 2 else ""
    return "; ".join(finding.found[:2]) + more


def _write(diagnosis: Diagnosis, data: Data, folder: Path) -> list[Path]:
    report = {"data": str(data.folder), "synthetic_faces": data.synthetic, **diagnosis.to_json()}
    files = [folder / "check.json"]
    write_text(files[0], json.dumps(report, indent=1))
    picture = folder / "odd-faces.png"
    # An older sheet would show faces that have been corrected since.
    picture.unlink(missing_ok=True)
    shown = list(diagnosis.odd.items())[:SHEET_FACES]
    tiles, captions = [], []
    for row, text in shown:
        tile = _draw_tile(data.labelled, row)
        if tile is not None:
            tiles.append(tile)
            captions.append(f"{text}: {data.labelled.path(row).name}")
    if tiles:
        save_png(picture, draw_sheet(tiles, columns=6, captions=captions))
        files.append(picture)
    return files


def _draw_tile(faces: Faces, row: int) -> np.ndarray | None:
    """The picture's part about box and points, with the points; None where the picture cannot be read."""
    try:
        picture = read_grey(faces.path(row))
    except ValueError:
        return None
    height, width = picture.shape
    left, top, wide, high = faces.boxes_px[row]
    corners = np.concatenate([faces.points_px[row], [[left, top], [left + wide, top + high]]])
    start = np.clip(corners.min(axis=0) - 10, 0, [max(0, width - 2), max(0, height - 2)]).astype(int)
    end = np.clip(corners.max(axis=0) + 10, start + 2, [width, height]).astype(int)
    part = picture[start[1] : end[1], start[0] : end[0]]
    # As wide as high at most, so that one long tile does not stretch the whole sheet.
    tile_width = max(1, min(240, 240 * part.shape[1] // part.shape[0]))
    return draw_points(part, faces.points_px[row] - start, markup=faces.markup, width=tile_width)
