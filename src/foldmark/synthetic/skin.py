"""The painted skin of a head: its frontal picture with eyes, brows, mouth and marks."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from foldmark.synthetic.curves import brow_width, brow_xy, jaw_xy, lid_xy, mouth_xy, nose_xy
from foldmark.synthetic.head import LEFT, RIGHT, SIDE_SIGN, Head
from foldmark.synthetic.paint import brush, ellipse, ribbon, soft_polygon

# The painted skin: a frontal picture of the face, its top left corner in mm and its resolution.
SKIN_ORIGIN = np.array([-84.0, -96.0])
SKIN_SIZE_MM = (168.0, 256.0)
SKIN_PX_PER_MM = 1.7


@dataclass(frozen=True)
class Colours:
    """RGB in 0..1 of what is painted on one face."""

    skin: np.ndarray
    lip: np.ndarray
    iris: np.ndarray
    hair: np.ndarray
    brow: np.ndarray


def skin_px(xy: ArrayLike) -> np.ndarray:
    """Frontal positions (n, 2) in mm to pixels of the painted skin."""
    return (np.asarray(xy) - SKIN_ORIGIN) * SKIN_PX_PER_MM


def paint_eye(picture: np.ndarray, head: Head, side: int, colours: Colours, light_x: float, rng: np.random.Generator) -> None:
    """Eyeball, lids and lashes of one eye."""
    t = np.linspace(0, 1, 25)
    upper, lower = lid_xy(head, side, True, t), lid_xy(head, side, False, t)
    opening = skin_px(np.concatenate([upper, lower[::-1]]))
    inside = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.round(opening * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    low, high = np.floor(opening.min(0)).astype(int) - 3, np.ceil(opening.max(0)).astype(int) + 4
    window = np.s_[low[1] : high[1], low[0] : high[0]]

    fold = upper + np.stack([np.zeros(25), -head.lid_fold * np.sin(np.pi * t) ** 0.7 + 0.6], axis=1)
    brush(picture, skin_px(np.concatenate([upper, fold[::-1]])), colours.skin * 0.86, 0.45, 2.0)
    brush(picture, skin_px(ribbon(fold, 1.0 * np.sin(np.pi * t) + 0.2)), colours.skin * 0.5, 0.55, 1.0)
    bag = lower + np.stack([np.zeros(25), 5.5 * np.sin(np.pi * t)], axis=1)
    brush(picture, skin_px(ribbon(bag, 1.6 * np.sin(np.pi * t) + 0.1)), colours.skin * 0.72, 0.4, 2.2)

    ball = np.empty_like(picture[window])
    ball[:] = (0.86, 0.83, 0.81)
    centre = skin_px([SIDE_SIGN[side] * head.eye_x + head.gaze[0], 0.6 + head.gaze[1] - 0.12 * head.eye_open[side]]) - low
    corner = skin_px(upper[[0, 24]]) - low
    for place, colour in zip(corner, ((0.80, 0.48, 0.45), (0.70, 0.55, 0.52)), strict=True):
        brush(ball, ellipse(place, (7, 6)), colour, 0.7, 2.5)
    radius = 5.9 * SKIN_PX_PER_MM
    brush(ball, ellipse(centre, (radius, radius)), colours.iris * 0.45, 1, 0.8)
    brush(ball, ellipse(centre, (radius * 0.82, radius * 0.82)), colours.iris, 1, 1.6)
    brush(
        ball,
        ellipse(centre + [0, radius * 0.35], (radius * 0.55, radius * 0.35)),
        np.minimum(colours.iris * 1.5 + 0.04, 1),
        0.6,
        2,
    )
    pupil = radius * rng.uniform(0.36, 0.5)
    brush(ball, ellipse(centre, (pupil, pupil)), (0.02, 0.02, 0.02), 1, 0.8)
    brush(ball, skin_px(ribbon(upper + [0, 0.8], 3.2)) - low, (0.12, 0.09, 0.08), 0.55, 1.8)
    brush(ball, ellipse(centre + [4.5 * light_x, -0.36 * radius], (2.6, 2.4)), (1.25, 1.25, 1.25), 1, 0.7)
    mask = cv2.GaussianBlur(inside[window], (0, 0), 0.6)[..., None] / np.float32(255)
    picture[window] += mask * (ball - picture[window])

    lash = colours.brow * 0.45
    thick = rng.uniform(0.9, 2.2)
    brush(picture, skin_px(ribbon(upper - [0, 0.35], thick * (0.35 + 0.65 * np.sin(np.pi * t**1.3)))), lash, 0.92, 0.7)
    brush(picture, skin_px(ribbon(lower, 0.7)), colours.skin * [0.62, 0.45, 0.42], 0.7, 0.7)


def paint_brow(picture: np.ndarray, head: Head, side: int, colours: Colours, rng: np.random.Generator) -> None:
    t = np.linspace(-0.02, 1.02, 21)
    line = brow_xy(head, side, np.clip(t, 0, 1))
    line[[0, -1], 0] += np.array([-1, 1]) * SIDE_SIGN[side]
    brush(picture, skin_px(ribbon(line, brow_width(head, t))), colours.brow, 0.42, 2.4)
    count = 130
    along, across = rng.random(count), rng.uniform(-0.5, 0.5, count) * 0.93
    root = brow_xy(head, side, along, across)
    lean = np.stack([SIDE_SIGN[side] * (0.35 + 0.8 * along), -0.9 + 1.1 * along + 0.5 * across], axis=1) * rng.uniform(
        1.6, 3.2, (count, 1)
    )
    strokes = np.round(skin_px(np.stack([root - 0.4 * lean, root + 0.6 * lean], axis=1)) * 16).astype(np.int32)
    low, high = strokes.min((0, 1)) // 16 - 4, strokes.max((0, 1)) // 16 + 5
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    cv2.polylines(mask, list(strokes - low * 16), False, 255, 1, cv2.LINE_AA, 4)
    part = picture[low[1] : high[1], low[0] : high[0]]
    part += mask[: len(part), : part.shape[1], None] / np.float32(255) * 0.75 * (colours.brow.astype(np.float32) * 0.8 - part)


def paint_mouth(picture: np.ndarray, head: Head, colours: Colours) -> None:
    across = np.linspace(-1, 1, 41)
    edge = {name: mouth_xy(head, name, across) for name in ("outer_upper", "inner_upper", "inner_lower", "outer_lower")}
    bow = 1 - across**2
    brush(picture, skin_px(np.concatenate([edge["outer_upper"], edge["inner_upper"][::-1]])), colours.lip * 0.88, 0.85, 1.3)
    brush(picture, skin_px(np.concatenate([edge["inner_lower"], edge["outer_lower"][::-1]])), colours.lip, 0.85, 1.5)
    shine = 0.55 * edge["inner_lower"] + 0.45 * edge["outer_lower"]
    brush(picture, skin_px(ribbon(shine[9:32], 2.2 * bow[9:32])), np.minimum(colours.lip * 1.25 + 0.08, 1), 0.5, 2.5)
    under = edge["outer_lower"] + [0, 2.5]
    brush(picture, skin_px(ribbon(under[8:33], 3.5 * bow[8:33])), colours.skin * 0.68, 0.45, 3)
    if head.mouth_open > 1.0:
        gap = np.concatenate([edge["inner_upper"], edge["inner_lower"][::-1]])
        brush(picture, skin_px(gap), (0.16, 0.05, 0.05), 1, 0.8)
        teeth = np.minimum(edge["inner_upper"][:, 1] + 7.5 * bow**0.6, edge["inner_lower"][:, 1] - 0.3)
        upper_teeth = np.concatenate(
            [edge["inner_upper"] + [0, 0.5], np.stack([across * head.mouth_half_width, teeth], axis=1)[::-1]]
        )
        brush(picture, skin_px(upper_teeth * [0.86, 1]), (0.84, 0.80, 0.74), 0.95, 1.1)
        brush(picture, skin_px(ribbon(edge["inner_upper"][4:37] + [0, 0.4], 2.0)), (0.2, 0.08, 0.08), 0.55, 1.6)
        if head.mouth_open > 12:
            tongue = ellipse([0, edge["inner_lower"][20, 1] - 1.5], (0.6 * head.mouth_half_width, 0.24 * head.mouth_open))
            tongue[:, 1] = np.minimum(tongue[:, 1], edge["inner_lower"][20, 1] - 0.4)
            brush(picture, skin_px(tongue), (0.62, 0.28, 0.28), 0.85, 2.5)
    else:
        brush(
            picture,
            skin_px(ribbon(0.5 * (edge["inner_upper"] + edge["inner_lower"]), 0.5 + 0.7 * bow)),
            colours.lip * 0.28,
            0.9,
            0.8,
        )
    for corner in (edge["inner_upper"][0], edge["inner_upper"][-1]):
        brush(picture, skin_px(ellipse(corner, (1.6, 1.3))), colours.skin * 0.4, 0.6, 1.6)


def paint_skin(head: Head, colours: Colours, light_x: float, beard_odds: float, rng: np.random.Generator) -> np.ndarray:
    """The frontal picture of the face's own colours, float32 (H, W, 3), roughly 0..1; light_x in -1..1 is where
    the eyes catch the light. Half of the beards are stubble.
    """
    width, height = (int(size * SKIN_PX_PER_MM) for size in SKIN_SIZE_MM)
    mottle = cv2.resize(rng.normal(0, 1, (26, 17)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    grain = cv2.resize(
        rng.normal(0, 1, (height // 3, width // 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
    )
    tone = np.float32(0.022) * mottle + np.float32(rng.uniform(0.005, 0.03)) * grain
    # Unevenness shows less in red than in green and blue.
    bases = zip(colours.skin, (0.8, 1, 1), strict=True)
    picture = cv2.merge([np.float32(base) + np.float32(base * share) * tone for base, share in bases])
    ruddy = colours.skin * [1.03, 0.80, 0.80]
    flush = rng.uniform(0.1, 0.55)
    tip, wing = head.nose_tip_y, head.nose_half_width
    for sign in SIDE_SIGN:
        brush(picture, skin_px(ellipse((sign * 40, 36), (15, 12))), ruddy, flush, 16)
        brush(picture, skin_px(ellipse((sign * (head.eye_x - 4), 11), (10, 4))), colours.skin * [0.78, 0.70, 0.74], 0.4, 7)
        brush(picture, skin_px(ellipse((sign * (head.eye_x - 3), -8), (12, 4))), colours.skin * [0.80, 0.72, 0.70], 0.45, 7)
    brush(picture, skin_px(ellipse((0, tip), (9, 7))), ruddy, flush, 9)

    bearded = rng.random()
    if bearded < beard_odds:
        strength = rng.uniform(0.2, 0.5) if bearded < 0.5 * beard_odds else rng.uniform(0.6, 0.92)
        beard = np.zeros(picture.shape[:2], np.float32)
        outline = jaw_xy(head, np.linspace(0.10, 0.90, 33))
        full = rng.random() < 0.7
        cheek = np.stack([np.linspace(1, -1, 21) * 56, head.mouth_y - 2 - 34 * np.abs(np.linspace(1, -1, 21)) ** 2.2], axis=1)
        region = np.concatenate([outline * 1.1, cheek]) if full else ellipse((0, head.chin_y - 12), (20, 24))
        lip_top = mouth_xy(head, "outer_upper", np.linspace(-1.15, 1.15, 21))
        for part, soft in ((region, 8 if full else 5), (ribbon(lip_top - [0, 4.0], 7.5), 3)):
            window, mask = soft_polygon((width, height), skin_px(part), soft)
            beard[window] += mask * (1 - beard[window])
        hairs = 0.78 + 0.35 * cv2.resize(rng.normal(0, 1, (height // 2, width)).astype(np.float32), (width, height))
        share = np.clip(beard * hairs * np.float32(strength), 0, 1)[..., None]
        picture += share * (colours.brow.astype(np.float32) - picture)

    for sign in SIDE_SIGN:
        fold = np.stack([np.linspace(wing * 0.95, head.mouth_half_width + 6, 12), np.linspace(tip + 2, head.mouth_y, 12)], axis=1)
        fold[:, 0] += 3 * np.sin(np.linspace(0, np.pi, 12))
        raised = max(head.smile[sign > 0], 0) + 0.25
        brush(picture, skin_px(ribbon(fold * [sign, 1], 2.2)), colours.skin * 0.62, 0.45 * min(raised, 1), 3.0)
        crease = nose_xy(head, "wing", np.linspace(0, 1, 14))
        brush(picture, skin_px(ribbon(crease * [sign, 1], 1.3)), colours.skin * 0.52, 0.5, 1.6)
        brush(
            picture,
            skin_px(ellipse((sign * 0.45 * wing, tip + 8.6), (0.22 * wing, 1.7), sign * -0.25)),
            colours.skin * 0.13,
            0.9,
            1.2,
        )
    brush(picture, skin_px(ellipse((0, tip + 11.5), (0.8 * wing, 1.6))), colours.skin * 0.55, 0.5, 2.6)
    if head.brow_frown > 0.3:
        for x in (-4.5, 4.5):
            brush(picture, skin_px(ribbon([[x, -30], [x * 0.9, -22], [x * 1.1, -15]], 1.2)), colours.skin * 0.55, 0.5, 1.6)
    for _ in range(int(rng.integers(0, 40)) if rng.random() < 0.25 else int(rng.integers(0, 3))):
        spot = rng.uniform([-55, -60], [55, 95])
        brush(picture, skin_px(ellipse(spot, (rng.uniform(0.4, 1.1),) * 2)), colours.skin * 0.55, 0.5, 0.9)
    for side in (LEFT, RIGHT):
        paint_eye(picture, head, side, colours, light_x, rng)
        paint_brow(picture, head, side, colours, rng)
    paint_mouth(picture, head, colours)
    return picture
