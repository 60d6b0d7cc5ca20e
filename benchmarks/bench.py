"""How fast the main job is, measured side by side in one run: ours, the model alone, and the loader that tutorials show.

    make bench                                        # or .venv/bin/python benchmarks/bench.py --help

Every option can also be given as an environment variable, FOLDMARK_CONFIG and so on. The figures are printed and written to
benchmarks/results/.
"""

import itertools
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
import cv2
import numpy as np
import pandas
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional

from foldmark.cli import CONFIG, DATA_ROOT, DEVICE, SET, Given
from foldmark.commands.setup import read_experiment, read_session
from foldmark.core.config import AugmentConfig, Config
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import write_text
from foldmark.data.crops import CropStore, open_store, refuse_damaged
from foldmark.data.decode import FORMATS
from foldmark.models.device import peak_memory_mb, pick_device, synchronise
from foldmark.models.inference import predict_points, prepare_model
from foldmark.models.net import PointRegressor, count_multiplications
from foldmark.runs.experiment import Experiment, Session
from foldmark.runs.run import Run, pick_faces
from foldmark.runs.run_folder import RunFolder
from foldmark.show.terminal import say, say_error, say_made, show_progress
from foldmark.train.batches import TrainingFaces
from foldmark.train.fold_data import FoldData, prepare_fold
from foldmark.train.loop import make_batches
from foldmark.train.state import TrainState, check_names, measure_training, new_state, training_step, update_average

RESULTS = Path("benchmarks/results")


class Card(NamedTuple):
    """A GPU by its maker's data sheet: dense TFLOPS in half precision and in float32, and GB/s of its memory."""

    half_tflops: float
    float32_tflops: float
    gb_per_second: float

    def tflops(self, *, half: bool) -> float:
        return self.half_tflops if half else self.float32_tflops


CARDS = {
    "Tesla T4": Card(65, 8.1, 320),
    "V100-SXM2": Card(125, 15.7, 900),
    "A100-SXM4-40GB": Card(312, 19.5, 1555),
    "A100-SXM4-80GB": Card(312, 19.5, 2039),
    "NVIDIA L4": Card(121, 30.3, 300),
    "H100 80GB HBM3": Card(989, 67, 3350),
    "NVIDIA H200": Card(989, 67, 4800),
}
ROUNDS, STEPS = 5, 12


class TutorialFaces(Dataset):
    """The loader that the course's users write: open the full picture, cut the raw box, resize, jitter, turn - each time."""

    def __init__(self, faces: Faces, rows: np.ndarray, size: tuple[int, int]) -> None:
        self.faces, self.rows, self.size = faces, rows, size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = self.rows[index]
        left, top, width, height = self.faces.boxes_px[row]
        picture = Image.open(self.faces.path(row), formats=FORMATS).convert("RGB")
        picture = functional.to_grayscale(picture)
        face = functional.crop(picture, int(top), int(left), int(height), int(width))
        face = functional.resize(face, [self.size[1], self.size[0]])
        face = functional.adjust_brightness(face, np.random.uniform(0.8, 1.2))
        degrees = np.random.uniform(-15, 15)
        face = functional.rotate(face, degrees)
        points = (self.faces.points_px[row] - [left, top]) / [width, height]
        turn = np.deg2rad(-degrees)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        points = (points - 0.5) @ matrix.T + 0.5
        return functional.pil_to_tensor(face), torch.tensor(points * self.size, dtype=torch.float32)


def bench(session: Session, experiment: Experiment) -> dict:
    """All figures of an experiment's config on its faces. Raises UserError for damaged pictures."""
    device, places = pick_device(session.device), session.places
    config, faces = experiment.config, pick_faces(experiment.data, experiment.config)
    store = open_store(faces, config.crop, places.cache, progress=show_progress)
    refuse_damaged(faces, store, "fix or remove these faces before measuring.")
    folds = np.arange(len(faces)) % config.folds.count
    run = Run(RunFolder(places.run("bench")), config, faces, folds, store, places)
    fold = prepare_fold(run, 0)
    speed = measure_training(config, faces.markup.count, device, config.train.epochs * fold.count_steps(config.train.batch))
    state = new_state(config, fold.mean_crop, config.train.seed, speed, device)
    return {
        "date": date.today().isoformat(),
        "machine": describe_machine(device),
        "synthetic faces": experiment.data.synthetic,
        "faces": len(faces),
        "crop": "x".join(map(str, config.crop.size)),
        "batch": config.train.batch,
        "computed as": speed.label,
        **training_rates(run, fold, state),
        **loading_rates(run, fold),
        **store_rates(faces, config, store),
        "prediction as configured, faces/s": prediction_rate(run, state),
        "peak memory, MB": round(peak_memory_mb(device) or 0),
    }


