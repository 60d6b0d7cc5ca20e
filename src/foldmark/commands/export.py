"""`make export`: one net of an experiment as files that need no torch. `make demo`: a page that runs it in the browser."""

from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE, file_sha256
from foldmark.core.metrics import format_scores
from foldmark.ensemble.fit import find_fit
from foldmark.export.facts import Facts
from foldmark.export.predictor import load_onnx
from foldmark.export.source import Source
from foldmark.export.web_runtime import PACKAGE, VERSION, fetch_runtime
from foldmark.export.write import export_net
from foldmark.runs.binding import check_finished, describe_fold
from foldmark.runs.experiment import Experiment, Session
from foldmark.runs.run import open_run
from foldmark.runs.run_folder import RunFolder
from foldmark.show.demo_page import write_demo
from foldmark.show.terminal import say, say_made, show_progress


def export(session: Session, experiment: Experiment, folds: list[int] | None) -> None:
    """Write exports/<name>.onnx and exports/<name>-int8.onnx from one net of an experiment: of the asked fold, else of the first
    that is finished."""
    _export(session, choose_source(session, experiment, folds))
    say_made(
        session.places.exports(experiment.name)["fp32"].parent,
        f"foldmark predict PHOTO --run exports/{experiment.name}-int8.onnx; make demo",
    )


def make_demo(session: Session, experiment: Experiment, folds: list[int] | None) -> None:
    """Write exports/<name>-demo.html: the net in int8, exported first where its file is missing or of another net, in a page."""
    source, path = choose_source(session, experiment, folds), session.places.demo(experiment.name)
    if not source.run.config.crop.square:
        raise UserError("crop.square: the page cuts square crops only; choose an experiment that has them.")
    runtime = fetch_runtime(session.places.cache)
    file = session.places.exports(experiment.name)["int8"]
    if not (file.is_file() and load_onnx(file).facts.checkpoint == file_sha256(source.fold.checkpoint)):
        _export(session, source)
    facts = load_onnx(file).facts
    about = {
        "Net": f"{facts.name}, {facts.net}",
        "Accuracy": describe_figures(facts),
        "Terms": facts.terms,
        "Revision": facts.revision or "not from a git checkout",
        "Computed by": f"{PACKAGE} {VERSION} (MIT licence), one thread",
    }
    contents = {"net": file.read_bytes(), "script": runtime.script, "wasm": runtime.wasm}
    write_demo(path, f"Foldmark: {facts.name}", facts.model_dump(mode="json"), about, contents)
    say_made(f"{path} ({path.stat().st_size / MEGABYTE:.1f} MB)", "open it in a browser; make report (links it)")


def _export(session: Session, source: Source) -> None:
    paths = session.places.exports(source.run.name)
    facts = export_net(source, paths, show_progress)
    for precision, path in paths.items():
        say(f"{path} ({path.stat().st_size / MEGABYTE:.1f} MB): {describe_figures(facts[precision])}")
    say(facts["fp32"].terms)


def choose_source(session: Session, experiment: Experiment, folds: list[int] | None) -> Source:
    """The net of an experiment that is exported. Raises UserError where no fold is finished, or its files were replaced."""
    folder = RunFolder(session.places.run(experiment.name))
    folder.require_finished()
    # Of another run than the config's own, such as a distilled one, the settings are those that it was made with.
    config = folder.read_config(experiment.overrides)
    if config.model.aligner:
        raise UserError(f"model.aligner: a file holds one net, and {experiment.name} looks with two; export a run without one.")
    run = open_run(session.places, experiment.name, config, experiment.data, show_progress)
    fold = run.fold(folds[0]) if folds else folder.finished[0]
    check_finished(fold, describe_fold(run.config, run.faces, run.folds, fold.number))
    say(f"{fold.path}: one net of {len(folder.finished)}, the one exported; out of fold {format_scores(fold.require_summary())}")
    return Source(run, fold, find_fit([folder], lambda: run.faces).read_calibration())


def describe_figures(facts: Facts) -> str:
    """How a file compares with torch, in words."""
    figures = facts.figures
    change = figures["nme_percent"] - figures["nme_percent_in_torch"]
    return (
        f"NME {figures['nme_percent']:.2f} % on {figures['faces']:.0f} faces ({change:+.2f} against torch), errors "
        f"{figures['error_over_std']:.2f} times their standard deviation"
    )
