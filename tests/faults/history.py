"""A tiny project that is worked in, damaged and killed at will, and what must hold after every command: see test_history.py."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML
from tests.commandline import run_in_process
from tests.faults.oracle import Face, Oracle, digest, figures, finished, join_twins, nested_blend, read_split

CONFIG = (
    "model: {name: cnn, head: pool, channels: [4, 8], hidden: 8}\ncrop: {size: 32}\n"
    "train: {epochs: 2, batch: 4, lr: %s, seed: %d, checkpoint_seconds: 0, validate_share: 1}\nfolds: {count: 2}\n"
)
# c has another split; ab is the blend of a and b.
EXPERIMENTS = {
    "a": ("--config", "a"),
    "b": ("--config", "b"),
    "c": ("--config", "a", "--name", "c", "--set", "folds.seed=5"),
    "ab": ("--config", "ab"),
}
RUNS = ["a", "b", "c"]

# The lines that hold OOF figures, mae and nme, by what they are of.
FIGURES = r"MAE (?P<mae>\S+) px, NME (?P<nme>\S+) %"
LINES = {
    "fold": rf"(runs/(?P<name>\S+) )?fold (?P<fold>\d)( is finished| done in .* min)?: (out-of-fold )?{FIGURES}",
    "run": rf"(runs/(?P<name>\S+): )?all out-of-fold faces \((?P<faces>\d+)\): {FIGURES}",
    "mean face": rf"for comparison, the mean training face placed in each box: {FIGURES}",
    "csv": rf"OOF scores of the models in the CSV \((?P<faces>\d+) faces, mirror twins joined\): {FIGURES}",
    "blend": r"weights: .* nested, (?P<nested>\S+) %, with equal ones (?P<mean>\S+) %",
    "compare": r" (?P<name>\w+( \+ \w+)*) +(?P<count>\d) of \d +(?P<mae>\S+) +(?P<nme>\S+) ",
    "ledger": r" (?P<name>\S+)\.csv +[\d-]+ +[\d +]+? +\d+ +(?P<mae>\d+\.\d{4}) +(?P<nme>\d+\.\d{4}) ",
}
# Two decimals are printed. A blend's weights are fitted to a few digits only.
TOLERANCE, OF_BLENDS = 0.0051, 0.02


class Killed(BaseException):
    """The process is gone; no Exception, so that nothing takes it for an error of a disk."""


@contextmanager
def killed_at(write: int, *, after: bool) -> Iterator[None]:
    """End the process before or after it replaces a file for the n-th time. Before, what it wrote is left, cut in half."""
    rename, unlink, count = Path.replace, Path.unlink, 0

    def dying(path: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count != write:
            return rename(path, target)
        if after:
            rename(path, target)
        else:
            content = path.read_bytes()
            path.with_name(f".{target.name}.1.partial").write_bytes(content[: len(content) // 2])
        Path.unlink = lambda *_, **__: None  # type: ignore[method-assign]
        raise Killed

    Path.replace = dying  # type: ignore[method-assign]
    try:
        yield
    finally:
        Path.replace, Path.unlink = rename, unlink  # type: ignore[method-assign]


@dataclass
class Project:
    """A project below `folder`, the faces that its label file lists, and what the fake Kaggle tool was given."""

    folder: Path
    faces: list[Face]
    test: list[Face]
    oracle: Oracle
    noted: dict[str, set[tuple[float, float]]] = field(default_factory=dict)  # figures that the ledger may hold, by experiment
    edited: dict[str, bytes] = field(default_factory=dict)  # competition files that were edited, by experiment
    checked: int = 0  # figures that a command printed and the oracle confirmed
    uploads: int = 0
    refusals: list[str] = field(default_factory=list)

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name

    def csv(self, name: str) -> Path:
        return self.folder / f"submissions/{name}.csv"

    @property
    def received(self) -> Path:
        return self.folder / "received"

    def foldmark(self, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        home = str(self.folder)
        kaggle = {"HOME": home, "XDG_CONFIG_HOME": home, "KAGGLE_API_TOKEN": "a token", "PATH": f"{home}/bin:/usr/bin:/bin"}
        where = () if command == "ledger" else ("--data-root", self.folder / "data")
        device = () if command in ("ledger", "checkcsv") else ("--device", "cpu")
        return run_in_process(self.folder, command, *arguments, *where, *device, **kaggle)

    def write_labels(self, faces: list[Face]) -> None:
        """Write the label file, and keep what it says as the truth."""
        self.faces, text = faces, ""
        for face in faces:
            parts = "".join(f"<part name='{k:02d}' x='{x:.2f}' y='{y:.2f}'/>" for k, (x, y) in enumerate(face.points_px))
            edges = " ".join(f"{key}='{edge}'" for key, edge in zip(("left", "top", "width", "height"), face.box, strict=True))
            text += f"<image file='{face.picture}'><box {edges}>{parts}</box></image>\n"
        label_file = self.folder / "data" / IBUG_FOLDER / TRAIN_XML
        label_file.write_text(f"<?xml version='1.0'?>\n<dataset><images>\n{text}</images></dataset>\n")

    def edit_csv(self, name: str, line: int) -> None:
        """Add a pixel to one value of a competition file."""
        lines = self.csv(name).read_text().splitlines()
        key, _, value = lines[1 + line % (len(lines) - 1)].partition(",")
        lines[1 + line % (len(lines) - 1)] = f"{key},{float(value) + 1:.4f}"
        self.csv(name).write_text("\n".join(lines) + "\n")
        self.edited[name] = self.csv(name).read_bytes()

    def experiment(self, command: str, name: str, *more: str, kill: int | None = None) -> None:
        """Run train, csv or submit for an experiment, perhaps killed, and check what it did."""
        seen = self._seen_before() if command == "train" else {}
        self.received.unlink(missing_ok=True)
        arguments = (*EXPERIMENTS[name], "--wandb", "disabled", *more)
        try:
            with killed_at(abs(kill or 0), after=(kill or 0) > 0):
                done = self.foldmark(command, *arguments)
        except Killed:
            done = None
        if command == "train":
            self._learn(seen)
        else:
            self._note(name)
        self._check_upload(name, forced="--force" in more)
        if done:
            self._check_end(done)
        if done and done.returncode == 0:
            self._check_figures(done.stdout, name)
            if command == "csv":
                self._check_csv(name)

    def look(self, command: str, *arguments: object) -> None:
        """Run a command that only reads, and check what it printed."""
        done = self.foldmark(command, *arguments)
        self._check_end(done)
        if done.returncode == 0:
            self._check_figures(done.stdout, "")
            if command == "verify":
                record = json.loads(Path(str(arguments[0])).with_suffix(".json").read_text())
                parts = [(one["weight"], [fold["sha256"] for fold in one["folds"]]) for one in record["experiments"]]
                self._compare_csv(Path(str(arguments[0])).read_bytes(), parts, 0.06)

    def _check_end(self, done: subprocess.CompletedProcess[str]) -> None:
        sentences = [line for line in done.stderr.splitlines() if line.startswith("foldmark: ")]
        assert (done.returncode, len(sentences)) in ((0, 0), (2, 1)), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        self.refusals += sentences

    def _seen_before(self) -> dict[Path, frozenset[str]]:
        """The photos that the checkpoints of each fold have seen."""
        seen: dict[Path, frozenset[str]] = {}
        for path in self.folder.glob("runs/*/fold[0-9]/*.pt"):
            seen[path.parent] = seen.get(path.parent, frozenset()) | self.oracle.models[digest(path)].seen
        return seen

    def _learn(self, seen: dict[Path, frozenset[str]]) -> None:
        """Remember the models that were just trained: what a fold does not hold out they have seen, with what those had seen
        that they may have gone on from."""
        for path in self.folder.glob("runs/*/fold[0-9]/*.pt"):
            if digest(path) not in self.oracle.models:
                split, fold = read_split(path.parent.parent), int(path.parent.name[4:])
                learned = {face.photo for face in self.faces if split[face.picture] != fold}
                self.oracle.remember(path, frozenset(learned) | seen.get(path.parent, frozenset()))

    def _members(self, name: str) -> list[str]:
        return name.split(" + ") if " + " in name else list(name)

    def _oof(self, runs: list[str], fold: int | None = None, *, twins: bool = False) -> tuple[list[Face], np.ndarray, np.ndarray]:
        """The held-out faces, the OOF points (m, n, 68, 2) of each of the runs for them, and the fold (n,) of each."""
        points_px, faces, folds = [], [], np.array([])
        for run in runs:
            there = [self.run(run) / f"fold{fold}"] if fold is not None else finished(self.run(run))
            parts = [self.oracle.out_of_fold(one, self.faces) for one in there]
            faces = [face for part, _ in parts for face in part]
            folds = np.repeat(np.arange(len(parts)), [len(part) for part, _ in parts])
            together = np.concatenate([part_px for _, part_px in parts])
            points_px.append(join_twins(together, faces) if twins else together)
        return faces, np.stack(points_px), folds

    def _figures(self, name: str) -> list[tuple[float, float]]:
        """The OOF figures of an experiment's file; of a blend, with equal weights and with fitted ones."""
        faces, points_px, folds = self._oof(self._members(name), twins=True)
        ways = [points_px[0]] if len(points_px) == 1 else [points_px.mean(axis=0), nested_blend(points_px, faces, folds)]
        return [figures(way, faces) for way in ways]

    def _note(self, name: str) -> None:
        """Keep the figures that a row of the ledger may hold from now on."""
        with suppress(AssertionError, OSError, KeyError, ValueError):  # no command may print figures of it then
            self.noted.setdefault(name, set()).update(self._figures(name))

    def _check_figures(self, text: str, made: str) -> None:
        """Every line with OOF figures says what the oracle says. made: the experiment that the command was for."""
        run, folds = made, [0, 1]
        for line in text.splitlines():
            if found := re.match(r"runs/(\S+): \d+ faces, folds ([\d ]+) on", line):
                run, folds = found[1], [int(fold) for fold in found[2].split()]
            # A line an epoch is of a model that trains on; a sentence on what is not compared quotes what is wrong.
            if "  epoch " in line or line.startswith("not compared: "):
                continue
            kinds = {kind: match for kind, pattern in LINES.items() if (match := re.match(pattern, line))}
            assert kinds or not re.search(r"NME \d+\.\d|\d\.\d+ %", line), f"the oracle does not know this line: {line}"
            for kind, match in kinds.items():
                found = match.groupdict()
                expected = self._expected(kind, found, found.get("name") or (made if kind in ("csv", "blend") else run), folds)
                printed = [float(found[key]) for key in (("nested", "mean") if kind == "blend" else ("mae", "nme"))]
                off = TOLERANCE if len(found.get("name") or run) == 1 and kind != "ledger" else OF_BLENDS
                assert any(np.allclose(printed, one, rtol=0, atol=off) for one in expected), f"{line}: is in truth {expected}"
                self.checked += 1

    def _expected(self, kind: str, found: dict[str, str], name: str, folds: list[int]) -> list[tuple[float, float]]:
        """The figures that a line may hold."""
        if kind == "ledger":
            return list(self.noted.get(name, []))
        if kind == "mean face":
            return [self._mean_face(name, folds)]
        if kind == "blend":
            (_, mean), (_, nested) = self._figures(name)
            return [(nested, mean)]
        if kind == "csv" or "+" in name:
            return self._figures(name)
        faces, points_px, _ = self._oof([name], int(found["fold"]) if "fold" in found else None)
        assert int(found.get("faces") or len(faces)) == len(faces)
        return [figures(points_px[0], faces)]

    def _mean_face(self, run: str, folds: list[int]) -> tuple[float, float]:
        """The figures of the mean training face, laid into the boxes of the faces that these folds hold out."""
        split, parts_px, held_out = read_split(self.run(run)), [], []
        for fold in folds:
            learned = [face for face in self.faces if split[face.picture] != fold]
            boxes = np.array([face.box for face in learned])[:, None]
            mean = ((np.stack([face.points_px for face in learned]) - boxes[..., :2]) / boxes[..., 2:]).mean(axis=0)
            for face in (face for face in self.faces if split[face.picture] == fold):
                held_out.append(face)
                parts_px.append(np.array(face.box[:2]) + mean * face.box[2:])
        return figures(np.stack(parts_px), held_out)

    def _check_csv(self, name: str) -> None:
        """The competition file is made from the folds as they are, and those are honest."""
        self._oof(self._members(name))
        record = json.loads(self.csv(name).with_suffix(".json").read_text())
        weights = {one["name"]: one["weight"] for one in record["experiments"]}
        assert set(weights) <= set(self._members(name))
        checkpoints = {run: [digest(fold / "last.pt") for fold in finished(self.run(run))] for run in weights}
        self._compare_csv(self.csv(name).read_bytes(), [(weights[run], checkpoints[run]) for run in weights], 1e-3)

    def _compare_csv(self, content: bytes, parts: list[tuple[float, list[str]]], tolerance: float) -> None:
        """A competition file holds the blend of these experiments' weights and checkpoints."""
        values = [float(line.partition(",")[2]) for line in content.decode().splitlines()[1:]]
        assert sum(weight for weight, _ in parts) == pytest.approx(1)
        expected = sum(weight * self.oracle.predict_list(checkpoints, self.test) for weight, checkpoints in parts)
        np.testing.assert_allclose(np.array(values), np.ravel(expected), rtol=0, atol=tolerance)

    def _check_upload(self, name: str, *, forced: bool) -> None:
        """What Kaggle's tool was given is the file that lies there, and that is of the folds as they are, or was edited and is
        forced."""
        if self.received.exists():
            self.uploads += 1
            assert self.received.read_bytes() == self.csv(name).read_bytes()
            if not (forced and self.edited.get(name) == self.received.read_bytes()):
                self._check_csv(name)
