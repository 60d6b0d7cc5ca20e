"""The parts of the picture: head, ears, body, hair, glasses, hands, background; and the photograph taken of it."""

import cv2
import numpy as np

from foldmark.synthetic import head as head_model
from foldmark.synthetic.canvas import Canvas, shade, smooth_noise, to_bytes
from foldmark.synthetic.head import Head
from foldmark.synthetic.paint import SKIN_TONES, brush, ellipse, ribbon
from foldmark.synthetic.skin import SKIN_ORIGIN, SKIN_PX_PER_MM
from foldmark.synthetic.view import Light, View

SKIN_BLEED = (0.35, 0.22, 0.18)


def grid(start: float, stop: float, count: int) -> np.ndarray:
    # Surfaces are float32: half the memory to pass over, and finer than any pixel.
    return np.linspace(start, stop, count, dtype=np.float32)


def add_head(canvas: Canvas, view: View, light: Light, head: Head, skin: np.ndarray, shine: float) -> None:
    around = grid(-1, 1, 150)
    angle = np.float32(np.radians(135)) * (0.7 * around + 0.3 * around**3)
    down = grid(0, 1, 136)
    y = head_model.CROWN_Y + (head.chin_y - head_model.CROWN_Y) * (
        0.6 * down + 0.4 * (0.5 - 0.5 * np.cos(np.float32(np.pi) * down))
    )
    points, front = head_model.surface(head, angle, y)
    lift = head_model.relief(head, points[..., 0], y[:, None]) * front
    points[..., 2] += lift
    turned = view.turned(points)
    # Light reaches hollows less than bumps.
    open_sky = np.clip(1 + 0.05 * (lift - cv2.GaussianBlur(lift, (0, 0), 4.8)), 0.62, 1.12)
    light_map = shade(turned, light, soft=SKIN_BLEED, shine=shine, shadow=open_sky)

    def texture(xy: np.ndarray) -> np.ndarray:
        at = (xy - SKIN_ORIGIN.astype(np.float32)) * np.float32(SKIN_PX_PER_MM)
        # The second map is for coordinates in two pieces, and its types leave out that there may be none.
        return cv2.remap(skin, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]

    canvas.add(view, turned, light_map, xy=points[..., :2], texture=texture, solid=True)
    for sign in head_model.SIDE_SIGN:
        add_ear(canvas, view, light, head, skin[5, 5], sign)


def add_ear(canvas: Canvas, view: View, light: Light, head: Head, tone: np.ndarray, sign: float) -> None:
    r, t = np.meshgrid(grid(0, 1, 24), grid(0, 2 * np.pi, 40), indexing="ij")
    back, down, out = np.array([sign * 0.50, -0.05, -0.86]), np.array([-sign * 0.12, 1, 0.12]), np.array([sign * 0.86, 0, 0.5])
    width, height = 15 + 2 * np.sin(-t), 30 - 3 * np.cos(t)
    rim = 3.5 * np.exp(-0.5 * ((r - 0.86) / 0.09) ** 2) - 5 * np.exp(-0.5 * (r / 0.42) ** 2) - 4 * r**6
    flat = np.stack([r * np.cos(t) * width, r * np.sin(t) * height, rim], axis=-1)
    points = flat @ np.array([back, down, out], np.float32) + np.array(
        [sign * (0.985 * head.half_width + 2), 15, -24], np.float32
    )
    turned = view.turned(points)
    hollow = 1 - 0.5 * np.exp(-0.5 * (r / 0.4) ** 2) - 0.18 * np.exp(-0.5 * ((r - 0.68) / 0.09) ** 2)
    tone = tone * [1.0, 0.9, 0.9]
    canvas.add(view, turned, shade(turned, light, soft=[0.4, 0.25, 0.2], shine=0.05, tone=tone, shadow=hollow, two_sided=True))


