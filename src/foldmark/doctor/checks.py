"""What the data doctor looks for, check by check: pictures, boxes, annotations, duplicates, folds."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.markup import IMM58
from foldmark.data.crops import misfit as crop_misfit
from foldmark.data.crops import store_window, window
from foldmark.data.folds import hold_out_last, make_folds, read_split
from foldmark.data.lookalikes import ALIKE_BITS, Sight, alike, bits_apart, lying_extension, same_bytes
from foldmark.data.twins import twin_pairs
from foldmark.doctor.annotations import broken_twins, crossed_lines, misfit

# What a finding means for training: it would stop or be wrong; the score or a file deserves a look; nothing, by itself.
UNSAFE, WARNING, NOTE = "unsafe", "warning", "note"
# Largest fold over smallest, in faces: beyond it the folds' figures are not alike in weight.
UNEVEN = 1.5
# Bits of 256 in which a mirrored picture may differ from its twin's. The 2,208 twins of the 300-W subset differ in 43 at most,
# strangers in 124 at the median.
TWIN_BITS = 80


@dataclass(frozen=True)
class Finding:
    """One check and what it found. level: what it means if there is anything in `found`, one text a face, picture or pair.
    of: how many were looked at. meaning: what follows from it, and the mend."""

    check: str
    level: str
    found: list[str]
    of: int
    meaning: str


def check_pictures(
    train: Faces, sights: list[Sight], config: Config, test: Faces | None, test_sights: list[Sight]
) -> list[Finding]:
    left_out = config.data.skip_damaged
    damaged = _damaged(train, sights, config)
    stop = "training leaves them out (data.skip_damaged)." if left_out else "training stops; mend or remove them."
    findings = [
        Finding("training pictures damaged or unlike their labels", WARNING if left_out else UNSAFE, damaged, len(train), stop)
    ]
    if test:
        found = _damaged(test, test_sights, config)
        findings.append(
            Finding("test pictures damaged or unlike their labels", UNSAFE, found, len(test), "`make csv` stops; restore them.")
        )
    faces = [(train, sights), *([(test, test_sights)] if test else [])]
    every = {faces.path(row): (faces.pictures[row], sight) for faces, of in faces for row, sight in enumerate(of)}
    read = {path: pair for path, pair in every.items() if not pair[1].problem}

    def which(odd) -> list[str]:
        return [name for path, (name, sight) in read.items() if odd(path, sight)]

    grey = which(lambda _, sight: sight.mode in ("L", "LA", "1"))
    other = which(lambda _, sight: sight.mode not in ("RGB", "L", "LA", "1") and not _deep(sight))
    return [
        *findings,
        Finding(
            "pictures turned by EXIF",
            WARNING,
            which(lambda _, sight: sight.turned),
            len(read),
            "read as stored; check that the points were set on the picture as stored.",
        ),
        Finding(
            "pictures blank", WARNING, which(lambda _, sight: sight.blank), len(read), "nothing to learn from; look at them."
        ),
        Finding("pictures with 16 bits", NOTE, which(lambda _, sight: _deep(sight)), len(read), "read, scaled to 8 bits."),
        Finding("pictures CMYK, palette or other colours", NOTE, other, len(read), "read as grey."),
        Finding("pictures grey", NOTE, grey, len(read), "read as they are."),
        Finding(
            "pictures with another format than their name says",
            NOTE,
            which(lying_extension),
            len(read),
            "read by content, not by name.",
        ),
    ]


def _deep(sight: Sight) -> bool:
    return sight.mode.startswith("I")


def _damaged(faces: Faces, sights: list[Sight], config: Config) -> list[str]:
    found = []
    for row, sight in enumerate(sights):
        stated, cut = tuple(faces.sizes_px[row]), store_window(faces.boxes_px[row], config.crop)
        problem = sight.problem or crop_misfit(sight.size, stated, cut)
        if problem:
            found.append(f"{faces.pictures[row]} {problem}")
    return found


def check_boxes(train: Faces, config: Config) -> list[Finding]:
    everyone = len(train)
    low, high = train.boxes_px[:, :2], train.boxes_px[:, :2] + train.boxes_px[:, 2:]
    known = train.sizes_px.all(axis=1)
    off_picture = known & ((low < 0) | (high > train.sizes_px)).any(axis=1)
    outside_picture = known & ((train.points_px < -0.5) | (train.points_px > train.sizes_px[:, None] - 0.5)).any(axis=(1, 2))
    outside_box = _outside(train.points_px, np.concatenate([low, train.boxes_px[:, 2:]], axis=1))
    cut = _outside(train.points_px, np.array([window(box, config.crop) for box in train.boxes_px]))
    twice = Counter(zip(train.pictures, map(tuple, train.boxes_px.tolist()), strict=True))
    return [
        Finding(
            "faces listed twice",
            WARNING,
            [name for (name, _), count in twice.items() if count > 1],
            everyone,
            "they count double; remove one.",
        ),
        Finding("boxes that leave the picture", NOTE, _names(train, off_picture), everyone, "the crop is padded."),
        Finding(
            "faces with a point outside the picture", NOTE, _names(train, outside_picture), everyone, "the net learns them still."
        ),
        Finding(
            "faces with a point outside the box",
            NOTE,
            _names(train, outside_box),
            everyone,
            "usual: detector boxes cut the chin.",
        ),
        Finding(
            "faces that the crop would cut",
            NOTE,
            _names(train, cut),
            everyone,
            f"crop.enlargement={config.crop.enlargement:g} leaves a point out; the net learns it still, without seeing it"
            + (", and then sees the face cut anew (predict.realign)." if config.predict.realign else "."),
        ),
    ]


def _outside(points_px: np.ndarray, windows_px: np.ndarray) -> np.ndarray:
    """Which faces (n,) have a point outside their window (n, 4) left, top, width, height."""
    low, high = windows_px[:, None, :2] - 0.5, windows_px[:, None, :2] + windows_px[:, None, 2:] - 0.5
    return ((points_px < low) | (points_px > high)).any(axis=(1, 2))


def check_annotations(train: Faces, sights: list[Sight]) -> tuple[list[Finding], dict[int, str]]:
    shape, crossed = misfit(train), crossed_lines(train)
    wrong = np.flatnonzero(shape.wrong)
    limits = f"NME over {shape.limits[0]:.1f} %, a point over {shape.limits[1]:.0f} % of the eye distance off, or upside down"
    no_face = {
        int(row): f"NME {shape.nme[row]:.0f} %, farthest point {shape.farthest[row]:.0f} %, turned {shape.turn[row]:.0f} degrees"
        for row in wrong[np.argsort(-shape.nme[wrong])]
    }
    pairs = twin_pairs(train)
    # The label file's width where it states one: a picture of another size is damage, not a broken twin.
    widths_px = np.where(train.sizes_px[:, 0] > 0, train.sizes_px[:, 0], [sight.size[0] for sight in sights])
    broken = broken_twins(train, pairs, widths_px)
    unlike = [
        twin
        for row, twin in pairs
        if sights[row].bits is not None
        and sights[twin].bits is not None
        and not (sights[row].blank or sights[twin].blank)
        and bits_apart(sights[row].mirror_bits, sights[twin].bits) > TWIN_BITS
    ]
    findings = [
        Finding(
            "points that form no face",
            UNSAFE,
            _told(train, no_face),
            len(train),
            f"far from the best-fitting mean face ({limits}); correct or remove them.",
        ),
        Finding(
            "mirror twins that break the flip rule",
            UNSAFE,
            [train.pictures[row] for row in broken],
            len(pairs),
            "x' = width - 1 - x and left and right swapped does not lead to them; correct them or their originals.",
        ),
        Finding(
            "mirror twins with another picture",
            UNSAFE,
            [train.pictures[row] for row in unlike],
            len(pairs),
            "the picture is not the mirrored one; restore it.",
        ),
        Finding(
            "lines that cross themselves",
            WARNING,
            _told(train, crossed),
            len(train),
            "points were set in the wrong order, or by a slip; look at the sheet.",
        ),
    ]
    odd = crossed | dict.fromkeys(unlike, "not the mirrored picture") | dict.fromkeys(broken, "breaks the flip rule")
    return findings, {row: f"NME {shape.nme[row]:.0f} %" for row in no_face} | {
        row: odd[row] for row in odd if row not in no_face
    }


def check_duplicates(
    train: Faces, sights: list[Sight], folds: np.ndarray | None, test: Faces | None, test_sights: list[Sight]
) -> list[Finding]:
    names, every = [*train.pictures, *(test.pictures if test else [])], [*sights, *test_sights]
    groups = [*train.groups, *(test.groups if test else [])]
    everyone = len(train)

    # Faces of one picture file are no duplicates, nor are faces and twins of one photo in the same list.
    def foreign(one: int, other: int) -> bool:
        crosses = one < everyone <= other
        return names[one] != names[other] and (crosses or groups[one] != groups[other])

    def told(pairs: list[tuple[int, int]]) -> list[str]:
        # Twins repeat what their originals show.
        of_groups = {}
        for one, other in pairs:
            of_groups.setdefault(tuple(sorted((groups[one], groups[other]))), f"{names[one]} = {names[other]}")
        return list(of_groups.values())

    copies = [pair for pair in same_bytes(every) if foreign(*pair)]
    findings = [
        Finding(
            "photos in train twice, same bytes",
            NOTE,
            told([pair for pair in copies if pair[1] < everyone]),
            everyone,
            "kept in one fold.",
        )
    ]
    # IMM's people sit before one wall in one light: there strangers look alike, and only bytes tell.
    if train.markup is IMM58:
        return findings
    lookalikes = [pair for pair in alike(every) if foreign(*pair)]
    inside = [pair for pair in lookalikes if pair[1] < everyone]
    findings.append(
        Finding(
            "photos in train twice, alike to the eye",
            NOTE,
            told(inside),
            everyone,
            f"at most {ALIKE_BITS} of 256 bits differ.",
        )
    )
    if folds is not None:
        apart = told([pair for pair in inside if folds[pair[0]] != folds[pair[1]]])
        meaning = "the score flatters a little; give them one group and fold in a split file of your own (folds.file)."
        findings.append(Finding("photos alike in different folds", WARNING, apart, everyone, meaning))
    if test:
        leaked = told([pair for pair in sorted({*copies, *lookalikes}) if pair[0] < everyone <= pair[1]])
        meaning = "leakage that the out-of-fold score cannot see: the leaderboard will look better than the net is."
        findings.append(Finding("photos both in train and test", WARNING, leaked, len(test), meaning))
    return findings


def check_folds(train: Faces, groups: np.ndarray, config: Config) -> tuple[list[Finding], np.ndarray | None]:
    settings = config.folds
    try:
        if settings.file:
            folds = read_split(settings.file, train)
        elif settings.hold_out_last:
            folds = hold_out_last(train, groups, settings.hold_out_last)
        else:
            folds = make_folds(train, groups, settings.count, settings.seed)
    except UserError as error:
        return [Finding("folds", UNSAFE, [str(error)], 1, "training stops.")], None
    held_out = np.bincount(folds[folds >= 0])
    uneven = [f"fold {fold}: {size} faces" for fold, size in enumerate(held_out) if held_out.max() > UNEVEN * held_out.min()]
    split = [f"group {group}" for group in np.unique(groups) if len(np.unique(folds[groups == group])) > 1]
    return [
        Finding("folds of uneven size", WARNING, uneven, len(held_out), "large photo groups; fewer folds even them out."),
        Finding("photos split over folds", UNSAFE, split, len(np.unique(groups)), "the score would lie; correct the split file."),
    ], folds


def _names(faces: Faces, mask: np.ndarray) -> list[str]:
    return [faces.pictures[row] for row in np.flatnonzero(mask)]


def _told(faces: Faces, what: dict[int, str]) -> list[str]:
    return [f"{faces.pictures[row]}: {text}" for row, text in what.items()]
