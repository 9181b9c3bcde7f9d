"""Batches hold what fits into tokens and pixels, in order, and nothing is lost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from mgpo_core.engines.packing import packed

sizes = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=40)


def pack(items: list[tuple[int, int]], most: int, tokens: int, pixels: int) -> list[list[tuple[int, int]]]:
    return list(
        packed(
            items,
            tokens=lambda item: item[0],
            pixels=lambda item: item[1],
            most=most,
            most_tokens=tokens,
            most_pixels=pixels,
        )
    )


@given(items=sizes, most=st.integers(1, 8), tokens=st.integers(1, 200), pixels=st.integers(1, 200))
def test_every_batch_fits_or_is_one_item_and_could_not_take_the_next(
    items: list[tuple[int, int]], most: int, tokens: int, pixels: int
) -> None:
    batches = pack(items, most, tokens, pixels)
    assert [item for batch in batches for item in batch] == items

    def fits(batch: list[tuple[int, int]]) -> bool:
        padded = max(length for length, _ in batch) * len(batch)
        return len(batch) <= most and padded <= tokens and sum(area for _, area in batch) <= pixels

    assert all(fits(batch) or len(batch) == 1 for batch in batches)
    for batch, following in itertools.pairwise(batches):
        assert not fits([*batch, following[0]])


def test_items_are_drawn_as_they_are_needed() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for item in range(10):
            drawn.append(item)
            yield item

    batches = packed(items(), tokens=lambda _: 1, pixels=lambda _: 1, most=2, most_tokens=100, most_pixels=100)
    assert next(batches) == [0, 1]
    assert drawn == [0, 1, 2]
