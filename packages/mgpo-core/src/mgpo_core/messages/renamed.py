"""Options and values with a new name: the old one is read, with a warning that names the new one (no torch)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

__all__ = ["with_current_names", "with_current_values"]


def with_current_names(values: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The options under their current names; `renamed` maps old names to new ones.

    Warns (FutureWarning) for each old name. Raises ValueError where an option is given under both names.
    """
    current = {name: value for name, value in values.items() if name not in renamed}
    for old, new in renamed.items():
        if values.get(old) is None:
            continue
        if current.get(new) is not None:
            raise ValueError(f"{old} is the old name of {new}: give {new} alone")
        warnings.warn(f"{old}={values[old]}: {old} is now called {new}; write {new}={values[old]}", FutureWarning, 3)
        current[new] = values[old]
    return current


def with_current_values(values: Mapping[str, Any], renamed: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The options with their current values; `renamed` maps an option to {old value: new value}.

    Warns (FutureWarning) for each old value.
    """
    current = dict(values)
    for name, new_values in renamed.items():
        old = values.get(name)
        if isinstance(old, str) and old in new_values:
            current[name] = new_values[old]
            warnings.warn(
                f"{name}={old}: {old} is now called {current[name]}; write {name}={current[name]}", FutureWarning, 3
            )
    return current
