"""Points drawn into pictures."""

import cv2
import numpy as np
import pytest

from foldmark.core.markup import IBUG68, IMM58
from foldmark.show.overlay import PREDICTION_RGB, TRUTH_RGB, draw_points, draw_sheet, save_png


def middle_of(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """The mean x, y of the pixels of about that colour."""
    near = np.abs(picture.astype(int) - colour).max(axis=2) < 60
    assert near.any()
    return np.argwhere(near).mean(axis=0)[::-1]


def test_a_point_is_drawn_where_it_is_at_any_scale():
    picture = np.zeros((60, 80), np.uint8)
    for width in (40, 80, 333, 480):
        drawn = draw_points(picture, np.array([[20.25, 40.5]]), np.array([[60.0, 10.0]]), width=width)
        scale = width / 80
        assert drawn.shape == (round(60 * scale), width, 3)
        assert drawn.dtype == np.uint8
        # Pixel centres are integers, so the first pixel's left edge is at -0.5 at every scale.
        assert np.abs(middle_of(drawn, TRUTH_RGB) - ((20.75, 41.0) * np.array(scale) - 0.5)).max() < 0.35
        assert np.abs(middle_of(drawn, PREDICTION_RGB) - ((60.5, 10.5) * np.array(scale) - 0.5)).max() < 0.35


def test_the_picture_given_stays_as_it_was_and_grey_equals_rgb():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (50, 50), dtype=np.uint8)
    before = grey.copy()
    points = rng.uniform(0, 50, (68, 2))
    drawn = draw_points(grey, points, points + 3, width=50)
    assert (grey == before).all()
    assert (drawn == draw_points(np.dstack([grey] * 3), points, points + 3, width=50)).all()
    assert (drawn == draw_points(grey[..., None], points, points + 3, width=50)).all()


@pytest.mark.parametrize("markup", [IBUG68, IMM58])
def test_lines_follow_the_markup(markup):
    picture = np.zeros((100, 100), np.uint8)
    points = np.full((markup.count, 2), np.nan)
    first, second = markup.lines[1][:2]
    points[markup.lines[1]] = [50.0, 90.0]
    points[first], points[second] = (10.0, 50.0), (90.0, 50.0)
    with_lines = draw_points(picture, points, markup=markup, width=100)
    without = draw_points(picture, points, markup=None, width=100)
    assert with_lines[50, 50].max() > 80
    assert without[50, 50].max() == 0


def test_wild_points_do_not_stop_the_drawing():
    points = np.zeros((68, 2))
    points[0], points[1], points[2] = (np.nan, 1.0), (np.inf, 1.0), (1e16, -1e16)
    assert draw_points(np.zeros((20, 20), np.uint8), points, width=40).shape == (40, 40, 3)


def test_a_sheet_holds_every_picture_in_reading_order():
    greys = [np.full((20 + i, 30 - i), 40 * i, np.uint8) for i in range(5)]
    page = draw_sheet(greys, columns=2, gap=4)
    assert page.shape == (4 + 3 * (24 + 4), 4 + 2 * (30 + 4), 3)
    for index in range(5):
        y, x = 4 + index // 2 * 28 + 12, 4 + index % 2 * 34 + 15
        assert (page[y, x] == 40 * index).all()
    assert (page[4 + 2 * 28 + 12, 4 + 34 + 15] == 255).all()


def test_captions_are_cut_to_their_picture():
    black = [np.zeros((40, 60), np.uint8)] * 2
    page = draw_sheet(black, columns=2, captions=["a/very/long/path/that/does/not/fit.jpg", ""], gap=8, legend=True)
    below_first, gap_after_it = page[-26:, 8:68], page[-26:, 69:76]
    assert below_first.min() < 100
    assert gap_after_it.min() == 255


def test_a_png_reads_back_as_it_was(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    path = tmp_path / "new folder" / "face.png"
    save_png(path, picture)
    assert (cv2.imread(str(path))[..., ::-1] == picture).all()
    assert list(path.parent.iterdir()) == [path]
