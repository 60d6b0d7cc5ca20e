"""The whole main job as its user types it, and bad input: one sentence, exit code 2, nothing half-written."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from foldmark.cli import app
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML, read_ibug
from foldmark.synthetic import sets
from tests.commandline import environment
from tests.conftest import REPOSITORY, assert_refused


def test_help_answers_at_once():
    """It must not import torch; the time is asserted loosely, because test machines are busy."""
    start = time.perf_counter()
    done = subprocess.run([Path(sys.executable).with_name("foldmark"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert time.perf_counter() - start < 3
    code = "import sys, foldmark.cli; sys.exit(bool({'torch', 'numpy', 'wandb', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("command", sorted(app.commands))
def test_every_command_explains_itself_in_a_process_of_its_own(foldmark_process, command):
    done = foldmark_process(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert command in done.stdout


WITHOUT_NET = """
import sys
from foldmark.cli import main
for arguments in [line.split("\t") for line in sys.stdin.read().splitlines()]:
    sys.argv = ["foldmark", *arguments]
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    loaded = {"torch", "torchvision", "albumentations", "sklearn", "scipy", "matplotlib", "wandb"} & set(sys.modules)
    print("ENDED", arguments[0], code, *loaded)
"""


def test_commands_that_need_no_net_load_no_torch_and_nothing_else_that_takes_seconds(finished, synthetic_root, tmp_path):
    """In one process, one after the other: what one loads, the next would be blamed for."""
    work = shutil.copytree(finished, tmp_path / "work", symlinks=True)
    given = ["--data-root", str(synthetic_root)]
    file = "submissions/a.csv"
    commands = [["checkcsv", file, *given], ["score", file, "7.54"], ["ledger"]]
    commands += [["data", "--test-list", "nowhere.xml"], ["dashboard"], ["sync"], ["check", *given]]
    lines = "\n".join("\t".join(arguments) for arguments in commands)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NET], input=lines, cwd=work, env=environment(), capture_output=True, text=True
    )
    ended = [line.removeprefix("ENDED ") for line in done.stdout.splitlines() if line.startswith("ENDED ")]
    # Without an address, a run or a terminal three refuse, but only once they have looked. The last groups photos, with scipy.
    assert ended == ["checkcsv 0", "score 0", "ledger 0", "data 2", "dashboard 2", "sync 2", "check 0 scipy"], done.stderr


def test_plain_make_lists_every_target_and_variable():
    listed = subprocess.run(["make"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    makefile = (REPOSITORY / "Makefile").read_text()
    targets, variables = (re.findall(rf"^(?:{name}) := (.*)$", makefile, re.M) for name in ("COMMANDS|OTHERS", "VARIABLES"))
    assert len(targets) == 2
    for name in " ".join(targets + variables).split():
        assert re.search(rf"^ *{name} {{2,}}\S", listed, re.M), name


def test_the_lock_file_pins_all_with_hashes_and_names_no_host():
    lock = (REPOSITORY / "requirements.lock").read_text()
    entries = re.split(r"\n(?=\S)", lock.strip())
    assert len(entries) > 40
    for entry in entries:
        assert re.match(r"[\w.-]+==", entry), entry
        assert "--hash=sha256:" in entry, entry
    assert "://" not in lock


def test_environment_yml_asks_for_the_same_packages():
    text = (REPOSITORY / "environment.yml").read_text()
    assert "requirements.lock" in text or "-e ." in text


def test_train_csv_submit_on_synthetic_faces(foldmark, synthetic_root, workplace):
    resnet = "crop.size=32 train.epochs=1 train.batch=8 train.lr=1e-4 folds.count=2"
    common = ["--data-root", synthetic_root, "--name", "a", "--set", resnet]
    trained = foldmark("train", *common)
    assert trained.returncode == 0, trained.stderr
    # In the order in which they are typed: submit first, which makes the file.
    made = foldmark("submit", *common, "--competition", "faces")
    assert made.returncode == 0, made.stderr
    assert "nothing was uploaded: it holds predictions for synthetic faces" in made.stdout
    assert (workplace / "submissions/a.csv").exists()
    first = (workplace / "submissions/a.csv").read_bytes()
    done = foldmark("csv", *common)
    assert done.returncode == 0, done.stderr
    assert "submissions/a.csv" in done.stdout
    assert (workplace / "submissions/a.csv").read_bytes() == first
    rows = list(csv.reader((workplace / "submissions/a.csv").open()))
    assert rows[0] == ["Id", "Predicted"]
    assert [int(row[0]) for row in rows[1:]] == list(range(8 * 136))
    values = np.array([float(row[1]) for row in rows[1:]]).reshape(8, 68, 2)
    boxes = read_ibug(synthetic_root / IBUG_FOLDER / TEST_XML, with_points=False).boxes_px
    assert (np.abs(values.mean(1) - boxes[:, :2] - boxes[:, 2:] / 2) < boxes[:, 2:]).all()
    overall = [json.loads((workplace / f"runs/a/fold{fold}/summary.json").read_text()) for fold in (0, 1)]
    weighted = sum(fold["mae_px"] * fold["faces"] for fold in overall) / 48
    for said in (trained.stdout, made.stdout):
        assert f"all out-of-fold faces (48): MAE {weighted:.2f} px" in said


def test_hints_name_the_experiment_that_the_user_named(foldmark, synthetic_root, quick, workplace):
    (workplace / "my data").symlink_to(synthetic_root)
    where = f"NAME=r DATA_ROOT={synthetic_root}"
    common = ["--name", "r", "--data-root", synthetic_root]
    train = [*common, "--set", quick, "--folds", "0"]
    for arguments, hint in [
        (["check", *common], f"training is safe. Next: make train {where}"),
        (["train", *train], f"Next: make csv submit {where} (the competition file); make dashboard (all curves)"),
        (["train", *train[:3], "my data", *train[4:]], "Next: make csv submit NAME=r DATA_ROOT='my data' (the competition file)"),
        (["csv", *common], f"Next: make submit {where} (uploads it), or make verify FILE=submissions/r.csv DATA_ROOT="),
        (["csv", *common], f"Next: make submit {where}, or make verify FILE=submissions/r.csv DATA_ROOT={synthetic_root}"),
        (["verify", "submissions/r.csv", *common[2:]], "Next, once it is scored: make score FILE=submissions/r.csv LB=<score>"),
        (
            ["compare", *common[2:]],
            f"Next: make train CONFIG=... DATA_ROOT={synthetic_root} (another variant), or make csv submit D",
        ),
    ]:
        done = foldmark(*arguments)
        assert done.returncode == 0, done.stderr
        assert hint in done.stdout


def test_without_data_faces_are_synthetic_and_that_is_said_loudly(foldmark, quick, workplace, monkeypatch):
    monkeypatch.setattr(sets, "TRAIN_FACES", 24)  # 400 take a minute
    monkeypatch.setattr(sets, "TEST_FACES", 1)
    (workplace / "data").mkdir()
    done = foldmark("train", "--folds", "0", "--set", quick)
    assert done.returncode == 0, done.stderr
    assert "NO REAL FACES" in done.stdout
    assert done.stdout.endswith("Next: make csv submit (the competition file); make dashboard (all curves)\n")
    assert (workplace / "runs/synthetic/fold0/summary.json").exists()


def damage(root, name, content):
    path = root / IBUG_FOLDER / name
    path.write_bytes(content)


def cut_short(root, name):
    path = root / IBUG_FOLDER / name
    path.write_bytes(path.read_bytes()[:-400])


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda root: (root / IBUG_FOLDER / TRAIN_XML).unlink(), [TRAIN_XML, "no such file"]),
        (lambda root: cut_short(root, TRAIN_XML), [TRAIN_XML, "not a complete XML"]),
        (lambda root: damage(root, TRAIN_XML, b"<html>404</html>"), [TRAIN_XML, "no face in it"]),
        (lambda root: damage(root, TRAIN_XML, b"<dataset><images/></dataset>"), [TRAIN_XML, "no face in it"]),
        (lambda root: sorted(root.rglob("trainset/*.jpg"))[0].unlink(), ["is missing"]),
        (lambda root: sorted(root.rglob("trainset/*.jpg"))[0].write_bytes(b""), ["0 bytes"]),
    ],
)
def test_bad_data_is_refused_before_training(foldmark, data_root, quick, workplace, prepare, words):
    prepare(data_root)
    assert_refused(foldmark("train", "--data-root", data_root, "--name", "a", "--set", quick), *words)
    assert not list(workplace.glob("runs/a/fold*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--data-root", "nowhere"], ["nowhere", "no such folder"]),
        (["train", "--config", "resnet81"], ["did you mean resnet18"]),
        (["train", "--config", "resnet18", "--set", "train.epoch=3"], ["did you mean train.epochs"]),
        (["train", "--config", "resnet18", "--set", "train.epochs=0"], ["train.epochs"]),
        (["train", "--config", "resnet18", "--set", "epochs"], ["section.key=value"]),
        (["train", "--wandb", "bogus"], ["WANDB=bogus", "use offline, online or disabled"]),
    ],
)
def test_bad_settings_are_refused_before_anything_is_made(foldmark, workplace, arguments, words):
    assert_refused(foldmark(*arguments), *words)
    assert {path.name for path in workplace.iterdir()} == {"configs"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "folds.count=99"], ["folds.count", "24 photos"]),
        (["--folds", "7"], ["folds 0 to 2"]),
        (["--folds", "one"], ["FOLDS="]),
        (["--device", "tpu9"], ["DEVICE=tpu9"]),
        (["--device", "cuda:77"], ["DEVICE=cuda:77"]),
        (["--set", "folds.file=mine.csv"], ["mine.csv"]),
        (["--set", "train.batch=999 crop.size=32"], ["train.batch", "lower it"]),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(foldmark, synthetic_root, workplace, arguments, words):
    assert_refused(foldmark("train", "--data-root", synthetic_root, "--name", "a", *arguments), *words)
    assert not list(workplace.glob("runs/a/fold*/last.pt"))


def test_a_csv_without_a_finished_fold_is_refused(foldmark, synthetic_root, workplace):
    assert_refused(foldmark("csv", "--data-root", synthetic_root, "--name", "a"), "no finished fold", "make train")
    assert not (workplace / "submissions").exists()


def test_a_damaged_test_picture_never_drops_rows(foldmark, data_root, quick, workplace):
    common = ["--data-root", data_root, "--name", "a", "--set", quick + " data.skip_damaged=true"]
    assert foldmark("train", *common, "--folds", "0").returncode == 0
    picture = sorted(data_root.rglob("testset/*.jpg"))[0]
    picture.write_bytes(picture.read_bytes()[:900])
    assert_refused(foldmark("csv", *common), picture.name, "restore the picture")
    assert not (workplace / "submissions/a.csv").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_a_sentence(foldmark, synthetic_root, quick, workplace):
    small = workplace / "cache"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let tests mount a small disk")
    try:
        assert_refused(foldmark("train", "--data-root", synthetic_root, "--name", "a", "--set", quick), "cache", "free")
        assert not list(small.rglob("*crops*"))
    finally:
        subprocess.run(["umount", small], check=True)
