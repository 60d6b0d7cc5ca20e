"""Where a project keeps things. No other file knows the names of these folders."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foldmark.core.errors import UserError

FROM_WANDB = "wandb:"  # train.start, model.aligner: a model kept in W&B
# Taken by Foldmark's own files in runs/ and submissions/.
RESERVED = {"check", "compare", "ledger", "readme"}


@dataclass(frozen=True)
class Places:
    """The folders of a project below its root; absolute, so that names mean the same in every working directory."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root.expanduser().absolute())

    @property
    def configs(self) -> Path:
        return self.root / "configs"

    @property
    def data(self) -> Path:
        """The data sets, unless the user names another folder."""
        return self.root / "data"

    @property
    def cache(self) -> Path:
        """Files that can be made again: crops, synthetic faces, measured speeds."""
        return self.root / "cache"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def compare_table(self) -> Path:
        return self.runs / "compare.csv"

    @property
    def check(self) -> Path:
        return self.runs / "check"

    @property
    def submissions(self) -> Path:
        return self.root / "submissions"

    @property
    def ledger(self) -> Path:
        return self.submissions / "ledger.csv"

    @property
    def photos(self) -> Path:
        return self.root / "photos"

    def exports(self, name: str) -> "dict[Literal['fp32', 'int8'], Path]":
        """The exported files of an experiment."""
        folder = self.root / "exports"
        return {"fp32": folder / f"{name}.onnx", "int8": folder / f"{name}-int8.onnx"}

    def demo(self, name: str) -> Path:
        """The page that runs an experiment's exported net."""
        return self.root / "exports" / f"{name}-demo.html"

    @property
    def wandb(self) -> Path:
        return self.root / "wandb"

    def run(self, name: str) -> Path:
        return self.runs / name

    def source(self, name: str) -> Path:
        """The run folder that train.start or model.aligner names: of a run, or of the copy of one from W&B."""
        if name.startswith(FROM_WANDB):
            return self.cache / "starts" / name.removeprefix(FROM_WANDB).replace(":", "-")
        return self.run(name)

    def weights(self, weights: str) -> str:
        """The state dict that model.weights names: the copy of it that a worker of a cluster was sent, where there is one."""
        sent = self.sent_weights
        return str(sent) if sent.is_file() else weights

    @property
    def sent_weights(self) -> Path:
        return self.cache / "sent-weights.pt"

    def csv(self, name: str) -> Path:
        """The competition file of an experiment."""
        return self.submissions / f"{name}.csv"

    def relative(self, path: Path) -> str:
        """A path below the root as text that means the same in the project's copy on another machine; another path whole."""
        path = path.absolute()
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()


def check_name(name: str) -> str:
    """The name of an experiment, as it was given. Raises UserError for one that cannot name a folder and a file everywhere, or
    that Foldmark uses itself."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", name):
        raise UserError(
            f"NAME={name[:100]!r}: use 1 to 80 of the letters a to z, digits, '.', '_' and '-', not '.' or '-' first."
        )
    if name.lower().removesuffix(".csv") in RESERVED:
        raise UserError(f"NAME={name}: Foldmark uses this name itself; choose another one.")
    return name
