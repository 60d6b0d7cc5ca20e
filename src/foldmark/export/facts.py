"""What an exported file says of itself, in its metadata: all that a program needs to use it, and where it comes from."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from foldmark.core.config import CropConfig
from foldmark.core.markup import Markup

# Of the metadata: the facts as JSON, and the aligner as an ONNX model of its own in base64.
KEY, ALIGNER_KEY = "foldmark", "aligner"
Precision = Literal["fp32", "int8"]
Figures = dict[str, float]
INPUT, OUTPUTS = "crops", ("points_crop", "std_crop", "unlike")
ALIGNER_OUTPUTS = OUTPUTS[:1]


class MarkupFacts(BaseModel):
    """`core.markup.Markup` as plain lists."""

    name: str
    count: int = Field(ge=1, le=1000)
    mirror: list[int]
    eyes: tuple[int, int] | None
    nose_tip: int | None
    regions: dict[str, list[int]]
    lines: list[list[int]]

    @model_validator(mode="after")
    def _within_the_points(self) -> "MarkupFacts":
        named = [*self.mirror, *(self.eyes or ()), *sum([*self.regions.values(), *self.lines], [])]
        if sorted(self.mirror) != list(range(self.count)) or not set(named) <= set(range(self.count)):
            raise ValueError("the markup names points that are not there")
        return self

    @property
    def markup(self) -> Markup:
        return Markup(**{**self.model_dump(), "mirror": np.array(self.mirror)})


class Facts(BaseModel):
    """name: of the experiment. net: which of its nets this is. looks: how often a face is looked at; after each look but the last
    it is cut anew, aligned to mean_points_crop (k, 2) in crop pixels. aligner: where the file holds one, the crop that it sees;
    it is asked before the first look, whose crop is aligned to its points. terms: those of the data that it learned from.
    figures: measured ones by what they are. checkpoint: sha256 of the file that the net was taken from."""

    model_config = ConfigDict(allow_inf_nan=False)

    format: Literal[1] = 1
    name: str
    net: str
    precision: Precision
    crop: CropConfig
    looks: int = Field(ge=1, le=10)
    aligner: CropConfig | None = None
    mean_points_crop: list[tuple[float, float]]
    markup: MarkupFacts
    synthetic_faces: bool
    terms: str
    figures: Figures
    checkpoint: str
    revision: str | None
    versions: dict[str, str | None]

    @model_validator(mode="after")
    def _as_many_points(self) -> "Facts":
        if len(self.mean_points_crop) != self.markup.count:
            raise ValueError("the mean face has another number of points than the markup")
        return self


def describe_markup(markup: Markup) -> MarkupFacts:
    return MarkupFacts(
        name=markup.name,
        count=markup.count,
        mirror=markup.mirror.tolist(),
        eyes=markup.eyes,
        nose_tip=markup.nose_tip,
        regions=markup.regions,
        lines=markup.lines,
    )


def parse_facts(metadata: dict[str, str]) -> Facts | None:
    """The facts in a file's metadata, None where it holds none that can be used."""
    try:
        return Facts.model_validate_json(metadata.get(KEY, ""))
    except ValidationError:
        return None
