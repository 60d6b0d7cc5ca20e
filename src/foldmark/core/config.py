"""The config: every key with its default and its limits. An unknown key is an error that names the nearest one."""

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from foldmark.core.errors import UserError
from foldmark.core.yaml_values import read_yaml

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_boolean_as_number(cls, values: Any) -> Any:
        for key, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and key in cls.model_fields and cls.model_fields[key].annotation is not bool:
                raise ValueError(f"{key} is {str(value).lower()} and takes no true or false")
        return values


def _pair(size: Any) -> Any:
    return [size, size] if isinstance(size, int) else size


Side = Annotated[int, Field(ge=32, le=1024)]


class DataConfig(Section):
    set: str = "ibug"  # a row of data/sets.py: which data set to look for below DATA_ROOT
    points: list[Annotated[int, Field(ge=0)]] | None = None  # learn only these points of the markup
    skip_damaged: bool = False  # leave damaged training pictures out instead of stopping


class CropConfig(Section):
    # Width and height in pixels of what the model sees; one number means a square.
    size: Annotated[tuple[Side, Side], BeforeValidator(_pair)] = (128, 128)
    enlargement: float = Field(1.4, gt=0, le=4)  # longer side of the box times this is the side of the crop
    # The crop's centre below the box's, in longer sides of the box: a detector's box has the brows at its top, the chin below.
    down: float = Field(0.0, ge=-0.5, le=0.5)
    margin: float = Field(1.4, ge=1, le=3)  # the store crop's side over the crop's: room for augmentation
    square: bool = True  # False: the box's own shape, squeezed into the size

    @model_validator(mode="after")
    def _square_size(self) -> "CropConfig":
        if self.square and self.size[0] != self.size[1]:
            raise ValueError("a square crop needs a square size; set crop.square=false to cut the box's own shape")
        if self.down and not self.square:
            raise ValueError("crop.down moves square crops only; the box's own shape stays about the box")
        return self


class FoldsConfig(Section):
    count: int = Field(5, ge=2, le=100)
    seed: int = Field(0, ge=0)
    alike: bool = True  # keep photos that look alike in one fold, where the set has such
    split: Literal["kfold", "300w"] = "kfold"  # 300w: not K folds but one, the test faces of the papers
    hold_out_last: int | None = Field(None, ge=1)  # not K folds but one: the last so many photos or people by name
    file: Path | None = None  # a split file to use instead of making one
    # This fold's faces are neither trained on nor held out: for teachers of a net that is judged on them.
    leave_out: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _one_split(self) -> "FoldsConfig":
        if self.split != "kfold" and self.hold_out_last:
            raise ValueError("split and hold_out_last are two splits; set one of them")
        return self


class ModelConfig(Section):
    name: str = "resnet18"  # a row of models/backbones.py: cnn, resnet18, resnet34
    head: str = "pool"  # a row of models/heads.py: pool, flat, cells
    hidden: int = Field(128, ge=1, le=4096)  # flat: width of its first linear layer
    width: int = Field(128, ge=1, le=1024)  # cells: channels of its maps
    # Where a ResNet is anti-aliased: nowhere, at every stride, or only in its first or last ones.
    blur: Literal["none", "all", "early", "late"] = "none"
    blur_size: int = Field(4, ge=2, le=7)  # taps of the blur
    channels: list[Annotated[int, Field(ge=1, le=1024)]] = Field([16, 32, 32, 32], min_length=1, max_length=8)  # cnn: its convs
    kernel: Literal[3, 5, 7] = 3  # cnn
    norm: bool = False  # cnn: batch normalisation after each conv
    weights: str | None = None  # a ResNet starts from imagenet's, downloaded, or from a file's; None: from scratch
    standardise: bool = True  # each crop by its own mean and spread; False: value / 255 - 0.5, as the course does
    # The run, or this config's, whose models find where the crop lies: each fold takes its own fold's, which must hold out the
    # same faces. None: the crop lies about the box.
    aligner: str | None = None


