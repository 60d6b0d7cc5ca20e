"""The user's own photos: find the faces, predict their points, write them down and draw them.

points.csv       photo, face, point, x, y, std_px: a row a point, in the pixels of the photo
points.json      the same by photo, with boxes, frames, and the photos without a face or that are none
<photo>.png      each photo with its faces drawn in, a copy of at most 1600 pixels
sheet.png        all faces side by side
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from foldmark.commands.setup import read_data_root, read_variables
from foldmark.core import geometry
from foldmark.core.errors import UserError
from foldmark.core.files import digest, expand_user, write_text
from foldmark.data.crops import cut
from foldmark.data.decode import colour_photo, read_grey, read_photo
from foldmark.data.photos import PhotoSource, find_faces, find_photos, load_detector, refuse_writing_into
from foldmark.ensemble.face_cuts import CutFaces, FacePredictor
from foldmark.export.api import is_exported, load
from foldmark.runs.experiment import Session, Settings, find_trained
from foldmark.show.overlay import PredictedFaces, draw_faces, draw_sheet, save_png
from foldmark.show.terminal import make_command, say, say_made, show_progress

TOGETHER = 16  # photos whose faces are predicted in common batches
DECIMALS = 3
# Colour copies that people look at: at most this many pixels on the longer side.
COPY, PICTURE, TILE = 3200, 1600, 280
SHOWN_FACES, COLUMNS = 200, 5

FRAMES = {
    "upright": "pixels of the photo as viewers show it, turned as its EXIF note says",
    "file": "pixels of the file as it is stored, as in its label file; an EXIF note is not applied",
}


@dataclass(frozen=True)
class PhotoFaces:
    """A photo of `size` (width, height) and its n faces: boxes_px (n, 4), points_px (n, k, 2), std_px (n, k), and whether each is
    unlike the faces that the models learned (n,)."""

    source: PhotoSource
    size: tuple[int, int]
    boxes_px: np.ndarray
    points_px: np.ndarray
    std_px: np.ndarray
    unlike: np.ndarray


@dataclass(frozen=True)
class Asked:
    """A prediction job: the photos, with the ensemble of which runs and its name, into which folder, whether to draw, and what
    people run next."""

    photos: list[PhotoSource]
    runs: list[str]
    name: str
    out: Path
    draw: bool
    next_step: str | None


def draw_photos(session: Session, given: Any) -> None:
    """Predict all faces in the user's photos and draw them."""
    given.source, given.run, given.out, given.draw = [Path(given.need("photos"))], (), None, True
    predict_sources(session, given)


def predict_sources(session: Session, given: Any) -> None:
    """Predict all faces in what the user gave as sources, with the runs or the experiment that were named."""
    places = session.places
    if given.run and (given.config or given.name):
        raise UserError("--run: excludes --config and --name; give one of them.")
    if given.run:
        name, runs = "+".join(Path(one).stem if is_exported(one) else Path(one).name for one in given.run), list(given.run)
    else:
        name, runs = find_trained(places, Settings(given.config or None, given.name or None))
    sources = [expand_user(Path(source), "PHOTOS") for source in given.source]
    out = expand_user(given.out, "--out") if given.out else places.photos / name
    refuse_writing_into(sources, out)
    photos = find_photos(sources, given.box or None)
    if any(photo.boxes_px is None for photo in photos):
        load_detector()
    # The report shows an experiment's own folder alone.
    shown = given.draw and not given.run and out.resolve() == (places.photos / name).resolve()
    next_step = f"{make_command('report', read_variables(given))} (shows them on its page)" if shown else None
    predict_photos(Asked(photos, runs, name, out, given.draw, next_step), session.device, read_data_root(given))


def predict_photos(asked: Asked, device: str, data_root: Path) -> None:
    """Predict all faces of these photos and write points, and pictures if they are to be drawn.

    A photo that cannot be used is named and passed over, one without a face is named. Raises UserError if no face is left.
    """
    photos, runs, out, draw = asked.photos, asked.runs, asked.out, asked.draw
    predictor = load(runs if len(runs) > 1 else runs[0], device=device, data_root=data_root)
    if predictor.synthetic_faces:
        say(f"{asked.name} LEARNED FROM SYNTHETIC FACES ONLY: its points on photos only show that all commands work.")
    found: list[PhotoFaces] = []
    skipped: dict[str, str] = {}
    tiles: list[tuple[str, np.ndarray]] = []
    with show_progress("photos", len(photos)) as done:
        for start in range(0, len(photos), TOGETHER):
            for photo in _predict_together(photos[start : start + TOGETHER], predictor, skipped):
                found.append(photo)
                if draw:
                    tiles += _draw(photo, predictor, out)[: SHOWN_FACES - len(tiles)]
            done(min(start + TOGETHER, len(photos)))
    _tell(found, skipped)
    count = sum(len(photo.boxes_px) for photo in found)
    if not count:
        raise UserError(f"no face found in any of {len(photos)} photos, so {out} is as it was; give boxes, or other photos.")
    files = _write(out, found, skipped, predictor, draw)
    if draw:
        save_png(out / "sheet.png", draw_sheet([tile for _, tile in tiles], COLUMNS, [caption for caption, _ in tiles]))
        files += ", a picture of each photo, sheet.png" + (f" (the first {SHOWN_FACES} faces)" if count > len(tiles) else "")
    say_made(f"{out} ({files}): {count} faces in {len(found)} photos", asked.next_step)


