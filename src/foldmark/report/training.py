"""Sections about any run: training pictures, plain and augmented, layers and filters."""

from pathlib import Path

import numpy as np
import torch

from foldmark.core import geometry
from foldmark.core.config import AugmentConfig, Config
from foldmark.data.crops import warp
from foldmark.models.net import build_model, list_layers
from foldmark.runs.run import Run
from foldmark.show.charts import draw_filters
from foldmark.show.overlay import draw_points, draw_sheet, save_png
from foldmark.show.page import Picture, Section
from foldmark.train.batches import TrainingFaces
from foldmark.train.fold_data import prepare_fold
from foldmark.train.plan import jitter_affines, plan_photometric

TILE_WIDTH = 320
STILL = dict.fromkeys(AugmentConfig.model_fields, 0)


def show_samples(run: Run, fold: int, figures: Path) -> Section:
    size, data = run.config.crop.size, prepare_fold(run, fold)
    to_crop = geometry.centre_affine(data.store.size, size)
    rows = data.training_rows[np.linspace(0, len(data.training_rows) - 1, 12).astype(int)]
    tiles = [_tile(warp(data.store[row], to_crop, size), geometry.apply(to_crop, data.points_store[row]), run) for row in rows]
    path = figures / "samples.png"
    save_png(path, draw_sheet(tiles, columns=4, captions=[data.pictures[row] for row in rows]))
    return Section(
        "Sampled pictures",
        pictures=[Picture(path, f"Twelve training pictures of {size[0]}x{size[1]} pixels, enlarged, with the true points.")],
    )


def show_augmentation(run: Run, fold: int, figures: Path) -> Section | None:
    """Each augmentation alone, as strong as in training, and all together. None for a run without augmentation."""
    config, size, data = run.config.augment, run.config.crop.size, prepare_fold(run, fold)
    if not any(config.model_dump().values()):
        return None
    rng = np.random.default_rng(0)
    faces, photometric = TrainingFaces(run, data), plan_photometric(config, size, len(data.store), [0])
    tiles, captions = [], []
    for row in data.training_rows[np.linspace(0, len(data.training_rows) - 1, 3).astype(int)]:
        centre = geometry.centre_affine(data.store.size, size)
        reach = config.shift * np.array(size)
        turned, _ = jitter_affines(AugmentConfig(**{**STILL, "rotate": config.rotate}), centre[None], size, rng, np.ones(1))
        affines = {
            "original": centre,
            "x shift": geometry.compose(geometry.similarity(size, size, shift=(reach[0], 0)), centre),
            "y shift": geometry.compose(geometry.similarity(size, size, shift=(0, reach[1])), centre),
            "x and y shift": geometry.compose(geometry.similarity(size, size, shift=(-reach[0], -reach[1])), centre),
            "rotation": turned[0],
        }
        for kind, affine in affines.items():
            crop = warp(data.store[row], affine, size)
            tiles.append(_tile(crop, geometry.apply(affine, data.points_store[row]), run))
            captions.append(kind)
        crop = faces.photometric.apply(warp(data.store[row], centre, size), photometric, row)
        tiles.append(_tile(crop, geometry.apply(centre, data.points_store[row]), run))
        captions.append("light")
        for epoch in range(2):
            batch_crop, points_crop, _ = faces[int(row), epoch]
            tiles.append(_tile(batch_crop[0].numpy(), points_crop.numpy(), run))
            captions.append("all, as in training")
    path = figures / "augmented.png"
    save_png(path, draw_sheet(tiles, columns=4, captions=captions))
    return Section("Augmentation", pictures=[Picture(path, "Each augmentation alone and all together, with the true points.")])


def show_layers(config: Config, points: int, label: str) -> Section:
    """The layers of a model of this config."""
    listing = list_layers(build_model(config, torch.zeros(points, 2), seed=0), config)
    return Section(f"Layers of “{label}”", listings={"All layers with their output shapes and parameters": listing})


def show_filters(averaged: dict[str, torch.Tensor], figures: Path, most: int) -> Section:
    """The filters of a model's first `most` convolutions. averaged: its weights."""
    convs = [weight.cpu().numpy() for name, weight in averaged.items() if name.endswith("weight") and weight.ndim == 4][:most]
    pictures = []
    for number, weights in enumerate(convs, start=1):
        path = figures / f"filters-conv{number}.png"
        draw_filters(path, weights)
        outputs, inputs, height, width = weights.shape
        over = f"{inputs} inputs" if inputs > 1 else "one input"
        caption = f"Convolution {number}: {outputs} filters of {width}x{height} over {over}"
        pictures.append(Picture(path, caption + (", one filter per row." if inputs > 1 else ".")))
    return Section("Learned filters", "Each filter on its own grey scale, from dark (low) to light (high).", pictures=pictures)


def _tile(crop: np.ndarray, points_crop: np.ndarray, run: Run) -> np.ndarray:
    return draw_points(crop, points_crop, markup=run.faces.markup, width=TILE_WIDTH)
