"""An exported file gives what torch gives, says where it comes from, needs no torch, and appears only where it is right."""

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import foldmark as foldmark_api
from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.markup import IBUG68
from foldmark.core.prediction import Prediction
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, read_ibug
from foldmark.ensemble.calibration import Calibration
from foldmark.ensemble.fit import read_fit
from foldmark.export import convert
from foldmark.export.graph import ExportedNet, smooth_curve
from foldmark.export.predictor import load_onnx
from foldmark.models.inference import prepare_model
from foldmark.models.net import build_model
from foldmark.runs.run_folder import RunFolder
from tests.commandline import environment
from tests.conftest import REPOSITORY, assert_refused
from tests.export.conftest import export, source_of

onnx = pytest.importorskip("onnx", reason="make export installs onnx, onnxscript and onnxruntime")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

FILES = ("exports/a.onnx", "exports/a-int8.onnx")
EACH_FILE = pytest.mark.parametrize("file", FILES)


@pytest.fixture(scope="module")
def test_list(synthetic_root) -> Faces:
    return read_ibug(synthetic_root / IBUG_FOLDER / TEST_XML, with_points=False)


def net_of_run(folder: Path) -> ExportedNet:
    """The exported net in torch."""
    run = RunFolder(folder / "runs/a")
    config = run.read_config()
    model = build_model(config, torch.zeros(68, 2), seed=0)
    model.load_state_dict(torch.load(run.fold(0).checkpoint, weights_only=True)["averaged"])
    return ExportedNet(model.eval(), read_fit(run.ensemble_file).read_calibration(), config, IBUG68).eval()


@pytest.mark.parametrize(("file", "most"), [(FILES[0], 0.01), (FILES[1], 1.0)])
def test_a_file_gives_points_and_deviations_of_torch_for_one_crop_and_for_many(exported, file, most):
    crops = np.random.default_rng(0).integers(0, 256, (7, 1, 32, 32), dtype=np.uint8)
    with torch.inference_mode():
        expected = net_of_run(exported)(torch.from_numpy(crops))
    net = load_onnx(exported / file).nets.net
    for count in (1, 7):
        for given, wanted in zip(net(crops[:count]), expected, strict=True):
            assert np.abs(given - wanted[:count].numpy()).max() <= most


