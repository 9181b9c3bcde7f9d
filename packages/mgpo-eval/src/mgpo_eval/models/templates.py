"""Which template plays what: the mode says how often the model looks, the task whether its answer is words or a box.

| mode | answers in words | answers that are a box in one of several pictures |
|---|---|---|
| `direct` | `single_turn` | `multi_image` |
| `two_turn` | `two_turn` | `multi_image_two_turn` |

The mode is the one asked for; else `direct` for a checkpoint trained with `multi_image`, which never learnt to look,
and `two_turn` for every other. MIG-Bench as published says itself how to answer: `plain`, in either mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mgpo_core import CoordinateSpace
from mgpo_core.templates.base import Template
from mgpo_core.templates.multi_image import MultiImage, MultiImageTwoTurn
from mgpo_core.templates.registry import load_template
from mgpo_core.templates.single_image import PlainTurn, SingleTurn, TwoTurn

__all__ = ["MigFormat", "Mode", "Templates", "choose_mode", "choose_templates"]

Mode = Literal["two_turn", "direct"]
"""Look closer, then answer; or answer at once, on the same weights and with the same pixel budget."""

MigFormat = Literal["auto", "published", "json"]
"""How MIG-Bench is asked: in its own notation of boxes, or by the templates for several pictures, in JSON."""


@dataclass(frozen=True)
class Templates:
    """The template of each kind of task."""

    words: Template
    box: Template
    mig_bench: Template

    @property
    def names(self) -> dict[str, str]:
        """Their names by kind of task, for whoever reads the scores later."""
        return {kind: getattr(self, kind).name for kind in ("words", "box", "mig_bench")}


def choose_mode(asked: Mode | None, trained: str) -> Mode:
    """The mode of a checkpoint that was trained with the template called `trained`."""
    return asked or ("direct" if trained == MultiImage.name else "two_turn")


def choose_templates(mode: Mode, trained: str, space: CoordinateSpace, mig_format: MigFormat = "auto") -> Templates:
    """The templates of a mode, for a checkpoint trained with the template called `trained`.

    MIG-Bench is asked in JSON, unless told otherwise, of models that write pixels and of those trained to answer with a
    box; of others as published, in thousandths. ValueError for a template that does not exist.
    """
    own = load_template(trained)
    words: Template = SingleTurn() if mode == "direct" else _looking(own, TwoTurn())
    box: Template = MultiImage() if mode == "direct" else _looking(own, MultiImageTwoTurn())
    if mig_format == "auto":
        in_json = space is CoordinateSpace.ABSOLUTE or own.answers_with_box
    else:
        in_json = mig_format == "json"
    return Templates(words, box, box if in_json else PlainTurn())


def _looking(own: Template, usual: Template) -> Template:
    """The checkpoint's own template where it looks and answers like the usual one, else the usual one."""
    fits = own.max_turns > 1 and own.answers_with_box == usual.answers_with_box
    return own if fits else usual