def add_body(canvas: Canvas, view: View, light: Light, head: Head, tone: np.ndarray, rng: np.random.Generator) -> None:
    """Neck, shoulders and a garment."""
    angle = grid(-1.75, 1.75, 50)[None]
    along = grid(0, 1, 80)[:, None]
    slope = np.clip((along - 0.35) / 0.65, 0, 1)
    neck = head.half_width * rng.uniform(0.62, 0.76)
    y = 40 + (head.chin_y - 14) * np.minimum(along / 0.35, 1) + 58 * slope + 180 * slope**2
    x = (neck + 10 * (along / 0.35).clip(0, 1) ** 4 + 145 * np.sin(np.float32(0.5 * np.pi) * slope) ** 1.1) * np.sin(angle)
    z = -34 + (neck - 3 + 30 * slope) * np.cos(angle)
    points = np.stack([x, np.broadcast_to(y, x.shape), z], axis=-1)
    turned = view.turned(points, body=True)
    # The chin keeps light off the neck.
    shadow = 0.42 + 0.58 / (1 + np.exp(-(points[..., 1] - head.chin_y - 22) / 9))
    light_map = shade(turned, light, soft=SKIN_BLEED, shine=0.03, power=12, shadow=shadow)
    garment, second = rng.uniform(0.03, 0.9, (2, 1)) * 0.6 + rng.uniform(0, 0.95, (2, 3)) * 0.4
    palette = np.array([tone * 0.97, garment, second], np.float32)
    collar, depth, kind = head.chin_y + rng.uniform(14, 50), rng.uniform(0, 60), rng.integers(4)
    wave = 2 * np.pi / rng.uniform(14, 40)

    def texture(xy: np.ndarray) -> np.ndarray:
        x, y = cv2.split(xy)
        dressed = y > collar + depth * np.exp(-0.5 * (x / 38) ** 2)
        pattern = (np.sin(y * wave) > 0.3, np.sin(x * wave) > 0.5, np.abs(x) < 9, False)[kind]
        return palette.take(dressed * (1 + pattern), axis=0)

    canvas.add(view, turned, light_map, xy=points[..., :2], texture=texture, solid=True)


# Height above which hair grows, in mm, at these angles from the nose, by style; thickness at the top; waviness; curtain.
HAIR_ANGLES = [0, 30, 50, 66, 80, 100, 150]
HAIR_STYLES: dict[str, tuple[list[int], float, float]] = {
    "cropped": ([-70, -67, -52, -20, 8, 60, 85], 4, 0.5),
    "receding": ([-88, -84, -54, -18, 15, 65, 85], 5, 0.6),
    "short": ([-66, -60, -46, -16, 14, 62, 90], 15, 1.0),
    "fringe": ([-36, -34, -30, -10, 25, 75, 100], 14, 1.0),
    "tied": ([-72, -66, -50, -26, -8, 30, 80], 8, 0.4),
    "curly": ([-62, -58, -46, -12, 20, 70, 100], 34, 4.0),
    "long": ([-70, -62, -46, -20, 30, 90, 110], 15, 1.0),
    "long fringe": ([-38, -37, -34, -12, 35, 90, 110], 14, 1.0),
    "cap": ([-48, -47, -44, -38, -30, -20, 10], 9, 0.0),
    "scarf": ([-58, -56, -44, -10, 90, 120, 120], 9, 0.0),
}
HAIR_ODDS = dict(zip([*HAIR_STYLES, "bald"], [0.10, 0.09, 0.2, 0.09, 0.11, 0.08, 0.13, 0.07, 0.05, 0.03, 0.05], strict=True))


