"""A dialogue as the transformers engine runs it: with M-RoPE positions and a key/value cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from mgpo_core.engines.tokenized_episode import Response, TokenizedEpisode
from mgpo_core.engines.transformers.kv_cache import RowCache
from mgpo_core.engines.turn_tokens import TurnTokenizer

__all__ = ["CachedResponse", "CachedSequence", "TurnPositions"]


@dataclass
class CachedResponse(Response):
    """A response with the cache of its row, once it is over."""

    cache: RowCache | None = None


class _RopeModel(Protocol):
    def get_rope_index(self, input_ids: Any, mm_token_type_ids: Any, **kwargs: Any) -> tuple[Tensor, Tensor]: ...


class TurnPositions:
    """M-RoPE positions of a turn, relative to where it starts.

    A turn's positions depend on what came before only by an offset (`get_rope_index` walks from left to right), so
    that equal turns of a batch share one computation and earlier turns are not walked again.
    """

    def __init__(self, model: _RopeModel, tokenizer: TurnTokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._known: dict[Any, tuple[Tensor, int]] = {}

    def of(self, ids: Sequence[int], images: Sequence[Image.Image]) -> tuple[Tensor, int]:
        """(3, len(ids)) positions from 0, and the position of the token that follows."""
        key = (tuple(ids), tuple(image.size for image in images))
        if key not in self._known:
            tokens = torch.tensor([ids])
            grids = torch.tensor([self._tokenizer.grid(image) for image in images]) if images else None
            kinds = (tokens == self._tokenizer.image_id).int()
            positions, _ = self._model.get_rope_index(tokens, kinds, image_grid_thw=grids)
            self._known[key] = (positions[:, 0], int(positions.max()) + 1)
        return self._known[key]


@dataclass
class CachedSequence(TokenizedEpisode):
    """A dialogue with its cache; `positions` (3, uncached) belong to the ids after the first `cached` ones."""

    turn_positions: TurnPositions = field(kw_only=True)
    cache: RowCache | None = None
    cached: int = 0
    next_position: int = 0
    positions: Tensor = field(default_factory=lambda: torch.zeros(3, 0, dtype=torch.long))

    @property
    def prompt_key(self) -> tuple[Any, ...]:
        """Equal for rows whose uncached prompt is the same, images included (copies of one episode)."""
        return (tuple(self.ids), tuple(id(image) for image in self.images))

    @property
    def new_images(self) -> list[Image.Image]:
        """Images whose tokens are not in the cache yet."""
        tokens = sum(1 for token in self.ids[self.cached :] if token == self.tokenizer.image_id)
        images: list[Image.Image] = []
        for image in reversed(self.images):
            if tokens <= 0:
                break
            tokens -= self.tokenizer.image_tokens(image)
            images.insert(0, image)
        return images

    def response(self, limit: int) -> CachedResponse:
        """As `TokenizedEpisode.response`, with room for the cache."""
        response = super().response(limit)
        assert isinstance(response, CachedResponse)
        return response

    def _response(self, limit: int) -> CachedResponse:
        return CachedResponse(self._scanner(), limit, watched=self._watched())

    def _take(self, response: Response) -> None:
        super()._take(response)
        assert isinstance(response, CachedResponse)
        self.cache = response.cache
        self.cached = 0
        if self.cache is not None:
            # the last sampled token was never fed to the model, and tokens may have been left out
            self.cache = self.cache.first(len(self.ids) - 1)
            self.cached = self.cache.length
        sampled = torch.arange(self.next_position, self.next_position + len(response.ids)).expand(3, -1)
        self.positions = torch.cat([self.positions, sampled], dim=1)[:, -(len(self.ids) - self.cached) :]
        self.next_position += len(response.ids)

    def _append(self, ids: list[int], images: Sequence[Image.Image]) -> None:
        super()._append(ids, images)
        relative, advance = self.turn_positions.of(ids, images)
        self.positions = torch.cat([self.positions, relative + self.next_position], dim=1)
        self.next_position += advance
