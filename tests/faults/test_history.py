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
# At which write of a file: after it replaced the old one or, if negative, before.
kills = st.integers(1, 16) | st.integers(-16, -1)


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
        self.project = Project(folder, first.faces, first.test, oracle, copy.deepcopy(first.noted))
        self.changed = False

    def teardown(self) -> None:
        self.compare()
        self.submit("a", force=False, kill=None)
        self.verify("a")
        self.train("a", "")
        self.submit("a", force=False, kill=None)
        self.train("ab", "0")
        self.csv("ab", kill=None)
        self.ledger()
        type(self).checked += self.project.checked
        shutil.rmtree(self.home)

    @rule(name=names, asked=st.sampled_from(["", "0", "1"]))
    def train(self, name: str, asked: str) -> None:
        self.project.experiment("train", name, *(["--folds", asked] if asked else []))

    @rule(name=names, kill=kills)
    def train_killed(self, name: str, kill: int) -> None:
        self.project.experiment("train", name, kill=kill)

    @rule(name=names, kill=st.none() | kills)
    def csv(self, name: str, kill: int | None = None) -> None:
        self.project.experiment("csv", name, kill=kill)

    @rule(name=names, force=st.booleans(), kill=st.none() | kills)
    def submit(self, name: str, force: bool, kill: int | None = None) -> None:
        self.project.experiment("submit", name, "--competition", "keypoints", *(["--force"] if force else []), kill=kill)

    @invariant()
    def compare(self) -> None:
        self.project.look("compare", "--config", "a")

    @rule()
    def ledger(self) -> None:
        self.project.look("ledger")

    @rule(name=names)
    def verify(self, name: str) -> None:
        self.project.look("verify", self.project.csv(name))

    @rule(run=runs, first=st.integers(0, 6), other=st.integers(0, 6))
    def edit_split(self, run: str, first: int, other: int) -> None:
        """Swap a photo of fold 0 and one of fold 1."""
        header, lines = self._read_split(run)
        groups = [sorted({line.split(",")[-2] for line in lines if line.endswith(f",{fold}")}) for fold in (0, 1)]
        if all(groups):
            fold_of = {groups[0][first % len(groups[0])]: 1, groups[1][other % len(groups[1])]: 0}
            kept = [line.rpartition(",") for line in lines]
            lines = [f"{start},{fold_of.get(start.split(',')[-1], fold)}" for start, _, fold in kept]
            (self.project.run(run) / "split.csv").write_text("\n".join([header, *lines]) + "\n")

    @rule(run=runs)
    def reorder_split(self, run: str) -> None:
        header, lines = self._read_split(run)
        if lines:
            (self.project.run(run) / "split.csv").write_text("\n".join([header, *lines[::-1]]) + "\n")

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
    def change_labels(self, row: int, point: int | None = None) -> None:
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

    def _read_split(self, run: str) -> tuple[str, list[str]]:
        path = self.project.run(run) / "split.csv"
        header, *lines = path.read_text().splitlines() if path.is_file() else [""]
        return header, lines

    def _copy(self, source: str, place: str) -> None:
        there, here = self.project.folder / source, self.project.folder / place
        if there.is_file() and here.parent.is_dir() and here != there:
            shutil.copyfile(there, here)


# Short histories that must not be left to chance: rules and their arguments.
HISTORIES = {
    "nothing happened": [],
    "the split was edited": ["edit_split a 0 0"],
    "the split was edited in training": ["delete_from_run a .", "train_killed a 9", "edit_split a 0 0"],
    "training was killed between a checkpoint and the one before": ["delete_from_run a .", "train_killed a 11"],
    "the split's lines were reordered": ["reorder_split a"],
    "a fold of another split": ["copy_fold kept/c 0 a fold0"],
    "a fold twice": ["copy_fold runs/a 0 a fold00", "copy_fold runs/a 0 a fold\u00b2"],
    "a fold too many": ["copy_fold runs/a 0 a fold2"],
    "a checkpoint of another config": ["copy_fold_file kept/b 0 a 0 last.pt"],
    "another fold's checkpoint to go on from": ["copy_fold_file kept/a 1 a 0 last.pt", "delete_from_fold a 0 summary.json"],
    "predictions of another config": ["copy_fold_file kept/b 0 a 0 oof.npz"],
    "another fold's predictions": ["copy_fold_file kept/a 1 a 0 oof.npz"],
    "another fold's summary": ["copy_fold_file kept/a 1 a 0 summary.json"],
    "predictions and summary of another config": [f"copy_fold_file kept/b 0 a 0 {name}" for name in ("oof.npz", "summary.json")],
    "another split": ["copy_run_file kept/c a split.csv"],
    "another config": ["copy_run_file kept/b a config.yaml"],
    "a run under another name": ["copy_run runs/a c"],
    "a run in another's place": ["copy_run runs/b a"],
    "a fold is gone": ["delete_from_fold a 0 ."],
    "a summary is gone": ["delete_from_fold a 0 summary.json"],
    "the label file was reordered": ["reorder_labels 0"],
    "a point was moved": ["change_labels 3 30"],
    "a box was moved": ["change_labels 3"],
    "a point was moved and moved back": ["change_labels 3 30", "compare", "change_labels 3 30"],
    "the file was edited": ["edit_csv a 7"],
    "another's file": ["csv b", "copy_submission_file b a .csv"],
    "another's file and record": ["csv b", "copy_submission_file b a .csv", "copy_submission_file b a .json"],
    **{f"csv was killed at write {n}": ["delete_submission_file a .csv", f"csv a {n}"] for n in range(1, 4)},
}


HARMLESS = {
    "nothing happened",
    "the split's lines were reordered",
    "a fold twice",
    "a run under another name",
    "the label file was reordered",
    "a point was moved and moved back",
    *(name for name in HISTORIES if name.startswith("csv was killed")),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_after_a_short_history_figures_and_uploads_are_right(name, template):
    History.template = template
    state = History()
    for step in HISTORIES[name]:
        rule_name, *arguments = step.split()
        getattr(state, rule_name)(*(int(text) if text.isdecimal() else text for text in arguments))
    project = state.project
    project.uploads, project.refusals = 0, []
    state.teardown()
    if name in HARMLESS:
        assert not project.refusals
        assert project.uploads == 2
        assert project.checked >= 15


def test_every_printed_figure_is_the_oracles_and_what_is_uploaded_belongs_to_the_folds(template):
    History.template, History.checked = template, 0
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=SOAK // 50 or 1,
            stateful_step_count=20 if SOAK else 12,
            derandomize=not SOAK,
            database=None,
            # A failed history of some steps is read faster than shrunk.
            phases=[Phase.generate],
            report_multiple_bugs=False,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )
    print(f"{History.checked} figures checked")
    assert History.checked > 10