def add_hair(
    canvas: Canvas,
    view: View,
    light: Light,
    head: Head,
    colour: np.ndarray,
    odds: dict[str, float],
    rng: np.random.Generator,
) -> None:
    style = rng.choice(list(odds), p=list(odds.values()))
    if style == "bald":
        return
    knots, thickness, wave = HAIR_STYLES[style]
    cloth = style in ("cap", "scarf")
    if cloth:
        colour = rng.uniform(0.05, 0.9, 3)
    line_shift, thickness = rng.normal(0, 3), thickness * rng.uniform(0.75, 1.3)
    parting = rng.uniform(-25, 25)

    def add(points: np.ndarray, streak: np.ndarray, soft: float, exists: np.ndarray) -> None:
        turned = view.turned(points)
        strand = np.clip((1 + 0.05 * streak if cloth else 0.75 + 0.28 * streak), 0.3, 1.4)
        shine = (0.02 if cloth else 0.16) * soft
        light_map = shade(turned, light, soft=[0.3] * 3, shine=shine, power=22, tone=colour, shadow=strand, two_sided=True)
        canvas.add(view, turned, light_map, exists=exists)

    angle = np.float32(np.radians(150)) * grid(-1, 1, 180)
    y = grid(head_model.CROWN_Y + 0.01, 98, 100)
    degrees = np.degrees(angle)
    streak = smooth_noise(rng, (100, 180), (4, 150)) * 0.7 + smooth_noise(rng, (100, 180), (9, 60)) * 0.6
    line = np.interp(np.abs(degrees), HAIR_ANGLES, knots) + line_shift
    if not cloth:
        line += 3.5 * smooth_noise(rng, (1, 180), (2, 12))[0]
    above = line.astype(np.float32) - y[:, None]
    base, _ = head_model.surface(head, angle, np.minimum(y, head.chin_y - 12))
    out = base - np.array([0, -10, -12], np.float32)
    rise = thickness * np.clip(above / 42, 0, 1) ** 0.55 + 1.2
    rise = rise * (1 + 0.10 * smooth_noise(rng, (100, 180), (6, 8))) + wave * 0.5 * smooth_noise(rng, (100, 180), (34, 50)) * (
        above > 0
    )
    if not cloth:
        rise = rise * (1 - 0.22 * np.exp(-0.5 * ((degrees - parting) / 7) ** 2))
    out *= (rise / np.linalg.norm(out, axis=-1))[..., None]
    add(base + out, streak, 1.0, exists=above + (0 if cloth else 2.6) * streak)

    if style.startswith("long") or style == "scarf":
        open_angle = np.radians(rng.uniform(66, 92) if not cloth else 68)
        angle = grid(open_angle, 2 * np.pi - open_angle, 180)[None]
        length = rng.uniform(70, 230) if not cloth else 150
        down = grid(0, 1, 80)[:, None]
        y = -60 + (length + 60) * down
        streak = smooth_noise(rng, (80, 180), (4, 150)) * 0.7 + smooth_noise(rng, (80, 180), (8, 50)) * 0.6
        swell = rng.uniform(3, 16) * np.sin(np.float32(np.pi) * np.clip(down, 0, 0.8))
        swell = swell + wave * 0.8 * smooth_noise(rng, (80, 180), (24, 24))
        width = head_model.half_width(head, np.minimum(y, 0)) + 7 + swell
        points = np.stack([width * np.sin(angle), np.broadcast_to(y, width.shape), -14 + (width + 20) * np.cos(angle)], axis=-1)
        add(points, streak, 0.7, exists=(1 - down) * length + 14 * streak - 8)