def picture_name(photo: str) -> str:
    """Name of the annotated picture: the photo's whole name, so that a.jpg and a.png stay apart; another only where a file
    system would refuse it, or the contact sheet has it."""
    head, _, tail = photo.rpartition("/")
    if len(tail.encode()) > 200 or photo == "sheet":
        tail = f"{tail[:40]}-{digest(tail)}"
    return f"{head}/{tail}.png" if head else f"{tail}.png"


def _predict_together(photos: list[PhotoSource], predictor: FacePredictor, skipped: dict[str, str]) -> Iterator[PhotoFaces]:
    cut_photos: list[tuple[PhotoSource, tuple[int, int], np.ndarray, CutFaces]] = []
    for source in photos:
        try:
            grey = read_photo(source.path) if source.upright else read_grey(source.path)
            boxes_px = find_faces(grey) if source.boxes_px is None else source.boxes_px
            cut_photos.append((source, grey.shape[::-1], boxes_px, predictor.cut(grey, boxes_px)))
        except ValueError as problem:
            skipped[source.name] = str(problem)
    predictions = predictor.predict_all([faces for *_, faces in cut_photos])
    for (source, size, boxes_px, _), found in zip(cut_photos, predictions, strict=True):
        yield PhotoFaces(source, size, boxes_px, found.points_px, found.std_px, found.unlike)


def _draw(photo: PhotoFaces, predictor: FacePredictor, out: Path) -> list[tuple[str, np.ndarray]]:
    """Write the annotated photo; give a captioned tile for each face."""
    colour = colour_photo(photo.source.path, COPY, upright=photo.source.upright)
    scale_x, scale_y = colour.shape[1] / photo.size[0], colour.shape[0] / photo.size[1]
    boxes = photo.boxes_px * [scale_x, scale_y, scale_x, scale_y]
    points, std = geometry.apply(geometry.resize(scale_x, scale_y), photo.points_px), photo.std_px * scale_x
    drawn = draw_faces(colour, PredictedFaces(boxes, points, std, predictor.markup), PICTURE)
    save_png(out / picture_name(photo.source.name), drawn)
    tiles = []
    for number, (box, face, spread) in enumerate(zip(boxes, points, std, strict=True), start=1):
        left, top, side = geometry.square_window(box, 1.6)
        tile = cut(colour, (left, top, side, side), (TILE, TILE))
        to_tile = geometry.resize(TILE / side, TILE / side, left, top)
        scaled = np.array([[0, 0, *(box[2:] * TILE / side)]])
        face, spread = geometry.apply(to_tile, face)[None], spread[None] * TILE / side
        tile = draw_faces(tile, PredictedFaces(scaled, face, spread, predictor.markup), TILE, boxed=False)
        tiles.append((f"{photo.source.name} {number}" if len(boxes) > 1 else photo.source.name, tile))
    return tiles


def _tell(found: list[PhotoFaces], skipped: dict[str, str]) -> None:
    for name, problem in skipped.items():
        hint = "; export it as JPEG" if name.lower().endswith((".heic", ".heif")) else ""
        say(f"skipped: {name} {problem}{hint}.")
    for photo in found:
        name = photo.source.name
        if photo.unlike.any():
            numbers = ", ".join(str(number) for number in np.flatnonzero(photo.unlike) + 1)
            say(f"{name}: unlike the faces that the models learned (face {numbers}); look at its points before you use them.")
        if not len(photo.boxes_px):
            say(
                f"no face found in {name}: give its box, left and top edge, width and height in pixels, as BOX=x,y,w,h for that "
                f"photo alone, or in a file {name}.box beside it.",
            )


def _write(out: Path, found: list[PhotoFaces], skipped: dict[str, str], predictor: FacePredictor, draw: bool) -> str:
    counts = [len(photo.boxes_px) for photo in found]
    points = predictor.markup.count
    names = [photo.source.name for photo in found]
    table = pandas.DataFrame(
        {
            "photo": np.repeat(names, np.multiply(counts, points)),
            "face": np.concatenate([np.repeat(np.arange(1, count + 1), points) for count in counts]),
            "point": np.tile(np.arange(points), sum(counts)),
            "x": np.concatenate([photo.points_px[..., 0].ravel() for photo in found]),
            "y": np.concatenate([photo.points_px[..., 1].ravel() for photo in found]),
            "std_px": np.concatenate([photo.std_px.ravel() for photo in found]),
        }
    )
    write_text(out / "points.csv", table.round(DECIMALS).to_csv(index=False))
    tree = {
        "experiment": predictor.name,
        "learnt_from_synthetic_faces": predictor.synthetic_faces,
        "markup": predictor.markup.name,
        "pixels": "x to the right, y down, the middle of the first pixel at 0, 0",
        "std_px": "standard deviation of each coordinate of a point, calibrated on out-of-fold predictions",
        "frames": FRAMES,
        "photos": [_photo_tree(photo, draw) for photo in found],
        "skipped": [{"photo": name, "problem": problem} for name, problem in skipped.items()],
    }
    write_text(out / "points.json", json.dumps(tree, indent=1) + "\n")
    return "points.csv, points.json"


def _photo_tree(photo: PhotoFaces, draw: bool) -> dict:
    return {
        "photo": photo.source.name,
        "width": photo.size[0],
        "height": photo.size[1],
        "frame": "upright" if photo.source.upright else "file",
        "boxes_from": photo.source.boxes_from,
        "picture": picture_name(photo.source.name) if draw else None,
        "faces": [
            {
                "box": box.round(DECIMALS).tolist(),
                "points": face.round(DECIMALS).tolist(),
                "std_px": std.round(DECIMALS).tolist(),
                "unlike_training": bool(unlike),
            }
            for box, face, std, unlike in zip(photo.boxes_px, photo.points_px, photo.std_px, photo.unlike, strict=True)
        ],
    }
