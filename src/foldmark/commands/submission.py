"""`make csv` and `make submit`: the competition file of an experiment, made once and uploaded."""

from dataclasses import dataclass
from pathlib import Path

from foldmark.commands.csv_files import upload_csv
from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import write_text
from foldmark.core.metrics import format_scores
from foldmark.core.prediction import Prediction
from foldmark.data.folds import read_split
from foldmark.ensemble.blend import Blend, blend_oof
from foldmark.ensemble.calibration import (
    box_sides,
    calibrate,
    describe_list,
    measure_reliability,
    predict_held_out_std,
    rank_uncertain_faces,
)
from foldmark.ensemble.ensemble import Predicting, predict_ensemble
from foldmark.ensemble.fit import write_fit
from foldmark.ensemble.oof import Oof, read_oof
from foldmark.models.device import pick_device
from foldmark.report import wandb
from foldmark.runs.experiment import Experiment, Session
from foldmark.runs.fold_folder import FoldFolder
from foldmark.runs.run import open_run, pick_faces
from foldmark.runs.run_folder import RunFolder
from foldmark.show.charts import draw_reliability
from foldmark.show.terminal import make_command, say, say_made, show_progress
from foldmark.show.tracker import Tracker
from foldmark.submission.format import pick_format
from foldmark.submission.ledger import note_submission, read_ledger
from foldmark.submission.rebuild import describe_circumstances, find_members
from foldmark.submission.record import (
    ExperimentRecord,
    Figures,
    Origin,
    Provenance,
    csv_state,
    describe_experiment,
    record_path,
    save_csv,
)


@dataclass(frozen=True)
class Ensemble:
    """The sources of a competition file: the runs with their configs, the faces that they learned, their joint OOF
    predictions, their blend, and the records of those with a weight."""

    folders: list[RunFolder]
    configs: list[Config]
    faces: Faces
    oof: Oof
    blend: Blend
    records: list[ExperimentRecord]


def csv(session: Session, experiment: Experiment, variables: dict[str, str]) -> None:
    """Write and check submissions/<name>.csv from the finished folds, with its record and its row in the ledger, and print the
    OOF figures. A file that is current is left as it is. variables: as the user has set them for make."""
    path, ensemble = session.places.csv(experiment.name), read_ensemble(session, experiment)
    state = csv_state(path, ensemble.records, experiment.data)
    upload = make_command("submit", variables)
    verify = make_command("verify", {"FILE": session.places.relative(path), "DATA_ROOT": variables["DATA_ROOT"]})
    if state.edited:
        raise UserError(f"{path}: {state.reason}; move it away to have it made again.")
    if state.record and state.current and all(file.is_file() for file in _files_beside(path)):
        # A crash may have come before its row.
        note_submission(path, state.record, session.places.ledger)
        say(f"{path}: is current, made from the same checkpoints and settings. Next: {upload}, or {verify}")
        return
    if state.reason:
        say(f"{path}: {state.reason}, so it is made again.")
    _make_csv(session, experiment, ensemble)
    say(f"Next: {upload} (uploads it), or {verify} (rebuilds it)")


def submit(session: Session, experiment: Experiment, competition: str | None, force: bool = False) -> None:
    """Check the CSV, made first if it is missing or stale, and upload it if a competition is named and Kaggle is configured.
    Raises UserError for a CSV that was edited after it was made, unless forced."""
    path, ensemble = session.places.csv(experiment.name), read_ensemble(session, experiment)
    state = csv_state(path, ensemble.records, experiment.data)
    if state.edited and not force:
        raise UserError(f"{path}: {state.reason}; move it away to have it made again, or upload it as it is with FORCE=1.")
    if state.edited:
        say(f"{path}: {state.reason}; it is uploaded as it is, because FORCE is set.")
        record = None
    elif state.current:
        record = state.record
    else:
        if state.reason:
            say(f"{path}: {state.reason}, so it is made again.")
        record = _make_csv(session, experiment, ensemble)
    uploaded = upload_csv(path, experiment.data, ensemble.configs[0].crop, competition, f"foldmark {experiment.name}")
    if record:
        _track_submission(session, experiment, record, competition if uploaded else None)
    if uploaded and state.edited:
        say(f"The ledger takes no score of {path}, because make csv did not write it.")
    elif uploaded:
        say(f"Next, once it is scored: {make_command('score', {'FILE': session.places.relative(path)})} LB=<score>")


