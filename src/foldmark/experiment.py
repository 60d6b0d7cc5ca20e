"""What the user's settings mean: the experiment's name, config and data. Without torch, so that a wrong setting is
answered at once."""

from pathlib import Path

from foldmark.config import Config, load_config
from foldmark.data import BANNER, HOW_TO_GET, Data, drawn_data, find_data
from foldmark.progress import console

# Crops, drawn faces and measured speeds: all that can be made again.
CACHE = Path("cache")


def experiment(data_root: Path, config: str | None, name: str | None, overrides: list[str]) -> tuple[str, Config, Data]:
    """The name, config and data that the user's settings mean. On drawn faces experiments get names of their own, so
    that a run on real ones never mixes with them."""
    # A typing error in a key should not wait for faces to be drawn.
    kind = load_config(config or "resnet18", overrides).data.set
    data = find_or_draw(data_root, kind)
    chosen = config or ("drawn" if data.drawn else "resnet18")
    settings = load_config(chosen, overrides)
    stem = Path(chosen).stem
    own_name = f"{stem}-drawn" if data.drawn and stem != "drawn" else stem
    return name or own_name, settings, data


def find_or_draw(data_root: Path, kind: str) -> Data:
    """The real set of this kind, or the drawn one, which is announced loudly."""
    data = find_data(data_root, kind)
    if data is None or data.drawn:
        console.print(BANNER.format(root=data_root, how=HOW_TO_GET[kind]))
    return data or drawn_data(CACHE, kind)
