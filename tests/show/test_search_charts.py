"""Charts of a search: drawn for every kind of trial, and for names that matplotlib would read as formulas."""

import cv2

from foldmark.show.search_charts import Axis, Line, draw_importances, draw_parallel_coordinates


def test_every_kind_of_trial_is_drawn(tmp_path):
    axes = [
        Axis("train.lr", [(0, "1e-4"), (1, "1e-2")]),
        Axis("train.loss", [(0, "$l1$"), (1, "mse")]),
        Axis("OOF NME %", [(0, "3")]),
    ]
    plain, drawn = tmp_path / "plain.png", tmp_path / "drawn.png"
    draw_parallel_coordinates(plain, axes, [])
    lines = [Line([0.1, 0, 0], "best"), Line([0.5, 0, 0.7], "base"), Line([0.9, 1, 1], "finished")]
    draw_parallel_coordinates(drawn, axes, [*lines, Line([0.2, 1], "pruned"), Line([0.3, 1], "failed")])
    colours = {tuple(pixel) for pixel in cv2.imread(str(drawn)).reshape(-1, 3)}
    assert (0, 0x5E, 0xD5) in colours  # the best's, blue first
    assert (0, 0x5E, 0xD5) not in {tuple(pixel) for pixel in cv2.imread(str(plain)).reshape(-1, 3)}


def test_the_most_important_key_has_the_longest_bar(tmp_path):
    draw_importances(tmp_path / "shares.png", {"train.lr": 0.7, "augment.rotate": 0.3})
    bars = (cv2.imread(str(tmp_path / "shares.png")) == (0xB2, 0x72, 0)).all(axis=2).sum(axis=1)
    lengths = [int(length) for length in dict.fromkeys(bars.tolist()) if length > 50]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 1.5 * lengths[-1]
