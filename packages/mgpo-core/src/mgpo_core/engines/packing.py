"""Batches by what they cost: an engine's memory goes with tokens and pixels, not with the number of conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["packed"]

T = TypeVar("T")


def packed(
    items: Iterable[T],
    *,
    tokens: Callable[[T], int],
    pixels: Callable[[T], int],
    most: int,
    most_tokens: int,
    most_pixels: int,
) -> Iterator[list[T]]:
    """Cut `items`, in their order, into lists of at most `most` that fit; one that does not fit goes alone.

    A list costs its longest item's `tokens` times its length (a batch is padded to its longest row) and the sum of the
    `pixels`. Items are drawn one ahead of the list that is handed out, no further.
    """
    batch: list[T] = []
    longest = total = 0
    for item in items:
        length, area = tokens(item), pixels(item)
        if batch and (
            len(batch) == most or max(longest, length) * (len(batch) + 1) > most_tokens or total + area > most_pixels
        ):
            yield batch
            batch, longest, total = [], 0, 0
        batch.append(item)
        longest, total = max(longest, length), total + area
    if batch:
        yield batch
