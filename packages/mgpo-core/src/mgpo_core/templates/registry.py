"""Templates by name; `TEMPLATES.register` adds one."""

from __future__ import annotations

from typing import Any

from mgpo_core.registry import Registry
from mgpo_core.templates.base import Template
from mgpo_core.templates.multi_image import MultiImage, MultiImageTwoTurn
from mgpo_core.templates.single_image import PlainTurn, SingleTurn, TwoTurn

__all__ = ["TEMPLATES", "load_template"]


def _as_template(entry: Any) -> Template | None:
    made = entry() if isinstance(entry, type) else entry
    return made if isinstance(made, Template) else None


TEMPLATES: Registry[Template] = Registry(
    "template", _as_template, "a template: a class or an object with the members of mgpo_core.templates.base.Template"
)
"""Every template by its `name`: classes without arguments, or objects."""

for _template in (TwoTurn, SingleTurn, PlainTurn, MultiImage, MultiImageTwoTurn):
    TEMPLATES.register(_template.name, _template)


def load_template(name: str) -> Template:
    """The template registered as `name`, or the one that `PYTHON_FILE:Name` or `package.module:Name` locates.

    Raises RegistryError, a ValueError, naming the nearest name where there is none.
    """
    return TEMPLATES.get(name)
