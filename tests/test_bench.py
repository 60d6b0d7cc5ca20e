"""`make bench` at toy size: it runs to its end and writes every figure."""

import importlib.util
from datetime import date

import pandas
import pytest
import torch

from tests.conftest import REPOSITORY


@pytest.fixture
def bench(monkeypatch, workplace):
    spec = importlib.util.spec_from_file_location("bench", REPOSITORY / "benchmarks/bench.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROUNDS", 1)
    monkeypatch.setattr(module, "STEPS", 2)
    monkeypatch.chdir(workplace)
    return module


def test_the_benchmark_takes_its_options_from_the_environment_and_writes_its_figures(
    bench, monkeypatch, synthetic_root, workplace, capsys
):
    monkeypatch.setenv("FOLDMARK_DATA_ROOT", str(synthetic_root))
    monkeypatch.setenv("FOLDMARK_SET", "model.name=cnn model.head=flat model.channels=[8,16] crop.size=32 train.batch=4")
    monkeypatch.setenv("FOLDMARK_CONFIG", "")
    bench.main(["--device", "cpu"], standalone_mode=False)
    (path,) = (workplace / "benchmarks/results").iterdir()
    assert path.name.startswith("cpu-")
    assert path.name.endswith(f"_32x32px-batch4-synthetic_torch-{torch.__version__.partition('+')[0]}_{date.today()}.csv")
    figures = pandas.read_csv(path).iloc[0]
    assert (figures["crop"], figures["batch"], figures["faces"], figures["synthetic faces"]) == ("32x32", 4, 48, True)
    for key in (
        "end to end, pictures/s",
        "step alone, pictures/s",
        "step without augmentation, pictures/s",
        "tutorial-style loader, pictures/s",
        "end to end over step alone",
        "loading alone on one core, pictures/s",
        "tutorial-style loading alone on one core, pictures/s",
        "crop store, building, pictures/s",
        "crop store, reading, pictures/s",
        "prediction as configured, faces/s",
        "peak memory, MB",
    ):
        assert figures[key] > 0, key
    assert figures["memory that loading adds to the model's own, MB"] >= 0
    assert str(path.relative_to(workplace)) in capsys.readouterr().out


def test_the_benchmark_refuses_bad_settings_in_a_sentence(bench, synthetic_root, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main(["--data-root", str(synthetic_root), "--set", "model.head=cell"], standalone_mode=False)
    assert "did you mean cells?" in capsys.readouterr().err