class AugmentConfig(Section):
    rotate: float = Field(15, ge=0, le=180)  # up to +- degrees
    scale: float = Field(0.1, ge=0, le=1)  # up to +- this share, log-uniform
    shift: Share = 0.05  # up to +- this share of the crop's side
    realign: Share = 0.5  # share of the faces that are cropped as an aligner or predict.realign crops them
    realign_jitter: Share = 0.4  # share of rotate, scale and shift that is left for these: the error of the points aligned by
    flip: Share = 0.5  # probability
    brightness: Share = 0.2  # up to +- this share of full white
    contrast: Share = 0.3  # up to +- this share
    blur: Share = 0.1  # probability
    noise: Share = 0.1  # probability
    occlude: Share = 0.0  # probability of a hidden patch


class TrainConfig(Section):
    epochs: int = Field(6, ge=1, le=10_000)
    batch: int = Field(16, ge=2, le=4096)
    lr: float = Field(1e-3, gt=0, le=10)  # the highest, after warm-up
    lr_factor: float = Field(1, gt=0, le=1)  # times the rate, to resume a fold that diverged; no part of the run
    weight_decay: float = Field(0.05, ge=0, le=10)
    warmup: Share = 0.1  # share of the steps
    schedule: Literal["cosine", "constant"] = "cosine"  # after warm-up
    optimizer: str = "adamw"  # a row of train/optimizers.py: adamw, adam, muon
    loss: str = "l1"  # a row of train/losses.py: l1, mse, smooth_l1, euclidean, wing, soft_wing
    # Runs whose out-of-fold points, averaged, are learned beside the truth: distillation (Hinton et al. 2015). None may have seen
    # what a fold holds out.
    teacher: list[str] | None = Field(None, min_length=1)
    teacher_share: Share = 0.5  # of the teachers' points in what is learned; the rest is the truth
    # Faces without labels that are learned, too: a file in cache/ that make distill UNLABELLED=folder writes.
    unlabelled: str | None = None
    large_faces: Share = 0.0  # weight of a face by its size: 0 all alike, as NME counts them; 1 by pixels, as MAE does
    ema: float = Field(0.99, ge=0, lt=1)  # decay a step; 0: none
    mean_face: bool = True  # start from the mean face instead of from zero
    # Go on from this run, or this config's: each fold starts from the averaged weights of its same fold, which must hold out
    # the same faces.
    start: str | None = None
    validate_every: int = Field(1, ge=1)  # epochs at least between two validations, which the last epoch always has
    validate_share: Share = 0.02  # validations are left out where they would take more than this share of the time
    checkpoint_seconds: float = Field(60, ge=0)  # of work at most between two checkpoints; 0: one after every step
    augment_on: Literal["auto", "cpu", "device"] = "auto"  # by cv2 and albumentations, or as tensors; auto: tensors on a GPU
    compile: Literal["auto", "none", "graphs", "compile"] = "auto"  # auto: what is measured to be fastest, on CUDA only
    workers: int | None = Field(None, ge=0, le=256)  # loader processes; None: by the machine
    seed: int = Field(0, ge=0, lt=2**31)


class PredictConfig(Section):
    realign: int = Field(2, ge=0, le=10)  # times to crop the face again around the prediction, and predict again
    flip: bool = True  # average with the flipped picture's prediction
    shift: Share = 0.0  # average with crops shifted by this share of their width towards each corner; 0: not
    twins: bool = True  # average a test face with that of its mirror twin, where the list has both
    batch: int | None = Field(None, ge=1)  # pictures; None: 32 on the CPU, as many as fit on a device


class Config(Section):
    data: DataConfig = DataConfig()
    crop: CropConfig = CropConfig()
    folds: FoldsConfig = FoldsConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    predict: PredictConfig = PredictConfig()

    @model_validator(mode="after")
    def _settings_fit_each_other(self) -> "Config":
        if self.model.weights and self.train.start:
            raise ValueError("model.weights, train.start: a model starts from one of them; set the other to null")
        realigns = self.predict.realign or self.augment.realign or self.model.aligner
        if self.data.points and len(self.data.points) == 1 and realigns:
            raise ValueError(
                "predict.realign, augment.realign, model.aligner: one point says nothing about turn and size; switch them off"
            )
        if self.model.aligner and not self.crop.square:
            raise ValueError("model.aligner: aligns square crops only; set crop.square=true, or the aligner to null")
        return self

    @property
    def sources(self) -> dict[str, str]:
        """The runs whose models this one takes, by the key that names each."""
        named = {"train.start": self.train.start, "model.aligner": self.model.aligner}
        return {key: name for key, name in named.items() if name}


