"""One net to take away. `make distill`: one that learns from an ensemble; first what such a net is worth, judged on a fold that
neither it nor its teachers have seen (nested), then the net that learns all faces. `make export`: that net, or one of an
experiment's folds, as files that need no torch. `make demo`: a page that runs it in the browser.

runs/<name>-teachers<f>    the experiment without fold f; its nets are the nested teachers, and the ensemble to compare with
runs/<name>-distilled<f>   fold f of a net that learns the truth and these teachers' out-of-fold points of the other folds
runs/<name>-distilled      the net that learns all faces: the truth and the out-of-fold points of the experiment's own folds
"""

from pathlib import Path

import numpy as np

from foldmark.cluster.choice import open_engine
from foldmark.commands.train import MemberTraining
from foldmark.core.config import Config, TrainConfig, change_config, list_differences
from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE, file_sha256
from foldmark.core.metrics import bootstrap_interval, face_nme, format_scores
from foldmark.ensemble.ensemble import average_folds
from foldmark.ensemble.fit import copy_fit, find_fit, find_nets, write_fit
from foldmark.ensemble.nested import JudgedNet, NestedFigures, check_taught, digest_taught, read_nested
from foldmark.ensemble.unlabelled import list_pictures, teach_unlabelled
from foldmark.export.facts import Facts
from foldmark.export.predictor import load_onnx
from foldmark.export.source import Source
from foldmark.export.web_runtime import PACKAGE, VERSION, fetch_runtime
from foldmark.export.write import export_net
from foldmark.models.inference import predict_points, prepare_model
from foldmark.models.trained import load_model
from foldmark.runs.binding import check_finished, describe_fold
from foldmark.runs.experiment import Experiment, Session
from foldmark.runs.fold_folder import ALL_FACES
from foldmark.runs.run import Run, open_run
from foldmark.runs.run_folder import RunFolder
from foldmark.show.demo_page import write_demo
from foldmark.show.terminal import make_command, say, say_made, say_table, show_progress
from foldmark.train.checkpoints import check_finished_folds
from foldmark.train.executors import Engine
from foldmark.train.state import check_names

LEAST_FOLDS = 3  # one is judged, and of those that are left each teacher holds out another one


def distill(
    session: Session, experiment: Experiment, folds: list[int] | None, unlabelled: Path | None, variables: dict[str, str]
) -> None:
    """Measure a distilled net on the asked fold, else on the first, and train the one to take away. unlabelled: pictures whose
    faces are learned, too. variables: as the user has set them for make. Resumes where it was interrupted. Raises UserError for
    an experiment whose folds are not all finished."""
    if unlabelled:
        list_pictures(unlabelled)  # refused before anything is trained
    plain, fold = open_plain(session, experiment, folds)
    with open_engine(session) as engine:
        distillation = Distillation(session, experiment, engine, plain, unlabelled)
        learner, figures = distillation.measure(fold)
        net = distillation.train_on_all(learner, figures)
    named = {**variables, "NAME": plain.name}
    following = f"{make_command('export', named)}, or {make_command('demo', named)}: both take this net"
    say_made(net.fold(ALL_FACES).path, following)


def open_plain(session: Session, experiment: Experiment, folds: list[int] | None) -> tuple[Run, int]:
    """The experiment itself, and the fold to measure on. Raises UserError where they do not do for distillation."""
    name, config = experiment.name, experiment.config
    check_names(config)
    if config.train.teacher or config.train.unlabelled or config.folds.leave_out is not None:
        raise UserError("train.teacher, train.unlabelled, folds.leave_out: make distill sets them itself; leave them out.")
    for key, source in config.sources.items():
        raise UserError(
            f"{key}: the nets of {source} have seen the faces that a distilled net is judged on; distil an experiment that takes "
            "no models of another one."
        )
    RunFolder(session.places.run(name)).require_finished()
    plain = open_run(session.places, name, forget_share(config), experiment.data, show_progress)
    asked, there = plain.select_folds(folds), plain.select_folds(None)
    if folds and len(asked) > 1:
        raise UserError(f'FOLDS="{" ".join(map(str, folds))}": a distilled net is judged on one fold; name one.')
    if len(there) < LEAST_FOLDS or (plain.folds < 0).any():
        raise UserError(
            f"{plain.folder.path}: to distil takes {LEAST_FOLDS} folds or more, which hold out every face once: the points that "
            "are learned are out of fold; train with another split."
        )
    for number in there:
        if not plain.fold(number).finished:
            raise UserError(
                f"{plain.fold(number).path}: is not finished, and the net to take away learns from all folds; run make train "
                "with the same settings first."
            )
    check_finished_folds(plain)
    distilled = RunFolder(session.places.run(f"{name}-distilled"))
    if distilled.nested_file.exists():
        check_taught(distilled, plain.folder, plain.faces)
    return plain, asked[0]


