"""How fast the main job is, measured side by side in one run: ours, the net alone, and the loader that tutorials show."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional

from foldmark.core.config import Config
from foldmark.core.faces import Faces
from foldmark.core.files import write_text
from foldmark.data.crops import CropStore, open_store, refuse_damaged
from foldmark.data.sets import Data
from foldmark.models.device import peak_memory_mb, pick_device, synchronise
from foldmark.models.inference import predict_points
from foldmark.runs.experiment import CACHE
from foldmark.runs.run import Run
from foldmark.show.terminal import say, say_made, show_progress
from foldmark.train.batches import TrainingFaces
from foldmark.train.loop import (
    as_fast_as_possible,
    average,
    batches,
    fold_data,
    fresh,
    measured_speed,
    training_faces,
    training_step,
)

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
        picture = Image.open(self.faces.path(row)).convert("RGB")
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


def bench(config: Config, data: Data, device_name: str) -> None:
    device = pick_device(device_name)
    faces = data.train
    store = open_store(faces, config.crop, CACHE, progress=show_progress)
    refuse_damaged(faces, store, "mend or remove these faces before measuring.")
    run = Run(Path("runs"), config, faces, np.arange(len(faces)) % config.folds.count, store)
    figures = {
        "date": date.today().isoformat(),
        "machine": machine(device),
        "settings": {
            "crop": list(config.crop.size),
            "batch": config.train.batch,
            "faces": len(faces),
            "synthetic faces": data.synthetic,
        },
        **training_rates(run, device),
        **store_rates(faces, config, store),
        "prediction with flip, pictures/s": prediction_rate(run, device),
        "peak memory, MB": round(peak_memory_mb(device)),
    }
    for key, value in figures.items():
        say(f"{key}: {value}")
    path = Path("benchmarks") / f"bench-{device.type}-{config.crop.size[0]}px{'-synthetic' if data.synthetic else ''}.json"
    write_text(path, json.dumps(figures, indent=1) + "\n")
    say_made(path)


def training_rates(run: Run, device: torch.device) -> dict:
    """Pictures per second, the median of rounds taken in turn, so that a drifting machine hits all alike."""
    config, data = run.config, fold_data(run, 0)
    speed = measured_speed(run, device)
    model, averaged, optimizer = fresh(run, data, 0, device)
    as_fast_as_possible(model, speed).train()
    as_fast_as_possible(averaged, speed)
    size, batch = config.crop.size, config.train.batch
    ours = training_faces(run, data)
    tutorial = DataLoader(TutorialFaces(run.faces, data.training_rows, size), batch, shuffle=True, drop_last=True)

    def step(crops: torch.Tensor, points_crop: torch.Tensor) -> None:
        training_step(model, optimizer, crops, points_crop, torch.ones(batch, device=device), config, speed)
        average(averaged, model, config.train.ema, 1000)

    resident = next(iter(endless(lambda epoch: batches(ours, data, 0, epoch, config, device))))[:2]
    sources: dict[str, Iterator] = {
        "net": endless(lambda _: iter([resident])),
        "ours": endless(lambda epoch: batches(ours, data, 0, epoch, config, device)),
        "tutorial": endless(lambda _: iter(tutorial)),
    }
    step(*resident)
    memory_before = peak_memory_mb()
    rates = {name: [] for name in sources}
    memory_of_ours = memory_before
    for _ in range(ROUNDS):
        for name, source in sources.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                crops, points_crop = next(source)[:2]
                step(crops.to(device), points_crop.to(device))
            synchronise(device)
            rates[name].append(STEPS * batch / (time.perf_counter() - start))
            if name == "ours" and len(rates["tutorial"]) == 0:
                memory_of_ours = peak_memory_mb()
    shares = [ours / net for ours, net in zip(rates["ours"], rates["net"], strict=True)]
    over_tutorial = [ours / theirs for ours, theirs in zip(rates["ours"], rates["tutorial"], strict=True)]
    loading = {"ours": loading_rate(ours, data), "tutorial": tutorial_loading_rate(tutorial.dataset)}
    return {
        "way": f"{'channels_last' if speed.channels_last else 'contiguous'} {'bf16' if speed.bf16 else 'float32'}",
        "training end to end, pictures/s": round(float(np.median(rates["ours"])), 1),
        "net alone on a resident batch, pictures/s": round(float(np.median(rates["net"])), 1),
        "end to end over net alone, median of rounds": round(float(np.median(shares)), 3),
        "training through a tutorial-style loader, pictures/s": round(float(np.median(rates["tutorial"])), 1),
        "ours over tutorial-style, whole step": round(float(np.median(over_tutorial)), 2),
        "loading and augmenting alone, pictures/s on one core": {key: round(rate) for key, rate in loading.items()},
        "ours over tutorial-style, loading alone": round(loading["ours"] / loading["tutorial"], 2),
        "memory that loading adds to the net's own, MB": round(memory_of_ours - memory_before),
    }


def loading_rate(ours: TrainingFaces, data) -> float:
    rows = [(int(row), 0) for row in data.training_rows[:600]]
    return rate(lambda: [ours[item] for item in rows], len(rows))


def tutorial_loading_rate(faces: TutorialFaces) -> float:
    rows = range(min(300, len(faces)))
    return rate(lambda: [faces[row] for row in rows], len(rows))


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


def prediction_rate(run: Run, device: torch.device) -> float:
    model, _, _ = fresh(run, fold_data(run, 0), 0, device)
    rows = np.arange(min(512, len(run.faces)))
    predict = lambda: predict_points(model, run.store, rows, run.config, run.faces.markup, device)  # noqa: E731
    predict()
    return round(rate(predict, len(rows)), 1)


def rate(do: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    do()
    return count / (time.perf_counter() - start)


def endless(epoch: Callable[[int], Iterator]) -> Iterator:
    number = 0
    while True:
        yield from epoch(number)
        number += 1


def machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}"
    versions = f"torch {torch.__version__}, OpenCV {cv2.__version__}, Python {platform.python_version()}"
    return f"{device.type}: {name}; {versions}"
