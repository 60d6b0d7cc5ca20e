"""`make export`: one net of an experiment as files that need no torch."""

from foldmark.core.files import MEGABYTE
from foldmark.core.metrics import format_scores
from foldmark.ensemble.fit import find_fit
from foldmark.export.facts import Facts
from foldmark.export.source import Source
from foldmark.export.write import export_net
from foldmark.runs.binding import check_finished, describe_fold
from foldmark.runs.experiment import Experiment, Session
from foldmark.runs.run import open_run
from foldmark.runs.run_folder import RunFolder
from foldmark.show.terminal import say, say_made, show_progress


def export(session: Session, experiment: Experiment, folds: list[int] | None) -> None:
    """Write exports/<name>.onnx and exports/<name>-int8.onnx from one net of an experiment: of the asked fold, else of the first
    that is finished."""
    source = choose_source(session, experiment, folds)
    paths = session.places.exports(experiment.name)
    facts = export_net(source, paths, show_progress)
    for precision, path in paths.items():
        say(f"{path} ({path.stat().st_size / MEGABYTE:.1f} MB): {describe_figures(facts[precision])}")
    say(facts["fp32"].terms)
    say_made(paths["fp32"].parent, f"foldmark predict PHOTO --run {session.places.relative(paths['int8'])}; make demo")


def choose_source(session: Session, experiment: Experiment, folds: list[int] | None) -> Source:
    """The net of an experiment that is exported. Raises UserError where no fold is finished, or its files were replaced."""
    folder = RunFolder(session.places.run(experiment.name))
    folder.require_finished()
    run = open_run(session.places, experiment.name, experiment.config, experiment.data, show_progress)
    fold = run.fold(folds[0]) if folds else folder.finished[0]
    check_finished(fold, describe_fold(run.config, run.faces, run.folds, fold.number))
    say(f"{fold.path}: one net of {len(folder.finished)}, the one exported; out of fold {format_scores(fold.require_summary())}")
    return Source(run, fold, find_fit([folder], lambda: run.faces).curve)


def describe_figures(facts: Facts) -> str:
    """How a file compares with torch, in words."""
    figures = facts.figures
    change = figures["nme_percent"] - figures["nme_percent_in_torch"]
    return (
        f"NME {figures['nme_percent']:.2f} % on {figures['faces']:.0f} faces ({change:+.2f} against torch), errors "
        f"{figures['error_over_std']:.2f} times their standard deviation"
    )
