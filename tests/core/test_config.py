"""Configs: what ships is valid, what is wrong is named."""

import errno
import os
from pathlib import Path

import pytest

from foldmark.core.config import Config, list_differences, split_overrides
from foldmark.core.config_file import config_path, load_config, load_variants
from foldmark.core.errors import UserError
from tests.conftest import REPOSITORY, assert_refused

CONFIGS = REPOSITORY / "configs"


# `make tune` reads search.yaml, which is no variant; its tests do, too.
VARIANTS = sorted(set((REPOSITORY / "configs").glob("*.yaml")) - {REPOSITORY / "configs/search.yaml"})


@pytest.mark.parametrize("error", [errno.EACCES, errno.ENAMETOOLONG])
def test_a_config_that_the_system_does_not_show_is_a_sentence(foldmark, monkeypatch, error):
    name = "resnet18" if error == errno.EACCES else "x" * 300

    def refuse(path: Path) -> bool:
        raise OSError(error, os.strerror(error), str(path))

    monkeypatch.setattr(Path, "is_file", refuse)  # as for a folder without permission, whoever runs the tests
    assert_refused(foldmark("train", "--config", name), f"{name}.yaml: cannot be read", os.strerror(error), "name another file")


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path):
    assert all(isinstance(config, Config) for config in load_variants(str(path), path.parent).values())


def test_the_seed_config_is_the_reports_recipe():
    config = load_config("seed", REPOSITORY / "configs")
    assert (config.crop.size, config.crop.enlargement, config.crop.square) == ((224, 224), 1.0, False)
    assert (config.train.batch, config.train.lr, config.train.loss, config.train.epochs) == (6, 1e-4, "mse", 9)


@pytest.fixture
def yaml_file(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_overrides_win_over_the_file(yaml_file):
    config = load_config(yaml_file("train: {epochs: 3}"), CONFIGS, ["train.epochs=5", "train.lr=5e-4", "crop.square=false"])
    assert (config.train.epochs, config.train.lr, config.crop.square) == (5, 5e-4, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {epoch: 3}", "did you mean train.epochs"),
        ("trian: {epochs: 3}", "did you mean train"),
        ("train: {epochs: many}", "train.epochs"),
        ("train: {epochs: 0}", "train.epochs"),
        ("train: {lr: .nan}", "train.lr"),
        ("model: {blur: some}", "model.blur"),
        ("crop: {square: false, down: 0.1}", "crop.down moves square crops only"),
        ("train: 3", "train"),
        ("[1, 2]", "sections"),
        ("train: {epochs: 3", "not valid YAML"),
        ("!!python/object/apply:os.system ['false']", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named(yaml_file, text, words):
    with pytest.raises(UserError, match=words):
        load_config(yaml_file(text), CONFIGS)


@pytest.mark.parametrize("override", ["epochs=3", "train.epochs", "train.=3", "=", "train.epochs=[1"])
def test_a_malformed_override_is_refused(yaml_file, override):
    with pytest.raises(UserError, match="SET="):
        load_config(yaml_file("{}"), CONFIGS, [override])


def test_an_unknown_config_names_the_nearest():
    with pytest.raises(UserError, match="did you mean resnet18"):
        config_path("resnet81", CONFIGS)


@pytest.mark.parametrize("value", ["010", "1:30", "1_0", "0x10", "yes", "true", "on"])
def test_a_number_that_yaml_would_read_otherwise_is_refused(yaml_file, value):
    for settings, overrides in ((f"train: {{epochs: {value}}}", []), ("{}", [f"train.epochs={value}"])):
        with pytest.raises(UserError, match="two readings|takes no true or false"):
            load_config(yaml_file(settings), CONFIGS, overrides)


def test_a_set_holds_values_with_spaces():
    assert split_overrides(" crop.size=[128, 128]  folds.file=my files/split 1.csv train.epochs=3 ") == [
        "crop.size=[128, 128]",
        "folds.file=my files/split 1.csv",
        "train.epochs=3",
    ]


def test_only_what_changes_a_result_counts_as_a_difference():
    one = Config()
    other = Config.model_validate({"train": {"epochs": 3, "workers": 2}, "predict": {"batch": 3}})
    assert len(list_differences(one, other)) == 1
    assert "train.epochs (6 there, 3 asked)" in list_differences(one, other)
