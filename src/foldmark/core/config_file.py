"""Config files: one YAML file a variant in the folder of configs, or a list of variants to blend."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from foldmark.core.config import Config, apply_overrides
from foldmark.core.errors import UserError
from foldmark.core.files import expand_user, is_file
from foldmark.core.yaml_values import read_yaml


def load_config(name: str, folder: Path, overrides: Sequence[str] = ()) -> Config:
    """The config of that name in the folder of configs (or at that path), with `section.key=value` overrides applied. Raises
    UserError for a file that lists a blend."""
    path = config_path(name, folder)
    tree = _read_settings(path)
    if "blend" in tree:
        raise UserError(f"{path}: is a blend of {tree['blend']}; name one config.")
    return apply_overrides(tree, overrides, str(path))


def load_variants(name: str, folder: Path, overrides: Sequence[str] = ()) -> dict[str, Config]:
    """The configs of this file by their names: itself or, where it only holds `blend: [...]`, those that it lists."""
    path = config_path(name, folder)
    tree = _read_settings(path)
    if "blend" not in tree:
        return {path.stem: apply_overrides(tree, overrides, str(path))}
    names = tree["blend"]
    if not (isinstance(names, list) and names and all(isinstance(member, str) for member in names)):
        raise UserError(f"{path}: blend holds {names!r}; it holds a list of configs, such as [resnet18, resnet18-blur].")
    stems = [Path(member).stem for member in names]
    if len(tree) > 1 or len(set(stems)) < len(stems):
        beside = ", ".join(sorted(str(key) for key in tree if key != "blend"))
        what = f"has {beside} beside blend" if beside else "names one config twice"
        raise UserError(f"{path}: {what}; a blend only lists configs, each once, and their own files hold the settings.")
    return {stem: load_config(member, folder, overrides) for stem, member in zip(stems, names, strict=True)}


def config_path(name: str, folder: Path) -> Path:
    """The file of a config: that path if the name ends as a YAML file, else `<name>.yaml` in the folder. Raises UserError, which
    names the nearest config, where there is none."""
    path = expand_user(Path(name), "CONFIG") if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if is_file(path):
        return path
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if not known:
        raise UserError(f"{path}: no such config; run from Foldmark's own folder, or give the path of a .yaml file.")
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
    raise UserError(f"{path}: no such config; {hint}")


def _read_settings(path: Path) -> dict:
    tree = read_tree(path)
    if "keys" in tree:
        raise UserError(f"{path}: is a search, not a config; make tune SEARCH={path} runs it.")
    return tree


def read_tree(path: Path) -> dict:
    """What a YAML file of sections or settings holds. Raises UserError where it cannot be read."""
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid YAML ({error}).") from None
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a config holds sections such as 'train:' with keys below them.")
    return tree
