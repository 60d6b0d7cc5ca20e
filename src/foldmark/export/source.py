"""The net that is exported, in torch, and the faces that its files are compared on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from foldmark.core import geometry
from foldmark.core.config import CropConfig
from foldmark.core.files import file_sha256
from foldmark.data.crops import find_other_crop
from foldmark.data.sets import pick_set
from foldmark.ensemble.calibration import Calibration
from foldmark.ensemble.nested import NestedFigures
from foldmark.export.facts import Facts, Figures, Precision, describe_markup
from foldmark.export.graph import ExportedAligner, ExportedNet
from foldmark.export.looks import Nets, cut_looks
from foldmark.models.inference import count_oversampling, prepare_model
from foldmark.models.net import PointRegressor
from foldmark.models.trained import load_model
from foldmark.runs.environment import describe_environment
from foldmark.runs.fold_folder import FoldFolder
from foldmark.runs.run import Run

FACES = 200  # that the files are compared on, and that int8 finds its ranges on


@dataclass(frozen=True)
class Source:
    """The net to export: of which run and fold, with the calibration of its points' uncertainty. nested: of a net that learned
    all faces, the figures that stand for its own."""

    run: Run
    fold: FoldFolder
    calibration: Calibration
    nested: NestedFigures | None = None

    @cached_property
    def model(self) -> PointRegressor:
        return load_model(self.fold.checkpoint, self.run.config, self.run.faces.markup.count, torch.device("cpu"))

    @cached_property
    def net(self) -> ExportedNet:
        prepared = prepare_model(self.model).to(memory_format=torch.contiguous_format)
        return ExportedNet(prepared, self.calibration, self.run.config, self.run.faces.markup).eval()

    @cached_property
    def aligner(self) -> ExportedAligner | None:
        if self.model.aligner is None or self.aligner_crop is None:
            return None
        prepared = prepare_model(self.model.aligner.model).to(memory_format=torch.contiguous_format)
        return ExportedAligner(prepared, self.aligner_crop.size[0] // self.model.aligner.config.crop.size[0]).eval()

    @cached_property
    def aligner_crop(self) -> CropConfig | None:
        """The crop that the aligner is given, as large as it is cut; the net in the file shrinks it."""
        if self.model.aligner is None:
            return None
        own = self.model.aligner.config.crop
        times = count_oversampling(find_other_crop(self.run.store.size, self.run.config.crop, own)[1])
        return own.model_copy(update={"size": (times * own.size[0], times * own.size[1])})

    @property
    def in_torch(self) -> Nets:
        """The net and its aligner in torch."""
        return Nets(self._run_net, self._run_aligner if self.aligner else None)

    @torch.inference_mode()
    def _run_net(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        points_crop, std_crop, unlike = self.net(torch.from_numpy(crops))
        return points_crop.numpy(), std_crop.numpy(), unlike.numpy()

    @torch.inference_mode()
    def _run_aligner(self, crops: np.ndarray) -> np.ndarray:
        assert self.aligner is not None
        return self.aligner(torch.from_numpy(crops)).numpy()

    @cached_property
    def test_rows(self) -> np.ndarray:
        """Faces to compare on: some that the net has not seen, or training faces where it has seen all."""
        held_out = self.run.held_out_rows(self.fold.number)
        return self._pick(held_out if len(held_out) else self.run.training_rows(self.fold.number))

    @property
    def range_crops(self) -> np.ndarray:
        """Training crops uint8 (n, 1, height, width) that int8 finds its ranges on: aligned to the mean face and, without an
        aligner, half of them as the box says."""
        run, facts = self.run, self.describe("fp32", {})
        rows = self._pick(run.training_rows(self.fold.number))
        points_store = geometry.apply(run.store.px_to_store[rows], run.faces.points_px[rows])
        cuts = geometry.align(points_store, np.array(facts.mean_points_crop))
        if facts.aligner is None:
            cuts[::2] = geometry.centre_affine(run.store.size, run.config.crop.size)
        return cut_looks(run.store, rows, cuts, facts.crop.size)

    @staticmethod
    def _pick(rows: np.ndarray) -> np.ndarray:
        return np.sort(np.random.default_rng(0).permutation(rows)[:FACES])

    def choose_figures(self, figures: Figures) -> Figures:
        """Of the figures of a file those that may be told: where the net has learned the faces that it was compared on, how far
        the file is from torch, and the nested figure."""
        if self.fold.holds_out or self.nested is None:
            return figures
        lost = figures["nme_percent"] - figures["nme_percent_in_torch"]
        return {
            **{key: figures[key] for key in ("faces", "largest_difference_px") if key in figures},
            "nme_percent_lost": round(lost, 4),
            "nested_nme_percent": round(self.nested.distilled.nme, 4),
            "nested_faces": self.nested.faces,
        }

    def describe(self, precision: Precision, figures: Figures) -> Facts:
        """What the file says of itself."""
        run, environment = self.run, self.run.folder.read_environment()
        synthetic = environment["synthetic_faces"]
        net = f"one that learned all {len(run.faces)} faces and holds out none"
        if self.fold.holds_out:
            net = f"fold {self.fold.number}, which holds out {len(run.held_out_rows(self.fold.number))} of {len(run.faces)} faces"
        return Facts(
            name=run.name,
            net=net,
            precision=precision,
            crop=run.config.crop,
            looks=1 if run.config.predict.realign == 0 else 2,
            aligner=self.aligner_crop,
            mean_points_crop=self.model.mean_points_crop.double().tolist(),
            markup=describe_markup(run.faces.markup),
            synthetic_faces=synthetic,
            terms="learned from synthetic faces of Foldmark: no terms" if synthetic else pick_set(run.config.data.set).terms,
            figures=figures,
            checkpoint=file_sha256(self.fold.checkpoint),
            revision=environment["revision"],
            versions=describe_environment(run.places.root, synthetic=synthetic)["versions"],
        )
