"""How boxes sit on faces is measured as it is."""

from pathlib import Path

import numpy as np
import pytest

from foldmark.core import geometry
from foldmark.core.faces import Faces
from foldmark.doctor.scatter import measure_box_scatter


def scattered_faces(degrees: float, size: float, place: float, count: int = 2000) -> Faces:
    """One face, turned, scaled and moved with these standard deviations in boxes of many sizes."""
    rng = np.random.default_rng(0)
    face = rng.uniform(-0.4, 0.4, (68, 2))
    face -= face.mean(axis=0)
    points_px, boxes_px = [], []
    for _ in range(count):
        side, corner = rng.uniform(50, 500), rng.uniform(-20, 300, 2)
        moved = geometry.similarity(
            (1, 1),
            (1, 1),
            degrees=rng.normal(0, degrees),
            scale=np.exp(rng.normal(0, size)),
            shift=tuple(rng.normal(0, place, 2)),
        )
        points_px.append(corner + side * (0.5 + geometry.apply(moved, face)))
        boxes_px.append([*corner, side, side])
    names = [f"{number}.png" for number in range(count)]
    return Faces(Path(), names, np.array(boxes_px), np.array(points_px), np.zeros((count, 2)), names)


@pytest.mark.parametrize(("degrees", "size", "place"), [(8, 0.1, 0.05), (0, 0.03, 0.1), (20, 0, 0)])
def test_tilt_size_and_place_are_measured_apart(degrees, size, place):
    scatter = measure_box_scatter(scattered_faces(degrees, size, place))
    assert scatter.tilt_degrees == pytest.approx(degrees, rel=0.06, abs=0.01)
    assert scatter.size == pytest.approx(size, rel=0.06, abs=1e-3)
    assert scatter.place == pytest.approx(place, rel=0.06, abs=1e-3)


def test_an_augmentation_as_wide_scatters_as_much():
    scatter = measure_box_scatter(scattered_faces(8, 0.1, 0.05))
    settings = scatter.augmentation(enlargement=1.25)
    drawn = np.random.default_rng(0).uniform(-1, 1, 100_000)
    assert (drawn * settings["rotate"]).std() == pytest.approx(scatter.tilt_degrees, rel=0.05)
    assert (drawn * np.log1p(settings["scale"])).std() == pytest.approx(scatter.size, rel=0.05)
    assert (drawn * settings["shift"] * 1.25).std() == pytest.approx(scatter.place, rel=0.05)