def read_ensemble(session: Session, experiment: Experiment) -> Ensemble:
    """The current sources of the experiment's competition file. Raises UserError where no fold is finished, or where the runs
    learned other points than the competition asks for."""
    places, data = session.places, experiment.data
    folders = experiment.folders(places)
    for folder in folders:
        folder.require_finished()
    configs = [folder.read_config(experiment.overrides) for folder in folders]
    # Report a ledger that cannot be read before anything is predicted.
    read_ledger(places.ledger)
    faces = pick_faces(data, configs[0])
    pick_format(data.set).require_points(configs[0].data.points, faces.markup.count, folders[0].path)
    oof, blend = blend_oof(folders, configs, faces)
    parts = zip(folders, configs, blend.weights.tolist(), strict=True)
    # An experiment without weight is not part of the file.
    records = [describe_experiment(places, *part) for part in parts if part[-1]]
    return Ensemble(folders, configs, faces, oof, blend, records)


def _make_csv(session: Session, experiment: Experiment, ensemble: Ensemble) -> Provenance:
    places, data, oof = session.places, experiment.data, ensemble.oof
    path, device = places.csv(experiment.name), pick_device(session.device)
    members = find_members(ensemble.records, places)
    predicted = predict_ensemble(members, data.test, Predicting(device, places.cache), show_progress)
    circumstances = describe_circumstances(device, places, synthetic=data.synthetic)
    origin = Origin(experiments=ensemble.records, oof=Figures.model_validate(oof.scores()), **circumstances.model_dump())
    # Written before the CSV: after an interruption between them the CSV is still stale, so all are made again.
    chart = _write_uncertainty(path, oof, predicted, data.test)
    record = save_csv(path, predicted.points_px, origin, data)
    note_submission(path, record, places.ledger)
    for folder in ensemble.folders:
        _say_oof(folder, ensemble.faces)
    if len(ensemble.folders) > 1:
        _say_blend(list(experiment.members), ensemble.blend)
    joined = ", mirror twins joined" if any(config.predict.twins for config in ensemble.configs) else ""
    say(f"OOF scores of the models in the CSV ({len(oof)} faces{joined}): {format_scores(oof.scores())}")
    say_made(
        f"{path}, checked: {len(data.test)} faces, {predicted.points_px.size} values; {record_path(path).name} has its origin"
    )
    fit_file = RunFolder(places.run(experiment.name)).ensemble_file
    write_fit(fit_file, ensemble.folders, ensemble.blend.weights, ensemble.faces)
    _track_ensemble(session, experiment, ensemble, record, chart)
    return record


def _files_beside(csv: Path) -> tuple[Path, Path]:
    """The list of test faces to look at first, and the chart of how reliable it is."""
    return csv.with_name(f"{csv.stem}-look-first.csv"), csv.with_name(f"{csv.stem}-reliability.png")


def _write_uncertainty(csv: Path, oof: Oof, predicted: Prediction, test: Faces) -> Path:
    """Write the list of test faces to look at first beside the competition file, and the chart of how reliable it is; its
    path."""
    fitted, sides_px, held_out_std_px = calibrate(oof.prediction, oof.faces), box_sides(test), predict_held_out_std(oof)
    std_px, unlike = fitted.std_px(predicted, sides_px), fitted.find_unlike(predicted, sides_px)
    listed, chart = _files_beside(csv)
    write_text(listed, rank_uncertain_faces(std_px, unlike, predicted.points_px, test).to_csv(index=False))
    draw_reliability(chart, measure_reliability(oof, held_out_std_px))
    say_made(f"{listed} (test faces, the most uncertain first) and {chart.name} (how reliable that is)")
    say(f"uncertainty, {describe_list(oof, held_out_std_px)}")
    if unlike.any():
        say(f"{unlike.sum()} of {len(test)} test faces are unlike those that the models learned (unlike_training in the list)")
    return chart


