"""The export of a run whose aligner finds where its crops lie: one file, the same points everywhere."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foldmark as foldmark_api
from foldmark.core.errors import UserError
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, read_ibug
from foldmark.export.predictor import load_onnx
from foldmark.export.write import compare_floats
from tests.conftest import REPOSITORY
from tests.export.conftest import source_of

onnx = pytest.importorskip("onnx", reason="make export installs onnx, onnxscript and onnxruntime")


@pytest.fixture(scope="module")
def face(synthetic_root):
    """A picture of a face, and a box that its face does not fill."""
    faces = read_ibug(synthetic_root / IBUG_FOLDER / TEST_XML, with_points=False)
    return faces.path(0), faces.boxes_px[0] + [6, -5, 9, 9]


def test_a_file_gives_the_points_of_its_run(aligned, face):
    path, box = face
    run, file = foldmark_api.load(aligned / "runs/second", device="cpu"), load_onnx(aligned / "exports/second.onnx")
    assert file.facts.aligner.size == (64, 64)  # those of 32 pixels, cut twice as large
    expected, found = run.predict(path, [box])[0], file.predict(path, [box])[0]
    assert np.abs(found - expected).max() < 0.02 * box[2] / 64
    # The aligner is asked: about the box alone the points are others.
    about_box = load_onnx(aligned / "exports/second.onnx")
    alone = type(about_box)(about_box.facts, about_box.nets._replace(aligner=None)).predict(path, [box])[0]
    assert np.abs(alone - expected).max() > 0.5
    whole = load_onnx(aligned / "exports/second-int8.onnx").predict(path, [box])[0]
    assert np.abs(whole - expected).max() < 0.1 * box[2]


def test_the_example_of_the_documentation_asks_the_aligner_too(aligned, face, tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/export.md").read_text(), re.DOTALL)
    path, box = face
    monkeypatch.chdir(tmp_path)
    Path("exports").mkdir()
    shutil.copy(aligned / "exports/second.onnx", "exports/resnet18-int8.onnx")
    Image.open(path).save("friends.png")
    given = f"({', '.join(map(str, box))})"
    names: dict = {}
    exec(example.replace("friends.jpg", "friends.png").replace("(412, 230, 180, 180)", given), names)
    points, _ = load_onnx(aligned / "exports/second.onnx").predict(path, [box])
    # The example does not round the square about the box to whole pixels.
    assert np.abs(names["points_px"] - points[0]).max() < 0.02 * box[2]


def test_an_aligner_that_gives_other_points_than_torchs_is_refused(aligned, synthetic_root):
    source = source_of(aligned, synthetic_root, "second")
    nets, figures = load_onnx(aligned / "exports/second.onnx").nets, {"nme_percent": 0.0}
    assert compare_floats(source, nets, figures)["largest_difference_px"] < 0.01
    with pytest.raises(UserError, match="crop pixels from torch's"):
        compare_floats(source, nets._replace(aligner=lambda crops: nets.aligner(crops) + 0.1), figures)


def test_a_damaged_aligner_is_refused(aligned, tmp_path):
    model = onnx.load(aligned / "exports/second.onnx")
    for entry in model.metadata_props:
        if entry.key == "aligner":
            entry.value = entry.value[: len(entry.value) // 8 * 4]
    onnx.save(model, tmp_path / "torn.onnx")
    with pytest.raises(UserError, match=r"torn.onnx: cannot be loaded .*make export"):
        foldmark_api.load(tmp_path / "torn.onnx")
