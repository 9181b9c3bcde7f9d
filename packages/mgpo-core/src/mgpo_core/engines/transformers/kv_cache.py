"""Key/value caches of a batch of rows that differ in length: written in place, cut into rows, put together again.

Relies on transformers' `Cache`, `DynamicLayer` (5.17): `update`, `keys`, `values`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

__all__ = ["BatchCache", "RowCache"]

_GROWTH = 64  # positions reserved at a time, so that decoding does not copy the cache at every step


@dataclass(frozen=True)
class RowCache:
    """What one row's conversation so far left behind: per layer keys and values, (heads, length, head size) each."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        return int(self.keys[0].shape[1])

    def first(self, length: int) -> RowCache:
        """The first `length` positions (views; itself when there are no more)."""
        if length >= self.length:
            return self
        return RowCache(tuple(k[:, :length] for k in self.keys), tuple(v[:, :length] for v in self.values))


class _ReservedLayer(DynamicLayer):
    """A layer's cache with room to grow: `keys` and `values` are views of larger buffers (B, heads, room, head size).

    DynamicLayer concatenates, and so copies everything, at each token.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._room = (key_states[:, :, :0], value_states[:, :, :0])
            self.keys, self.values = self._room
        start, end = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if end > self._room[0].shape[2]:
            self._room = (_grown(self.keys, end + _GROWTH), _grown(self.values, end + _GROWTH))
        self._room[0][:, :, start:end] = key_states
        self._room[1][:, :, start:end] = value_states
        self.keys, self.values = self._room[0][:, :, :end], self._room[1][:, :, :end]
        return self.keys, self.values

    def fill(self, keys: Tensor, values: Tensor) -> None:
        """Replace the contents; the next update makes room."""
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._room = (keys, values)
        self.keys, self.values = keys, values

    def batch_select_indices(self, indices: Tensor) -> None:
        self.fill(self.keys[indices], self.values[indices])


def _grown(states: Tensor, room: int) -> Tensor:
    batch, heads, length, size = states.shape
    grown = states.new_empty(batch, heads, room, size)
    grown[:, :, :length] = states
    return grown


class BatchCache:
    """The cache of a batch; `valid` (B, width) tells which positions hold a row's tokens, the rest is padding."""

    def __init__(self, layers: int, rows: int, device: torch.device) -> None:
        self._layers = [_ReservedLayer() for _ in range(layers)]
        self.cache = Cache(layers=self._layers)
        self.valid = torch.zeros(rows, 0, dtype=torch.bool, device=device)
        self.full = True  # no padding anywhere: masks can be left out

    @classmethod
    def join(cls, rows: Sequence[RowCache], device: torch.device) -> BatchCache:
        """The rows' caches side by side, padded on the left."""
        joined = cls(len(rows[0].keys), len(rows), device)
        lengths = torch.tensor([row.length for row in rows], device=device)
        width = int(lengths.max())
        joined.full = len({row.length for row in rows}) == 1
        joined.valid = torch.arange(width, device=device)[None] >= width - lengths[:, None]
        for index, layer in enumerate(joined._layers):
            keys, values = [row.keys[index] for row in rows], [row.values[index] for row in rows]
            layer.fill(_left_padded(keys), _left_padded(values))
        return joined

    @property
    def width(self) -> int:
        return int(self.valid.shape[1])

    def extend(self, valid: Tensor) -> Tensor | None:
        """Announce the next tokens, `valid` (B, n); their mask (B, 1, n, width), None where plain causal is right."""
        count = valid.shape[1]
        past = self.width
        self.full = self.full and bool(valid.all())
        self.valid = torch.cat([self.valid, valid], dim=1)
        if count == 1:
            return None if self.full else self.valid[:, None, None]
        if self.full and past == 0:
            return None
        mask = self.valid[:, None].expand(-1, count, -1).tril(past)
        # padding sees itself, so that no row of the softmax is empty
        itself = torch.ones(count, past + count, dtype=torch.bool, device=valid.device).triu(past).tril(past)
        return (mask | itself)[:, None]

    def select(self, indices: Tensor) -> None:
        """Keep (or repeat) the rows `indices`."""
        self.cache.batch_select_indices(indices)
        self.valid = self.valid[indices]

    def row(self, index: int, length: int) -> RowCache:
        """A copy of the first `length` valid positions of row `index`."""
        positions = self.valid[index].nonzero()[:length, 0]
        layers = [(layer.keys[index], layer.values[index]) for layer in self._layers]
        return RowCache(
            tuple(keys.index_select(1, positions) for keys, _ in layers),
            tuple(values.index_select(1, positions) for _, values in layers),
        )


def _left_padded(states: Sequence[Tensor]) -> Tensor:
    """(heads, length, size) each -> (B, heads, longest, size), zeros on the left."""
    width = max(state.shape[1] for state in states)
    if all(state.shape[1] == width for state in states):
        return torch.stack(list(states))
    padded = states[0].new_zeros(len(states), states[0].shape[0], width, states[0].shape[2])
    for index, state in enumerate(states):
        padded[index, :, width - state.shape[1] :] = state
    return padded
