"""The figures and the page of a part: all that the course asks to show."""

from pathlib import Path

import numpy as np
import torch

from foldmark import geometry
from foldmark.augment import centre_affine, photometric, random_affine, warp
from foldmark.config import AugmentConfig
from foldmark.crops import read_grey
from foldmark.data import Data
from foldmark.faces import Faces
from foldmark.figures import Curve, curves, filters
from foldmark.imm import view_of
from foldmark.metrics import face_mse
from foldmark.model import layer_table
from foldmark.page import Picture, Section, write_page
from foldmark.parts import Part, Trained
from foldmark.pictures import draw_points, save_png, sheet
from foldmark.pipeline import mean_face_scores
from foldmark.reasons import explain
from foldmark.run import Run, read_oof
from foldmark.train import fold_data, training_faces

SHOWN_FACES = 4
PICTURE_WIDTH, TILE_WIDTH = 480, 320
STILL = dict.fromkeys(AugmentConfig.model_fields, 0)


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
        Section("Figures", _summary(run, best, data.drawn), table=rows),
        _samples(run, figures),
        _augmented(run, figures),
        _curves(run, compared, figures),
        *(_varied(what, trained, compared[0], figures) for what, trained in varied.items()),
        *_best_and_worst(run, data.train, figures),
        *(_layers(trained, device) for trained in compared),
        _filters(best, figures, device),
    ]
    page = folder / "index.html"
    write_page(page, part.title, [section for section in sections if section])
    return page


def _summary(run: Run, best: Trained, is_drawn: bool) -> str:
    drawn = "These are faces that Foldmark drew: the figures say nothing about real ones. " if is_drawn else ""
    held_out = run.faces.take(run.held_out_rows(0))
    return (
        f"{drawn}Trained on {len(run.training_rows(0))} pictures, judged on {len(held_out)} pictures of "
        f"{len(set(held_out.groups))} people that no net here was trained on. Figures are of the net that training ended with, "
        f"mean and spread over the seeds; best: “{best.setting.label}”. The relative MSE takes x over the picture's width and y "
        "over its height."
    )


def _samples(run: Run, figures: Path) -> Section:
    size, data = run.config.crop.size, fold_data(run, 0)
    to_crop = centre_affine(run.store.size, size)
    rows = data.training_rows[np.linspace(0, len(data.training_rows) - 1, 12).astype(int)]
    tiles = [_tile(warp(run.store[row], to_crop, size), geometry.apply(to_crop, data.points_store[row]), run) for row in rows]
    path = figures / "samples.png"
    save_png(path, sheet(tiles, columns=4, captions=[run.faces.pictures[row] for row in rows]))
    return Section(
        "Sampled pictures",
        pictures=[Picture(path, f"Twelve training pictures at {size[0]}x{size[1]}, enlarged, with the truth.")],
    )


def _augmented(run: Run, figures: Path) -> Section | None:
    """One kind of change a picture, at the strength that the setting trains with, and all together."""
    config, size, data = run.config.augment, run.config.crop.size, fold_data(run, 0)
    if not any(config.model_dump().values()):
        return None
    rng = np.random.default_rng(0)
    faces = training_faces(run, data)
    tiles, captions = [], []
    for row in data.training_rows[np.linspace(0, len(data.training_rows) - 1, 3).astype(int)]:
        centre = centre_affine(run.store.size, size)
        reach = config.shift * np.array(size)
        turned, _ = random_affine(AugmentConfig(**{**STILL, "rotate": config.rotate}), centre, size, rng)
        affines = {
            "as it is": centre,
            "x shift": geometry.compose(geometry.similarity(size, size, shift=(reach[0], 0)), centre),
            "y shift": geometry.compose(geometry.similarity(size, size, shift=(0, reach[1])), centre),
            "both": geometry.compose(geometry.similarity(size, size, shift=(-reach[0], -reach[1])), centre),
            "rotation": turned,
        }
        for kind, affine in affines.items():
            crop = warp(run.store[row], affine, size)
            tiles.append(_tile(crop, geometry.apply(affine, data.points_store[row]), run))
            captions.append(kind)
        light = photometric(config, size)
        light.set_random_seed(int(row))
        crop = light(image=warp(run.store[row], centre, size)[..., None])["image"][..., 0]
        tiles.append(_tile(crop, geometry.apply(centre, data.points_store[row]), run))
        captions.append("light")
        for epoch in range(2):
            crop, points_crop = faces[int(row), epoch]
            tiles.append(_tile(crop[0].numpy(), points_crop.numpy(), run))
            captions.append("all, as trained")
    path = figures / "augmented.png"
    save_png(path, sheet(tiles, columns=4, captions=captions))
    return Section("Augmentation", pictures=[Picture(path, "Each kind of change on its own and all together, with the truth.")])


def _tile(crop: np.ndarray, points_crop: np.ndarray, run: Run) -> np.ndarray:
    return draw_points(crop, points_crop, markup=run.faces.markup, width=TILE_WIDTH)


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
    rows, points_px, _ = read_oof(run.fold_folder(0))
    mse = face_mse(points_px, run.faces.take(rows))
    size = run.config.crop.size
    to_crop = centre_affine(run.store.size, size)
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


def _layers(trained: Trained, device: torch.device) -> Section:
    return Section(f"Layers of “{trained.setting.label}”", listing=layer_table(trained.net(0, device), trained.runs[0].config))


def _filters(best: Trained, figures: Path, device: torch.device) -> Section:
    convs = [module for module in best.net(0, device).modules() if isinstance(module, torch.nn.Conv2d)][:2]
    pictures = []
    for number, conv in enumerate(convs, start=1):
        path = figures / f"filters-conv{number}.png"
        filters(path, conv.weight.detach().cpu().numpy())
        height, width = conv.kernel_size
        inputs = f"{conv.in_channels} inputs" if conv.in_channels > 1 else "one input"
        caption = f"Conv {number}: {conv.out_channels} filters of {width}x{height} over {inputs}"
        pictures.append(Picture(path, caption + (", one filter a row." if conv.in_channels > 1 else ".")))
    return Section("Learned filters", "Each filter on a grey scale of its own, dark negative, light positive.", pictures=pictures)