def test_resnet18_with_cells_and_blur_is_exported_as_torch_computes_it():
    rng = np.random.default_rng(0)
    config = Config.model_validate({"crop": {"size": 64}, "model": {"head": "cells", "width": 32, "blur": "early"}})
    model = build_model(config, torch.rand(68, 2) * 64, seed=0)
    curve = np.array([-8.0, -6.0, -3.0]), np.array([1e-5, 1e-4, 1e-3])
    calibration = Calibration(np.array([0.2, 0.4, 0.1, 0.3]), rng.normal(size=68), np.array([-5.0, -3.0]), *curve)
    # Some of what training changes: the batch statistics.
    for _ in range(3):
        model.train()(torch.randint(0, 256, (8, 1, 64, 64)))
    net = ExportedNet(prepare_model(model).to(memory_format=torch.contiguous_format), calibration, config, IBUG68).eval()
    session = onnxruntime.InferenceSession(convert.to_onnx(net, (64, 64)).SerializeToString())
    crops = torch.randint(0, 256, (5, 1, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        expected = net(crops)
    for given, wanted in zip(session.run(None, {"crops": crops.numpy()}), expected, strict=True):
        assert np.abs(given - wanted.numpy()).max() < 0.01


def test_the_deviation_in_the_graph_is_the_calibrations_where_it_is_smooth():
    rng = np.random.default_rng(0)
    score = np.linspace(-9, -2, 15)
    limits = np.log([0.012, 0.02])
    calibration = Calibration(np.array([0.2, 0.4, 0.1, 0.3]), rng.normal(0, 0.3, 68), limits, score, np.exp(2 * score))
    config = Config.model_validate({"crop": {"size": 64, "enlargement": 1.25}})
    net = ExportedNet(build_model(config, torch.zeros(68, 2), seed=0), calibration, config, IBUG68)
    side = 64 / 1.25
    spread, votes = rng.uniform(0, 0.03 * np.linspace(0.2, 1.2, 20)[:, None, None] * side, (20, 2, 68)).transpose(1, 0, 2)
    std, unlike = net.judge(*(torch.from_numpy(cue.astype(np.float32)) for cue in (spread, votes)))
    prediction, sides = Prediction(np.zeros((20, 68, 2)), spread, votes), np.full((20, 1), side)
    assert std.numpy() == pytest.approx(calibration.std_px(prediction, sides), rel=1e-3)
    assert unlike.numpy().astype(bool).tolist() == calibration.find_unlike(prediction, sides).tolist()
    assert 0 < unlike.sum() < 20


def test_a_step_of_the_calibration_becomes_a_slope():
    steps = Calibration(np.zeros(4), np.zeros(1), np.zeros(2), np.array([1, 2, 2, 4.0]), np.array([1e-6, 1e-6, 9e-6, 9e-6]))
    score, variance = smooth_curve(steps)
    assert score.tolist() == [1.5, 3]
    assert variance.tolist() == [1e-6, 9e-6]


@EACH_FILE
def test_a_file_says_what_it_is_and_names_no_path_of_this_machine(exported, file):
    facts = load_onnx(exported / file).facts
    assert (facts.name, facts.synthetic_faces, facts.markup.name) == ("a", True, "ibug68")
    assert facts.crop.size == (32, 32)
    assert facts.markup.markup.mirror.tolist() == IBUG68.mirror.tolist()
    assert "synthetic faces" in facts.terms
    assert {"nme_percent", "nme_percent_in_torch", "error_over_std", "faces"} <= set(facts.figures)
    assert ("largest_difference_px" in facts.figures) == (facts.precision == "fp32")
    assert ("nme_percent_lost" in facts.figures) == (facts.precision == "int8")
    content = (exported / file).read_bytes()
    for path in (REPOSITORY, Path.home(), exported, "site-packages"):
        assert str(path).encode() not in content
    assert not onnx.load(exported / file).graph.node[0].metadata_props


@EACH_FILE
def test_the_api_is_that_of_a_run(exported, test_list, file):
    predictor, run = foldmark_api.load(exported / file), foldmark_api.load(exported / "runs/a", device="cpu")
    assert (predictor.name, predictor.markup.name, predictor.synthetic_faces) == (run.name, run.markup.name, True)
    picture, box = Image.open(test_list.path(0)), test_list.boxes_px[0]
    points, std = predictor.predict(picture, [box, box + [3, 2, 0, 0]])
    expected, _ = run.predict(picture, [box, box + [3, 2, 0, 0]])
    assert (points.shape, std.shape) == ((2, 68, 2), (2, 68))
    # One fold of two, and another flip: near each other, in the right frame.
    assert np.abs(points - expected).max() < 0.15 * box[2:].max()
    assert (std > 0).all()
    both = predictor.predict_all([predictor.cut(picture, [box]), predictor.cut(picture, []), predictor.cut(picture, [box])])
    assert [len(part.points_px) for part in both] == [1, 0, 1]
    assert both[2].points_px == pytest.approx(points[:1])
    assert both[2].unlike.shape == (1,)
    with pytest.raises(ValueError, match="no area"):
        predictor.predict(picture, [(0, 0, 0, 5)])


def test_prediction_with_a_file_needs_no_torch(exported, test_list, tmp_path):
    shutil.copy(test_list.path(0), tmp_path / "face.jpg")
    box = ",".join(f"{edge:g}" for edge in test_list.boxes_px[0])
    code = "import sys; sys.modules['torch'] = None; from foldmark.cli import main; main()"
    command = [sys.executable, "-c", code, "predict", "face.jpg", "--run", exported / FILES[1], "--box", box, "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stdout
    (face,) = json.loads((tmp_path / "out/points.json").read_text())["photos"][0]["faces"]
    expected, _ = load_onnx(exported / FILES[1]).predict(tmp_path / "face.jpg", [test_list.boxes_px[0]])
    assert np.array(face["points"]) == pytest.approx(expected[0], abs=0.001)


def spoil(model):
    """The model with other weights in floats."""
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.ndim > 1:
            weight.CopyFrom(onnx.numpy_helper.from_array(values * 3 + 1, weight.name))
    return model


def test_an_export_that_is_wrong_is_refused_and_changes_no_file(exported, synthetic_root, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(exported, tmp_path / "work", symlinks=True))
    before = (folder / FILES[0]).read_bytes()
    (folder / FILES[1]).unlink()
    right = convert.to_onnx(source_of(folder, synthetic_root).net, (32, 32))
    # Floats that torch does not give; then right ones, and integers that are worse than these.
    for steps, word in (
        ({"to_onnx": spoil(copy.deepcopy(right))}, "crop pixels from torch's"),
        ({"to_onnx": right, "quantise": spoil(copy.deepcopy(right))}, "in int8 its NME is"),
    ):
        for step, model in steps.items():
            monkeypatch.setattr(convert, step, lambda *_, made=model: copy.deepcopy(made))
        assert_refused(export(folder, synthetic_root), word, "nothing was written")
        assert (folder / FILES[0]).read_bytes() == before
        assert [path.name for path in (folder / "exports").iterdir()] == ["a.onnx"]


def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(exported, tmp_path):
    good = (exported / FILES[1]).read_bytes()
    stranger = onnx.load_from_string(good)
    del stranger.metadata_props[:]
    contents = {"empty": b"", "torn": good[: len(good) // 2], "text": b"no net", "stranger": stranger.SerializeToString()}
    for name, content in contents.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.onnx: .*make export"):
            foldmark_api.load(tmp_path / f"{name}.onnx")
    with pytest.raises(UserError, match="no such file"):
        foldmark_api.load(tmp_path / "missing.onnx")
    with pytest.raises(UserError, match="cannot be blended"):
        foldmark_api.load([exported / FILES[0], exported / FILES[1]])
    with pytest.raises(UserError, match="DEVICE=cuda"):
        foldmark_api.load(exported / FILES[0], device="cuda")


def test_what_is_not_installed_is_named(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="onnxruntime, which is not installed; make export installs it"):
        foldmark_api.load(exported / FILES[0])
    with pytest.raises(UserError, match="exporting needs onnxruntime"):
        convert.require_packages()


def test_without_a_trained_fold_there_is_nothing_to_export(foldmark, synthetic_root):
    assert_refused(foldmark("export", "--data-root", synthetic_root, "--name", "a"), "no finished fold", "make train")


def test_the_example_of_the_documentation_gives_the_points_of_the_api(exported, test_list, tmp_path, monkeypatch):
    page = (REPOSITORY / "docs/export.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("exports").mkdir()
    # Weights that a trained net could have: those of the quick run give little else than the mean face.
    net = onnx.load(exported / FILES[0])
    (last,) = (weight for weight in net.graph.initializer if 136 in weight.dims and len(weight.dims) == 2)
    last.CopyFrom(onnx.numpy_helper.from_array(40 * onnx.numpy_helper.to_array(last), last.name))
    onnx.save(net, "exports/resnet18-int8.onnx")
    Image.open(test_list.path(0)).save("friends.png")
    left, top, width, height = test_list.boxes_px[0]
    given = f"({left}, {top}, {width}, {height})"
    example = example.replace("friends.jpg", "friends.png").replace("(412, 230, 180, 180)", given)
    names: dict = {}
    exec(compile(example, "docs/export.md", "exec"), names)
    points, std = load_onnx(Path("exports/resnet18-int8.onnx")).predict("friends.png", [test_list.boxes_px[0]])
    # The example does not round the square about the box to whole pixels.
    assert np.abs(names["points_px"] - points[0]).max() < 0.01 * max(width, height)
    assert np.abs(names["std_px"] / std[0] - 1).max() < 0.25
