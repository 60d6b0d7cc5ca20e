"""A search's trials in W&B, and on workers of Ray."""

import csv
import os

import numpy as np
import pytest

from tests.commandline import RUN_COMMANDS, SOURCE, run_code
from tests.show.test_tracker import records
from tests.tune.conftest import PLANTED


def of_kind(run: list[dict], kind: str) -> list[dict]:
    return [record[kind] for record in run if record["type"] == kind]


def summary(run: list[dict]) -> dict:
    merged = {}
    for part in of_kind(run, "summary"):
        merged |= part["update"]
    return merged


def test_each_trial_is_a_run_of_the_searchs_group_with_its_values_and_outcome(options, optuna, write_search, workplace):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"PYTHONPATH": str(SOURCE)}
    search = write_search(PLANTED.replace("trials: 6", "trials: 2"))
    done = run_code(workplace, environment, RUN_COMMANDS, "tune", *options, *search)
    assert (done.returncode, done.stderr) == (0, "")
    runs = {}
    for folder in sorted((workplace / "wandb").glob("offline-run-*")):
        run = records(folder)
        runs[of_kind(run, "run")[0]["display_name"]] = run
    rows = {row["trial"].split()[0]: row for row in csv.DictReader((workplace / "runs/s/trials.csv").open())}
    trials = {f"s-trial{number}": row for number, row in rows.items()}
    assert trials.keys() <= runs.keys()
    for name, row in trials.items():
        about, end = of_kind(runs[name], "run")[0], summary(runs[name])
        assert (about["run_group"], about["job_type"]) == ("s", "tune")
        assert about["run_id"].startswith(f"t{row['trial'].split()[0]}-")
        config = about["config"]["update"]
        assert config["trial"] == end["trial"] == int(row["trial"].split()[0])
        assert config["searched"]["train.batch"] == int(row["train.batch"])
        assert end["outcome"] == row["outcome"]
        assert end["searched/train.lr"] == pytest.approx(float(row["train.lr"]), rel=1e-3)
        epochs = [record["item"]["_step"] for record in of_kind(runs[name], "history")]
        assert epochs == list(range(1, int(row["epochs"]) + 1))
        assert ("oof_nme" in end) == (row["outcome"] == "finished")
    finals = [name for name in runs if name not in trials]
    assert all(of_kind(runs[name], "run")[0]["job_type"] == "final" for name in finals)
    assert len(finals) in (0, 2)


def test_two_workers_search_side_by_side(foldmark, options, undisturbed, write_search, workplace):
    pytest.importorskip("ray", reason="Ray is not installed: make .venv/cluster-installed does that")
    done = foldmark("tune", *options, *write_search(PLANTED.replace("trials: 6", "trials: 3")), "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "trials on 2 workers (cpu" in done.stdout
    rows = list(csv.DictReader((workplace / "runs/s/trials.csv").open()))
    assert sorted(int(row["trial"].split()[0]) for row in rows) == [0, 1, 2]
    assert {row["outcome"] for row in rows} <= {"finished", "pruned"}
    # The same bits as in this process.
    oof = [folder / "runs/s/trial0/fold0/oof.npz" for folder in (workplace, undisturbed[0])]
    with np.load(oof[0]) as one, np.load(oof[1]) as other:
        assert all(np.array_equal(one[key], other[key]) for key in other)
