"""Folds that cannot leak: a photo, with its mirror twin, its other faces, its byte-identical copies and the photos that look
like it, is in one fold, and so is a person where the set names people.

The split is a CSV file (picture, box, source, group, fold) that can be read, edited and reused. Faces in fold -1 are
never held out: every fold trains on them.
"""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas

from foldmark.core.config import FoldsConfig
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import MEGABYTE, read_bytes, write_text
from foldmark.data.decode import picture_bytes
from foldmark.data.ibug import STANDARD_TEST_FOLDERS, standard_part
from foldmark.data.lookalikes import Sight, find_alike

LARGEST = 256 * MEGABYTE  # of a split file
COLUMNS = ["picture", "box", "source", "group", "fold"]


def group_faces(faces: Faces, sights: list[Sight] | None = None) -> np.ndarray:
    """Group number (n,) of each face: faces of one photo or person, or of files with the same bytes, share it. With the sights of
    their pictures (n), so do faces of photos that look alike."""
    # Slow to import, and most commands group no faces.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = [_pair_equal(faces.groups)]
    if sights is None:
        with ThreadPoolExecutor() as pool:
            paths = [faces.path(row) for row in range(len(faces))]
            pairs.append(_pair_equal(list(pool.map(_content_digest, paths))))
    else:
        pairs += [_pair_equal([sight.digest or faces.pictures[row] for row, sight in enumerate(sights)])]
        pairs += [np.array(find_alike(sights), int).reshape(-1, 2)]
    one, other = np.concatenate(pairs).T
    edges = coo_array((np.ones(len(one)), (one, other)), shape=(len(faces), len(faces)))
    return connected_components(edges, directed=False)[1]


def make_split(faces: Faces, settings: FoldsConfig, groups: np.ndarray) -> np.ndarray:
    """The fold (n,) of each face, groups (n,) whole, as the settings ask. Raises UserError for too few groups."""
    if settings.hold_out_last:
        return hold_out_last(faces, groups, settings.hold_out_last)
    if settings.split == "300w":
        return hold_out_standard(faces, groups)
    return make_folds(faces, groups, settings.count, settings.seed)


def _pair_equal(keys: list[str]) -> np.ndarray:
    """Pairs (n, 2) of each row and the first row that has its key."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.stack([np.arange(len(keys)), first[inverse]], axis=1)


def make_folds(faces: Faces, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Fold number (n,) of each face: groups whole, each source spread evenly. Raises UserError for too few groups."""
    if count > len(np.unique(groups)):
        raise UserError(
            f"folds.count: {count} folds cannot be made of {len(np.unique(groups))} photos; lower folds.count or add photos."
        )
    rng = np.random.default_rng(seed)
    sources = np.array(faces.sources)
    folds = np.full(len(faces), -1)
    for source in np.unique(sources):
        members = np.unique(groups[(sources == source) & (folds < 0)])
        sizes = np.bincount(groups)
        # The largest first, each to the fold that has the fewest faces of this source, then the fewest of all.
        for group in sorted(rng.permutation(members), key=lambda group: -sizes[group]):
            of_source = np.bincount(folds[(sources == source) & (folds >= 0)], minlength=count)
            of_all = np.bincount(folds[folds >= 0], minlength=count)
            folds[groups == group] = np.lexsort([of_all, of_source])[0]
    return folds


def hold_out_last(faces: Faces, groups: np.ndarray, count: int) -> np.ndarray:
    """Fold number (n,) of each face: 0 for the last `count` groups in the order of their names, else -1, never held out.

    The course's split of IMM is its last 8 people. Raises UserError if nothing would be left to train on.
    """
    names = np.array(faces.groups)
    # A group may hold several names (identical files under two): its last name counts.
    last_name = {group: max(names[groups == group].tolist()) for group in np.unique(groups)}
    if count >= len(last_name):
        raise UserError(f"folds.hold_out_last: {count} of {len(last_name)} photos or people leaves none to train on; lower it.")
    held_out = sorted(last_name, key=last_name.__getitem__)[-count:]
    return np.where(np.isin(groups, held_out), 0, -1)


