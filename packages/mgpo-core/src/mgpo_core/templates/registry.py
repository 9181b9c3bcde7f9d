"""Templates by name."""

from __future__ import annotations

from mgpo_core.messages.suggest import nearest
from mgpo_core.templates.base import Template
from mgpo_core.templates.multi_image import MultiImage, MultiImageTwoTurn
from mgpo_core.templates.single_image import PlainTurn, SingleTurn, TwoTurn


def load_template(name: str) -> Template:
    """The template of that name; ValueError with the nearest right name when there is none."""
    templates = (TwoTurn, SingleTurn, PlainTurn, MultiImage, MultiImageTwoTurn)
    known: dict[str, type[Template]] = {template.name: template for template in templates}
    if name in known:
        return known[name]()
    raise ValueError(f"unknown template {name!r}: {nearest(name, known)}")
