"""Which template is for what: the mode says how often the model looks, the task whether its answer is words or a box.

| mode | answers in words | answers that are a box in one of several images |
|---|---|---|
| `single_turn` | `single_turn` | `multi_image` |
| `two_turn` | `two_turn` | `multi_image_two_turn` |

The mode is the one asked for; else `single_turn` for a checkpoint trained with `multi_image`, which never learnt to
look, and `two_turn` for every other. A checkpoint's own template, or the one asked for, takes the place of that in the
table where it has as many turns (one, or more) and the same kind of answer. MIG-Bench as published says itself how to
answer: `plain`, in either mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mgpo_core import CoordinateSpace
from mgpo_core.templates.base import Template
from mgpo_core.templates.multi_image import MultiImage, MultiImageTwoTurn
from mgpo_core.templates.single_image import PlainTurn, SingleTurn, TwoTurn

__all__ = ["MigFormat", "Mode", "Templates", "choose_mode", "choose_templates"]

Mode = Literal["two_turn", "single_turn"]
"""Look closer, then answer; or answer at once, on the same weights and with the same pixel budget."""

MigFormat = Literal["auto", "published", "json"]
"""How MIG-Bench is asked: in its own notation of boxes, or by the templates for several images, in JSON."""


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


def choose_mode(mode: Mode | None, own: Template, *, asked: bool = False) -> Mode:
    """The mode, where it is not given: of a template that was `asked` for, or else of a checkpoint trained with it."""
    single = own.max_turns == 1 and (asked or own.answers_with_box)
    return mode or ("single_turn" if single else "two_turn")


def choose_templates(mode: Mode, own: Template, space: CoordinateSpace, mig_format: MigFormat = "auto") -> Templates:
    """The templates of a mode, for a checkpoint whose own template is `own`.

    By default, MIG-Bench is asked in JSON of models that write pixels and of those trained to answer with a
    box; of others as published, in thousandths.
    """
    words = _fitting(own, SingleTurn() if mode == "single_turn" else TwoTurn())
    box = _fitting(own, MultiImage() if mode == "single_turn" else MultiImageTwoTurn())
    if mig_format == "auto":
        in_json = space is CoordinateSpace.ABSOLUTE or own.answers_with_box
    else:
        in_json = mig_format == "json"
    return Templates(words, box, box if in_json else PlainTurn())


def _fitting(own: Template, usual: Template) -> Template:
    """The checkpoint's own template where it looks and answers like the usual one, else the usual one."""
    if isinstance(own, PlainTurn):
        return usual  # for questions that say themselves how to answer, which those of these tasks do not
    looks = (own.max_turns > 1) == (usual.max_turns > 1)
    return own if looks and own.answers_with_box == usual.answers_with_box else usual
