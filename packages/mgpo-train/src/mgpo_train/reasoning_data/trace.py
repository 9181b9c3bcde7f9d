"""A reasoning trace: the worked solution that is taught and, as data, the claims that it makes about the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mgpo_core.boxes.parse import Box
from mgpo_core.boxes.regions import WorkedSolution

__all__ = ["Claim", "ObjectClaim", "RelationClaim", "Trace"]


@dataclass(frozen=True)
class ObjectClaim:
    """Image `image` (from 0) holds an object of this label, or none at all (`present=False`).

    Of a present object: `count`, how many of them the image holds; `box`, where one of them lies (pixels of the
    original); `attributes` of that one.
    """

    image: int
    label: str
    present: bool = True
    count: int | None = None
    box: Box | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RelationClaim:
    """A relation between images (from 0), of a kind in `samples.annotations.RELATIONS`, and labels of its objects."""

    kind: str
    images: tuple[int, ...]
    labels: tuple[str, ...] = ()


Claim = ObjectClaim | RelationClaim


@dataclass(frozen=True)
class Trace:
    """A solution and its claims; only the solution is taught."""

    solution: WorkedSolution
    claims: tuple[Claim, ...]
