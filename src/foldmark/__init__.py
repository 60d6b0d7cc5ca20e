"""Foldmark: from a folder of annotated faces to a checked competition file.

The modules in pipeline order: faces, folds, crops, augment, train, predict, ensemble, submission.

For programs of your own: `foldmark.load("resnet18").predict(image, boxes)`, see `foldmark.ensemble.api`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foldmark.ensemble.api import Predictor, load

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "load"]


def __getattr__(name: str) -> object:
    # Looked up when they are used, so that the command line need not wait for torch.
    if name in ("Predictor", "load"):
        from foldmark.ensemble import api as predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
