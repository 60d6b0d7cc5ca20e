"""Pictures for people: points drawn into faces, and contact sheets of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from foldmark.core import geometry
from foldmark.core.files import write_bytes
from foldmark.core.markup import IBUG68, Markup

# Blue and orange of the Okabe-Ito palette, lightened: distinguishable with any colour vision and on any skin.
TRUTH_RGB = (86, 180, 233)
PREDICTION_RGB = (255, 159, 28)
OUTLINE_RGB = (20, 20, 20)
PAPER_RGB = (255, 255, 255)

# Drawn at twice the size and shrunk: cv2 fills circles of less than 3 pixels radius as diamonds.
OVERSAMPLING = 2
# cv2 takes sub-pixel positions as integers with this many fractional bits.
FRACTION_BITS = 6
FONT = cv2.FONT_HERSHEY_SIMPLEX
CAPTION_HEIGHT = 26


def draw_points(
    picture: np.ndarray,
    truth: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    *,
    markup: Markup | None = IBUG68,
    width: int = 480,
) -> np.ndarray:
    """The picture, `width` pixels wide, with truth in blue and prediction in orange over it; uint8 (H, W, 3) RGB.

    `picture` is uint8, grey (h, w) or (h, w, 1) or RGB (h, w, 3); `truth` and `prediction` are (k, 2) in its pixels.
    The picture is scaled before the points are drawn, so that they look the same at every resolution. The
    markup's lines join the points; without a markup, or with another number of points, none do. Points that are not finite
    are left out.
    """
    height, width_given = picture.shape[:2]
    size = (width, max(1, round(height * width / width_given)))
    large = (OVERSAMPLING * size[0], OVERSAMPLING * size[1])
    way = cv2.INTER_AREA if large[0] < width_given else cv2.INTER_CUBIC
    canvas = cv2.resize(_rgb(picture), large, interpolation=way)
    to_canvas = geometry.resize(large[0] / width_given, large[1] / height)
    for points, colour in ((truth, TRUTH_RGB), (prediction, PREDICTION_RGB)):
        if points is not None:
            with np.errstate(invalid="ignore"):
                points_canvas = geometry.apply(to_canvas, np.asarray(points, dtype=np.float64))
            if markup and len(points_canvas) == markup.count:
                _draw_lines(canvas, points_canvas, markup, colour, large[0] / 480)
            # A single point, such as a nose tip, would be lost at the size that suits a whole face.
            _draw_dots(canvas, points_canvas, colour, large[0] / (480 if len(points_canvas) > 5 else 240))
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class PredictedFaces:
    """boxes (n, 4), points (n, k, 2) and std (n, k) of n faces in pixels of one picture, and the markup of the points."""

    boxes: np.ndarray
    points: np.ndarray
    std: np.ndarray
    markup: Markup


def draw_faces(picture: np.ndarray, faces: PredictedFaces, longest: int, *, boxed: bool = True) -> np.ndarray:
    """The picture with all its faces drawn in, its longer side between half of `longest` and `longest`; uint8 (H, W, 3) RGB.

    picture: uint8, grey or RGB. A faint disc about each point has a radius of one standard deviation. With `boxed` each face has
    its box and, of several, its number from 1.
    """
    height, width = picture.shape[:2]
    scale = np.clip(longest / max(height, width), None, max(1.0, longest / 2 / max(height, width)))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    large = (OVERSAMPLING * size[0], OVERSAMPLING * size[1])
    canvas = cv2.resize(_rgb(picture), large, interpolation=cv2.INTER_AREA if large[0] < width else cv2.INTER_CUBIC)
    to_canvas = geometry.resize(large[0] / width, large[1] / height)
    scale = large[0] / width
    for number, (box, face, spread) in enumerate(zip(faces.boxes, faces.points, faces.std, strict=True), start=1):
        # As large as draw_points makes them in a crop about the box.
        unit = scale * max(box[2:]) / 340
        face = geometry.apply(to_canvas, face)
        _draw_discs(canvas, face, scale * spread)
        if len(face) == faces.markup.count:
            _draw_lines(canvas, face, faces.markup, PREDICTION_RGB, unit)
        _draw_dots(canvas, face, PREDICTION_RGB, unit, least=1)
        if boxed:
            _draw_box(canvas, scale * np.asarray(box), str(number) if len(faces.boxes) > 1 else "")
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)


def draw_sheet(
    pictures: Sequence[np.ndarray], columns: int, captions: Sequence[str] | None = None, gap: int = 8, legend: bool = False
) -> np.ndarray:
    """A contact sheet, uint8 (H, W, 3) RGB, filled row by row; a caption stands below its picture, cut to fit.

    Pictures are uint8, grey or RGB, of any sizes: each stands in the middle of a tile of the largest. `legend` adds a
    line that says which colour is truth and which prediction.
    """
    if not pictures:
        raise ValueError("a sheet needs at least one picture")
    pictures = [_rgb(picture) for picture in pictures]
    columns = max(1, min(columns, len(pictures)))
    rows = -(-len(pictures) // columns)
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    step_y = height + gap + (CAPTION_HEIGHT if captions else 0)
    top = gap + (CAPTION_HEIGHT if legend else 0)
    canvas = np.full((top + rows * step_y, gap + columns * (width + gap), 3), PAPER_RGB, np.uint8)
    for index, picture in enumerate(pictures):
        y, x = top + index // columns * step_y, gap + index % columns * (width + gap)
        down, right = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
        canvas[y + down : y + down + picture.shape[0], x + right : x + right + picture.shape[1]] = picture
        if captions:
            _write(canvas, captions[index], x, y + height + 18, width)
    if legend:
        _draw_legend(canvas, gap)
    return canvas


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write a uint8 picture, grey (h, w) or RGB (h, w, 3), as PNG; whole or not at all."""
    _, content = cv2.imencode(".png", cv2.cvtColor(_rgb(picture), cv2.COLOR_RGB2BGR))
    write_bytes(path, content.tobytes())


