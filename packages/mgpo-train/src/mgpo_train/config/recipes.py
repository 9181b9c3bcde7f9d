"""Recipes: the YAML files that ship with the package, and any YAML file of options (no torch)."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mgpo_core.messages.suggest import nearest
from mgpo_core.registry import anchored
from mgpo_train.config.data_spec import LAYOUT_KEYS
from mgpo_train.config.options import ConfigError

FOLDER = Path(str(resources.files("mgpo_train"))) / "recipes"
_LAYOUT = re.compile(rf"([?&](?:{'|'.join(LAYOUT_KEYS)})=)([^&]+)")
METADATA = ("description", "machine")
"""What a recipe may say beside options; `machine` is what `--dry-run` sizes it for."""


def names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find(name: str) -> Path:
    """The file of a recipe by name, or of a path to a YAML file; raises ConfigError with the nearest name."""
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        shipped = FOLDER / path.name
        hint = f": did you mean the recipe {path.stem!r}?" if shipped.is_file() else ""
        raise ConfigError(f"no such file {name!r}{hint}")
    if (FOLDER / f"{name}.yaml").is_file():
        return FOLDER / f"{name}.yaml"
    raise ConfigError(f"there is no recipe {name!r}: {nearest(name, names())} (mgpo-train --list shows all)")


def read(path: Path) -> dict[str, Any]:
    """Options of a YAML file over those of the recipe that its `base` names, with the entries of `METADATA`.

    Raises ConfigError naming the file and the line.
    """
    return {name: value for _, options in _layers(path, []) for name, value in options.items()}


def left_alone(path: Path) -> dict[str, Any]:
    """The options that shipped recipes set and that no file of the user's own, which builds on them, sets again."""
    layers = [(file.resolve().parent == FOLDER.resolve(), _plain(options)) for file, options in _layers(path, [])]
    own = {name for shipped, options in layers if not shipped for name in options}
    return {n: v for shipped, options in layers if shipped for n, v in options.items() if n not in own}


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in options.items()}


def _layers(path: Path, above: list[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """(file, its options) of a file and of all that it builds on, the lowest first."""
    if path in above:
        raise ConfigError(f"{above[0]}: base leads back to {path.name}")
    options = _options_of(path)
    base = options.pop("base", None)
    if base is None:
        return [(path, _anchored(options, path.parent))]
    beside = path.parent / str(base)
    try:
        found = beside if beside.is_file() else find(str(base))
    except ConfigError as error:
        raise ConfigError(f"{path}: base: {error}") from error
    return [*_layers(found, [*above, path]), (path, _anchored(options, path.parent))]


def _anchored(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The options with Python files found beside the YAML file, where the current directory does not have them."""
    return {name: _anchored_value(name.replace("-", "_"), value, folder) for name, value in options.items()}


def _anchored_value(name: str, value: Any, folder: Path) -> Any:
    if name in ("template", "rewards", "plugins"):
        if isinstance(value, list):
            return [anchored(one, folder) if isinstance(one, str) else one for one in value]
        return anchored(value, folder) if isinstance(value, str) else value
    if name in ("train_data", "eval_data", "eval_ood_data"):
        if isinstance(value, str):
            return _LAYOUT.sub(lambda found: found[1] + anchored(found[2], folder), value)
        if isinstance(value, dict):
            return {key: anchored(one, folder) if _is_layout(key, one) else one for key, one in value.items()}
    return value


def _is_layout(key: str, value: Any) -> bool:
    return key in LAYOUT_KEYS and isinstance(value, str)


def _options_of(path: Path) -> dict[str, Any]:
    try:
        options = yaml.load(path.read_text("utf-8"), Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where} is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise ConfigError(f"{path} must hold 'option: value' lines, as the shipped recipes in {FOLDER} do")
    return options


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As SafeLoader's; raises MarkedYAMLError for a doubled key."""
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key.value, str) else None)
        return super().construct_mapping(node, deep)


def description(path: Path) -> str:
    """The one-line description of a recipe."""
    return str(read(path).get("description", ""))
