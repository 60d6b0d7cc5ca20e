"""Folds on a cluster of simulated machines: the same bits as the plain loop's, whatever dies, and nothing left behind."""

import re
import subprocess
import sys

import pytest

from tests.cluster.conftest import TINY, assert_ends_well, count_epochs
from tests.cluster.machines import kill, wait_for
from tests.commandline import PROCESSES
from tests.conftest import assert_refused
from tests.train.test_crash import assert_same_bits

OWN_RAY = """
import sys
from foldmark.cluster.connection import require_ray, start_ray
with start_ray(1, 0):
    print(require_ray().get_runtime_context().gcs_address, flush=True)
    sys.stdin.readline()
"""
JOIN = "import sys, ray; ray.init(address=sys.argv[1])"


def test_a_killed_worker_a_lost_machine_and_a_killed_head_cost_no_bit(machines, start, workplace, whole):
    process = start()
    wait_for(lambda: count_epochs(workplace, 0) and count_epochs(workplace, 1))
    kill(machines.workers("m1")[0])
    wait_for(lambda: "its worker was ended" in (workplace / "said.txt").read_text())
    machines.remove("m2")
    wait_for(lambda: "its machine is gone" in (workplace / "said.txt").read_text())
    machines.add("m2")
    assert "it goes on from epoch" in (workplace / "said.txt").read_text()
    # The head; its workers end by themselves.
    wait_for(machines.workers)
    process.kill()
    process.join()
    wait_for(lambda: not machines.workers())
    said = assert_ends_well(start(), workplace)
    assert not re.search(r"fold 0 .* epoch 1/180 ", said)
    assert_same_bits(workplace / "runs/a", whole)
    assert not machines.scratch()
    wait_for(lambda: not machines.workers())


def test_a_machine_with_another_foldmark_gets_no_folds(machines, foldmark, synthetic_root, monkeypatch):
    monkeypatch.setattr("foldmark.cluster.engine.identify", lambda: {"foldmark": "9.9 (abc)", "torch": "0.1"})
    done = foldmark("train", "--cluster", machines.address, "--device", "cpu", "--data-root", synthetic_root, "--set", TINY)
    assert_refused(done, "this machine foldmark 9.9 (abc) and torch 0.1", "no other machine is left")
    assert "It gets no folds" in done.stdout


def test_a_gpu_that_is_not_there_is_one_sentence(machines, foldmark, synthetic_root):
    done = foldmark("train", "--cluster", machines.address, "--device", "cuda", "--data-root", synthetic_root)
    assert_refused(done, "DEVICE=cuda", "no machine of the cluster has a GPU")


def test_a_cluster_that_is_not_there_is_one_sentence(foldmark, synthetic_root, workplace):
    pytest.importorskip("ray", reason="Ray is not installed: make .venv/cluster-installed does that")
    done = foldmark("train", "--data-root", synthetic_root, "--device", "cpu", "--cluster", "127.0.0.1:9")
    assert_refused(done, "CLUSTER=127.0.0.1:9", "no Ray cluster answers", "ray start")
    assert not (workplace / "runs").exists()


def test_what_is_not_there_is_one_sentence(foldmark, synthetic_root, monkeypatch, workplace):
    train = ["train", "--data-root", synthetic_root, "--device", "cpu"]
    assert_refused(foldmark(*train, "--workers", "many"), "WORKERS=many", "auto")
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    for option in (("--workers", "2"), ("--cluster", "auto")):
        assert_refused(foldmark(*train, *option), "Ray is not installed", "make train", "pip install")
    assert not (workplace / "runs").exists()


def test_ray_of_this_command_alone_takes_nothing_from_who_has_no_token():
    pytest.importorskip("ray", reason="Ray is not installed: make .venv/cluster-installed does that")
    with subprocess.Popen([sys.executable, "-c", OWN_RAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        assert address
        done = subprocess.run([sys.executable, "-c", JOIN, address], capture_output=True, text=True, timeout=120)
        process.communicate("\n")
    assert done.returncode
    assert "InvalidAuthToken" in done.stderr


def _import_nothing_of_ray() -> None:
    import sys

    import foldmark.commands.parts
    import foldmark.commands.train  # noqa: F401

    sys.exit("ray" in sys.modules)


def test_the_plain_path_imports_nothing_of_ray():
    process = PROCESSES.Process(target=_import_nothing_of_ray)
    process.start()
    process.join(60)
    assert process.exitcode == 0
