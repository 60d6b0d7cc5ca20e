"""Unlabelled pictures as training faces: their faces are found, an ensemble gives the points, and its own uncertainty says how
far each face is trusted. A picture that is in the data set, or looks like one of it, is left out: it may be one to judge on."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.files import atomic_path, digest, lock_file, require_space
from foldmark.core.progress import Progress, no_progress
from foldmark.data.crops import CropStore, join_crops
from foldmark.data.decode import read_grey, read_photo
from foldmark.data.lookalikes import find_alike, find_same_bytes, inspect_pictures
from foldmark.data.photos import PhotoSource, find_faces, find_photos, load_detector
from foldmark.data.sets import Data
from foldmark.ensemble.api import Predictor, load
from foldmark.ensemble.calibration import box_sides
from foldmark.ensemble.face_cuts import CutFaces, PredictedPoints
from foldmark.ensemble.fit import digest_folds
from foldmark.ensemble.oof import read_oof
from foldmark.runs.run import Run
from foldmark.train.fold_data import find_pixels, read_unlabelled

log = logging.getLogger(__name__)

FORMAT = 1  # part of the key: raise it when the way to find and weigh faces changes
TOGETHER = 16  # pictures whose faces are predicted in common batches


@dataclass
class LeftOut:
    """How many pictures and faces are not learned, by the reason."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, count: int = 1) -> None:
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count

    def __str__(self) -> str:
        return "; ".join(f"{reason}: {count}" for reason, count in self.counts.items()) or "nothing"


def teach_unlabelled(teachers: Run, folder: Path, data: Data, progress: Progress = no_progress) -> Path:
    """The file of the faces in a folder of pictures, with the points of all nets of a run; made where it is not there. Raises
    UserError for a folder that cannot be used, and where no face is left."""
    photos = list_pictures(folder)
    file = teachers.places.cache / f"unlabelled-{_digest_all(teachers, photos)}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(file):
        try:
            faces = read_unlabelled(file, teachers.faces.markup.count)
        except UserError:
            left_out = LeftOut()
            fresh = leave_out_known(photos, data, left_out, progress)
            _write(file, teachers, _find_all(fresh, load(teachers.folder.path), left_out, progress))
            log.info("UNLABELLED=%s: left out are %s.", folder, left_out)
            faces = read_unlabelled(file, teachers.faces.markup.count)
            if not faces.pictures:
                file.unlink()
                raise UserError(f"UNLABELLED={folder}: no face in it can be learned ({left_out}); name other pictures.") from None
    log.info(
        "UNLABELLED=%s: %d faces are learned, too, each with %.2f of the weight of a labelled one on average.",
        folder,
        len(faces.pictures),
        faces.trust.mean(),
    )
    return file


def list_pictures(folder: Path) -> list[PhotoSource]:
    """The pictures in a folder, with their boxes where these are given. Raises UserError for one that cannot be used, and where
    faces are to be found and dlib is not installed."""
    photos = find_photos([folder])
    if any(photo.boxes_px is None for photo in photos):
        load_detector()
    return photos


def leave_out_known(photos: list[PhotoSource], data: Data, left_out: LeftOut, progress: Progress) -> list[PhotoSource]:
    """The photos without those that are in the data set, labelled or to be tested: byte for byte, or alike to the eye."""
    known = [data.labelled.path(row) for row in range(len(data.labelled))]
    if data.has_test_list:
        known += [data.test.path(row) for row in range(len(data.test))]
    known = list(dict.fromkeys(known))
    sights = inspect_pictures([*known, *(photo.path for photo in photos)], progress)
    pairs = find_same_bytes(sights) + (find_alike(sights) if data.kind.lookalikes else [])
    # Photos that are the same as another one are known where that one is.
    twins: dict[int, set[int]] = {}
    for one, other in pairs:
        twins.setdefault(one, set()).add(other)
        twins.setdefault(other, set()).add(one)
    seen, waiting = set(range(len(known))), list(range(len(known)))
    while waiting:
        new = twins.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    fresh = [photo for number, photo in enumerate(photos, start=len(known)) if number not in seen]
    left_out.add("pictures of the data set, or that look like one of it", len(photos) - len(fresh))
    return fresh