def training_rates(run: Run, fold: FoldData, state: TrainState) -> dict:
    """Pictures per second, the median of rounds taken in turn, so that a drifting machine hits all alike; and the share of the
    card's roofs, where it is known."""
    config, device, batch = run.config, state.device, run.config.train.batch
    still = run.config.model_copy(update={"augment": AugmentConfig(**dict.fromkeys(AugmentConfig.model_fields, 0))})
    tutorial = DataLoader(TutorialFaces(run.faces, fold.training_rows, config.crop.size), batch, shuffle=True, drop_last=True)
    weight = torch.ones(batch, device=device)

    def step(crops: torch.Tensor, points_crop: torch.Tensor) -> None:
        training_step(state, config, crops.to(device), points_crop.to(device), weight)
        update_average(state.averaged, state.model, config.train.ema, 1000)

    resident = next(make_batches(run, fold, 0, device))[:2]
    sources: dict[str, Iterator] = {
        "step alone": itertools.repeat(resident),
        "end to end": endless(lambda: make_batches(run, fold, 0, device)),
        "step without augmentation": endless(lambda: make_batches(replace(run, config=still), fold, 0, device)),
        "tutorial-style loader": endless(lambda: iter(tutorial)),
    }
    state.model.train()
    step(*resident)
    memory_before = memory_of_ours = peak_memory_mb(device) or 0
    rates: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(ROUNDS):
        for name, source in sources.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                step(*next(source)[:2])
            synchronise(device)
            rates[name].append(STEPS * batch / (time.perf_counter() - start))
            if name == "end to end" and number == 0:
                memory_of_ours = peak_memory_mb(device) or 0
    median = {name: float(np.median(values)) for name, values in rates.items()}
    return {
        **{f"{name}, pictures/s": round(value, 1) for name, value in median.items()},
        "end to end over step alone": round(median["end to end"] / median["step alone"], 3),
        "end to end over tutorial-style": round(median["end to end"] / median["tutorial-style loader"], 2),
        "memory that loading adds to the model's own, MB": round(memory_of_ours - memory_before),
        **compare_with_roofs(state, config, median["step alone"]),
    }


def compare_with_roofs(state: TrainState, config: Config, rate: float) -> dict:
    """What arithmetic and memory traffic allow on a known card, in pictures/s, and our share of the lower one. A step takes three
    times the multiplications of a prediction; each layer's maps are moved five times (read and written forward, twice read and
    once written backward)."""
    card = next((card for name, card in CARDS.items() if name in describe_machine(state.device)), None)
    if card is None:
        return {"roof by arithmetic, pictures/s": None, "roof by memory traffic, pictures/s": None, "share of the roof": None}
    half = state.speed.precision != "float32"
    moved = 5 * count_map_values(state.model, config) * (2 if half else 4)
    arithmetic = 1e12 * card.tflops(half=half) / (6 * count_multiplications(state.model, config))
    traffic = 1e9 * card.gb_per_second / moved
    return {
        "roof by arithmetic, pictures/s": round(arithmetic),
        "roof by memory traffic, pictures/s": round(traffic),
        "share of the roof": round(rate / min(arithmetic, traffic), 3),
    }


def count_map_values(model: PointRegressor, config: Config) -> int:
    """The numbers in all layers' outputs for one picture."""
    values, handles = [], []
    for module in model.modules():
        if not any(module.children()):
            handles.append(module.register_forward_hook(lambda _module, _inputs, output: values.append(output[0].numel())))
    count_multiplications(model, config)
    for handle in handles:
        handle.remove()
    return sum(values)


def loading_rates(run: Run, fold: FoldData) -> dict:
    """Pictures per second that one core loads and augments, without a model."""
    ours, tutorial = TrainingFaces(run, fold), TutorialFaces(run.faces, fold.training_rows, run.config.crop.size)
    rows = [int(row) for row in fold.training_rows[:600]]
    some = range(min(300, len(tutorial)))
    our_rate = rate(lambda: [ours[row, 0] for row in rows], len(rows))
    tutorial_rate = rate(lambda: [tutorial[index] for index in some], len(some))
    return {
        "loading alone on one core, pictures/s": round(our_rate),
        "tutorial-style loading alone on one core, pictures/s": round(tutorial_rate),
    }


def store_rates(faces: Faces, config: Config, store: CropStore) -> dict:
    """Pictures per second into a new store on all cores (processes' start included) and out of the existing one."""
    some = faces.take(np.arange(min(2000, len(faces))))
    with TemporaryDirectory() as folder:
        building = rate(lambda: open_store(some, config.crop, Path(folder)), len(some))
    order = np.random.default_rng(0).permutation(len(store))
    return {
        "crop store, building, pictures/s": round(building),
        "crop store, reading, pictures/s": round(rate(lambda: [store[row] for row in order], len(order))),
    }


def prediction_rate(run: Run, state: TrainState) -> float:
    rows = np.arange(min(512, len(run.faces)))

    model = prepare_model(state.model)

    def predict() -> object:
        return predict_points(model, run.store, rows, run.config, run.faces.markup)

    predict()
    return round(rate(predict, len(rows)), 1)


def rate(do: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    do()
    return count / (time.perf_counter() - start)


def endless(begin: Callable[[], Iterator]) -> Iterator:
    while True:
        yield from begin()


def describe_machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}"
    versions = f"torch {torch.__version__}, OpenCV {cv2.__version__}, Python {platform.python_version()}"
    return f"{device.type}: {name}; {versions}"


@click.command(help=__doc__)
@CONFIG
@SET
@DATA_ROOT
@DEVICE
def main(**options: Any) -> None:
    given = Given(name=None, **options)
    try:
        session, experiment = read_session(given), read_experiment(given)
        check_names(experiment.config)
        figures = bench(session, experiment)
    except UserError as error:
        say_error(error)
        sys.exit(2)
    for key, value in figures.items():
        say(f"{key}: {value}")
    kind = re.sub(r"[^a-z0-9]+", "-", figures["machine"].partition(";")[0].lower()).strip("-")
    what = f"{figures['crop']}px-batch{figures['batch']}{'-synthetic' if figures['synthetic faces'] else ''}"
    name = f"{kind}_{what}_torch-{torch.__version__.partition('+')[0]}_{figures['date']}.csv"
    write_text(session.places.root / RESULTS / name, pandas.DataFrame([figures]).to_csv(index=False))
    say_made(RESULTS / name)


if __name__ == "__main__":
    main()