def _rgb(picture: np.ndarray) -> np.ndarray:
    if picture.ndim == 3 and picture.shape[2] == 3:
        return np.ascontiguousarray(picture)
    return cv2.cvtColor(np.ascontiguousarray(picture.reshape(picture.shape[:2])), cv2.COLOR_GRAY2RGB)


def _fixed(points_canvas: np.ndarray) -> np.ndarray:
    # A wild prediction may lie millions of pixels away, more than cv2's integers hold.
    return np.rint(np.clip(points_canvas, -1e5, 1e5) * 2**FRACTION_BITS).astype(np.int32)


def _draw_lines(canvas: np.ndarray, points_canvas: np.ndarray, markup: Markup, colour: tuple, unit: float) -> None:
    runs = [points_canvas[run] for run in markup.lines]
    runs = [_fixed(run)[:, None] for run in runs if np.isfinite(run).all()]
    over = canvas.copy()
    cv2.polylines(over, runs, False, colour, max(1, round(1.5 * unit)), cv2.LINE_AA, FRACTION_BITS)
    # See-through, so that the edge of the face below a line can still be judged.
    cv2.addWeighted(over, 0.8, canvas, 0.2, 0, dst=canvas)


def _draw_discs(canvas: np.ndarray, points_canvas: np.ndarray, radii: np.ndarray) -> None:
    over = canvas.copy()
    for centre, radius in zip(_fixed(points_canvas).tolist(), np.clip(radii, 0, max(canvas.shape)), strict=True):
        cv2.circle(over, centre, round(radius * 2**FRACTION_BITS), PREDICTION_RGB, cv2.FILLED, cv2.LINE_AA, FRACTION_BITS)
    cv2.addWeighted(over, 0.3, canvas, 0.7, 0, dst=canvas)


def _draw_box(canvas: np.ndarray, box_canvas: np.ndarray, label: str) -> None:
    left, top, right, bottom = np.rint([*box_canvas[:2], *(box_canvas[:2] + box_canvas[2:])]).astype(int).tolist()
    thin = OVERSAMPLING
    for thickness, paint in ((3 * thin, OUTLINE_RGB), (thin, PAPER_RGB)):
        cv2.rectangle(canvas, (left, top), (right, bottom), paint, thickness, cv2.LINE_AA)
        if label:
            place = (max(left, 0), max(top - 4 * thin, 12 * thin))
            cv2.putText(canvas, label, place, FONT, 0.5 * thin, paint, thickness, cv2.LINE_AA)


def _draw_dots(canvas: np.ndarray, points_canvas: np.ndarray, colour: tuple, unit: float, least: float = 3) -> None:
    for centre in _fixed(points_canvas[np.isfinite(points_canvas).all(axis=1)]).tolist():
        for radius, paint in ((max(least + 1, 3.6 * unit), OUTLINE_RGB), (max(least, 2.8 * unit), colour)):
            cv2.circle(canvas, centre, round(radius * 2**FRACTION_BITS), paint, cv2.FILLED, cv2.LINE_AA, FRACTION_BITS)


def _draw_legend(canvas: np.ndarray, gap: int) -> None:
    x, y = gap, gap + CAPTION_HEIGHT // 2
    for colour, word in ((TRUTH_RGB, "truth"), (PREDICTION_RGB, "prediction")):
        _draw_dots(canvas, np.array([[x + 8.0, y - 1.0]]), colour, 2)
        x += 22 + _write(canvas, word, x + 20, y + 4, canvas.shape[1]) + 16


def _write(canvas: np.ndarray, text: str, x: int, y: int, width: int) -> int:
    """Write text with its baseline at y, shortened to `width` pixels; returns the width it took."""
    text = text.encode("ascii", "replace").decode()  # cv2's font has no other letters

    def taken(shown: str) -> int:
        return cv2.getTextSize(shown, FONT, 0.45, 1)[0][0]

    if taken(text) > width:
        # A path's end says more than its start.
        while text and taken("..." + text) > width:
            text = text[1:]
        text = "..." + text
    cv2.putText(canvas, text, (x, y), FONT, 0.45, OUTLINE_RGB, 1, cv2.LINE_AA)
    return taken(text)
