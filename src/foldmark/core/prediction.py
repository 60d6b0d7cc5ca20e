"""What a model, or an ensemble of several, says about faces."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """Predictions of n faces, in pixels of the original pictures.

    points_px: (n, k, 2). spread_px: (n, k) how far the predictions that were averaged lie from their mean, root mean square.
    votes_px: (n, k) how far the votes of cells that each of them is the mean of lie from it, root mean square of a coordinate; 0
    for a head without votes.
    """

    points_px: np.ndarray
    spread_px: np.ndarray
    votes_px: np.ndarray

    def take(self, rows: np.ndarray) -> "Prediction":
        """The predictions of these rows (indices or a mask)."""
        return Prediction(self.points_px[rows], self.spread_px[rows], self.votes_px[rows])
