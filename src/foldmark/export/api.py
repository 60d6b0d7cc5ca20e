"""`foldmark.load`: a trained experiment, a blend of several, or an exported file. Imports torch only for what needs it."""

from collections.abc import Sequence
from pathlib import Path

from foldmark.core.errors import UserError
from foldmark.core.files import expand_user
from foldmark.ensemble.face_cuts import FacePredictor
from foldmark.export.predictor import ENDING, load_onnx


def load(run: str | Path | Sequence[str | Path], *, device: str = "auto", data_root: str | Path | None = None) -> FacePredictor:
    """Load an experiment's finished folds, once, or an exported file. Reads only; nothing is written.

    run: a run folder (`runs/resnet18`), an experiment's name below `runs/`, several of them, which are blended, or a file
    (`exports/resnet18.onnx`), which needs onnxruntime and not torch.
    device: auto, cpu, cuda, cuda:1 or mps; a file is always computed by the processor.
    data_root: where the data set is, to fit what `train` and `csv` have not left in the run folder: the calibration, and the
    weights of a blend. Without it, nothing but the run folders is read.

    Raises UserError for a run that is not there, not finished or damaged, or has no calibration, and for a damaged file.
    """
    if isinstance(run, str | Path) and is_exported(run):
        if device not in ("auto", "cpu"):
            raise UserError(f"DEVICE={device}: {run} is computed by the processor; use DEVICE=auto.")
        return load_onnx(expand_user(Path(run), "run"))
    if not isinstance(run, str | Path) and any(map(is_exported, run)):
        raise UserError(f"{', '.join(map(str, run))}: an exported file is one net and cannot be blended; name it alone.")
    from foldmark.ensemble import api

    return api.load(run, device=device, data_root=data_root)


def is_exported(run: str | Path) -> bool:
    """Whether this names an exported file rather than a run."""
    return Path(run).suffix == ENDING
