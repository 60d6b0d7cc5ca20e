"""What a net that learned all faces is worth: figures of a net made in the same way, on a fold that neither it nor its teachers
have seen. They are kept as `runs/<name>/nested.json`, because the net to take away has none of its own."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import digest, read_record, write_text
from foldmark.core.metrics import bootstrap_interval
from foldmark.ensemble.oof import read_oof
from foldmark.runs.run_folder import RunFolder

Interval = tuple[float, float]


class JudgedNet(BaseModel):
    """The NME in percent of a net, or of an ensemble, with its 95 % interval, and by how much it is above the first one's on the
    same faces."""

    model_config = ConfigDict(allow_inf_nan=False)

    what: str
    run: str
    nme: float
    interval: Interval
    more: float
    more_interval: Interval

    @classmethod
    def judge(cls, what: str, run: str, nme: Mapping[str, np.ndarray], groups: list[str]) -> "JudgedNet":
        """One of the nets of `nme`: the NME (n,) of each face by net, that to compare with first. groups: of the n faces."""
        own, more = nme[what], nme[what] - next(iter(nme.values()))
        above = bootstrap_interval(more, groups) if more.any() else (0.0, 0.0)
        interval = bootstrap_interval(own, groups)
        return cls(what=what, run=run, nme=own.mean(), interval=interval, more=more.mean(), more_interval=above)

    @property
    def row(self) -> dict[str, str]:
        """Its row of a table."""
        (low, high), (least, most) = self.interval, self.more_interval
        compared = f"{self.more:+.3f} ({least:+.3f} to {most:+.3f})" if self.more or least or most else ""
        return {"net": self.what, "run": self.run, "NME %": f"{self.nme:.3f} ({low:.3f} to {high:.3f})", "to the first": compared}


class NestedFigures(BaseModel):
    """The nets that were judged on the faces of a fold: ensemble, distilled net, plain net. taught: the digest of the points that
    the net to take away learned from its teachers (`digest_taught`); empty in files of earlier versions."""

    fold: int
    faces: int
    nets: list[JudgedNet] = Field(min_length=3, max_length=3)
    taught: str = ""

    @property
    def distilled(self) -> JudgedNet:
        return self.nets[1]

    def describe_net(self) -> str:
        """What stands for the figure of the net that learned all faces, in a sentence."""
        net = self.distilled
        return (
            f"it learned all faces, so it has no figure of its own; a net made in the same way ({net.run}) has NME "
            f"{net.nme:.2f} % ({net.interval[0]:.2f} to {net.interval[1]:.2f}) on {self.faces} faces that neither it nor its "
            "teachers had seen."
        )

    def write(self, path: Path) -> None:
        write_text(path, self.model_dump_json(indent=1) + "\n")


def read_nested(path: Path) -> NestedFigures:
    """Raises UserError for a file that is missing or damaged."""
    return read_record(path, NestedFigures, "run make distill again, which writes it")


def digest_taught(teachers: RunFolder, faces: Faces) -> str:
    """A digest of the OOF points that a run's nets predict for the faces; a distilled net learns them."""
    return digest(read_oof(teachers, faces).points_px.tobytes().hex())


def check_taught(net: RunFolder, teachers: RunFolder, faces: Faces) -> None:
    """Raise UserError for a distilled net whose teachers were trained anew since. Without teachers, or in a file of an earlier
    version, there is nothing to compare."""
    nested = read_nested(net.nested_file)
    if nested.taught and teachers.finished and nested.taught != digest_taught(teachers, faces):
        raise UserError(
            f"{net.path}: learned from other nets than those that {teachers.path} holds now; remove it and run make distill "
            "again, or name a fold of these nets to export, such as FOLDS=0."
        )
