"""Held-out faces with truth and prediction, cut from the crop store: one picture, and the sheet faces.png of a fold."""

import numpy as np

from foldmark.core import geometry
from foldmark.core.metrics import face_nme
from foldmark.runs.run import Run
from foldmark.show.overlay import draw_points, draw_sheet, save_png
from foldmark.train.listener import Listener

SHOWN_FACES = 12


def draw_crop(run: Run, row: int, points_px: np.ndarray, width: int = 360) -> np.ndarray:
    """A face's store crop, `width` pixels wide, with truth and prediction (k, 2) drawn in."""
    px_to_store = run.store.px_to_store[row]
    truth_store, points_store = (geometry.apply(px_to_store, points) for points in (run.faces.points_px[row], points_px))
    return draw_points(run.store[row], truth_store, points_store, markup=run.faces.markup, width=width)


class FaceSheet(Listener):
    """Writes the sheet of a fold's faces when it is finished, from the best to the worst, so that a glance shows what the NME
    stands for."""

    def __init__(self, run: Run, fold: int) -> None:
        self.run, self.folder = run, run.fold(fold)

    def end(self, summary: dict) -> None:
        if not self.folder.holds_out:
            return
        rows, prediction = self.folder.read_oof(self.run.faces)
        points_px = prediction.points_px
        nme = face_nme(points_px, self.run.faces.take(rows))
        shown = np.argsort(nme)[np.linspace(0, len(rows) - 1, min(SHOWN_FACES, len(rows))).astype(int)]
        tiles = [draw_crop(self.run, rows[i], points_px[i]) for i in shown]
        captions = [f"NME {nme[i]:.1f} %" for i in shown]
        save_png(self.folder.faces_sheet, draw_sheet(tiles, columns=4, captions=captions, legend=True))
