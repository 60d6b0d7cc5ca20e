"""Checks of boxes, annotations, duplicates and folds."""

from collections import Counter

import numpy as np

from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.data.crops import window
from foldmark.data.folds import group_faces, make_split, read_split
from foldmark.data.labels import find_impossible
from foldmark.data.lookalikes import ALIKE_BITS, count_differing_bits, find_alike, find_same_bytes
from foldmark.data.twins import find_twin_pairs
from foldmark.doctor.annotations import find_broken_twins, find_crossed_lines, measure_misfit
from foldmark.doctor.finding import NOTE, UNSAFE, WARNING, Finding, Seen, list_pictures, list_reasons

# Largest fold over smallest, in faces: beyond it the folds' figures differ in weight.
UNEVEN = 1.5
# Bits of 256 in which a mirrored picture may differ from its twin's. The 2,208 twins of the 300-W subset differ in 43 at most,
# strangers in 124 at the median.
TWIN_BITS = 80
# The points of iBUG 300-W span 0.75 to 1.35 times their box, those of IMM 0.25 to 0.42 times.
USUAL_SPAN = (0.1, 2.0)


def check_impossible(train: Faces) -> tuple[Finding, dict[int, str]]:
    """The finding, and the impossible faces: row -> why."""
    impossible = find_impossible(train)
    meaning = "training stops; correct or remove them."
    return Finding("faces that cannot be right", UNSAFE, list_reasons(train, impossible), len(train), meaning), impossible


def check_boxes(train: Faces, config: Config) -> list[Finding]:
    low, high = train.boxes_px[:, :2], train.boxes_px[:, :2] + train.boxes_px[:, 2:]
    known = train.sizes_px.all(axis=1)
    off_picture = known & ((low < 0) | (high > train.sizes_px)).any(axis=1)
    pictures_px = np.concatenate([np.zeros_like(train.sizes_px), train.sizes_px], axis=1)
    outside_picture = known & _reach_outside(train.points_px, pictures_px)
    outside_box = _reach_outside(train.points_px, np.concatenate([low, train.boxes_px[:, 2:]], axis=1))
    cut = _reach_outside(train.points_px, np.array([window(box, config.crop) for box in train.boxes_px]).reshape(-1, 4))
    span = np.ptp(train.points_px, axis=1).max(axis=1) / train.boxes_px[:, 2:].max(axis=1)
    unsuited = (span < USUAL_SPAN[0]) | (span > USUAL_SPAN[1])
    listed = Counter(zip(train.pictures, map(tuple, train.boxes_px.tolist()), strict=True))
    cut_meaning = f"crop.enlargement={config.crop.enlargement:g} leaves a point out; the model learns it without seeing it" + (
        ", and then sees the face cropped again (predict.realign)." if config.predict.realign else "."
    )

    def finding(check: str, level: str, mask: np.ndarray, meaning: str) -> Finding:
        return Finding(check, level, list_pictures(train, mask), len(train), meaning)

    twice = [name for (name, _), count in listed.items() if count > 1]
    return [
        Finding("faces listed twice", WARNING, twice, len(train), "they count double; remove one."),
        finding("boxes that do not suit their points", WARNING, unsuited, "far larger or smaller than the face; check them."),
        finding("boxes that leave the picture", NOTE, off_picture, "the crop is padded."),
        finding("faces with a point outside the picture", NOTE, outside_picture, "the model still learns them."),
        finding("faces with a point outside the box", NOTE, outside_box, "usual: detector boxes cut the chin."),
        finding("faces that the crop would cut", NOTE, cut, cut_meaning),
    ]


def _reach_outside(points_px: np.ndarray, windows_px: np.ndarray) -> np.ndarray:
    """Which faces (n,) have a point outside their window (n, 4) left, top, width, height."""
    low, high = windows_px[:, None, :2] - 0.5, windows_px[:, None, :2] + windows_px[:, None, 2:] - 0.5
    return ((points_px < low) | (points_px > high)).any(axis=(1, 2))


def check_annotations(train: Seen) -> tuple[list[Finding], dict[int, str]]:
    """The findings, and the odd faces: row -> what is odd, the worst first."""
    faces, sights = train.faces, train.sights
    shape, crossed = measure_misfit(faces), find_crossed_lines(faces)
    wrong = np.flatnonzero(shape.wrong)
    limits = f"NME over {shape.limits[0]:.1f} %, a point over {shape.limits[1]:.0f} % of the eye distance off, or upside down"
    no_face = {
        int(row): f"NME {shape.nme[row]:.0f} %, farthest point {shape.farthest[row]:.0f} %, turned {shape.turn[row]:.0f} degrees"
        for row in wrong[np.argsort(-shape.nme[wrong])]
    }
    pairs = find_twin_pairs(faces)
    # The label file's width where it states one: a picture of another size is damage, not a broken twin.
    widths_px = np.where(faces.sizes_px[:, 0] > 0, faces.sizes_px[:, 0], [sight.size[0] for sight in sights])
    broken = find_broken_twins(faces, pairs, widths_px)
    unlike = [int(twin) for row, twin in pairs if _is_another_picture(train, row, twin)]
    broken_names, unlike_names = ([faces.pictures[row] for row in rows] for rows in (broken, unlike))
    findings = [
        Finding(
            "points that form no face",
            UNSAFE,
            list_reasons(faces, no_face),
            len(faces),
            f"far from the best-fitting mean face ({limits}); correct or remove them.",
        ),
        Finding(
            "mirror twins that break the flip rule",
            UNSAFE,
            broken_names,
            len(pairs),
            "x' = width - 1 - x and left and right swapped does not lead to them; correct them or their originals.",
        ),
        Finding(
            "mirror twins with another picture",
            UNSAFE,
            unlike_names,
            len(pairs),
            "the picture is not the mirrored one; restore it.",
        ),
        Finding(
            "lines that cross themselves",
            WARNING,
            list_reasons(faces, crossed),
            len(faces),
            "points were set in the wrong order, or by mistake; look at the sheet.",
        ),
    ]
    odd = {row: f"NME {shape.nme[row]:.0f} %" for row in no_face}
    for more in (dict.fromkeys(broken, "breaks the flip rule"), dict.fromkeys(unlike, "not the mirrored picture"), crossed):
        odd = {**odd, **{int(row): text for row, text in more.items() if row not in odd}}
    return findings, odd


