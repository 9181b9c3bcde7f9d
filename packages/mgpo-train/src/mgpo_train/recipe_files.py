"""Recipes: the YAML files that ship with the package, and any YAML file of options (no torch)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mgpo_train.options import ConfigError, nearest

FOLDER = Path(str(resources.files("mgpo_train"))) / "recipes"
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
        raise ConfigError(f"there is no file {name!r}{hint}")
    if (FOLDER / f"{name}.yaml").is_file():
        return FOLDER / f"{name}.yaml"
    raise ConfigError(f"there is no recipe {name!r}: {nearest(name, names())} (mgpo-train --list shows all)")


def read(path: Path) -> dict[str, Any]:
    """Options of a YAML file over those of the recipe that its `base` names, with the entries of `METADATA`.

    Raises ConfigError naming the file and the line.
    """
    return _over_base(path, [])


def _over_base(path: Path, above: list[Path]) -> dict[str, Any]:
    if path in above:
        raise ConfigError(f"{above[0]}: base leads back to {path.name}")
    try:
        options = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigError(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or 'unreadable'}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({str(error)[:200]}): save it as a UTF-8 text file") from error
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise ConfigError(f"{path} must hold 'option: value' lines, as the shipped recipes in {FOLDER} do")
    base = options.pop("base", None)
    if base is None:
        return options
    beside = path.parent / str(base)
    try:
        found = beside if beside.is_file() else find(str(base))
    except ConfigError as error:
        raise ConfigError(f"{path}: base: {error}") from error
    return {**_over_base(found, [*above, path]), **options}


def description(path: Path) -> str:
    """The one-line description of a recipe."""
    return str(read(path).get("description", ""))
