"""Traces written by rule from the annotations: offline, a function of the set, the wording and the seed."""

from mgpo_core.errors import SampleError
from mgpo_core.messages.suggest import nearest
from mgpo_core.samples.annotations import AnnotatedSet
from mgpo_train.reasoning_data.trace import Trace
from mgpo_train.reasoning_data.writers.terse import write_terse
from mgpo_train.reasoning_data.writers.varied import write_varied

__all__ = ["WORDING_STYLES", "write_trace"]

WORDING_STYLES = ("terse", "varied")
"""As few words as possible, always the same; or English sentences drawn from many."""


def write_trace(annotated: AnnotatedSet, *, wording: str = "terse", seed: int = 0) -> Trace:
    """The trace of a set; `seed` only affects the varied wording. Raises SampleError for an unknown wording."""
    if wording not in WORDING_STYLES:
        raise SampleError(f"wording={wording!r}: {nearest(wording, WORDING_STYLES)}")
    return write_varied(annotated, seed) if wording == "varied" else write_terse(annotated)