def _is_another_picture(train: Seen, row: int, twin: int) -> bool:
    one, other = train.sights[row], train.sights[twin]
    if one.mirror_bits is None or other.bits is None or one.blank or other.blank:
        return False
    return count_differing_bits(one.mirror_bits, other.bits) > TWIN_BITS


def check_duplicates(train: Seen, test: Seen | None, folds: np.ndarray | None, lookalikes: bool) -> list[Finding]:
    """folds: (n,) of the training faces. lookalikes: photos that look alike are one photo, as `DataSet` says."""
    parts = [train, *([test] if test else [])]
    names = [name for part in parts for name in part.faces.pictures]
    groups = [group for part in parts for group in part.faces.groups]
    sights = [sight for part in parts for sight in part.sights]
    everyone = len(train)

    # Faces of one picture file are no duplicates, nor are faces and twins of one photo in the same list.
    def is_foreign(one: int, other: int) -> bool:
        crosses = one < everyone <= other
        return names[one] != names[other] and (crosses or groups[one] != groups[other])

    def describe(pairs: list[tuple[int, int]]) -> list[str]:
        # Twins repeat what their originals show.
        of_groups: dict[tuple[str, ...], str] = {}
        for one, other in pairs:
            of_groups.setdefault(tuple(sorted((groups[one], groups[other]))), f"{names[one]} = {names[other]}")
        return list(of_groups.values())

    copies = [pair for pair in find_same_bytes(sights) if is_foreign(*pair)]
    found = describe([pair for pair in copies if pair[1] < everyone])
    findings = [Finding("photos in train twice, same bytes", NOTE, found, everyone, "kept in one fold.")]
    if not lookalikes:
        return findings
    alike = [pair for pair in find_alike(sights) if is_foreign(*pair)]
    inside = [pair for pair in alike if pair[1] < everyone]
    meaning = f"at most {ALIKE_BITS} of 256 bits differ; kept in one fold, unless folds.alike=false."
    findings.append(Finding("photos in train twice, alike to the eye", NOTE, describe(inside), everyone, meaning))
    if folds is not None:
        apart = describe([pair for pair in inside if folds[pair[0]] != folds[pair[1]]])
        meaning = "the score flatters a little; set folds.alike=true, or give them one group and fold in folds.file."
        findings.append(Finding("photos alike in different folds", WARNING, apart, everyone, meaning))
    if test:
        leaked = describe([pair for pair in sorted({*copies, *alike}) if pair[0] < everyone <= pair[1]])
        meaning = "leakage that the out-of-fold score cannot see: the leaderboard will look better than the model is."
        findings.append(Finding("photos both in train and test", WARNING, leaked, len(test), meaning))
    return findings


def check_folds(train: Seen, config: Config, lookalikes: bool) -> tuple[list[Finding], np.ndarray | None, np.ndarray]:
    """The findings, the fold (n,) of each face, None where folds cannot be made, and its group (n,)."""
    settings, faces = config.folds, train.faces
    sights = train.sights if settings.alike and lookalikes else None
    groups = group_faces(faces, sights)
    try:
        file = settings.file
        folds = read_split(file, faces, named=True) if file else make_split(faces, settings, groups)
    except UserError as error:
        return [Finding("folds", UNSAFE, [str(error)], 1, "training stops.")], None, groups
    held_out = np.bincount(folds[folds >= 0])
    uneven = [f"fold {fold}: {size} faces" for fold, size in enumerate(held_out) if held_out.max() > UNEVEN * held_out.min()]
    # Photos that merely look alike have a finding of their own.
    photos = groups if sights is None else group_faces(faces)
    split = [f"group {group}" for group in np.unique(photos) if len(np.unique(folds[photos == group])) > 1]
    return (
        [
            Finding("folds of uneven size", WARNING, uneven, len(held_out), "large photo groups; fewer folds even them out."),
            Finding(
                "photos split over folds", UNSAFE, split, len(np.unique(photos)), "the score flatters; correct the split file."
            ),
        ],
        folds,
        groups,
    )
