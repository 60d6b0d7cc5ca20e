"""The net that is exported, in torch, and the faces that its files are compared on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from foldmark.core import geometry
from foldmark.core.files import file_sha256
from foldmark.data.sets import pick_set
from foldmark.ensemble.calibration import Calibration
from foldmark.export.facts import Facts, Figures, Precision, describe_markup
from foldmark.export.graph import ExportedNet
from foldmark.export.looks import cut_looks
from foldmark.models.inference import prepare_model
from foldmark.models.net import PointRegressor
from foldmark.models.trained import load_model
from foldmark.runs.environment import describe_environment
from foldmark.runs.fold_folder import FoldFolder
from foldmark.runs.run import Run

FACES = 200  # that the files are compared on, and that int8 finds its ranges on


@dataclass(frozen=True)
class Source:
    """The net to export: of which run and fold, with the calibration of its points' uncertainty."""

    run: Run
    fold: FoldFolder
    calibration: Calibration

    @cached_property
    def model(self) -> PointRegressor:
        return load_model(self.fold.checkpoint, self.run.config, self.run.faces.markup.count, torch.device("cpu"))

    @cached_property
    def net(self) -> ExportedNet:
        prepared = prepare_model(self.model).to(memory_format=torch.contiguous_format)
        return ExportedNet(prepared, self.calibration, self.run.config, self.run.faces.markup).eval()

    @torch.inference_mode()
    def run_torch(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The net in torch, as `looks.Net`."""
        points_crop, std_crop, unlike = self.net(torch.from_numpy(crops))
        return points_crop.numpy(), std_crop.numpy(), unlike.numpy()

    @cached_property
    def test_rows(self) -> np.ndarray:
        """Faces to compare on: some that the net has not seen, or training faces where it has seen all."""
        held_out = self.run.held_out_rows(self.fold.number)
        return self._pick(held_out if len(held_out) else self.run.training_rows(self.fold.number))

    @property
    def range_crops(self) -> np.ndarray:
        """Training crops uint8 (n, 1, height, width) that int8 finds its ranges on: half of them as the box says, half aligned
        to the mean face."""
        run, facts = self.run, self.describe("fp32", {})
        rows = self._pick(run.training_rows(self.fold.number))
        points_store = geometry.apply(run.store.px_to_store[rows], run.faces.points_px[rows])
        cuts = geometry.align(points_store, np.array(facts.mean_points_crop))
        cuts[::2] = geometry.centre_affine(run.store.size, run.config.crop.size)
        return cut_looks(facts, run.store, rows, cuts)

    @staticmethod
    def _pick(rows: np.ndarray) -> np.ndarray:
        return np.sort(np.random.default_rng(0).permutation(rows)[:FACES])

    def describe(self, precision: Precision, figures: Figures) -> Facts:
        """What the file says of itself."""
        run, environment = self.run, self.run.folder.read_environment()
        synthetic = environment["synthetic_faces"]
        held_out = len(run.held_out_rows(self.fold.number))
        return Facts(
            name=run.name,
            net=f"fold {self.fold.number}, which holds out {held_out} of {len(run.faces)} faces",
            precision=precision,
            crop=run.config.crop,
            looks=1 if run.config.predict.realign == 0 else 2,
            mean_points_crop=self.model.mean_points_crop.double().tolist(),
            markup=describe_markup(run.faces.markup),
            synthetic_faces=synthetic,
            terms="learned from synthetic faces of Foldmark: no terms" if synthetic else pick_set(run.config.data.set).terms,
            figures=figures,
            checkpoint=file_sha256(self.fold.checkpoint),
            revision=environment["revision"],
            versions=describe_environment(run.places.root, synthetic=synthetic)["versions"],
        )
