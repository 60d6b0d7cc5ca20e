"""`make export`: one net of an experiment as files that need no torch. `make demo`: a page that runs it in the browser."""

from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE, file_sha256
from foldmark.core.metrics import format_scores
from foldmark.ensemble.fit import find_fit, find_nets
from foldmark.ensemble.nested import read_nested
from foldmark.export.facts import Facts
from foldmark.export.predictor import load_onnx
from foldmark.export.source import Source
from foldmark.export.web_runtime import PACKAGE, VERSION, fetch_runtime
from foldmark.export.write import export_net
from foldmark.runs.binding import check_finished, describe_fold
from foldmark.runs.experiment import Experiment, Session
from foldmark.runs.fold_folder import ALL_FACES
from foldmark.runs.run import open_run
from foldmark.runs.run_folder import RunFolder
from foldmark.show.demo_page import write_demo
from foldmark.show.terminal import say, say_made, show_progress


def export(session: Session, experiment: Experiment, folds: list[int] | None) -> None:
    """Write exports/<name>.onnx and exports/<name>-int8.onnx from one net of an experiment: see `choose_source`."""
    _export(session, experiment.name, choose_source(session, experiment, folds))
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
    say_made(f"{path} ({path.stat().st_size / MEGABYTE:.1f} MB)", "open it in a browser; make report (links it)")


def _export(session: Session, name: str, source: Source) -> None:
    paths = session.places.exports(name)
    facts = export_net(source, paths, show_progress)
    for precision, path in paths.items():
        say(f"{path} ({path.stat().st_size / MEGABYTE:.1f} MB): {describe_figures(facts[precision])}")
    say(facts["fp32"].terms)


def choose_source(session: Session, experiment: Experiment, folds: list[int] | None) -> Source:
    """The net that is exported: of the asked fold, else the one that was distilled from the experiment, else of its first
    finished fold. Raises UserError where none is finished, or its files were replaced."""
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
        say(f"{fold.path}: the net exported; {nested.describe_net()}")
        return Source(run, fold, calibration, nested)
    say(f"{fold.path}: the net exported, one of {len(nets)}; out of fold {format_scores(fold.require_summary())}")
    if not folds:
        say("make distill makes one net of them, which is then exported in its place.")
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
