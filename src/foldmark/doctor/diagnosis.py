"""The data doctor: looks at everything before hours of training, and shows what is wrong, odd, or merely worth knowing: a table
in the terminal, runs/check/check.json, and a sheet of the odd faces."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from foldmark.core.config import Config
from foldmark.core.faces import Faces
from foldmark.core.files import write_text
from foldmark.data.decode import read_grey
from foldmark.data.folds import group_faces
from foldmark.data.ibug import TEST_XML
from foldmark.data.lookalikes import inspect_pictures
from foldmark.data.sets import Data
from foldmark.doctor.checks import (
    NOTE,
    UNSAFE,
    WARNING,
    Finding,
    check_annotations,
    check_boxes,
    check_duplicates,
    check_folds,
    check_pictures,
)
from foldmark.doctor.scatter import BoxScatter, box_scatter
from foldmark.show.overlay import draw_points, save_png, sheet
from foldmark.show.terminal import console, plain_text, say_made, show_progress

FOLDER = Path("runs/check")
SHEET_FACES = 48
COLOURS = {UNSAFE: "red", WARNING: "yellow", NOTE: "cyan"}


@dataclass(frozen=True)
class Diagnosis:
    """All findings; counts: source -> faces in train and test; folds: fold -> faces; odd: training row -> what its picture on
    the sheet is captioned with; scatter: how the boxes sit on the faces."""

    findings: list[Finding]
    counts: dict[str, dict[str, int]]
    folds: dict[int, int]
    odd: dict[int, str]
    scatter: BoxScatter

    @property
    def safe(self) -> bool:
        return not any(finding.found for finding in self.findings if finding.level == UNSAFE)


def check(data: Data, config: Config) -> bool:
    """Diagnose, show and write everything down; True if training is safe.

    It is not where training or `make csv` would stop (damaged pictures, boxes that do not fit, folds that cannot be made) or
    learn what is wrong (points that form no face, twins that are none, photos split over folds). Crossed lines, blank pictures,
    look-alikes and leakage are warnings: the score or the face deserves a look, but training goes as it should.
    """
    diagnosis = diagnose(data, config)
    _show(diagnosis, config)
    say_made(", ".join(map(str, _write(diagnosis, data))))
    unsafe = [finding.check for finding in diagnosis.findings if finding.found and finding.level == UNSAFE]
    console.print(f"training is NOT safe: {'; '.join(unsafe)}." if unsafe else "training is safe. Next: make train")
    return diagnosis.safe


def diagnose(data: Data, config: Config) -> Diagnosis:
    """Look at all faces and pictures. Raises UserError for a label file that cannot be read at all."""
    train = data.train
    test = data.test if _has_test_list(data) else None
    pictures = {train.path(row): None for row in range(len(train))}
    if test:
        pictures |= {test.path(row): None for row in range(len(test))}
    seen = dict(zip(pictures, inspect_pictures(list(pictures), show_progress), strict=True))
    sights = [seen[train.path(row)] for row in range(len(train))]
    test_sights = [seen[test.path(row)] for row in range(len(test))] if test else []
    annotation_findings, odd = check_annotations(train, sights)
    fold_findings, folds = check_folds(train, group_faces(train), config)
    findings = [
        *check_pictures(train, sights, config, test, test_sights),
        *check_boxes(train, config),
        *annotation_findings,
        *check_duplicates(train, sights, folds, test, test_sights),
        *fold_findings,
    ]
    if data.set == "ibug" and test is None:
        meaning = f"put {TEST_XML} beside the training list; without it there is no CSV, and leakage is not looked for."
        findings.append(Finding("test list missing", WARNING, [TEST_XML], 1, meaning))
    counts = {"train": Counter(train.sources), "test": Counter(test.sources if test else [])}
    sources = sorted({*counts["train"], *counts["test"]})
    by_source = {source: {part: counts[part][source] for part in counts} for source in sources}
    in_folds = Counter() if folds is None else Counter(folds.tolist())
    return Diagnosis(findings, by_source, dict(sorted(in_folds.items())), odd, box_scatter(train))


def _has_test_list(data: Data) -> bool:
    return data.set == "ibug" and (data.folder / TEST_XML).exists()


def _show(diagnosis: Diagnosis, config: Config) -> None:
    counts = Table("source", "train", "test", title="faces", title_justify="left")
    for source, of in diagnosis.counts.items():
        counts.add_row(source, f"{of['train']:,}", f"{of['test']:,}")
    console.print(counts)
    console.print("faces held out by fold: " + "  ".join(f"{fold}: {size:,}" for fold, size in diagnosis.folds.items()))
    scatter = diagnosis.scatter
    settings = " ".join(f"augment.{key}={value:g}" for key, value in scatter.augmentation(config.crop.enlargement).items())
    console.print(
        f"boxes scatter about the faces (standard deviations): tilt {scatter.tilt_degrees:.1f} degrees, size "
        f"{100 * scatter.size:.1f} %, place {100 * scatter.place:.1f} % of the box; as wide is {settings}"
    )
    table = Table("", "check", "found", "of", "share", "what follows", title="findings", title_justify="left")
    for finding in diagnosis.findings:
        level = finding.level if finding.found else "ok"
        share = f"{100 * len(finding.found) / finding.of:.1f} %" if finding.found else ""
        follows = f"{_examples(finding)}\n{finding.meaning}" if finding.found else ""
        numbers = f"{len(finding.found):,}", f"{finding.of:,}", share
        table.add_row(level, finding.check, *numbers, follows, style=COLOURS.get(level, "dim"))
    console.print(table, soft_wrap=False)


def _examples(finding: Finding) -> str:
    more = f" and {len(finding.found) - 2:,} more" if len(finding.found) > 2 else ""
    return "; ".join(map(plain_text, finding.found[:2])) + more


def _write(diagnosis: Diagnosis, data: Data) -> list[Path]:
    findings = [
        {
            "check": finding.check,
            "level": finding.level if finding.found else "ok",
            "count": len(finding.found),
            "of": finding.of,
            "meaning": finding.meaning,
            "found": finding.found,
        }
        for finding in diagnosis.findings
    ]
    report = {
        "safe": diagnosis.safe,
        "data": str(data.folder),
        "synthetic_faces": data.synthetic,
        "faces": diagnosis.counts,
        "folds": diagnosis.folds,
        "box_scatter": asdict(diagnosis.scatter),
        "findings": findings,
    }
    files = [FOLDER / "check.json"]
    write_text(files[0], json.dumps(report, indent=1))
    picture = FOLDER / "odd-faces.png"
    # An older sheet would show faces that are mended by now.
    picture.unlink(missing_ok=True)
    shown = list(diagnosis.odd.items())[:SHEET_FACES]
    tiles = [(_tile(data.train, row), f"{text}: {data.train.path(row).name}") for row, text in shown]
    tiles = [(tile, caption) for tile, caption in tiles if tile is not None]
    if tiles:
        save_png(picture, sheet([tile for tile, _ in tiles], columns=6, captions=[caption for _, caption in tiles]))
        files.append(picture)
    return files


def _tile(faces: Faces, row: int) -> np.ndarray | None:
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
    return draw_points(
        part, faces.points_px[row] - start, markup=faces.markup, width=max(1, min(240, 240 * part.shape[1] // part.shape[0]))
    )
