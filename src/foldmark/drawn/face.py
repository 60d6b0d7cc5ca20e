"""One drawn face: sample a head, a pose, paint and light, then draw it."""

import numpy as np

from foldmark.drawn.canvas import Canvas
from foldmark.drawn.head import Head, sample_head
from foldmark.drawn.paint import HAIR_TONES, IRIS_TONES, SKIN_TONES
from foldmark.drawn.scene import add_body, add_glasses, add_hair, add_head, add_occluder, draw_background, photograph
from foldmark.drawn.skin import Colours, paint_skin
from foldmark.drawn.view import Light, View, landmarks_px, sample_view


def sample_geometry(rng: np.random.Generator) -> tuple[tuple[int, int], Head, View, np.ndarray]:
    """Picture size (width, height), head, view and the landmarks (68, 2) in pixels: all of a face but its paint."""
    size = tuple(int(side) for side in rng.integers(280, 381, 2))
    head = sample_head(rng)
    view = sample_view(rng, head, size)
    return size, head, view, landmarks_px(head, view)


def draw_face(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one face: picture uint8 (H, W, 3) RGB and its landmarks (68, 2) in pixels, pixel centres at integers."""
    size, head, view, points_px = sample_geometry(rng)
    tone_at = rng.uniform(0, len(SKIN_TONES) - 1)
    skin_tone = np.array([np.interp(tone_at, range(len(SKIN_TONES)), SKIN_TONES[:, c]) for c in range(3)]) * rng.normal(
        1, 0.025, 3
    )
    grey_ok = rng.random() < 0.25
    hair_tone = HAIR_TONES[rng.integers(9 if grey_ok else 7) if tone_at < 3.2 else rng.integers(9 if grey_ok else 3) % 9]
    hair_tone = np.clip(hair_tone * rng.uniform(0.8, 1.2), 0.02, 0.95)
    iris = IRIS_TONES[rng.integers(5) if tone_at < 2.8 else rng.integers(2)] * rng.uniform(0.8, 1.3)
    lip = skin_tone * [0.95, 0.66, 0.66] * rng.uniform(0.85, 1.05)
    if rng.random() < 0.22:
        lip = 0.35 * lip + 0.65 * np.array([rng.uniform(0.5, 0.8), rng.uniform(0.08, 0.3), rng.uniform(0.12, 0.35)])
    brow = np.minimum(hair_tone * 0.75, 0.45) if skin_tone[0] > 0.5 else np.minimum(hair_tone, skin_tone * 0.4)
    colours = Colours(skin_tone, lip, iris, hair_tone, brow)

    azimuth, height_angle = np.radians(rng.normal(0, 38)), np.radians(rng.uniform(-5, 60))
    direction = np.array([np.sin(azimuth) * np.cos(height_angle), -np.sin(height_angle), np.cos(azimuth) * np.cos(height_angle)])
    contrast = rng.uniform(0.35, 0.8)
    light = Light(
        direction, contrast * rng.normal([1.06, 1.0, 0.94], 0.03), (1.02 - contrast) * rng.normal([0.97, 1.0, 1.04], 0.03)
    )

    canvas = Canvas(size)
    skin = paint_skin(head, colours, float(np.sin(azimuth)), rng)
    add_body(canvas, view, light, head, skin_tone.astype(np.float32), rng)
    add_head(canvas, view, light, head, skin, rng.uniform(0.02, 0.2))
    add_hair(canvas, view, light, head, hair_tone, rng)
    colour, cover = canvas.picture(size)
    picture = colour + (1 - cover) * draw_background(size, rng)
    if rng.random() < 0.17:
        add_glasses(picture, head, view, rng)
    if rng.random() < 0.13:
        add_occluder(picture, points_px, view, skin_tone * rng.uniform(0.8, 1), rng)
    return photograph(picture, rng), points_px
