"""The report's faces: the best, the median and the worst held out, those of the test list, and own photos."""

import json
from pathlib import Path

import cv2
import numpy as np

from foldmark.core import geometry
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import read_text
from foldmark.data.crops import cut, warp
from foldmark.data.decode import decode, picture_bytes
from foldmark.report.reasons import describe_unusual_traits
from foldmark.report.results import Results, read_table
from foldmark.show.page import FacePicture, Missing, Picture, Section, is_picture
from foldmark.submission.format import pick_format
from foldmark.submission.record import find_changed_checkpoints, read_provenance, record_path

SHOWN_FACES, WORST_FACES, TEST_FACES, SHOWN_PHOTOS, LISTED_FACES = 8, 12, 12, 24, 10
WIDEST = 480  # pixels of a face in the page
MARGIN = 1.3  # side of the cut over what box and points take
JPEG_QUALITY = 80


def show_held_out_faces(results: Results) -> list[Section]:
    order = np.argsort(results.oof.nme, kind="stable")
    middle = np.argsort(np.abs(results.oof.nme - np.median(results.oof.nme)), kind="stable")
    sections = []
    for title, ranked, count in (
        ("Best faces", order, SHOWN_FACES),
        ("Median faces", middle, SHOWN_FACES),
        ("Worst faces", order[::-1], WORST_FACES),
    ):
        chosen = _of_different_photos(ranked, results.oof.faces.groups, count)
        reasons = _reasons(results, chosen) if title != "Median faces" else [""] * len(chosen)
        pictures = [
            cut_face(
                results.oof.faces,
                index,
                results.oof.points_px[index],
                f"{results.oof.faces.pictures[index]}, fold {results.oof.folds[index]}: NME {results.oof.nme[index]:.2f} %, "
                f"MAE {results.oof.mae_px[index]:.2f} px{reason and f'; {reason}'}.",
            )
            for index, reason in zip(chosen, reasons, strict=True)
        ]
        text = "Held-out faces, at most one of each photo. What is unusual about them is computed from their points and light."
        sections.append(Section(title, text if title != "Median faces" else "", faces=pictures))
    return sections


def show_test_faces(results: Results) -> Section | Missing:
    """Pictures of the test list with the predictions in the competition file, the most uncertain ones listed."""
    if not results.csv.exists():
        return Missing("Test pictures with predictions, and those to look at first", "csv")
    test = results.experiment.data.test
    if record_path(results.csv).is_file():
        changed = find_changed_checkpoints(read_provenance(results.csv), results.places)
        if changed:
            return Missing(f"Test pictures ({results.csv} was made from other models: {changed[0]})", "csv")
    points_px, findings = pick_format(results.experiment.data.set).read(results.csv, test)
    if findings:
        return Missing(f"Test pictures ({results.csv} is damaged: {findings[0].sentence})", "csv")
    uncertain, listed = _list_uncertain_faces(results)
    plain = [row for row, picture in enumerate(test.pictures) if "_mirror" not in picture] or list(range(len(test)))
    shown = [plain[place] for place in np.linspace(0, len(plain) - 1, min(TEST_FACES, len(plain))).astype(int)]
    pictures = [cut_face(test, row, points_px[row], test.pictures[row]) for row in shown]
    pictures += [
        cut_face(test, row, points_px[row], f"Uncertain: {test.pictures[row]}.")
        for row in _of_different_photos(uncertain, test.groups, SHOWN_FACES)
    ]
    text = f"Evenly chosen pictures of the test list, with the predictions in {results.csv}" + (
        "; then the most uncertain ones, as in the table." if listed else "."
    )
    return Section("Test pictures", text, table=listed, faces=pictures)


