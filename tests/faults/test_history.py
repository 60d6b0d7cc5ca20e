"""Whatever is trained, edited, copied, deleted and killed, in any order: every OOF figure that a command prints is the one that
an independent oracle computes from the models and the truth, and Kaggle is given the file that belongs to the folds.

FOLDMARK_SOAK takes many histories of chance, as `make soak` does; the suite takes few, the same ones each time.
"""

import copy
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from PIL import Image

from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML
from foldmark.synthetic.ibug import write_synthetic_faces
from tests.faults.history import CONFIG, EXPERIMENTS, RUNS, Project
from tests.faults.oracle import Face, Oracle

SOAK = int(os.environ.get("FOLDMARK_SOAK", "0"))
FOLD_FILES = ["last.pt", "previous.pt", "oof.npz", "summary.json", "metrics.csv", "test.npz"]
RUN_FILES = ["split.csv", "config.yaml", "ensemble.json", "environment.json"]

names, runs, folds = st.sampled_from(list(EXPERIMENTS)), st.sampled_from(RUNS), st.integers(0, 1)
sources = st.sampled_from([f"{root}/{run}" for root in ("runs", "kept") for run in RUNS])
kills = st.tuples(st.integers(1, 16), st.booleans())


def read_faces(label_file: Path) -> list[Face]:
    faces: list[Face] = []
    for image in ElementTree.parse(label_file).iter("image"):
        box = image.find("box")
        edges = [int(box.get(key)) for key in ("left", "top", "width", "height")]
        points_px = np.array([[float(part.get("x")), float(part.get("y"))] for part in box])
        width = Image.open(label_file.parent / image.get("file")).width
        faces.append(Face(image.get("file"), tuple(edges), points_px if len(points_px) else None, width))
    return faces


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Project:
    """A project with the finished runs a and b and a competition file, and its runs once more in kept/, as a backup."""
    folder = tmp_path_factory.mktemp("history") / "work"
    data = write_synthetic_faces(folder / "data", train_faces=7, test_faces=2, seed=1, workers=1)
    # Under another name they are taken for real faces, which are uploaded.
    (data / "synthetic").rename(data / "lfpw")
    for label_file in (data / TRAIN_XML, data / TEST_XML):
        label_file.write_text(label_file.read_text().replace("'synthetic/", "'lfpw/"))
    (folder / "configs").mkdir()
    for name, rate, seed in (("a", "1.0e-2", 1), ("b", "2.0e-3", 2)):
        (folder / f"configs/{name}.yaml").write_text(CONFIG % (rate, seed))
    (folder / "configs/ab.yaml").write_text("blend: [a, b]\n")
    (folder / "bin").mkdir()
    (folder / "bin/kaggle").write_text('#!/bin/sh\ncp "$6" "$HOME/received"\necho Successfully submitted\n')
    (folder / "bin/kaggle").chmod(0o755)
    project = Project(folder, read_faces(data / TRAIN_XML), read_faces(data / TEST_XML), Oracle(data))
    for name in ("a", "b", "c"):
        project.experiment("train", name)
    project.experiment("csv", "a")
    shutil.copytree(folder / "runs", folder / "kept")
    shutil.rmtree(folder / "runs/c")
    return project


