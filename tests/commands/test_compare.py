"""The comparison: its intervals are right where the answer is known, and its table says what the runs hold."""

import csv
import json
import shutil
import subprocess

import numpy as np
import pytest

from foldmark.core.metrics import bootstrap_interval
from foldmark.data.sets import find_data
from tests.change_run import change_oof


def test_an_interval_holds_the_mean_and_narrows_with_more_photos():
    rng = np.random.default_rng(0)
    widths = []
    for count in (100, 10_000):
        values = rng.normal(5, 2, count)
        low, high = bootstrap_interval(values, [str(row) for row in range(count)])
        assert low < values.mean() < high
        # The bootstrap of a mean agrees with its standard error.
        assert high - low == pytest.approx(2 * 1.96 * 2 / np.sqrt(count), rel=0.15)
        widths.append(high - low)
    assert widths[1] < 0.15 * widths[0]


def test_faces_of_one_photo_are_no_independent_witnesses():
    values = np.random.default_rng(1).normal(5, 2, 500)
    alone = bootstrap_interval(values, [str(row) for row in range(500)])
    copied = bootstrap_interval(np.repeat(values, 4), np.repeat(np.arange(500), 4).astype(str).tolist())
    assert copied == pytest.approx(alone, abs=0.02)


def test_all_experiments_stand_in_one_table(foldmark, synthetic_root, quick, workplace):
    settings = ["--data-root", synthetic_root, "--set"]
    assert foldmark("train", *settings, quick, "--name", "whole").returncode == 0
    assert foldmark("train", *settings, quick + " model.head=flat", "--name", "half", "--folds", "0").returncode == 0
    done = foldmark("compare", "--data-root", synthetic_root)
    assert done.returncode == 0, done.stderr
    # Where nobody watches the lines are as long as they must be: each experiment has one.
    assert {line.split()[0] for line in done.stdout.splitlines() if " of 2 " in line} == {"whole", "half"}
    assert "parameters" in done.stdout
    rows = {row["experiment"]: row for row in csv.DictReader((workplace / "runs" / "compare.csv").open())}
    assert {name: row["folds"] for name, row in rows.items()} == {"whole": "2 of 2", "half": "1 of 2"}
    summaries = [json.loads((workplace / "runs" / "whole" / f"fold{fold}" / "summary.json").read_text()) for fold in (0, 1)]
    mean = np.average([summary["nme"] for summary in summaries], weights=[summary["faces"] for summary in summaries])
    assert float(rows["whole"]["NME %"]) == pytest.approx(mean, abs=0.006)
    # Half of the folds may be the easier ones.
    assert [name for name, row in rows.items() if row["to the best"] == ""] == ["whole"]
    assert float(rows["half"]["moves %"]) > 0
    assert "best blend: needs two experiments" in done.stdout


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"percent_of_eyes": 0.01}', '{"percent_of_eyes": 0.01, "checkpoint": "other"}'])
def test_a_consistency_that_is_damaged_or_of_another_model_is_measured_again(foldmark, synthetic_root, finished, workplace, kept):
    shutil.copytree(finished / "runs", workplace / "runs")

    def consistency() -> str:
        assert foldmark("compare", "--data-root", synthetic_root).returncode == 0
        (row,) = csv.DictReader((workplace / "runs/compare.csv").open())
        return row["moves %"]

    measured = consistency()
    (workplace / "runs/a/fold0/consistency.json").write_text(kept)
    assert consistency() == measured != "0.01"


@pytest.mark.parametrize("digests", [True, False])
def test_one_damaged_checkpoint_does_not_end_the_comparison(foldmark, synthetic_root, finished, workplace, digests):
    for name in ("a", "b"):
        shutil.copytree(finished / "runs" / "a", workplace / "runs" / name)
    damaged = workplace / "runs" / "b" / "fold0"
    (damaged / "last.pt").write_bytes(b"\xff\x00{")
    (damaged / "consistency.json").unlink(missing_ok=True)
    if not digests:  # as in folds of before there were any
        summary = json.loads((damaged / "summary.json").read_text())
        (damaged / "summary.json").write_text(
            json.dumps({key: summary[key] for key in summary if key not in ("files", "binding")})
        )
    done = foldmark("compare", "--data-root", synthetic_root)
    assert done.returncode == 0, done.stderr
    assert "runs/b/fold0/last.pt" in done.stdout
    rows = {row["experiment"]: row for row in csv.DictReader((workplace / "runs" / "compare.csv").open())}
    assert set(rows) == ({"a"} if digests else {"a", "b"})
    assert float(rows["a"]["moves %"]) > 0
    if not digests:
        assert (rows["b"]["moves %"], rows["b"]["NME %"]) == ("", rows["a"]["NME %"])


def test_the_best_blend_has_a_row_and_the_command_that_makes_its_file(foldmark, synthetic_root, quick, workplace):
    (workplace / "configs").unlink()  # of our own, because one is written here
    (workplace / "configs").mkdir()
    for name, head in (("seed", "pool"), ("flat", "flat")):
        (workplace / "configs" / f"{name}.yaml").write_text(f"model: {{head: {head}}}\n")
        done = foldmark("train", "--data-root", synthetic_root, "--set", quick, "--config", name)
        assert done.returncode == 0, done.stderr
    done = foldmark("compare", "--data-root", synthetic_root)
    assert done.returncode == 0, done.stderr
    first, *_, last = rows = list(csv.DictReader((workplace / "runs" / "compare.csv").open()))
    assert first["experiment"] == "seed-synthetic"
    assert set(last["experiment"].split(" + ")) == {"seed-synthetic", "flat-synthetic"}
    # The NME is convex, so a mean is no worse than what it is made of is on average.
    assert float(last["NME %"]) <= np.mean([float(row["NME %"]) for row in rows[:2]]) + 0.01
    assert "(" in last["to the best"]
    command = done.stdout.split("Next, to make its file: ")[1].split(" && ")[0]
    subprocess.run(["sh", "-c", command], cwd=workplace, check=True)
    done = foldmark("csv", "--data-root", synthetic_root, "--set", quick, "--config", "blend")
    assert done.returncode == 0, done.stderr
    assert (workplace / "submissions" / "blend-synthetic.csv").is_file()
    # One that predicts far off is no help.
    faces = find_data(synthetic_root, "ibug").train
    change_oof(workplace / "runs/flat-synthetic", faces, lambda points_px: points_px + 50)
    done = foldmark("compare", "--data-root", synthetic_root)
    assert "The others get no weight beside it. Next: make csv CONFIG=seed" in done.stdout
    assert len(list(csv.DictReader((workplace / "runs" / "compare.csv").open()))) == 2


def test_nothing_to_compare_is_a_sentence(foldmark, synthetic_root):
    done = foldmark("compare", "--data-root", synthetic_root)
    assert done.returncode == 2
    assert "no experiment with a finished fold" in done.stderr