def hold_out_standard(faces: Faces, groups: np.ndarray) -> np.ndarray:
    """Fold number (n,) of each face in the standard split of 300-W: 0 for its test faces and what is in a group with one, such as
    their mirror twins, else -1, never held out. Raises UserError where there is no test face, or none to train on."""
    held_out = np.isin(groups, groups[[standard_part(picture) is not None for picture in faces.pictures]])
    if held_out.all() or not held_out.any():
        what = "no face to train on" if held_out.all() else f"no face in {', '.join(STANDARD_TEST_FOLDERS)}"
        raise UserError(f"folds.split: 300w is the split of iBUG 300-W, and {faces.root} has {what}; take folds.split=kfold.")
    return np.where(held_out, 0, -1)


def write_split(path: Path, faces: Faces, groups: np.ndarray, folds: np.ndarray) -> None:
    columns = (faces.pictures, _box_texts(faces), faces.sources, groups, folds)
    write_text(path, pandas.DataFrame(dict(zip(COLUMNS, columns, strict=True))).to_csv(index=False))


def read_split(path: Path, faces: Faces, *, named: bool = False) -> np.ndarray:
    """Fold number (n,) of each face, matched by picture and box, so that the file's order does not matter. named: it is the file
    that folds.file names, else a run's own.

    Raises UserError if a face is missing or unknown, a fold is no number or empty, or a group, of the file or of the faces, is in
    two folds.
    """
    try:
        table = pandas.read_csv(BytesIO(read_bytes(path, LARGEST)), dtype=str, keep_default_na=False)
    except FileNotFoundError:
        fix = "name an existing file in folds.file" if named else "restore it, or train under a new NAME=..."
        raise UserError(f"{path}: there is no such split file; {fix}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the split file cannot be read ({' '.join(str(error).split())}).") from None
    if not len(table) or not set(COLUMNS) <= set(table.columns):
        raise UserError(f"{path}: not a split file; its columns are {', '.join(COLUMNS)}.")
    fold_of: dict[tuple[str, str], int] = {}
    fold_of_group: dict[str, int] = {}
    for number, row in enumerate(table.to_dict("records"), start=2):
        if not re.fullmatch("-1|[0-9]{1,4}", row["fold"]):
            raise UserError(f"{path}, line {number}: fold {row['fold']!r} is not a number from 0, nor -1 for never held out.")
        fold = int(row["fold"])
        if fold_of_group.setdefault(row["group"], fold) != fold:
            raise UserError(
                f"{path}, line {number}: group {row['group']} is in folds {fold_of_group[row['group']]} and {fold}; "
                "keep a photo in one fold, or the score will flatter."
            )
        if fold_of.setdefault((row["picture"], row["box"]), fold) != fold:
            raise UserError(f"{path}, line {number}: {row['picture']} is there twice, in two folds; keep one of the lines.")
    keys = list(zip(faces.pictures, _box_texts(faces), strict=True))
    missing = [key for key in keys if key not in fold_of]
    if missing or len(fold_of) != len(set(keys)):
        what = f"{missing[0][0]} is not in it" if missing else "it lists faces that are not in the data"
        fix = "name a split of this data in folds.file" if named else "restore the data, or train under a new NAME=..."
        raise UserError(f"{path}: the split was made for other data ({what}); {fix}.")
    folds = np.array([fold_of[key] for key in keys])
    numbers = np.unique(folds)
    if len(numbers) < 2 or not np.array_equal(numbers[numbers >= 0], np.arange(numbers.max() + 1)):
        raise UserError(f"{path}: folds must be numbered from 0 without a gap, and at least two (one, if some faces are in -1).")
    # Whatever the file calls a group: a photo and its mirror twin, or the pictures of a person, belong together.
    fold_of_photo: dict[str, int] = {}
    for photo, fold in zip(faces.groups, folds.tolist(), strict=True):
        if fold_of_photo.setdefault(photo, fold) != fold:
            raise UserError(
                f"{path}: {photo} is in folds {fold_of_photo[photo]} and {fold}; keep a photo with its mirror twin, or a person, "
                "in one fold, or the score will flatter."
            )
    return folds


def _box_texts(faces: Faces) -> list[str]:
    return [" ".join(f"{edge:g}" for edge in box) for box in faces.boxes_px]


def _content_digest(path: Path) -> str:
    try:
        return hashlib.blake2b(picture_bytes(path), digest_size=16).hexdigest()
    except ValueError:
        # An unreadable picture is reported where it is decoded; here it only is like no other.
        return str(path)
