"""What every reader gives."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mgpo_core.samples.annotations import AnnotatedSet

__all__ = ["Annotations"]


@dataclass
class Annotations:
    """Annotated sets, where they came from, and what was left out or corrected on the way, counted by reason."""

    source: str
    sets: list[AnnotatedSet]
    left_out: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)
    """What was wrong, in words."""