def forget_share(config: Config) -> Config:
    """The config as a run without teachers has it."""
    return change_config(config, {"train.teacher_share": TrainConfig().teacher_share})


class Distillation:
    """The trainings of a distillation. plain: the run of the experiment, whose nets teach. unlabelled: a folder of pictures."""

    def __init__(self, session: Session, experiment: Experiment, engine: Engine, plain: Run, unlabelled: Path | None) -> None:
        self.session, self.experiment, self.engine, self.plain, self.unlabelled = session, experiment, engine, plain, unlabelled

    def measure(self, fold: int) -> tuple[Run, NestedFigures]:
        """Train what a distilled net is judged with on a fold, print the figures, and give them with its run."""
        plain = self.plain
        say(f"nested: nets that do not see fold {fold} teach one that does not see it either, and both are judged on it.")
        without = change_config(plain.config, {"folds.file": plain.folder.split_file, "folds.leave_out": fold})
        teachers = self.train(f"{plain.name}-teachers{fold}", without, None)
        write_fit(teachers.folder.ensemble_file, [teachers.folder], np.ones(1), teachers.faces)
        learner = self.train(f"{plain.name}-distilled{fold}", self.learn_from(teachers), [fold])
        write_fit(learner.folder.ensemble_file, [learner.folder], np.ones(1), learner.faces)
        rows = plain.held_out_rows(fold)
        faces = plain.faces.take(rows)
        points_px = {
            f"ensemble of {len(teachers.folder.finished)} teachers": (teachers.name, self.predict_ensemble(teachers, rows)),
            "distilled net": (f"{learner.name} fold {fold}", read_points(learner, fold, rows)),
            "plain net": (f"{plain.name} fold {fold}", read_points(plain, fold, rows)),
        }
        nme = {what: face_nme(points, faces) for what, (_, points) in points_px.items()}
        nets = [JudgedNet.judge(what, run, nme, faces.groups) for what, (run, _) in points_px.items()]
        say_table([net.row for net in nets])
        say(f"on the {len(rows)} faces of fold {fold}, which none of these nets has seen; in brackets the 95 % interval.")
        more = nme["distilled net"] - nme["plain net"]
        low, high = bootstrap_interval(more, faces.groups)
        verdict = "the ensemble taught it" if more.mean() < 0 else "learning from the ensemble gained nothing here"
        say(f"distilled net against plain net: {more.mean():+.3f} ({low:+.3f} to {high:+.3f}) points of NME: {verdict}.")
        taught = digest_taught(plain.folder, plain.faces)
        return learner, NestedFigures(fold=fold, faces=len(rows), nets=nets, taught=taught)

    def train_on_all(self, learner: Run, figures: NestedFigures) -> Run:
        """Train the net that learns all faces as the nested one learned its own, and leave the figures and the calibration of
        that one beside it, because it has none of its own."""
        say("the net to take away: it learns all faces, as the distilled net above learned those of its folds.")
        net = self.train(f"{self.plain.name}-distilled", self.learn_from(self.plain), [ALL_FACES])
        figures.write(net.folder.nested_file)
        copy_fit(learner.folder, net.folder)
        say(f"{net.fold(ALL_FACES).path}: {figures.describe_net()}")
        return net

    def learn_from(self, teachers: Run) -> Config:
        """The config of a net that learns from the nets of a run."""
        learned: dict = {"folds.file": self.plain.folder.split_file, "train.teacher": [teachers.name]}
        if self.unlabelled:
            file = teach_unlabelled(teachers, self.unlabelled, self.experiment.data, show_progress)
            learned["train.unlabelled"] = self.session.places.relative(file)
        return change_config(self.experiment.config, learned)

    def train(self, name: str, config: Config, folds: list[int] | None) -> Run:
        """A run, trained from where it stands. Raises UserError for one that was begun with other settings."""
        folder = RunFolder(self.session.places.run(name))
        changed = list_differences(folder.read_config(), config) if folder.config_file.exists() else []
        if changed:
            raise UserError(f"{folder.path}: was distilled with other settings, {', '.join(changed)}; remove it to distil anew.")
        training = MemberTraining(self.session, self.engine, self.experiment.data, folds)
        training.train_only({name: config})
        return training.runs[name]

    def predict_ensemble(self, run: Run, rows: np.ndarray) -> np.ndarray:
        """The points (n, k, 2) of these rows by all nets of a run."""
        parts = []
        for fold in run.folder.finished:
            model = prepare_model(load_model(fold.checkpoint, run.config, run.faces.markup.count, self.engine.device))
            parts.append(predict_points(model, run.store, rows, run.config, run.faces.markup))
        return average_folds(parts).points_px


def read_points(run: Run, fold: int, rows: np.ndarray) -> np.ndarray:
    """The out-of-fold points (n, k, 2) of these rows of a fold."""
    found, prediction = run.fold(fold).read_oof(run.faces)
    return prediction.points_px[np.argsort(found)[np.searchsorted(np.sort(found), rows)]]


