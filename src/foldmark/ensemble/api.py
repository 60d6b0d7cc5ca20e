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
from foldmark.core.faces import Faces
from foldmark.core.files import expand_user
from foldmark.core.markup import Markup
from foldmark.data.crops import join_crops
from foldmark.data.sets import find_data, pick_set
from foldmark.ensemble.blend import blend_predictions
from foldmark.ensemble.calibration import Calibration
from foldmark.ensemble.ensemble import average_folds
from foldmark.ensemble.face_cuts import CutFaces, PredictedPoints, cut_faces
from foldmark.ensemble.fit import find_fit, find_nets, read_fit
from foldmark.models.device import pick_device
from foldmark.models.inference import predict_points, prepare_model
from foldmark.models.net import PointRegressor
from foldmark.models.trained import load_model
from foldmark.runs.binding import require_unchanged
from foldmark.runs.places import Places
from foldmark.runs.run import pick_faces
from foldmark.runs.run_folder import RunFolder
from foldmark.synthetic.sets import make_synthetic_data


@dataclass(frozen=True)
class LoadedMember:
    """One experiment's part: the model of each finished fold, and its weight in the blend."""

    config: Config
    models: list[PointRegressor]
    weight: float


@dataclass(frozen=True)
class Predictor:
    """Models ready to predict; made by `load`.

    name: of the experiment, or of those blended. markup: what the points mean (68 of iBUG 300-W unless the experiment
    learned others). synthetic_faces: whether it learned from faces that Foldmark generates, and so knows nothing about real ones.
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
        (found,) = self.predict_all([self.cut(image, boxes)])
        return found.points_px, found.std_px

    def cut(self, image: np.ndarray | Image.Image | str | Path, boxes: ArrayLike) -> CutFaces:
        """The first half of `predict`: cut the faces out, so that those of many pictures can be predicted together."""
        return cut_faces(image, boxes, [member.config.crop for member in self.members])

    def predict_all(self, pictures: Sequence[CutFaces]) -> list[PredictedPoints]:
        """The second half, for all faces of these pictures in common batches."""
        counts = [len(faces) for faces in pictures]
        if not sum(counts):
            empty = PredictedPoints(np.zeros((0, self.markup.count, 2)), np.zeros((0, self.markup.count)), np.zeros(0, bool))
            return [empty for _ in pictures]
        means = []
        for index, member in enumerate(self.members):
            crops = join_crops([faces.crops[index] for faces in pictures])
            rows = np.arange(len(crops))
            parts = [predict_points(model, crops, rows, member.config, self.markup) for model in member.models]
            means.append(average_folds(parts))
        found = blend_predictions(means, np.array([member.weight for member in self.members]))
        sides_px = np.concatenate([faces.sides_px for faces in pictures])
        std_px, unlike = self.calibration.std_px(found, sides_px), self.calibration.find_unlike(found, sides_px)
        ends = np.cumsum(counts)[:-1]
        parts_of = (np.split(values, ends) for values in (found.points_px, std_px, unlike))
        return [PredictedPoints(*arrays) for arrays in zip(*parts_of, strict=True)]


def load(run: str | Path | Sequence[str | Path], *, device: str = "auto", data_root: str | Path | None = None) -> Predictor:
    """Load an experiment's finished folds, once. Reads only; nothing is written.

    run: a run folder (`runs/resnet18`), an experiment's name below `runs/`, or several: their blend.
    device: auto, cpu, cuda, cuda:1 or mps.
    data_root: where the data set is, to fit what `train` and `csv` have not left in the run folder: the calibration, and the
    weights of a blend. Without it, nothing but the run folders is read.

    Raises UserError for a run that is not there, not finished or damaged, or has no calibration.
    """
    folders = _find_folders(run)
    configs = [folder.read_config() for folder in folders]
    markups = [_markup(config) for config in configs]
    if len({(markup.name, markup.count) for markup in markups}) > 1:
        raise UserError(f"{', '.join(str(folder.path) for folder in folders)}: learned different points; they cannot be blended.")
    fit = find_fit(folders, lambda: None if data_root is None else _training_faces(folders[0], configs[0], Path(data_root)))
    where = pick_device(device)
    members = []
    for folder, config, weight in zip(folders, configs, fit.weights(folders), strict=True):
        if weight:
            nets = find_nets(folder)
            for net in nets:
                require_unchanged(net, net.checkpoint)
            models = [prepare_model(load_model(net.checkpoint, config, markups[0].count, where)) for net in nets]
            members.append(LoadedMember(config, models, weight))
    name = Path(run).name if isinstance(run, str | Path) else "+".join(folder.name for folder in folders)
    return Predictor(name, markups[0], any(folder.synthetic for folder in folders), where, members, fit.read_calibration())


def _find_folders(run: str | Path | Sequence[str | Path]) -> list[RunFolder]:
    if not isinstance(run, str | Path):
        if not run:
            raise UserError("no run named; name an experiment, such as resnet18.")
        return [folder for one in run for folder in _find_folders(one)]
    places = Places(Path.cwd())
    for folder in (RunFolder(expand_user(Path(run), "run").absolute()), RunFolder(places.run(str(run)))):
        if folder.config_file.is_file():
            return [folder]
        if folder.ensemble_file.is_file():
            return [RunFolder(folder.path.parent / member.run) for member in read_fit(folder.ensemble_file).members]
    raise UserError(f"{run}: no such run, nor one of that name in {places.runs}; run make train first.")


def _training_faces(folder: RunFolder, config: Config, data_root: Path) -> Faces | None:
    """The faces that the run learned, None where the data set is not there."""
    data = find_data(data_root, config.data.set)
    if data is None or data.synthetic != folder.synthetic:
        if not folder.synthetic:
            return None
        data = make_synthetic_data(config.data.set, Places(Path.cwd()).cache)
    return pick_faces(data, config)


def _markup(config: Config) -> Markup:
    markup = pick_set(config.data.set).markup
    return markup.pick(config.data.points) if config.data.points else markup
