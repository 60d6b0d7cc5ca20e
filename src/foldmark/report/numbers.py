"""The report's sections of numbers: what was reached, fold by fold, region by region, and beside other experiments."""

import json
from datetime import datetime

import numpy as np
import pandas

from foldmark.core.metrics import TABLE_METRICS, bootstrap_interval, headline, mean_face_px, region_nme
from foldmark.ensemble.calibration import reliability
from foldmark.report import figures as report_figures
from foldmark.report.compare import SHOWN as COMPARED
from foldmark.report.results import Results, mean_face_scores
from foldmark.show.charts import Curve, draw_curves, draw_reliability, metric_panels
from foldmark.show.page import Missing, Picture, Section
from foldmark.submission.ledger import read_ledger, table_rows

LISTED_FACES = 10


def summary(results: Results) -> tuple[str, Section]:
    """The experiment in one paragraph and one table."""
    run, faces = results.runs[0], results.oof.faces
    config, folds = run.config, [fold.number for fold in run.folder.finished]
    low, high = results.oof.interval()
    photos = len(set(faces.groups))
    together = len(set(zip(faces.groups, results.oof.folds, strict=True))) == photos
    split = (
        "each judged only by nets that saw neither its photo nor its mirror twin"
        if together
        else "some judged by nets that saw their photo or their mirror twin (split.csv tears photos apart: these figures flatter)"
    )
    size = "x".join(map(str, config.crop.size))
    note = "These are synthetic faces: the figures say nothing about real ones. " if results.experiment.data.synthetic else ""
    if results.blend:
        weights = (f"{one.folder.name} ({weight:.2f})" for one, weight in zip(results.runs, results.blend.weights, strict=True))
        what = f"{results.name} blends {', '.join(weights)}, each by its weight, with {len(folds)} folds each."
    else:
        origin = config.model.weights or config.train.start
        start = f"starting from {origin} weights" if origin else "from scratch"
        what = (
            f"{results.name} finds {faces.markup.count} facial landmarks with {config.model.name} nets "
            f"({config.model.head} head) that see {size} grey pixels, trained for {config.train.epochs} "
            f"epoch{'s' * (config.train.epochs > 1)} {start}, one net for each of {len(folds)} folds."
        )
    lead = (
        f"{note}{what} On {len(faces):,} faces of {photos:,} photos, {split}, the points are off by "
        f"{results.oof.nme.mean():.2f} % of the distance between the outer eye corners (NME; 95 % "
        f"interval {low:.2f} to {high:.2f}), a coordinate by {results.oof.mae_px.mean():.2f} px (MAE)."
    )
    mean_face = mean_face_scores(run, folds)
    seconds = sum(fold.summary["seconds"] for run in results.runs for fold in run.folder.finished)
    rows = {
        **_scores(results, np.ones(len(results.oof.rows), bool)),
        "Mean training face in each box": headline(mean_face),
        "Held-out faces and photos": f"{len(faces):,} faces of {photos:,} photos",
        "Finished folds": f"{len(folds)} of {run.folds.max() + 1}",
        "Training time, all folds": f"{seconds / 60:.0f} min",
    }
    table = [{"Out of fold": what, "Value (95 % interval)": value} for what, value in rows.items()]
    note = "Intervals: the bootstrap, whole photos resampled 2,000 times, because a photo's faces are no independent witnesses."
    return lead, Section("Summary", note, table=table)


def curves(results: Results) -> Section:
    pictures = []
    for run in results.runs:
        tables = [fold.read_metrics() for fold in run.folder.finished]
        path = results.folder.figures / f"curves-{run.folder.name}.svg"
        draw_curves(path, metric_panels(Curve("", tables)))
        last = [table["nme"].dropna().iloc[-1] for table in tables]
        described = f"Curves by epoch; held-out NME at the end between {min(last):.2f} and {max(last):.2f} % over the folds."
        best = ", ".join(f"{fold.number}: {fold.best_epoch()[0]}" for fold in run.folder.finished)
        caption = f"{run.folder.name}: each fold thin, their mean thick, their range as a band. Best epoch of fold {best}."
        pictures.append(Picture(path, caption, described))
    text = (
        "Training figures are of augmented faces and the net in training; held-out ones of its averaged weights in one look at a "
        "face, without the second look and the mirror image that the final figures have."
    )
    return Section("Curves of each fold", text, pictures=pictures)


def folds(results: Results) -> Section:
    parts = {f"fold {fold}": results.oof.folds == fold for fold in np.unique(results.oof.folds)}
    parts["all"] = np.ones(len(results.oof.rows), bool)
    rows = [_figures("Fold", name, results, chosen) for name, chosen in parts.items()]
    text = "Out-of-fold figures: of the net that training ended with, on the faces that its fold holds out. In brackets: 95 %."
    return Section("Folds", text, table=rows)


def sources(results: Results) -> Section:
    names = np.array(results.oof.faces.sources)
    rows = [_figures("Source", name, results, names == name) for name in sorted(set(names))]
    return Section("Sources", "The same faces by the collection that they come from.", table=rows)


def _figures(title: str, name: str, results: Results, chosen: np.ndarray) -> dict[str, str]:
    groups = results.oof.faces.take(chosen).groups
    return {
        title: name,
        "faces": f"{chosen.sum():,}",
        "photos": f"{len(set(groups)):,}",
        **_scores(results, chosen),
    }


