"""The report's sections of scores: by fold, source and region, and beside other experiments."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.files import file_sha256, read_record
from foldmark.core.metrics import (
    FAILURE,
    PAPER_METRICS,
    RESAMPLES,
    TABLE_METRICS,
    Metric,
    bootstrap_interval,
    format_scores,
    mean_face_px,
    region_nme,
)
from foldmark.data.ibug import STANDARD_TEST_FACES, STANDARD_TRAINING_FACES, is_mirror
from foldmark.ensemble.calibration import describe_list, measure_reliability, predict_held_out_std
from foldmark.ensemble.standard import PUBLISHED_RESULTS, judge_parts, list_unlabelled
from foldmark.report import figures as report_figures
from foldmark.report.compare import SHOWN as COMPARED
from foldmark.report.compare import Consistency
from foldmark.report.results import Results, read_table, score_mean_face
from foldmark.show.charts import Curve, draw_curves, draw_reliability, metric_panels
from foldmark.show.page import Missing, Picture, Section
from foldmark.submission.ledger import read_ledger, table_rows


def build_summary(results: Results) -> tuple[str, Section]:
    """The experiment in one paragraph and one table."""
    run, faces = results.runs[0], results.oof.faces
    config, folds = run.config, [fold.number for fold in run.folder.finished]
    low, high = results.oof.interval()
    photos = len(set(faces.groups))
    together = len(set(zip(faces.groups, results.oof.folds, strict=True))) == photos
    split = (
        "each predicted by models that were trained without its photo and its mirror twin"
        if together
        else "some predicted by models that were trained with their photo or mirror twin (split.csv separates photos: the "
        "scores are too good)"
    )
    size = "x".join(map(str, config.crop.size))
    note = "These are synthetic faces: the scores say nothing about real ones. " if results.experiment.data.synthetic else ""
    if results.blend:
        weights = (f"{one.name} ({weight:.2f})" for one, weight in zip(results.runs, results.blend.weights, strict=True))
        what = f"{results.name} is a blend of {', '.join(weights)}, with {len(folds)} folds each."
    else:
        origin = config.model.weights or config.train.start
        start = f"starting from {origin} weights" if origin else "from scratch"
        what = (
            f"{results.name} predicts {faces.markup.count} facial landmarks with {config.model.name} "
            f"({config.model.head} head) from grey crops of {size} pixels, trained for {config.train.epochs} "
            f"epoch{'s' * (config.train.epochs > 1)} {start}, one model for each of {len(folds)} folds."
        )
    lead = (
        f"{note}{what} On {len(faces):,} held-out faces of {photos:,} photos, {split}, the NME is "
        f"{results.oof.nme.mean():.2f} % of the distance between the outer eye corners (95 % interval {low:.2f} to "
        f"{high:.2f}), and the MAE is {results.oof.mae_px.mean():.2f} px."
    )
    mean_face = score_mean_face(run, folds)
    seconds = sum(fold.require_summary()["seconds"] for run in results.runs for fold in run.folder.finished)
    earlier = "" if results.blend else config.train.start
    without = f", without that of {earlier}, whose models it started from" if earlier else ""
    rows = {
        **_scores(results, np.ones(len(results.oof.rows), bool)),
        "Mean training face in each box": format_scores(mean_face),
        "Held-out faces and photos": f"{len(faces):,} faces of {photos:,} photos",
        "Finished folds": f"{len(folds)} of {run.folds.max() + 1}",
        "Training time, all folds": f"{seconds / 60:.0f} min{without}",
    }
    table = [{"Out of fold": what, "Score (95 % interval)": value} for what, value in rows.items()]
    note = (
        f"Intervals are from a bootstrap of {RESAMPLES:,} resamples of whole photos, because the faces of one photo are not "
        f"independent. Failure rate: faces with an NME over {FAILURE:g} %."
    )
    return lead, Section("Summary", note, table=table)


def show_learning_curves(results: Results) -> Section:
    pictures = []
    for run in results.runs:
        tables = [fold.read_metrics() for fold in run.folder.finished]
        path = results.folder.figures / f"curves-{run.name}.svg"
        draw_curves(path, metric_panels(Curve("", tables)))
        last = [table["nme"].dropna().iloc[-1] for table in tables]
        described = f"Curves by epoch; held-out NME at the end between {min(last):.2f} and {max(last):.2f} % over the folds."
        best = ", ".join(f"{fold.number}: {fold.best_epoch()[0]}" for fold in run.folder.finished)
        caption = f"{run.name}: each fold thin, their mean thick, their range as a band. Best epoch by fold: {best}."
        pictures.append(Picture(path, caption, described))
    text = (
        "Training curves are of augmented faces and the weights in training. Held-out curves are of the EMA weights without "
        "test-time augmentation, which the final scores include."
    )
    return Section("Learning curves", text, pictures=pictures)


def describe_folds(results: Results) -> Section:
    parts = {f"fold {fold}": results.oof.folds == fold for fold in np.unique(results.oof.folds)}
    parts["all"] = np.ones(len(results.oof.rows), bool)
    rows = [_figures("Fold", name, results, chosen) for name, chosen in parts.items()]
    text = "Out-of-fold scores of each fold's final model on the faces that the fold holds out, with 95 % intervals."
    return Section("Folds", text, table=rows)


def describe_sources(results: Results) -> Section:
    names = np.array(results.oof.faces.sources)
    rows = [_figures("Source", name, results, names == name) for name in sorted(set(names))]
    return Section("Sources", "The same scores by the collection that the faces come from.", table=rows)


def describe_standard_split(results: Results) -> Sequence[Section]:
    """The figures of a run with the standard 300-W split, and beside them what is published."""
    run, oof = results.runs[0], results.oof
    if run.config.folds.split != "300w":
        return []
    parts = judge_parts(oof)
    rows = []
    for part in parts:
        scores = _scores(results, part.rows, PAPER_METRICS) if len(part.rows) else {}
        rows.append({"Test faces": part.name, "judged": f"{len(part.rows)} of {part.of}", **scores})
    trained = sum(not is_mirror(run.faces.pictures[row]) for row in run.training_rows(0))
    text = (
        f"The papers' split: trained on afw, helen/trainset and lfpw/trainset ({trained:,} of their {STANDARD_TRAINING_FACES:,} "
        "faces are in this data, and their mirror twins), judged on helen/testset and lfpw/testset (common) and on ibug "
        "(challenge), without mirror twins. NME by the outer eye corners, of the model that training ended with."
    )
    unlabelled = list_unlabelled(results.experiment.data.test) if results.experiment.data.has_test_list else []
    listings = {f"{len(unlabelled)} test faces without labels in this data": "\n".join(unlabelled)} if unlabelled else {}
    ours = {part.name: f"{oof.nme[part.rows].mean():.2f} ({len(part.rows)} of {part.of})" for part in parts if len(part.rows)}
    titles = [*STANDARD_TEST_FACES, "full"]
    table = [{"NME %": results.name, **{title: ours.get(title, "not judged") for title in titles}, "source": "this experiment"}]
    for one in PUBLISHED_RESULTS:
        values = {"common": one.common, "challenge": one.challenge, "full": one.full}
        shown = {title: "" if value is None else f"{value:.2f}" for title, value in values.items()}
        table.append({"NME %": one.method, **shown, "source": one.source})
    note = "Figures over fewer test faces than the papers' are no equal comparison: the table says how many were judged."
    return [
        Section("Standard split of 300-W", text, table=rows, listings=listings),
        Section("Published results on 300-W", note, table=table),
    ]


def _figures(title: str, name: str, results: Results, chosen: np.ndarray) -> dict[str, str]:
    groups = results.oof.faces.take(chosen).groups
    return {
        title: name,
        "faces": f"{chosen.sum():,}",
        "photos": f"{len(set(groups)):,}",
        **_scores(results, chosen),
    }


def _scores(results: Results, chosen: np.ndarray, metrics: Mapping[str, Metric] = TABLE_METRICS) -> dict[str, str]:
    """These metrics of the chosen faces, with their 95 % intervals where they are means."""
    points_px, faces = results.oof.points_px[chosen], results.oof.faces.take(chosen)
    shown = {}
    for metric in metrics.values():
        shown[metric.title] = metric.format(metric.score(points_px, faces))
        if metric.reduce is np.mean:
            low, high = bootstrap_interval(metric.of_faces(points_px, faces), faces.groups)
            shown[metric.title] += f" ({metric.format(low)} to {metric.format(high)})"
    return shown


def show_cumulative_error(results: Results) -> Section:
    path = results.folder.figures / "cumulative.svg"
    report_figures.draw_cumulative(path, results.oof.nme, results.oof.folds, results.oof.interval())
    below = ", ".join(f"{100 * (results.oof.nme < limit).mean():.0f} % below {limit} %" for limit in (3, 5, 8, 10))
    note = " The faces here are synthetic, theirs are real." if results.experiment.data.synthetic else ""
    text = (
        f"NME of the out-of-fold faces: {below}. The results of others are on OTHER DATA, so they are a rough comparison "
        f"only.{note}"
    )
    table = [{"Other data": one.name, "NME %": f"{one.nme:.2f}", "faces": one.faces} for one in report_figures.ANCHORS]
    caption = "Share of out-of-fold faces below each NME. Above: the mean NME beside results of others on other data."
    return Section(
        "Cumulative error distribution", text, [Picture(path, caption, f"Cumulative error distribution: {below}.")], table=table
    )


def describe_regions(results: Results) -> Section:
    faces, markup = results.oof.faces, results.oof.faces.markup
    errors = 100 * np.linalg.norm(results.oof.points_px - faces.points_px, axis=2) / faces.eye_distance_px[:, None]
    means = region_nme(results.oof.points_px, faces)
    shape = mean_face_px(faces, faces.take(np.zeros(1, int)))[0]
    path = results.folder.figures / "regions.svg"
    report_figures.draw_mean_face(path, shape, errors.mean(axis=0), markup, means)
    rows = []
    for name, points in markup.regions.items():
        low, high = bootstrap_interval(errors[:, points].mean(axis=1), faces.groups)
        mae = np.abs(results.oof.points_px[:, points] - faces.points_px[:, points]).mean()
        rows.append(
            {
                "Region": name,
                "points": f"{len(points)}",
                "NME %": f"{means[name]:.2f} ({low:.2f} to {high:.2f})",
                "MAE px": f"{mae:.2f}",
                "share of the error": f"{100 * errors[:, points].sum() / errors.sum():.0f} %",
            }
        )
    worst, best = (max(means, key=means.__getitem__), min(means, key=means.__getitem__))
    caption = "The mean face. A larger and darker point has a larger mean out-of-fold error. Left and right as in the picture."
    text = f"Largest NME: {worst} ({means[worst]:.2f} %). Smallest: {best} ({means[best]:.2f} %)."
    return Section(
        "Error by region", text, [Picture(path, caption, f"Mean face with its points shaded by error. {text}")], table=rows
    )


def describe_uncertainty(results: Results) -> Section:
    std_px = predict_held_out_std(results.oof)
    table = measure_reliability(results.oof, std_px)
    path = results.folder.figures / "reliability.svg"
    draw_reliability(path, table)
    ends = f"{table['observed'].iloc[0]:.2f} to {table['observed'].iloc[-1]:.2f} % of the box"
    text = (
        "The standard deviation of a point is predicted by a regression on how much the predictions for augmented copies of its "
        "crop disagree and on how far the votes of the cells scatter. From the bin with the lowest predicted standard deviation "
        f"to the one with the highest, the observed error goes from {ends}. It is "
        f"{describe_list(results.oof, std_px)}."
    )
    caption = (
        "Reliability diagram: observed against predicted error in 10 bins of points. The dashed line is perfect calibration."
    )
    return Section("Uncertainty", text, pictures=[Picture(path, caption, f"Reliability diagram: observed error from {ends}.")])


def describe_consistency(results: Results) -> Section | Missing:
    rows = []
    for run in results.runs:
        for fold in run.folder.finished:
            if not fold.consistency_file.exists():
                continue
            kept = read_record(fold.consistency_file, Consistency, "run make compare again")
            if kept.checkpoint != file_sha256(fold.checkpoint):
                raise UserError(f"{fold.consistency_file}: was measured on another model; run make compare again.")
            model = f"{run.name}, {fold.path.name}"
            rows.append({"Model": model, "moves": f"{kept.percent_of_eyes:.2f} %", "faces": f"{kept.faces}"})
    if not rows:
        return Missing("Shift consistency", "compare")
    text = (
        "How far the points move on the face when the crop shifts by 1 to 8 pixels, in percent of the distance between the outer "
        "eye corners. 0 is best."
    )
    return Section("Shift consistency", text, table=rows)


def describe_variants(results: Results) -> Section | Missing:
    path = results.places.compare_table
    if not path.exists():
        return Missing("Variants compared", "compare")
    table = read_table(path, COMPARED)
    if not {run.name for run in results.runs} <= set(table["experiment"]):
        return Missing("Variants compared", "compare")
    written = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    text = (
        f"Written by make compare on {written:%Y-%m-%d %H:%M}. NME 95 %: its interval. To the best: difference of NME to the "
        "best single experiment on the same faces, with its 95 % interval. moves: how far the points move on a face that shifts."
    )
    if len(table) < 2:
        text = f"{text} There is no other experiment yet."
    return Section("Variants compared", text, table=table[COMPARED].to_dict("records"))


def describe_ledger(results: Results) -> Section | Missing:
    rows = read_ledger(results.places.ledger).rows
    noted = [row for row in rows if row["file"] == results.csv.name or results.name in row["experiment"].split(" + ")]
    if not noted:
        return Missing(f"Competition file and its row in {results.places.ledger}", "csv")
    text = "Competition files of this experiment. make score FILE=... LB=... notes a leaderboard score."
    return Section("Ledger", text, table=table_rows(noted))