def _find_all(
    photos: Sequence[PhotoSource], predictor: Predictor, left_out: LeftOut, progress: Progress
) -> Iterator[tuple[list[str], list[np.ndarray], list[CutFaces], list[PredictedPoints]]]:
    """The pictures, boxes, crops and predictions of a few photos at a time, of those that have a face."""
    with progress("finding faces in unlabelled pictures", len(photos)) as done:
        for start in range(0, len(photos), TOGETHER):
            pictures, boxes, cuts = list[str](), list[np.ndarray](), list[CutFaces]()
            for photo in photos[start : start + TOGETHER]:
                try:
                    grey = read_photo(photo.path) if photo.upright else read_grey(photo.path)
                    boxes_px = find_faces(grey) if photo.boxes_px is None else photo.boxes_px
                    cut = predictor.cut(grey, boxes_px)
                except ValueError:
                    left_out.add("pictures that cannot be read, or whose box does not fit them")
                    continue
                if not len(boxes_px):
                    left_out.add("pictures without a face")
                    continue
                pictures.append(str(photo.path))
                boxes.append(boxes_px)
                cuts.append(cut)
            found = predictor.predict_all(cuts)
            left_out.add("faces unlike those that the teachers learned", sum(int(one.unlike.sum()) for one in found))
            if pictures:
                yield pictures, boxes, cuts, found
            done(min(start + TOGETHER, len(photos)))


def _write(file: Path, teachers: Run, found: Iterator) -> None:
    """Write the faces that are found, and the crops of the run's faces with theirs after them."""
    assert isinstance(teachers.store, CropStore)
    usual = _measure_usual_std(teachers)
    names, rows = list[str](), dict[str, list[np.ndarray]]()
    store = teachers.store
    require_space(file.parent, 2 * store.file.stat().st_size, "the unlabelled faces")
    with atomic_path(find_pixels(file)) as temporary, temporary.open("wb") as pixels:
        with store.file.open("rb") as labelled:
            shutil.copyfileobj(labelled, pixels)
        for pictures, boxes, cuts, predictions in found:
            known = ~np.concatenate([one.unlike for one in predictions])
            crops, sides = join_crops([cut.crops[0] for cut in cuts]), np.concatenate([cut.sides_px for cut in cuts])
            std = np.concatenate([one.std_px for one in predictions]).mean(axis=1) / sides[:, 0]
            parts = {
                "boxes_px": np.concatenate(boxes),
                "points_px": np.concatenate([one.points_px for one in predictions]),
                "trust": np.minimum(1, np.square(usual / std)),
                "px_to_store": crops.px_to_store,
            }
            names += np.repeat(pictures, [len(one) for one in boxes])[known].tolist()
            for key, values in parts.items():
                rows.setdefault(key, []).append(values[known])
            pixels.write(crops.crops[known].tobytes())
    points = teachers.faces.markup.count
    empty = {"boxes_px": (0, 4), "points_px": (0, points, 2), "trust": (0,), "px_to_store": (0, 2, 3)}
    arrays: dict[str, Any] = {key: np.concatenate([np.empty(shape), *rows.get(key, [])]) for key, shape in empty.items()}
    arrays["px_to_store"] = np.concatenate([store.px_to_store, arrays["px_to_store"]])
    # The crops first: where this file is, both are whole.
    with atomic_path(file) as temporary, temporary.open("wb") as archive:
        np.savez(archive, pictures=np.array(names, np.str_), size=np.array(store.size), **arrays)


def _measure_usual_std(teachers: Run) -> float:
    """The standard deviation, relative to the box, that the teachers give a labelled face out of fold: the median."""
    oof, sides = read_oof(teachers.folder, teachers.faces), box_sides(teachers.faces)
    calibration = load(teachers.folder.path).calibration
    return float(np.median(calibration.std_px(oof.prediction, sides[oof.rows]).mean(axis=1) / sides[oof.rows, 0]))


def _digest_all(teachers: Run, photos: Sequence[PhotoSource]) -> str:
    """Of all that the file depends on: the teachers, the crops, and each picture with its box."""
    assert isinstance(teachers.store, CropStore)
    listed = []
    for photo in photos:
        stat = photo.path.stat()
        boxes = None if photo.boxes_px is None else photo.boxes_px.tolist()
        listed.append([str(photo.path.absolute()), stat.st_size, stat.st_mtime_ns, boxes])
    return digest([FORMAT, digest_folds(teachers.folder), teachers.store.file.name, listed])
