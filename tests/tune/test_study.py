"""The study alone, with a function in place of training: what it samples, whom it gives up, and that a kill changes nothing."""

import math

import pytest

from foldmark.core.config import Config
from foldmark.tune.search_file import SearchFile
from foldmark.tune.space import make_space
from foldmark.tune.study import BASE, Study

pytest.importorskip("optuna", reason="Optuna is not installed: make .venv/tune-installed does that")

SEARCH = {
    "base": "any",
    "folds": [0],
    "final_folds": [1],
    "trials": 30,
    "keys": {
        "train.lr": {"low": 1e-5, "high": 1e-1, "log": True},
        "train.batch": {"low": 4, "high": 64},
        "augment.rotate": {"low": 0, "high": 90},
        "model.channels": [[16, 32, 32, 32], [8, 8]],
        "train.start": [None, "other"],
    },
}
EPOCHS = 9


@pytest.fixture
def space():
    return make_space(Config(), SearchFile.model_validate(SEARCH), "search.yaml")


def planted(values: dict) -> float:
    """An NME that is lowest at a rate of 1e-2, 20 degrees and the small net."""
    rate = (math.log10(values["train.lr"]) + 2) ** 2
    return 5 + rate + (values["augment.rotate"] / 20 - 1) ** 2 + len(values["model.channels"]) / 4


def search(study: Study, trials: int) -> None:
    """The base, then others, each with a curve that falls to its planted NME."""
    for trial in study.resume():
        train(study, trial)
    while len(study.trials) < trials:
        train(study, study.ask())


def train(study: Study, trial) -> None:
    for step in (1, 3, EPOCHS):
        if study.report(trial.number, step, planted(trial.values) * (2 - step / EPOCHS)):
            study.tell(trial.number, "pruned")
            return
    study.tell(trial.number, "finished", nme=planted(trial.values), seconds=1.0)


def what(study: Study) -> list[tuple]:
    return [(trial.number, trial.values, trial.outcome, trial.nme, trial.curve) for trial in study.trials]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """A search that nobody disturbed."""
    space = make_space(Config(), SearchFile.model_validate(SEARCH), "search.yaml")
    study = Study(tmp_path_factory.mktemp("whole") / "study.db", space, 0, EPOCHS)
    search(study, 26)
    return study


def test_the_base_comes_first_and_the_planted_optimum_is_approached(study):
    base, best = study.trials[BASE], study.best
    assert base.values == study.space.base_values
    assert base.outcome == "finished"
    assert best.nme - 5.5 < 0.3 * (base.nme - 5.5)
    assert best.values["model.channels"] == [8, 8]
    # What depends on nothing explains little.
    shares = study.compute_importances()
    assert set(shares) == set(SEARCH["keys"])
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["train.start"] < shares["train.lr"]


def test_poor_trials_are_given_up_early_and_the_base_never(study):
    epochs = [max(trial.curve) for trial in study.trials if trial.outcome == "pruned"]
    assert len(epochs) > 13
    assert set(epochs) <= {1, 3, 9}  # a ninth, a third, all
    assert epochs.count(1) > len(epochs) / 2
    assert study.trials[BASE].outcome == "finished"
    assert study.best.nme < min(planted(trial.values) for trial in study.trials if trial.outcome == "pruned")


def test_every_value_fits_the_config_and_is_short(study):
    for trial in study.trials:
        config = study.space.make_config(trial.values)
        assert config.train.lr == trial.values["train.lr"]
        assert float(f"{config.train.lr:.4g}") == config.train.lr
        assert isinstance(trial.values["train.batch"], int)
    assert {trial.values["train.start"] for trial in study.trials} == {None, "other"}


def test_the_same_seed_gives_the_same_trials_and_another_one_others(tmp_path, space, study):
    same, other = (Study(tmp_path / f"{seed}.db", space, seed, EPOCHS) for seed in (0, 1))
    search(same, 9)
    search(other, 3)
    assert what(same) == what(study)[:9]
    assert what(other)[1:] != what(study)[1:3]


@pytest.mark.parametrize(("number", "key"), [(0, 2), (8, 2)])
def test_killed_while_it_samples_it_goes_on_to_the_same_trials(tmp_path, space, monkeypatch, study, number, key):
    """A kill leaves a trial with some of its values. Number 8 is sampled from what was learned."""
    killed = Study(tmp_path / "killed.db", space, 0, EPOCHS)
    search(killed, number)
    make = killed._make_sampler

    def die(seed):
        if seed[2] == key:
            raise KeyboardInterrupt
        return make(seed)

    monkeypatch.setattr(killed, "_make_sampler", die)
    with pytest.raises(KeyboardInterrupt):
        killed.ask()
    again = Study(tmp_path / "killed.db", space, 0, EPOCHS)
    search(again, 10)
    assert what(again) == what(study)[:10]


def test_killed_in_an_epoch_the_trial_is_the_same_and_counted_once(tmp_path, space, study):
    """Also where it was to be given up after that epoch."""
    killed = Study(tmp_path / "killed.db", space, 0, EPOCHS)
    search(killed, 5)
    trial = killed.ask()
    killed.report(trial.number, 1, planted(trial.values) * (2 - 1 / EPOCHS))
    again = Study(tmp_path / "killed.db", space, 0, EPOCHS)
    assert again.resume() == [trial]
    search(again, 10)
    assert what(again) == what(study)[:10]


def test_a_failed_trial_is_no_best(tmp_path, space):
    study = Study(tmp_path / "study.db", space, 0, EPOCHS)
    search(study, 1)
    study.tell(study.ask().number, "failed", reason="the loss is nan", seconds=2.5)
    assert study.best.number == BASE
    assert (study.trials[1].outcome, study.trials[1].reason, study.trials[1].seconds) == ("failed", "the loss is nan", 2.5)


def test_the_time_of_all_processes_is_counted(tmp_path, space):
    Study(tmp_path / "study.db", space, 0, EPOCHS).add_seconds(2)
    study = Study(tmp_path / "study.db", space, 0, EPOCHS)
    study.add_seconds(3)
    assert study.seconds == 5