def _scores(results: Results, chosen: np.ndarray) -> dict[str, str]:
    """The metrics of the chosen faces, with their 95 % intervals where they are means."""
    points_px, faces = results.oof.points_px[chosen], results.oof.faces.take(chosen)
    shown = {}
    for metric in TABLE_METRICS.values():
        shown[metric.title] = metric.format(metric.score(points_px, faces))
        if metric.reduce is np.mean:
            low, high = bootstrap_interval(metric.of_faces(points_px, faces), faces.groups)
            shown[metric.title] += f" ({metric.format(low)} to {metric.format(high)})"
    return shown


def cumulative(results: Results) -> Section:
    path = results.folder.figures / "cumulative.svg"
    report_figures.draw_cumulative(path, results.oof.nme, results.oof.folds, results.oof.interval())
    below = ", ".join(f"{100 * (results.oof.nme < limit).mean():.0f} % below {limit} %" for limit in (3, 5, 8, 10))
    note = " The faces here are synthetic ones, theirs are real." if results.experiment.data.synthetic else ""
    text = (
        f"Of the out-of-fold faces {below}. The figures of others are of OTHER DATA, other faces than these, so they place the "
        f"result roughly and prove nothing about it.{note}"
    )
    table = [{"Other data": one.name, "NME %": f"{one.nme:.2f}", "faces": one.faces} for one in report_figures.ANCHORS]
    caption = "Share of out-of-fold faces with less than each NME; above it the mean, beside mean NMEs of others on other data."
    return Section("Cumulative error", text, [Picture(path, caption, f"Cumulative error curve: {below}.")], table=table)


def regions(results: Results) -> Section:
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
    worst, best = (max(means, key=means.get), min(means, key=means.get))
    caption = "The mean face; each point is as large and dark as its mean out-of-fold error. Left and right are the picture's."
    text = f"The hardest region is the {worst} with {means[worst]:.2f} %, the easiest the {best} with {means[best]:.2f} %."
    return Section("Error by region", text, [Picture(path, caption, f"Mean face, its points shaded. {text}")], table=rows)


def uncertainty(results: Results) -> Section:
    table = reliability(results.oof.spread_px, results.oof.points_px, results.oof.faces, results.oof.folds)
    path = results.folder.figures / "reliability.svg"
    draw_reliability(path, table)
    ends = f"{table['observed'].iloc[0]:.2f} to {table['observed'].iloc[-1]:.2f} % of the box"
    text = (
        "How far the looks of a net disagree about a point tells how far it is off; what such disagreement meant is learned on "
        f"the other folds. From the surest tenth of the points to the least sure, the error observed goes from {ends}."
    )
    caption = "Predicted against observed error, points in ten classes: on the line, the standard deviation is what it says."
    return Section("Uncertainty", text, pictures=[Picture(path, caption, f"Reliability of the uncertainty: observed {ends}.")])


def consistency(results: Results) -> Section | Missing:
    rows = []
    for run in results.runs:
        for path in sorted(run.folder.path.glob("fold*/consistency.json")):
            kept = json.loads(path.read_text())
            place = f"{run.folder.name}, {path.parent.name}"
            rows.append({"Net": place, "moves": f"{kept['percent_of_eyes']:.2f} %", "faces": f"{kept['faces']}"})
    if not rows:
        return Missing("Shift consistency", "compare")
    text = "How far a point walks on the face when the crop shifts by 1 to 8 pixels, in percent of the eye distance: 0 is still."
    return Section("Shift consistency", text, table=rows)


def variants(results: Results) -> Section | Missing:
    path = results.places.compare_table
    table = pandas.read_csv(path, dtype=str).fillna("") if path.is_file() else pandas.DataFrame({"experiment": []})
    names = {run.folder.name for run in results.runs}
    if not names <= set(table["experiment"]):
        return Missing("Variants compared", "compare")
    written = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    text = (
        f"As make compare wrote it on {written:%Y-%m-%d %H:%M}. To the best: the difference of NME to the best single "
        "experiment on the same faces, with its 95 % interval; moves: how far points walk on a face that shifts."
    )
    if len(table) < 2:
        text = f"{text} There is no other experiment yet."
    return Section("Variants compared", text, table=table[COMPARED].to_dict("records"))


def ledger(results: Results) -> Section | Missing:
    rows = read_ledger(results.places.ledger).rows
    noted = [row for row in rows if row["file"] == results.csv.name or results.name in row["experiment"].split(" + ")]
    if not noted:
        return Missing(f"Competition file and its row in {results.places.ledger}", "csv")
    text = "Competition files of this experiment; the leaderboard's answer is noted with make score FILE=... LB=..."
    return Section("Ledger", text, table=table_rows(noted))


def look_first(results: Results) -> tuple[np.ndarray, list[dict[str, str]]]:
    """The test faces to look at first, as make csv listed them: their rows, and a table. Empty where it did not."""
    path = results.csv.with_name(f"{results.csv.stem}-look-first.csv")
    if not path.is_file():
        return np.empty(0, int), []
    titles = {
        "picture": "Test picture",
        "std_percent_of_box": "standard deviation, % of the box",
        "worst_region": "worst region",
        "std_there": "there",
    }
    listed = pandas.read_csv(path, dtype=str).head(LISTED_FACES)
    rows = listed["first_id"].astype(int).to_numpy() // (2 * results.oof.faces.markup.count)
    return rows, listed[list(titles)].rename(columns=titles).to_dict("records")
