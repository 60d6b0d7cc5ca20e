"""A search as its users type it: it finds what was planted, goes on after a kill with the same trials, and says how far its best
is to be believed."""

import csv
import json
import re
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from foldmark.core.config_file import load_config
from foldmark.train import loop
from foldmark.train.loop import training_step
from tests.commandline import fork_process
from tests.conftest import assert_refused
from tests.tune.conftest import PLANTED, TINY


def read_trials(folder: Path) -> list[dict]:
    """The table, by number, without what depends on the clock."""
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    rows.sort(key=lambda row: int(row["trial"].split()[0]))
    return [{key: value for key, value in row.items() if key != "minutes"} for row in rows]


def find_best(folder: Path) -> int:
    """The number of the trial that stands first in the table."""
    return int(next(csv.DictReader((folder / "trials.csv").open()))["trial"].split()[0])


def test_the_planted_optimum_is_found_and_judged_on_a_fold_that_chose_nothing(undisturbed):
    folder, said = undisturbed
    rows = read_trials(folder / "runs/s")
    assert len(rows) == 6
    assert rows[0]["trial"] == "0 (base)"
    assert rows[0]["train.mean_face"] == "False"
    finished = {row["trial"]: float(row["OOF NME %"]) for row in rows if row["outcome"] == "finished"}
    best = find_best(folder / "runs/s")
    assert rows[best]["train.mean_face"] == "True"
    assert finished[str(best)] == min(finished.values()) < 0.5 * finished["0 (base)"]
    # The figures of the folds that chose and of the fold that did not, side by side, are those of the runs.
    summaries = {
        (trial, fold): json.loads((folder / f"runs/s/trial{trial}/fold{fold}/summary.json").read_text())["nme"]
        for trial in (0, best)
        for fold in (0, 1)
    }
    for trial, label in ((0, "base (trial 0)"), (best, f"best (trial {best})")):
        line = next(line for line in said.splitlines() if label in line and "(" in line.split(label)[1])
        means = [float(mean) for mean in re.findall(r"([\d.]+) \([\d.]+ to [\d.]+\)", line)]
        assert means == pytest.approx([summaries[trial, fold] for fold in (0, 1)], abs=0.006)
    assert "On fold 1, which judged no trial, it is" in said
    assert "the search itself explains" in said


def test_the_page_has_the_table_and_both_figures(undisturbed):
    folder, said = undisturbed
    page = (folder / "runs/s/report.html").read_text()
    assert "runs/s/report.html" in said
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    for words in ("judged no trial", "which judged no trial, it is", "train.mean_face", "0 (base)", "synthetic faces"):
        assert words in page
    assert {path.name for path in (folder / "runs/s/figures").iterdir()} >= {"parallel-coordinates.svg"}
    assert page.count("<img") == len(list((folder / "runs/s/figures").iterdir()))


def test_checkpoints_are_kept_of_base_and_best_alone(undisturbed):
    folder, _ = undisturbed
    holders = {path.relative_to(folder / "runs/s").parts[0] for path in (folder / "runs/s").rglob("*.pt")}
    assert holders == {"trial0", f"trial{find_best(folder / 'runs/s')}"}


def test_the_best_is_a_config_that_trains(foldmark, searched, options, workplace):
    best = load_config(str(searched / "s-best.yaml"), workplace / "configs")
    assert best.train.mean_face
    assert best.train.epochs == 3
    assert (best.train.validate_every, best.folds.file) == (5, None)  # as in the base
    data = options[:4]
    done = foldmark("train", "--config", searched / "s-best.yaml", "--folds", "2", *data)
    assert done.returncode == 0, done.stderr
    assert (workplace / "runs/s-best-synthetic/fold2/summary.json").is_file()


def test_what_is_done_is_not_done_again_and_a_larger_budget_goes_on(foldmark, write_search, searched, options, undisturbed):
    before = read_trials(searched)
    again = foldmark("tune", *options, *write_search())
    assert again.returncode == 0, again.stderr
    assert "epoch 1/3" not in again.stdout
    assert read_trials(searched) == before
    more = foldmark("tune", *options, *write_search(PLANTED.replace("trials: 6", "trials: 7")))
    assert more.returncode == 0, more.stderr
    assert read_trials(searched)[:6] == before
    assert len(read_trials(searched)) == 7


def test_killed_in_a_trial_it_goes_on_to_the_trials_of_an_undisturbed_search(
    foldmark, write_search, options, undisturbed, workplace
):
    arguments = ["tune", *options, *write_search()]
    process = fork_process(workplace, workplace / "said.txt", *arguments)
    until = time.monotonic() + 120
    while not (workplace / "runs/s/trial2/fold0/last.pt").exists():
        assert process.is_alive(), (workplace / "said.txt").read_text()
        assert time.monotonic() < until
        time.sleep(0.002)
    process.kill()
    process.join()
    with sqlite3.connect(workplace / "runs/s/study.db") as study:
        states = [state for (state,) in study.execute("select state from trials order by number")]
    study.close()
    assert states[2] == "RUNNING"
    done = foldmark(*arguments)
    assert done.returncode == 0, done.stderr
    assert "2 done before" in done.stdout
    assert read_trials(workplace / "runs/s") == read_trials(undisturbed[0] / "runs/s")
    assert not list((workplace / "runs").rglob("*.partial"))


def test_the_trials_of_a_search_are_no_experiments_to_compare(foldmark, searched, options):
    done = foldmark("compare", *options[:4])
    assert_refused(done, "no experiment with a finished fold")


