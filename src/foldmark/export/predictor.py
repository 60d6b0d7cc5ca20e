"""An exported file as a predictor: the API of `foldmark.load` by onnxruntime, without torch."""

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from foldmark.core.errors import UserError
from foldmark.core.markup import Markup
from foldmark.data.crops import join_crops
from foldmark.ensemble.face_cuts import CutFaces, PredictedPoints, cut_faces
from foldmark.export.facts import ALIGNER_KEY, ALIGNER_OUTPUTS, INPUT, OUTPUTS, Facts, parse_facts
from foldmark.export.looks import Nets, predict_faces

ENDING = ".onnx"


@dataclass(frozen=True)
class OnnxPredictor:
    """An exported net ready to predict; made by `load_onnx`. It predicts as `ensemble.api.Predictor` does. facts: what the file
    says of itself. aligner_model: the aligner as an ONNX model, where the file holds one."""

    facts: Facts
    nets: Nets
    aligner_model: bytes | None = None

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def markup(self) -> Markup:
        return self.facts.markup.markup

    @property
    def synthetic_faces(self) -> bool:
        return self.facts.synthetic_faces

    def predict(self, image: np.ndarray | Image.Image | str | Path, boxes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """points_px (n, k, 2) and std_px (n, k), both float64 in pixels of the image, of the faces in these boxes (n, 4): see
        `ensemble.api.Predictor.predict`. Raises ValueError for an image or a box that cannot be used."""
        (found,) = self.predict_all([self.cut(image, boxes)])
        return found.points_px, found.std_px

    def cut(self, image: np.ndarray | Image.Image | str | Path, boxes: ArrayLike) -> CutFaces:
        """The first half of `predict`: cut the faces out, so that those of many pictures can be predicted together."""
        return cut_faces(image, boxes, [self.facts.crop])

    def predict_all(self, pictures: Sequence[CutFaces]) -> list[PredictedPoints]:
        """The second half, for all faces of these pictures in common batches."""
        if not pictures:
            return []
        crops = join_crops([faces.crops[0] for faces in pictures])
        found = predict_faces(self.nets, self.facts, crops, np.arange(len(crops)))
        ends = np.cumsum([len(faces) for faces in pictures])[:-1]
        parts = (np.split(values, ends) for values in (found.points_px, found.std_px, found.unlike))
        return [PredictedPoints(*arrays) for arrays in zip(*parts, strict=True)]


def load_onnx(path: Path, threads: int = 0) -> OnnxPredictor:
    """Load an exported file. threads: of the processor, 0 for all. Raises UserError for a file that is missing, damaged or not
    exported by Foldmark, and where onnxruntime is not installed."""
    session = open_session(path, threads)
    metadata = session.get_modelmeta().custom_metadata_map
    facts, aligner = parse_facts(metadata), find_aligner(metadata)
    if facts is None or [one.name for one in session.get_outputs()] != list(OUTPUTS):
        raise UserError(f"{path}: was not exported by this version of Foldmark; make it again with make export.")
    return OnnxPredictor(facts, open_nets(path, session, aligner, threads), aligner)


def open_session(path: Path, threads: int = 0, content: bytes | None = None) -> Any:
    """onnxruntime's session of a file, or of a model that it holds, on the processor. Raises UserError as `load_onnx` does."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            f"{path}: needs onnxruntime, which is not installed; make export installs it (or pip install onnxruntime)."
        ) from None
    if not path.is_file():
        raise UserError(f"{path}: no such file; make export writes it below exports.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content or str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  onnxruntime raises classes of its own for damaged files
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{path}: cannot be loaded ({reason}); make it again with make export.") from None


def open_nets(path: Path, session: Any, aligner: bytes | None, threads: int = 0) -> Nets:
    """The nets of a file: its session, and the aligner that its metadata holds. Raises UserError as `load_onnx` does."""

    def run_net(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return tuple(session.run(list(OUTPUTS), {INPUT: crops}))

    if aligner is None:
        return Nets(run_net)
    placing = open_session(path, threads, aligner)
    return Nets(run_net, lambda crops: placing.run(list(ALIGNER_OUTPUTS), {INPUT: crops})[0])


def find_aligner(metadata: dict[str, str]) -> bytes | None:
    """The aligner, as an ONNX model, in the metadata of a file; None where it holds none."""
    text = metadata.get(ALIGNER_KEY)
    try:
        return None if text is None else b64decode(text, validate=True)
    except ValueError:
        return b"damaged"  # which onnxruntime refuses as any damaged model
