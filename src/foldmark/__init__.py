"""Foldmark: from a folder of annotated faces to a checked competition file.

The modules in pipeline order: faces, folds, crops, augment, train, predict, ensemble, submission.

For programs of your own: `foldmark.load("resnet18").predict(image, boxes)`, see `foldmark.ensemble.api`; with an exported file
instead of a run, without torch, see `foldmark.export`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foldmark.ensemble.api import Predictor
    from foldmark.export.api import load

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "load"]


def __getattr__(name: str) -> object:
    # Looked up when they are used, so that the command line need not wait for torch.
    if name == "load":
        from foldmark.export.api import load

        return load
    if name == "Predictor":
        from foldmark.ensemble.api import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