def add_glasses(picture: np.ndarray, head: Head, view: View, rng: np.random.Generator) -> None:
    """Frames, and lenses that are clear, tinted or dark, drawn over the picture (H, W, 3) in place."""
    radii = np.array([rng.uniform(20, 25), rng.uniform(14, 21)])
    square, thick = rng.uniform(2, 4.5), rng.uniform(1.0, 3.6)
    frame = rng.uniform(0.02, 0.35) * np.ones(3) if rng.random() < 0.7 else rng.uniform(0.1, 0.8, 3)
    dark = rng.random() < 0.22
    front = float(head_model.front_z(head, np.array(0.0), np.array(-2.0))) + 5

    def place(xy: np.ndarray) -> np.ndarray:
        return view.project(np.column_stack([xy, front - 0.0065 * xy[:, 0] ** 2]))

    t = np.linspace(0, 2 * np.pi, 40)
    ring = np.stack(
        [np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / square), np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / square)], axis=1
    )
    width = max(thick * view.px_per_mm, 0.9)
    for sign in head_model.SIDE_SIGN:
        rim = place(ring * radii + [sign * 34, 4])
        brush(picture, rim, [0.03, 0.03, 0.05] if dark else [0.85, 0.9, 0.95], 0.88 if dark else rng.uniform(0, 0.14), 0.7)
        glare = place(np.array([[-0.5, -0.7], [-0.1, -0.8], [-0.5, 0.6], [-0.8, 0.4]]) * radii + [sign * 34, 4])
        brush(picture, glare, [1, 1, 1], rng.uniform(0, 0.3), 2)
        brush(picture, ribbon(np.concatenate([rim, rim[1:2]]), width), frame, 0.95, 0.6)
        hinge = np.array([sign * (34 + radii[0]), -3, front - 0.0065 * (34 + radii[0]) ** 2])
        over_ear = np.array([sign * (head.half_width + 3), 0, -12])
        if sign * view.rotation[0, 2] < 0.12:
            arm = view.project(np.linspace(hinge, over_ear, 6))
            brush(picture, ribbon(arm, width), frame, 0.95, 0.6)
    bridge = place(np.stack([np.linspace(radii[0] - 34, 34 - radii[0], 9), 1 - 3 * np.sin(np.linspace(0, np.pi, 9))], axis=1))
    brush(picture, ribbon(bridge, width), frame, 0.95, 0.6)


def add_occluder(picture: np.ndarray, points_px: np.ndarray, view: View, tone: np.ndarray, rng: np.random.Generator) -> None:
    """A hand, or a thing, in front of a part of the face, in place."""
    mm = view.px_per_mm
    target = points_px[rng.choice([3, 8, 13, 48, 54, 57, 33, 19, 24])] + rng.normal(0, 8, 2) * mm
    away = target - points_px[30] + [0, 25 * mm]
    away /= np.linalg.norm(away) + 1e-6
    side = np.array([-away[1], away[0]])
    if rng.random() < 0.6:
        palm = target + away * 62 * mm
        brush(picture, ellipse(palm, (46 * mm, 40 * mm), np.arctan2(away[1], away[0])), tone * 0.72, 1, 1.2)
        brush(picture, ellipse(palm - away * 4 * mm, (36 * mm, 30 * mm)), tone * 0.9, 0.8, 9 * mm)
        brush(picture, ribbon([palm, palm + away * 90 * mm, palm + away * 260 * mm], 52 * mm), tone * 0.74, 1, 1.2)
        bend = rng.normal(0, 9) * mm
        for k in range(4):
            root = palm - away * 28 * mm + side * (k - 1.5) * 17 * mm
            tip = target - away * (20 - 7 * abs(k - 1.3) + rng.normal(0, 3)) * mm + side * ((k - 1.5) * 16 * mm + bend)
            t = np.linspace(0, 1, 14)[:, None]
            line = root + (tip - root) * t + side * np.sin(np.pi * t) * bend * 0.5
            round_end = np.sqrt(np.clip(1 - np.linspace(0, 1, 14) ** 8, 0.06, 1))
            for width, brightness, soft in ((16, 0.55, 1.0), (14.2, 0.84, 1.0), (8, 1.02, 2.6 * mm)):
                brush(picture, ribbon(line, width * mm * round_end), tone * brightness, 0.95 if soft == 1 else 0.7, soft)
            nail = line[-2]
            brush(picture, ellipse(nail, (3.6 * mm, 4.4 * mm)), np.minimum(tone * 1.12 + 0.05, 1), 0.7, 0.8)
    else:
        size = rng.uniform(18, 48, 2) * mm
        turn = rng.uniform(0, np.pi)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size
        shape = ellipse((0, 0), size) if rng.random() < 0.5 else corners
        shape = shape @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + target + away * 22 * mm
        colour = rng.uniform(0.02, 0.9, 3)
        brush(picture, shape, colour, 1, 0.8)
        brush(
            picture,
            0.6 * shape + 0.4 * (shape.mean(0) - size.min() * 0.4),
            np.minimum(colour * 1.3 + 0.05, 1),
            0.6,
            0.2 * size.min(),
        )