def test_a_trial_that_diverges_has_failed_and_the_search_goes_on(foldmark, write_search, options, optuna, workplace, monkeypatch):
    """Rates over 1 are made to diverge here; that real divergence is found is a test of tests/train/test_loop.py."""

    def diverge(state, config, *batch):
        loss, points_crop = training_step(state, config, *batch)
        return loss * (float("nan") if config.train.lr > 1 else 1), points_crop

    monkeypatch.setattr(loop, "training_step", diverge)
    search = "base: synthetic\nfolds: [0]\nfinal_folds: [1]\ntrials: 3\nkeys:\n  train.lr: [1.0e-4, 10, 9, 8]\n"
    done = foldmark("tune", *options, *write_search(search))
    assert done.returncode == 0, done.stderr
    rows = read_trials(workplace / "runs/s")
    assert len(rows) == 3
    assert rows[0]["outcome"] == "finished"
    failed = [row for row in rows if row["outcome"] == "failed"]
    assert failed == [row for row in rows if row["train.lr"] != "0.0001"] != []
    assert all("the loss is nan in epoch 1" in row["reason"] for row in failed)
    assert "failed" in done.stdout
    # A base that cannot be trained leaves nothing to compare with.
    bad = [option.replace("train.lr=1e-4", "train.lr=10") if option == TINY else option for option in options]
    bad[-1] = "bad"
    assert_refused(
        foldmark("tune", *bad, *write_search(search)), "runs/bad", "the base config cannot be trained", "the loss is nan"
    )


WRONG = {
    "an unknown key": ("train.batch", "train.batches", ("unknown key train.batches", "train.batch?")),
    "a range that the config refuses": ("high: 12", "high: 9999", ("train.batch", "4096")),
    "a value that the config refuses": ("[true, false]", "[true, 7]", ("train.mean_face",)),
    "a range upside down": ("low: 4,", "low: 40,", ("train.batch", "low must be lower")),
    "a logarithm of zero": ("low: 1.0e-5", "low: 0", ("train.lr", "above 0")),
    "a range without the base": ("low: 1.0e-5", "low: 5.0e-4", ("train.lr is 0.0001", "not among the values")),
    "a single value": ("[true, false]", "[false]", ("train.mean_face", "two")),
    "a range of what is no number": ("[true, false]", "{low: 0, high: 1}", ("train.mean_face", "takes no range")),
    "the split": ("train.mean_face: [true, false]", "folds.count: [3, 4]", ("folds.count", "same in all trials")),
    "what changes nothing": ("train.mean_face: [true, false]", "train.workers: [0, 1]", ("train.workers", "nothing to search")),
    "a judging fold at the end": ("final_folds: [1]", "final_folds: [0]", ("fold 0", "of its own")),
    "no budget": ("trials: 6", "", ("trials, minutes",)),
    "another word": ("trials: 6", "trails: 7", ("trails", "not permitted")),
    "a fold that is not there": ("final_folds: [1]", "final_folds: [9]", ('FOLDS="9"', "folds 0 to 2")),
    "a batch that is too large": ("high: 12", "high: 64", ("train.batch", "64")),
    "an unknown loss": ("train.mean_face: [true, false]", "train.loss: [euclidean, wink]", ("train.loss", "wing?")),
    "no YAML": ("keys:", "keys: [", ("mine.yaml", "not valid YAML")),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_search_that_cannot_be_is_one_sentence_before_any_training(foldmark, write_search, options, optuna, workplace, wrong):
    old, new, words = WRONG[wrong]
    assert old in PLANTED
    done = foldmark("tune", *options, *write_search(PLANTED.replace(old, new)))
    assert_refused(done, *words)
    assert not list(workplace.rglob("study.db"))
    # What was wrong can be mended under the same name.
    assert not (workplace / "runs/s/search.json").exists()


def test_another_search_under_the_name_is_refused(foldmark, write_search, searched, options):
    other = write_search(PLANTED.replace("seed: 3", "seed: 4"))
    assert_refused(foldmark("tune", *options, *other), "runs/s", "another search: seed", "NAME=")
    changed = [option.replace("train.lr=1e-4", "train.lr=2e-4") if option == TINY else option for option in options]
    assert_refused(foldmark("tune", *changed, *write_search()), "another search: train.lr", "NAME=")
    assert_refused(foldmark("tune", *options, *write_search(), "--folds", "2"), "another search: folds")


def test_a_damaged_study_is_one_sentence(foldmark, write_search, searched, options):
    (searched / "study.db").write_bytes(b"no database " * 100)
    assert_refused(foldmark("tune", *options, *write_search()), "runs/s/study.db", "cannot be used")


def test_a_search_is_no_config_and_a_training_no_search(foldmark, write_search, options, optuna, workplace):
    assert_refused(foldmark("train", "--config", "search", *options), "search.yaml", "is a search", "make tune SEARCH=")
    config = "configs/resnet18.yaml"
    assert_refused(foldmark("tune", *options, "--search", config), config, "not a search", f"make tune CONFIG={config}")
    (workplace / "runs/s").mkdir(parents=True)
    shutil.copy(workplace / "configs/synthetic.yaml", workplace / "runs/s/config.yaml")
    assert_refused(foldmark("tune", *options, *write_search()), "runs/s", "the run of a training", "NAME=")


def test_without_optuna_it_says_what_installs_it(foldmark, options, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert_refused(foldmark("tune", *options), "Optuna is not installed", "`make tune`", "pip install")
