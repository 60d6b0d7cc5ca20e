"""The Python API: a trained experiment, or a blend of several, loaded once and asked about any picture.

    import foldmark

    predictor = foldmark.load("resnet18")
    points_px, std_px = predictor.predict("friends.jpg", boxes=[(412, 230, 180, 180)])

It needs the run folders, not the data set, and gives what the competition file would hold (see `ensemble`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image

from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.markup import Markup
from foldmark.data.crops import Crops, cut_crops, join_crops
from foldmark.data.decode import grey_photo
from foldmark.data.sets import pick_set
from foldmark.ensemble.calibration import Calibration
from foldmark.ensemble.ensemble import blend_members, load_model, mean_of_folds
from foldmark.ensemble.fit import FILE, fitted, read_fit
from foldmark.models.device import pick_device
from foldmark.models.inference import predict_points
from foldmark.runs.run import RUNS, finished_folds, stored_config, trained_on_synthetic


@dataclass(frozen=True)
class LoadedMember:
    """One experiment's part: the net of each finished fold, and its weight in the blend."""

    config: Config
    nets: list[torch.nn.Module]
    weight: float


@dataclass(frozen=True)
class Looks:
    """The faces of one picture, cut out: their crops for each member, and the longer sides (n, 1) of their boxes."""

    crops: list[Crops]
    sides_px: np.ndarray


@dataclass(frozen=True)
class Predictor:
    """Nets ready to predict; made by `load`.

    name: of the experiment, or of those blended. markup: what the points mean (68 of iBUG 300-W unless the experiment
    learnt others). synthetic_faces: whether it learnt from faces that Foldmark generates, and so knows nothing about real ones.
    """

    name: str
    markup: Markup
    synthetic_faces: bool
    device: torch.device
    members: list[LoadedMember]
    calibration: Calibration

    def predict(self, image: np.ndarray | Image.Image | str | Path, boxes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """points_px (n, 68, 2) float64, x and y in pixels of the image, and std_px (n, 68) float64, the standard deviation of
        each coordinate of a point, calibrated on out-of-fold predictions.

        image: uint8 (height, width) or RGB (height, width, 3), a Pillow image, or the path of a picture file. Pillow images
        and files are taken upright, as every viewer shows them: turned as their EXIF note says.
        boxes: (n, 4) left, top, width, height in pixels of that image, each about as dlib's face detector gives it: from the
        brows to the chin. They may leave the image.

        Raises ValueError, which says what is wrong, for an image or a box that cannot be used.
        """
        return self.predict_all([self.cut(image, boxes)])[0]

    def cut(self, image: np.ndarray | Image.Image | str | Path, boxes: ArrayLike) -> Looks:
        """The first half of `predict`: cut the faces out, so that those of many pictures can be predicted together."""
        boxes_px = np.asarray(boxes, np.float64)
        boxes_px = boxes_px.reshape(-1, 4) if boxes_px.size == 0 else boxes_px
        if boxes_px.ndim != 2 or boxes_px.shape[1] != 4:
            raise ValueError(f"boxes are {boxes_px.shape}; they are (n, 4): left, top, width, height")
        if not np.isfinite(boxes_px).all() or (np.abs(boxes_px) > 1e6).any() or (boxes_px[:, 2:] <= 0).any():
            raise ValueError("a box has no area, or is no place in a picture")
        grey = grey_photo(image)
        crops = [cut_crops(grey, boxes_px, member.config.crop) for member in self.members]
        return Looks(crops, boxes_px[:, 2:].max(axis=1, keepdims=True, initial=0))

    def predict_all(self, pictures: Sequence[Looks]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The second half: what `predict` gives for each picture, with all faces in common batches."""
        counts = [len(looks.sides_px) for looks in pictures]
        if not sum(counts):
            return [(np.zeros((0, self.markup.count, 2)), np.zeros((0, self.markup.count))) for _ in pictures]
        means_px, variances = [], []
        for index, member in enumerate(self.members):
            crops = join_crops([looks.crops[index] for looks in pictures])
            rows = np.arange(len(crops))
            parts = [predict_points(net, crops, rows, member.config, self.markup) for net in member.nets]
            mean_px, variance = mean_of_folds(parts)
            means_px.append(mean_px)
            variances.append(variance)
        points_px, spread_px = blend_members(means_px, variances, [member.weight for member in self.members])
        std_px = self.calibration.std_for_sides(spread_px, np.concatenate([looks.sides_px for looks in pictures]))
        ends = np.cumsum(counts)[:-1]
        return list(zip(np.split(points_px, ends), np.split(std_px, ends), strict=True))


def load(run: str | Path | Sequence[str | Path], *, device: str = "auto", data_root: str | Path | None = None) -> Predictor:
    """Load an experiment's finished folds, once.

    run: a run folder (`runs/resnet18`), an experiment's name below `runs/`, or several: their blend.
    device: auto, cpu, cuda, cuda:1 or mps.
    data_root: where the data set is, to fit what `train` and `csv` have not left in the run folder: the calibration, and the
    weights of a blend. Without it, nothing but the run folders is read.

    Raises UserError for a run that is not there, not finished or damaged, or has no calibration.
    """
    folders = _folders(run)
    fit = fitted(folders, None if data_root is None else Path(data_root))
    configs = [stored_config(folder) for folder in folders]
    markups = [_markup(config) for config in configs]
    if len({(markup.name, markup.count) for markup in markups}) > 1:
        raise UserError(f"{', '.join(map(str, folders))}: learnt different points, so they cannot be blended.")
    where = pick_device(device)
    members = []
    for folder, config, weight in zip(folders, configs, fit.weights(folders), strict=True):
        if not weight:
            continue
        paths = [folder / f"fold{fold}" / "last.pt" for fold in finished_folds(folder)]
        nets = [load_model(path, config, markups[0].count, where) for path in paths]
        members.append(LoadedMember(config, nets, weight))
    name = Path(run).name if isinstance(run, str | Path) else "+".join(folder.name for folder in folders)
    return Predictor(name, markups[0], any(map(trained_on_synthetic, folders)), where, members, fit.curve)


def _folders(run: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(run, str | Path):
        if not run:
            raise UserError("no run named; name an experiment, such as resnet18.")
        return [folder for one in run for folder in _folders(one)]
    folder = next((path for path in (Path(run), RUNS / run) if (path / "config.yaml").is_file() or (path / FILE).is_file()), None)
    if folder is None:
        raise UserError(f"{run}: no such run, nor one of that name in {RUNS}; run make train first.")
    if (folder / "config.yaml").is_file():
        return [folder]
    return [folder.parent / member.run for member in read_fit(folder / FILE).members]


def _markup(config: Config) -> Markup:
    markup = pick_set(config.data.set).markup
    return markup.pick(config.data.points) if config.data.points else markup