# Settings that do not change what a run computes; the split file is copied into the run folder.
NOT_PART_OF_A_RUN = {
    *(f"train.{key}" for key in ("workers", "lr_factor", "validate_share", "checkpoint_seconds", "compile")),
    *("predict.batch", "predict.twins", "folds.file"),
}

# Keys that configs stored by earlier versions hold, with the only value whose behaviour is left.
RETIRED = {("predict", "checkpoint"): "last"}


def split_overrides(text: str) -> list[str]:
    """The `section.key=value` overrides in one text; a value may hold spaces, and ends where the next key begins."""
    return re.split(r"\s+(?=[a-z_]+\.[a-z_]+=)", text.strip()) if text.strip() else []


def apply_overrides(tree: dict, overrides: Sequence[str], where: str) -> Config:
    """The config of a tree of settings with `section.key=value` overrides applied. `where` names the tree in errors."""
    for override in overrides:
        _set(tree, override)
    return check_config(tree, where)


def check_config(tree: Any, where: str) -> Config:
    """Validate a tree of settings. Raises UserError with the first thing that is wrong in it."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        # A key may hold line breaks.
        raise UserError(f"{where}: {' '.join(_first_problem(error).split())}") from None


def change_config(config: Config, values: Mapping[str, Any], where: str = "config") -> Config:
    """The config with other values of some keys, such as {"train.epochs": 3}. Raises UserError for what does not fit."""
    tree = config.model_dump()
    for name, value in values.items():
        section, key = name.split(".")
        tree[section][key] = value
    return check_config(tree, where)


def drop_retired(tree: Any) -> Any:
    """A stored tree of settings without the keys that Foldmark no longer has. Raises ValueError where such a key asks for what
    is gone."""
    for (section, key), only in RETIRED.items():
        settings = tree.get(section) if isinstance(tree, dict) else None
        if isinstance(settings, dict) and key in settings and settings.pop(key) != only:
            raise ValueError(f"{section}.{key} is gone, and only what {only!r} did is left; train again without it")
    return tree


def format_config(config: Config) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def list_differences(made_with: Config, asked: Config) -> list[str]:
    """The settings in which two configs of a run differ: `key (was, now)`."""
    was, now = _flat(made_with.model_dump(mode="json")), _flat(asked.model_dump(mode="json"))
    return [f"{key} ({was[key]} there, {now[key]} asked)" for key in now if was[key] != now[key] and key not in NOT_PART_OF_A_RUN]


def list_overrides(base: Config, config: Config) -> list[str]:
    """The `section.key=value` overrides that turn one config into another."""
    was, now = _flat(base.model_dump(mode="json")), _flat(config.model_dump(mode="json"))
    # JSON is YAML, too, but for texts, which would take their quotes along.
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
        for key, value in now.items()
        if value != was[key]
    ]


def _flat(tree: dict) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, keys in tree.items() for key, value in keys.items()}


def _set(tree: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name):
        raise UserError(f'SET="{override}": write section.key=value, such as SET="train.epochs=3".')
    try:
        value = read_yaml(text)
    except ValueError as error:
        raise UserError(f'SET="{override}": {text!r} is no value ({error}); write it as in the YAML file.') from None
    below = tree.setdefault(section, {})
    if below is None:
        below = tree[section] = {}
    if not isinstance(below, dict):
        raise UserError(f"{section}: holds {reprlib.repr(below)}; a section holds keys.")
    below[name] = value


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = [str(part) for part in problem["loc"]]
    key = ".".join(place)
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(key, list_keys(), n=1, cutoff=0.4)
        return f"unknown key {key}; " + (
            f"did you mean {near[0]}?" if near else f"sections are {', '.join(Config.model_fields)}."
        )
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{key}: {message} (it is {reprlib.repr(problem['input'])})."


def list_keys() -> list[str]:
    """Every `section.key` there is, and the sections."""
    keys = list(Config.model_fields)
    for section, field in Config.model_fields.items():
        keys += [f"{section}.{name}" for name in type(field.default).model_fields]
    return keys