def draw_background(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Gradients, blurred shapes and texture, float32 (H, W, 3) in 0..1."""
    # Drawn at half size: backgrounds are out of focus.
    width, height = (side // 2 for side in size)
    vivid = rng.uniform(0.1, 0.8)

    def colour() -> np.ndarray:
        return rng.uniform(0.05, 0.95) * (1 - vivid) + rng.uniform(0, 1, 3) * vivid

    first, second = colour().astype(np.float32), colour().astype(np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(turn) * np.linspace(-0.5, 0.5, width)[None] + np.sin(turn) * np.linspace(-0.5, 0.5, height)[:, None] + 0.5
    picture = first + (second - first) * ramp[..., None].astype(np.float32)
    for _ in range(int(rng.integers(0, 22))):
        centre, reach = rng.uniform(0, 1, 2) * (width, height), rng.uniform(3, 55, 2)
        paint = colour() if rng.random() < 0.75 else SKIN_TONES[rng.integers(len(SKIN_TONES))]
        turn = rng.uniform(0, np.pi) if rng.random() < 0.5 else 0.0
        polygon = ellipse(centre, reach, turn, count=int(rng.choice([3, 4, 4, 24])))
        brush(picture, polygon, paint, rng.uniform(0.4, 1), rng.choice([0.5, 1.0, 3.0]))
    if rng.random() < 0.5:
        cells = int(rng.integers(6, 90))
        texture = smooth_noise(rng, (height, width), (cells, int(cells * rng.uniform(0.3, 2))))
        picture += np.float32(rng.uniform(0.02, 0.13)) * texture[..., None]
    if rng.random() < 0.6:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 3.5))
    return cv2.resize(picture, size)


def photograph(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a camera's effects to a scene (H, W, 3) in 0..1: exposure, tint, blur, grain. Returns uint8."""
    height, width = picture.shape[:2]
    level = np.linspace(0, 1, 256) * rng.uniform(0.85, 1.3)
    level = 0.5 + (np.clip(level, 0, 1) ** rng.uniform(0.75, 1.25) - 0.5) * rng.uniform(0.8, 1.12)
    curve = (level[:, None] + rng.normal(0, 0.015, 3)).astype(np.float32)[None]
    picture = cv2.LUT((np.clip(picture, 0, 1) * 255).astype(np.uint8), curve)
    if rng.random() < 0.08:
        picture = np.repeat(picture.mean(axis=-1, keepdims=True), 3, axis=-1)
    softness = rng.random()
    if softness < 0.12:
        share = rng.uniform(0.35, 0.7)
        small = cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    elif softness < 0.75:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.35, 1.1))
    return develop(picture, rng.gamma(1.2, 0.009), rng)


def develop(picture: np.ndarray, grain: float, rng: np.random.Generator) -> np.ndarray:
    """A picture (H, W, 3) in 0..1 with film grain, as uint8."""
    height, width = picture.shape[:2]
    luma = cv2.cvtColor(rng.standard_normal((height, width), np.float32), cv2.COLOR_GRAY2RGB)
    chroma = cv2.resize(rng.standard_normal((height // 2, width // 2, 3), np.float32), (width, height))
    return to_bytes(picture + cv2.addWeighted(luma, grain, chroma, 0.5 * grain, 0))
