"""The figures and the page of a part: all that the course asks to show."""

from pathlib import Path

import numpy as np
import torch

from foldmark.commands.parts import Part, Trained
from foldmark.core import geometry
from foldmark.core.faces import Faces
from foldmark.core.metrics import face_mse
from foldmark.data.crops import warp
from foldmark.data.decode import read_grey
from foldmark.data.imm import view_of
from foldmark.data.sets import Data
from foldmark.report.mean_face import mean_face_scores
from foldmark.report.reasons import explain
from foldmark.report.training import augmented, first_filters, layers, samples
from foldmark.runs.run import Run
from foldmark.show.charts import Curve, curves
from foldmark.show.overlay import draw_points, save_png
from foldmark.show.page import Picture, Section, write_page

SHOWN_FACES = 4
PICTURE_WIDTH = 480


def write_part_page(
    folder: Path,
    part: Part,
    data: Data,
    compared: list[Trained],
    varied: dict[str, list[Trained]],
    rows: list[dict],
    device: torch.device,
) -> Path:
    """Draw all figures of a part into `folder`/figures, write `folder`/index.html around them and return its path."""
    figures = folder / "figures"
    best = min(compared, key=lambda trained: trained.figures("mse").mean())
    run = best.runs[0]
    sections = [
        Section("Figures", _summary(run, best, data.synthetic), table=rows),
        samples(run, 0, figures),
        augmented(run, 0, figures),
        _curves(run, compared, figures),
        *(_varied(what, trained, compared[0], figures) for what, trained in varied.items()),
        *_best_and_worst(run, data.train, figures),
        *(layers(trained.runs[0].config, run.faces.markup.count, trained.setting.label) for trained in compared),
        first_filters(best.net(0, device).state_dict(), figures, most=2),
    ]
    page = folder / "index.html"
    write_page(page, part.title, [section for section in sections if section])
    return page


def _summary(run: Run, best: Trained, is_synthetic: bool) -> str:
    note = "These are synthetic faces: the figures say nothing about real ones. " if is_synthetic else ""
    held_out = run.faces.take(run.held_out_rows(0))
    return (
        f"{note}Trained on {len(run.training_rows(0))} pictures, judged on {len(held_out)} pictures of "
        f"{len(set(held_out.groups))} people that no net here was trained on. Figures are of the net that training ended with, "
        f"mean and spread over the seeds; best: “{best.setting.label}”. The relative MSE takes x over the picture's width and y "
        "over its height."
    )


def _curves(run: Run, compared: list[Trained], figures: Path) -> Section:
    pictures = []
    for column, unit in (("mse", "MSE, relative units"), ("mse_crop", "MSE, pixels squared of the net's picture")):
        path = figures / f"curves-{column}.png"
        curves(path, [[trained.curve] for trained in compared], column, unit, _mean_face_line(run) if column == "mse" else None)
        pictures.append(Picture(path, f"{unit}, training (dashed) and held out (line: mean over the seeds, band: their range)."))
    if len(compared) > 2:
        path = figures / "curves-together.png"
        held_out = [[trained.curve for trained in compared]]
        curves(path, held_out, "mse", "MSE, relative units", _mean_face_line(run))
        pictures.insert(0, Picture(path, "All settings in one figure: mean over the seeds, band: their range."))
    return Section("Curves", "Held-out curves are of the averaged net in one look a face.", pictures=pictures)


def _mean_face_line(run: Run) -> tuple[str, float]:
    return "mean face", mean_face_scores(run, [0])["mse"]


def _varied(what: str, trained: list[Trained], report: Trained, figures: Path) -> Section:
    section, key = trained[0].setting.changes[0].split("=")[0].split(".")
    usual = getattr(getattr(report.runs[0].config, section), key)
    first = Curve(f"{what} {usual:g} ({report.setting.label})", report.curve.seeds[:1])
    path = figures / f"varied-{what.replace(' ', '-')}.png"
    curves(path, [[first], *([one.curve] for one in trained)], "mse", "MSE, relative units", _mean_face_line(report.runs[0]))
    ends = ", ".join(f"{one.setting.label}: {one.figures('mse').mean():.5f}" for one in trained)
    text = f"In the report's setting, seed 0; held-out relative MSE at the end: {ends}; report's: {report.figures('mse')[0]:.5f}."
    return Section(f"{what.capitalize()} varied", text, pictures=[Picture(path, f"Curves for each {what}, on one scale.")])


def _best_and_worst(run: Run, whole: Faces, figures: Path) -> list[Section]:
    rows, points_px, _ = run.fold(0).read_oof(run.faces)
    mse = face_mse(points_px, run.faces.take(rows))
    size = run.config.crop.size
    to_crop = geometry.centre_affine(run.store.size, size)
    crops = (warp(run.store[row], to_crop, size) for row in range(len(run.faces)))
    greys = np.array([(crop.mean(), crop.std()) for crop in crops])
    order = np.argsort(mse)
    sections = []
    for title, chosen in (("Best faces", order[:SHOWN_FACES]), ("Worst faces", order[::-1][:SHOWN_FACES])):
        reasons = explain(whole, greys, run.training_rows(0), rows[chosen])
        grid = []
        for place, (index, reason) in enumerate(zip(chosen, reasons, strict=True), start=1):
            row = rows[index]
            path = figures / f"{title.split()[0].lower()}-{place}.png"
            truth_px = run.faces.points_px[row]
            picture = read_grey(run.faces.path(row))
            save_png(path, draw_points(picture, truth_px, points_px[index], markup=run.faces.markup, width=PICTURE_WIDTH))
            name = run.faces.pictures[row]
            grid.append(Picture(path, f"{name} ({view_of(name)}), relative MSE {mse[index]:.5f}: {reason}."))
        sections.append(Section(title, "Truth blue, prediction orange; the reasons are computed, not judged by eye.", grid=grid))
    return sections