def export(session: Session, experiment: Experiment, folds: list[int] | None, variables: dict[str, str]) -> None:
    """Write exports/<name>.onnx and exports/<name>-int8.onnx from one net of an experiment: see `choose_source`.
    variables: as the user has set them for make."""
    _export(session, experiment.name, choose_source(session, experiment, folds, variables))
    say_made(
        session.places.exports(experiment.name)["fp32"].parent,
        f".venv/bin/foldmark predict PHOTO --run exports/{experiment.name}-int8.onnx; {make_command('demo', variables)}",
    )


def make_demo(session: Session, experiment: Experiment, folds: list[int] | None, variables: dict[str, str]) -> None:
    """Write exports/<name>-demo.html: the net in int8, exported first where its file is missing or of another net, in a page.
    variables: as the user has set them for make."""
    source, path = choose_source(session, experiment, folds, variables), session.places.demo(experiment.name)
    if not source.run.config.crop.square:
        raise UserError("crop.square: the page cuts square crops only; choose an experiment that has them.")
    runtime = fetch_runtime(session.places.cache)
    file = session.places.exports(experiment.name)["int8"]
    if not (file.is_file() and load_onnx(file).facts.checkpoint == file_sha256(source.fold.checkpoint)):
        _export(session, experiment.name, source)
    exported = load_onnx(file)
    facts = exported.facts
    about = {
        "Net": f"{facts.name}, {facts.net}",
        "Accuracy": describe_figures(facts),
        "Terms": facts.terms,
        "Revision": facts.revision or "not from a git checkout",
        "Computed by": f"{PACKAGE} {VERSION} (MIT licence), one thread",
    }
    contents = {"net": file.read_bytes(), "script": runtime.script, "wasm": runtime.wasm}
    if exported.aligner_model:
        contents["aligner"] = exported.aligner_model
    write_demo(path, f"Foldmark: {facts.name}", facts.model_dump(mode="json"), about, contents)
    following = f"open it in a browser; {make_command('report', variables)} (links it)"
    say_made(f"{path} ({path.stat().st_size / MEGABYTE:.1f} MB)", following)


def _export(session: Session, name: str, source: Source) -> None:
    paths = session.places.exports(name)
    facts = export_net(source, paths, show_progress)
    for precision, path in paths.items():
        say(f"{path} ({path.stat().st_size / MEGABYTE:.1f} MB): {describe_figures(facts[precision])}")
    say(facts["fp32"].terms)


def choose_source(session: Session, experiment: Experiment, folds: list[int] | None, variables: dict[str, str]) -> Source:
    """The net that is exported: of the asked fold, else the one that was distilled from the experiment, else of its first
    finished fold. Raises UserError where none is finished, its files were replaced, or its teachers were trained anew."""
    places = session.places
    folder, distilled = RunFolder(places.run(experiment.name)), RunFolder(places.run(f"{experiment.name}-distilled"))
    if not folds and distilled.fold(ALL_FACES).finished:
        folder = distilled
    nets = find_nets(folder)
    # Of another run than the config's own, such as a distilled one, the settings are those that it was made with.
    run = open_run(places, folder.name, folder.read_config(experiment.overrides), experiment.data, show_progress)
    if folds and len(run.select_folds(folds)) > 1:
        raise UserError(f'FOLDS="{" ".join(map(str, folds))}": one net is exported; name one fold.')
    fold = run.fold(folds[0]) if folds else nets[0]
    check_finished(fold, describe_fold(run.config, run.faces, run.folds, fold.number))
    calibration = find_fit([folder], lambda: run.faces).read_calibration()
    if not fold.holds_out:
        nested = read_nested(folder.nested_file)
        for teacher in run.config.train.teacher or []:
            check_taught(folder, RunFolder(places.run(teacher)), run.faces)
        say(f"{fold.path}: the net exported; {nested.describe_net()}")
        return Source(run, fold, calibration, nested)
    say(f"{fold.path}: the net exported, one of {len(nets)}; out of fold {format_scores(fold.require_summary())}")
    if not folds:
        say(f"{make_command('distill', variables)} makes one net of them, which is then exported in its place.")
    return Source(run, fold, calibration)


def describe_figures(facts: Facts) -> str:
    """How a file compares with torch, in words."""
    figures = facts.figures
    if "nested_faces" in figures:
        return (
            f"NME {figures['nme_percent_lost']:+.2f} points against torch on {figures['faces']:.0f} faces that it learned; a net "
            f"made in the same way has NME {figures['nested_nme_percent']:.2f} % on {figures['nested_faces']:.0f} faces that it "
            "had not seen"
        )
    change = figures["nme_percent"] - figures["nme_percent_in_torch"]
    return (
        f"NME {figures['nme_percent']:.2f} % on {figures['faces']:.0f} faces ({change:+.2f} against torch), errors "
        f"{figures['error_over_std']:.2f} times their standard deviation"
    )