def _list_uncertain_faces(results: Results) -> tuple[np.ndarray, list[dict[str, str]]]:
    """The most uncertain test faces, as make csv listed them: their rows, and a table. Empty where it did not. Raises UserError
    for a damaged list."""
    path = results.csv.with_name(f"{results.csv.stem}-look-first.csv")
    if not path.exists():
        return np.empty(0, int), []
    titles = {
        "picture": "Test picture",
        "std_percent": "standard deviation, % of the eye distance",
        "worst_region": "worst region",
        "std_there": "standard deviation there",
        "unlike_training": "unlike the training faces",
    }
    listed = read_table(path, ["first_id", *titles]).head(LISTED_FACES)
    try:
        rows = listed["first_id"].astype(int).to_numpy() // (2 * results.oof.faces.markup.count)
        if not ((rows >= 0) & (rows < len(results.experiment.data.test))).all():
            raise ValueError
    except ValueError:
        raise UserError(f"{path}: damaged (first_id); run make csv again.") from None
    return rows, listed[list(titles)].rename(columns=titles).to_dict("records")


def show_own_photos(results: Results) -> Section | Missing:
    folder, command = results.places.photos / results.name, "photos PHOTOS=folder-with-your-photos"
    sheet, listed = folder / "sheet.png", folder / "points.json"
    if not (sheet.exists() and listed.exists()):
        return Missing("Own photos", command)
    # The folder may hold pictures of earlier photos; points.json lists those of the last time.
    try:
        photos = json.loads(read_text(listed))["photos"]
        names = [str(photo["picture"]) for photo in photos if photo["picture"] and photo["faces"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{listed}: damaged") from None
    if not is_picture(sheet):
        raise UserError(f"{sheet}: damaged")
    annotated = [folder / name for name in names if Path(name).name == name and is_picture(folder / name)]
    grid = [Picture(path, path.stem, f"{path.stem} with the predicted points") for path in annotated[:SHOWN_PHOTOS]]
    left = len(annotated) - len(grid)
    text = f"Photos with the ensemble's points: {len(annotated)}" + (f", {left} of them only in {folder}." if left else ".")
    return Section("Own photos", text, pictures=[Picture(sheet, "All photos with their predicted points.")], grid=grid)


def cut_face(faces: Faces, row: int, points_px: np.ndarray, caption: str) -> FacePicture:
    """A face cut from its picture, in colour if it has any, with the prediction (k, 2) and, where it is known, the truth. Raises
    UserError for a picture that cannot be read."""
    try:
        picture = decode(picture_bytes(faces.path(row)), lambda opened: np.asarray(opened.convert("RGB")))
    except ValueError as error:
        raise UserError(f"{faces.path(row)}: {error}; restore it.") from None
    truth_px = points_px if faces.labels_px is None else faces.points_px[row]
    corner, extent = faces.boxes_px[row, :2], faces.boxes_px[row, 2:]
    shown_px = np.concatenate([points_px, truth_px, [corner, corner + extent]])
    low, high = shown_px.min(axis=0), shown_px.max(axis=0)
    left, top, side = geometry.square_window(np.concatenate([low, high - low]), MARGIN)
    size = min(side, WIDEST)
    crop = cut(picture, (left, top, side, side), (size, size))
    px_to_crop = geometry.resize(size / side, size / side, left, top)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return FacePicture(
        name=faces.pictures[row],
        jpeg=encoded.tobytes(),
        size=(size, size),
        truth=None if faces.labels_px is None else geometry.apply(px_to_crop, truth_px),
        prediction=geometry.apply(px_to_crop, points_px),
        lines=faces.markup.lines,
        caption=caption,
    )


def _of_different_photos(ranked: np.ndarray, groups: list[str], count: int) -> list[int]:
    """The first faces that are each of another photo, because the errors of a face and its mirror twin are alike."""
    chosen: dict[str, int] = {}
    for row in ranked:
        chosen.setdefault(groups[row], int(row))
        if len(chosen) == count:
            break
    return list(chosen.values())


def _reasons(results: Results, chosen: list[int]) -> list[str]:
    run, size = results.runs[0], results.runs[0].config.crop.size
    to_crop = geometry.centre_affine(run.store.size, size)
    crops = (warp(run.store[row], to_crop, size) for row in results.oof.rows)
    greys = np.array([(crop.mean(), crop.std()) for crop in crops])
    reasons = []
    for index in chosen:
        training = np.flatnonzero(results.oof.folds != results.oof.folds[index])
        reasons += describe_unusual_traits(
            results.oof.faces, greys, training if len(training) else np.arange(len(greys)), np.array([index])
        )
    return reasons