class History(RuleBasedStateMachine):
    """What people do, in any order."""

    template: Project
    checked = 0

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="history-", dir=self.template.folder.parent))
        folder = Path(shutil.copytree(self.template.folder, self.home / "work"))
        first = self.template
        oracle = Oracle(folder / "data" / IBUG_FOLDER, first.oracle.models, first.oracle.predicted)
        self.project = Project(folder, first.faces, first.test, oracle)
        self.project.noted = copy.deepcopy(first.noted)
        self.changed = False

    def teardown(self) -> None:
        for command in ("train", "submit"):
            for name in EXPERIMENTS:
                self.project.experiment(command, name, *(["--competition", "keypoints"] if command == "submit" else []))
        self.ledger()
        type(self).checked += self.project.checked
        shutil.rmtree(self.home)

    @rule(name=names, asked=st.sampled_from(["", "0", "1"]))
    def train(self, name: str, asked: str) -> None:
        self.project.experiment("train", name, *(["--folds", asked] if asked else []))

    @rule(name=names, kill=kills)
    def train_killed(self, name: str, kill: tuple[int, bool]) -> None:
        self.project.experiment("train", name, kill=kill)

    @rule(name=names, kill=st.none() | kills)
    def csv(self, name: str, kill: tuple[int, bool] | None) -> None:
        self.project.experiment("csv", name, kill=kill)

    @rule(name=names, force=st.booleans(), kill=st.none() | kills)
    def submit(self, name: str, force: bool, kill: tuple[int, bool] | None) -> None:
        self.project.experiment("submit", name, "--competition", "keypoints", *(["--force"] if force else []), kill=kill)

    @invariant()
    def compare(self) -> None:
        self.project.look("compare")

    @rule()
    def ledger(self) -> None:
        self.project.look("ledger")

    @rule(name=names)
    def verify(self, name: str) -> None:
        self.project.look("verify", self.project.csv(name))

    @rule(run=runs, first=st.integers(0, 6), other=st.integers(0, 6), reverse=st.booleans())
    def edit_split(self, run: str, first: int, other: int, reverse: bool) -> None:
        """Swap two photos' folds, which may be the same, and perhaps turn the order of the lines round, which is harmless."""
        path = self.project.run(run) / "split.csv"
        if not path.is_file():
            return
        header, *lines = path.read_text().splitlines()
        fold_of = {line.split(",")[-2]: line.split(",")[-1] for line in lines}
        groups = sorted(fold_of)
        one, two = groups[first % len(groups)], groups[other % len(groups)]
        fold_of[one], fold_of[two] = fold_of[two], fold_of[one]
        lines = [f"{line.rpartition(',')[0]},{fold_of[line.split(',')[-2]]}" for line in lines]
        path.write_text("\n".join([header, *(lines[::-1] if reverse else lines)]) + "\n")

    @rule(source=sources, fold=folds, run=runs, place=st.sampled_from(["fold0", "fold1", "fold00", "fold2", "fold\u00b2"]))
    def copy_fold(self, source: str, fold: int, run: str, place: str) -> None:
        there, here = self.project.folder / source / f"fold{fold}", self.project.run(run) / place
        if there.is_dir() and here != there and here.parent.is_dir():
            shutil.rmtree(here, ignore_errors=True)
            shutil.copytree(there, here)

    @rule(source=sources, fold=folds, run=runs, place=folds, name=st.sampled_from(FOLD_FILES))
    def copy_fold_file(self, source: str, fold: int, run: str, place: int, name: str) -> None:
        self._copy(f"{source}/fold{fold}/{name}", f"runs/{run}/fold{place}/{name}")

    @rule(source=sources, run=runs, name=st.sampled_from(RUN_FILES))
    def copy_run_file(self, source: str, run: str, name: str) -> None:
        self._copy(f"{source}/{name}", f"runs/{run}/{name}")

    @rule(one=names, other=names, suffix=st.sampled_from([".csv", ".json"]))
    def copy_submission_file(self, one: str, other: str, suffix: str) -> None:
        self._copy(f"submissions/{one}{suffix}", f"submissions/{other}{suffix}")

    @rule(source=sources, run=runs)
    def copy_run(self, source: str, run: str) -> None:
        there, here = self.project.folder / source, self.project.run(run)
        if there.is_dir() and here != there:
            shutil.rmtree(here, ignore_errors=True)
            shutil.copytree(there, here)

    @rule(run=runs, fold=folds, name=st.sampled_from([*FOLD_FILES, "."]))
    def delete_from_fold(self, run: str, fold: int, name: str) -> None:
        path = self.project.run(run) / f"fold{fold}" / name
        shutil.rmtree(path, ignore_errors=True) if name == "." else path.unlink(missing_ok=True)

    @rule(run=runs, name=st.sampled_from([*RUN_FILES, "."]))
    def delete_from_run(self, run: str, name: str) -> None:
        path = self.project.run(run) / name
        shutil.rmtree(path, ignore_errors=True) if name == "." else path.unlink(missing_ok=True)

    @rule(name=names, suffix=st.sampled_from([".csv", ".json"]))
    def delete_submission_file(self, name: str, suffix: str) -> None:
        self.project.csv(name).with_suffix(suffix).unlink(missing_ok=True)

    @rule(seed=st.integers(0, 3))
    def reorder_labels(self, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(self.project.faces))
        self.project.write_labels([self.project.faces[row] for row in order])

    @rule(row=st.integers(0, 13), point=st.none() | st.integers(0, 67))
    def change_labels(self, row: int, point: int | None) -> None:
        """Move a point or, where none is named, a box; undo it, if one was moved before."""
        faces, face = list(self.template.faces), self.template.faces[row]
        points_px, (left, *edges) = face.points_px.copy(), face.box
        points_px[point or 0] += 5
        faces[row] = replace(face, box=(left + 2, *edges)) if point is None else replace(face, points_px=points_px)
        self.project.write_labels(self.template.faces if self.changed else faces)
        self.changed = not self.changed

    @rule(name=names, line=st.integers(0, 271))
    def edit_csv(self, name: str, line: int) -> None:
        if self.project.csv(name).is_file():
            self.project.edit_csv(name, line)

    def _copy(self, source: str, place: str) -> None:
        there, here = self.project.folder / source, self.project.folder / place
        if there.is_file() and here.parent.is_dir() and here != there:
            shutil.copyfile(there, here)


def test_every_printed_figure_is_the_oracles_and_what_is_uploaded_belongs_to_the_folds(template):
    History.template, History.checked = template, 0
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=SOAK // 10 or 4,
            stateful_step_count=20,
            derandomize=not SOAK,
            database=None,
            # A failed history of 20 steps is read faster than shrunk.
            phases=[Phase.generate],
            report_multiple_bugs=False,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )
    print(f"{History.checked} figures checked")
    assert History.checked > 50
