"""Which runs an experiment means, and under which names."""

import pytest

from foldmark.data.sets import find_data
from foldmark.runs.experiment import Settings, make_experiment
from foldmark.runs.places import Places

ALIGNED_SOURCES = ["aligner", "resnet18-aligned-64", "resnet18-aligned-128"]


@pytest.mark.parametrize(("name", "start"), [(None, "resnet18-synthetic"), ("mine", "mine-resnet18-synthetic")])
def test_what_goes_on_from_another_of_the_blend_goes_on_from_its_run(synthetic_root, workplace, name, start):
    (workplace / "both.yaml").write_text("blend: [resnet18, resnet18-160]\n")
    data = find_data(synthetic_root, "ibug")
    configs = make_experiment(Places(workplace), Settings(str(workplace / "both.yaml"), name), data).members
    assert list(configs)[0] == start
    assert [config.train.start for config in configs.values()] == [None, start]


@pytest.mark.parametrize(
    ("name", "folds", "prefix"),
    [
        (None, [], ""),
        ("mine", [], ""),
        ("mine", ["folds.seed=1"], "mine-"),
        (None, ["folds.seed=1"], "resnet18-aligned-160-synthetic-"),
    ],
)
def test_models_on_other_folds_than_their_configs_are_runs_of_the_experiment(synthetic_root, workplace, name, folds, prefix):
    data = find_data(synthetic_root, "ibug")
    experiment = make_experiment(Places(workplace), Settings("resnet18-aligned-160", name, folds), data)
    own = [f"{prefix}{source}" if prefix else f"{source}-synthetic" for source in ALIGNED_SOURCES]
    assert list(experiment.sources) == own
    taken = [(config.model.aligner, config.train.start) for config in (*experiment.sources.values(), experiment.config)]
    assert taken == [(None, None), (own[0], None), (own[0], own[1]), (own[0], own[2])]
    assert all(config.folds == experiment.config.folds for config in experiment.sources.values())
