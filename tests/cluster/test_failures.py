"""What can go wrong on a cluster, each on simulated machines, and random kills. They take minutes, so `make soak` runs them:
FOLDMARK_CLUSTER_KILLS is the number of kills."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.cluster.conftest import TINY, assert_ends_well, count_epochs
from tests.cluster.machines import Machines, kill, wait_for
from tests.train.test_crash import assert_same_bits

KILLS = int(os.environ.get("FOLDMARK_CLUSTER_KILLS", "0"))
SEED = random.randrange(10**6)
pytestmark = pytest.mark.skipif(not KILLS, reason="FOLDMARK_CLUSTER_KILLS is not set: make soak runs these, which take minutes")
SLOW = TINY.replace("train.epochs=180", "train.epochs=400")


def said(workplace) -> str:
    path = workplace / "said.txt"
    return path.read_text() if path.exists() else ""


def list_shared_memory() -> set[Path]:
    """Without the locks of multiprocessing, which workers do not use and other programs on this machine do."""
    return {path for path in Path("/dev/shm").iterdir() if not path.name.startswith("sem.mp-")}


def test_ctrl_c_stops_all_workers_and_says_how_to_go_on(machines, start, workplace):
    process = start(settings=SLOW)
    wait_for(lambda: count_epochs(workplace, 0))
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    assert "run the same command again to resume" in said(workplace)
    assert "Traceback" not in said(workplace)
    wait_for(lambda: not machines.workers())
    assert count_epochs(workplace, 0)
    assert not list((workplace / "runs").rglob("*.partial"))


def test_a_full_cluster_is_waited_for_and_named(machines, start, workplace):
    with machines.occupied("m1", "m2"):
        process = start(settings=TINY)
        wait_for(lambda: "waits for 1 CPU: the cluster has 2, of which 0 are free" in said(workplace))
    assert_ends_well(process, workplace)


def test_a_worker_without_memory_is_named_and_its_fold_stops(start, workplace, tmp_path_factory):
    machines = Machines(tmp_path_factory.mktemp("small"))
    try:
        machines.add("small", RAY_memory_usage_threshold="0.01", RAY_memory_monitor_refresh_ms="100")
        process = start("--cluster", machines.address)
        process.join(300)
    finally:
        machines.close()
    assert process.exitcode == 2, said(workplace)
    assert "used more memory than the machine has" in said(workplace)
    assert "lower train.batch or WORKERS" in said(workplace)


def test_a_fold_that_diverges_is_named_and_the_others_go_on(machines, start, workplace):
    process = start(settings=SLOW)
    wait_for(lambda: count_epochs(workplace, 0) and count_epochs(workplace, 1))
    process.kill()
    process.join()
    path = workplace / "runs/a/fold0/last.pt"
    wait_for(path.exists)
    state = torch.load(path, weights_only=True)
    for weights in (*state["averaged"].values(), *state["model"].values()):
        if weights.is_floating_point():
            weights.fill_(float("nan"))
    torch.save(state, path)
    process = start(settings=SLOW)
    process.join(300)
    assert process.exitcode == 2, said(workplace)
    assert "runs/a/fold0: the loss is nan in epoch" in said(workplace)
    assert "train.lr_factor=" in said(workplace)
    assert json.loads((workplace / "runs/a/fold1/summary.json").read_text())["epochs"] == 400
    assert not (workplace / "runs/a/fold0/summary.json").exists()


def test_a_slow_network_costs_nothing(machines, start, workplace, whole):
    process = start()
    wait_for(lambda: count_epochs(workplace, 0))
    with machines.frozen("m1"):
        time.sleep(5)
    assert_ends_well(process, workplace)
    assert_same_bits(workplace / "runs/a", whole)


def test_a_blend_is_one_queue_in_which_folds_wait_for_those_they_start_from(machines, start, workplace, synthetic_root):
    (workplace / "configs").unlink()
    (workplace / "configs").mkdir()
    keys = [pair.partition("=")[::2] for pair in TINY.split()]
    lines = {key.split(".")[0]: "" for key, _ in keys}
    for key, value in keys:
        lines[key.split(".")[0]] += f"{key.split('.')[1]}: {value}, "
    first = "".join(f"{section}: {{{values}}}\n" for section, values in lines.items())
    (workplace / "configs/first.yaml").write_text(first)
    second = first.replace("train: {", "train: {start: first, ").replace("model: {", "model: {aligner: first, ")
    (workplace / "configs/second.yaml").write_text(second)
    (workplace / "configs/both.yaml").write_text("blend: [first, second]\n")
    process = start("--config", "both", settings="train.seed=0", name="x")
    text = assert_ends_well(process, workplace)
    done = [line for line in text.splitlines() if " done in " in line]
    assert len(done) == 4
    for fold in (0, 1):
        order = [line.split(" fold")[0] for line in done if f"fold {fold} done" in line]
        assert order == ["runs/x-first-synthetic", "runs/x-second-synthetic"]
    assert "runs/x-first-synthetic: all out-of-fold faces (48)" in text
    assert "runs/x-second-synthetic: all out-of-fold faces (48)" in text


def test_killed_at_any_moment_anywhere_it_ends_with_the_same_bits(machines, start, workplace, whole):
    rng, kills, story = random.Random(SEED), 0, f"seed {SEED}: "
    memory = list_shared_memory()
    process = start()
    while kills < KILLS or process.exitcode is None:
        if kills < KILLS and process.exitcode is None:
            process.join(rng.uniform(1, 15))
        if process.exitcode is None and kills < KILLS:
            kind = rng.choice(["worker", "machine", "head"])
            story += f"{kind} "
            kills += 1
            if kind == "head":
                process.kill()
                process.join()
                process = start()
            elif kind == "machine":
                name = rng.choice(["m1", "m2"])
                machines.remove(name)
                machines.add(name)
            elif machines.workers():
                kill(rng.choice(machines.workers()))
            continue
        process.join(300)
        assert process.exitcode == 0, story + said(workplace)
        assert_same_bits(workplace / "runs/a", whole)
        if kills < KILLS:
            shutil.rmtree(workplace / "runs")
            process = start()
    assert_same_bits(workplace / "runs/a", whole)
    wait_for(lambda: not machines.workers())
    # A machine that is gone keeps its scratch until a task comes there again.
    assert len(machines.scratch()) <= 2
    assert not list(workplace.rglob("*.partial"))
    assert list_shared_memory() <= memory