def _say_oof(folder: RunFolder, faces: Faces) -> None:
    oof, finished = read_oof(folder, faces), folder.finished
    for fold in finished:
        say(f"{folder.path} fold {fold.number}: out-of-fold {format_scores(fold.require_summary())}")
    count = read_split(folder.split_file, faces).max() + 1
    if len(finished) < count:
        say(f"only {len(finished)} of {count} folds are finished; the others are not in this ensemble.")
    say(f"{folder.path}: all out-of-fold faces ({len(oof)}): {format_scores(oof.scores())}")


def _say_blend(members: list[str], blend: Blend) -> None:
    weights = ", ".join(f"{member} {weight:.2f}" for member, weight in zip(members, blend.weights, strict=True))
    if blend.nme_nested is None:
        say(f"weights: {weights} (equal, because one fold alone leaves no other to fit them on); NME {blend.nme_mean:.3f} %")
        return
    chosen = "fitted out of fold" if blend.fitted else "the plain mean, because fitted ones did not help"
    if not blend.weights.all():
        chosen += "; an experiment without weight is not part of the file"
    say(
        f"weights: {weights} ({chosen}); out-of-fold NME with fitted ones, nested, {blend.nme_nested:.3f} %, "
        f"with equal ones {blend.nme_mean:.3f} %"
    )


def _track_ensemble(session: Session, experiment: Experiment, ensemble: Ensemble, record: Provenance, chart: Path) -> None:
    """The ensemble's W&B run: its OOF predictions face by face, the models that it is made from, and the file that it made."""
    places, oof, data = session.places, ensemble.oof, experiment.data
    settings = {one.name: {"weight": one.weight, "folds": [fold.fold for fold in one.folds]} for one in record.experiments}
    with _start_wandb(session, experiment, "ensemble", settings) as tracker:
        if not tracker.running:
            return
        first = open_run(places, ensemble.folders[0].name, ensemble.configs[0], data)
        wandb.show_error_curve(tracker, oof.points_px, oof.faces)
        wandb.show_oof(tracker, first, oof.rows, oof.points_px, chart)
        folds = [fold for one in record.experiments for fold in one.folds]
        wandb.summarise(tracker, oof.points_px, oof.faces, folds=len(folds))
        for fold in folds:
            folder = FoldFolder((places.root / fold.checkpoint).parent)
            wandb.log_model(tracker, places, folder, fold.oof.model_dump(), used=True)
        best = read_ledger(places.ledger).is_best(places.csv(experiment.name))
        wandb.log_submission(tracker, places.csv(experiment.name), record, best=best)


def _track_submission(session: Session, experiment: Experiment, record: Provenance, uploaded_to: str | None) -> None:
    """The W&B run of a submission: its figures, whether it was uploaded, and the ensemble's file that it used."""
    with _start_wandb(session, experiment, "submit", {"competition": uploaded_to}) as tracker:
        figures = {"oof_nme": record.oof.nme, "oof_mae_px": record.oof.mae_px}
        tracker.log(figures)
        tracker.summary({"uploaded": uploaded_to is not None})
        wandb.log_submission(tracker, session.places.csv(experiment.name), record, used=True)


def _start_wandb(session: Session, experiment: Experiment, job: str, settings: dict) -> Tracker:
    tags = wandb.list_tags(next(iter(experiment.members.values())), synthetic=experiment.data.synthetic)
    group = wandb.Group(experiment.name, session.wandb, session.notes, tags, job)
    return group.start(f"{experiment.name}-{job}", settings, session.places.run(experiment.name) / job)
