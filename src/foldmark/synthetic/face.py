"""One synthetic face: sample a head, a pose, paint and light, then draw it."""

import numpy as np

from foldmark.synthetic.canvas import Canvas
from foldmark.synthetic.head import Head, sample_expression, sample_head
from foldmark.synthetic.paint import HAIR_TONES, IRIS_TONES, SKIN_TONES
from foldmark.synthetic.scene import (
    HAIR_ODDS,
    add_body,
    add_glasses,
    add_hair,
    add_head,
    add_occluder,
    draw_background,
    photograph,
)
from foldmark.synthetic.skin import Colours, paint_skin
from foldmark.synthetic.view import Light, View, landmarks_px, sample_light, sample_view


def sample_geometry(rng: np.random.Generator) -> tuple[tuple[int, int], Head, View, np.ndarray]:
    """Picture size (width, height), head, view and the landmarks (68, 2) in pixels: all of a face but its paint."""
    width, height = rng.integers(280, 381, 2).tolist()
    head = sample_head(rng, sample_expression(rng))
    view = sample_view(rng, head, (width, height))
    return (width, height), head, view, landmarks_px(head, view)


def sample_colours(rng: np.random.Generator) -> Colours:
    tone_at = rng.uniform(0, len(SKIN_TONES) - 1)
    skin = np.array([np.interp(tone_at, range(len(SKIN_TONES)), tones) for tones in SKIN_TONES.T]) * rng.normal(1, 0.025, 3)
    grey_ok = rng.random() < 0.25
    hair = HAIR_TONES[rng.integers(9 if grey_ok else 7) if tone_at < 3.2 else rng.integers(9 if grey_ok else 3)]
    hair = np.clip(hair * rng.uniform(0.8, 1.2), 0.02, 0.95)
    iris = IRIS_TONES[rng.integers(5) if tone_at < 2.8 else rng.integers(2)] * rng.uniform(0.8, 1.3)
    lip = skin * [0.95, 0.66, 0.66] * rng.uniform(0.85, 1.05)
    if rng.random() < 0.22:
        lip = 0.35 * lip + 0.65 * np.array([rng.uniform(0.5, 0.8), rng.uniform(0.08, 0.3), rng.uniform(0.12, 0.35)])
    brow = np.minimum(hair * 0.75, 0.45) if skin[0] > 0.5 else np.minimum(hair, skin * 0.4)
    return Colours(skin, lip, iris, hair, brow)


def draw_person(
    head: Head,
    view: View,
    light: Light,
    colours: Colours,
    background: np.ndarray,
    rng: np.random.Generator,
    *,
    hair_odds: dict[str, float] = HAIR_ODDS,
    beard_odds: float = 0.3,
) -> np.ndarray:
    """A person before a background, float32 (H, W, 3) in 0..1. The same state of `rng` gives the same marks, beard,
    hair and clothes whatever the expression, the view and the light.
    """
    canvas = Canvas(background.shape[1::-1])
    skin = paint_skin(head, colours, light.direction[0], beard_odds, rng)
    add_body(canvas, view, light, head, colours.skin, rng)
    add_head(canvas, view, light, head, skin, rng.uniform(0.02, 0.2))
    add_hair(canvas, view, light, head, colours.hair, hair_odds, rng)
    return canvas.picture(background)


def draw_face(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one face: picture uint8 (H, W, 3) RGB and its landmarks (68, 2) in pixels, pixel centres at integers."""
    size, head, view, points_px = sample_geometry(rng)
    colours, light = sample_colours(rng), sample_light(rng)
    picture = draw_person(head, view, light, colours, draw_background(size, rng), rng)
    if rng.random() < 0.17:
        add_glasses(picture, head, view, rng)
    if rng.random() < 0.13:
        add_occluder(picture, points_px, view, colours.skin * rng.uniform(0.8, 1), rng)
    return photograph(picture, rng), points_px
