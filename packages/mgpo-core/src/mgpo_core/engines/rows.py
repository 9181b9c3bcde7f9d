"""The token side of one episode in flight: ids, mask, log-probabilities, spans, M-RoPE positions and cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from mgpo_core.engines.kv_cache import RowCache
from mgpo_core.engines.turn_tokens import FenceScanner, TurnTokenizer
from mgpo_core.episode import Episode
from mgpo_core.errors import TokenAlignmentError
from mgpo_core.templates import message_images
from mgpo_core.trajectory import Tokens

__all__ = ["Response", "Row", "TurnPositions"]


@dataclass
class Response:
    """One sampled response while it grows, and how it ended: "stop", "cut" (fence closed) or "length"."""

    scanner: FenceScanner | None
    limit: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = ""
    seconds: float = 0.0
    cache: RowCache | None = None

    def push(self, token: int, logprob: float, end_id: int) -> bool:
        """Take one sampled token; True when the response is over."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        if token == end_id:
            self.finish_reason = "stop"
        elif self.scanner is not None and self.scanner.push(token):
            self.finish_reason = "cut"
        elif len(self.ids) >= self.limit:
            self.finish_reason = "length"
        return bool(self.finish_reason)

    def keep(self, count: int) -> None:
        """Leave out all but the first `count` tokens."""
        del self.ids[count:], self.logprobs[count:]


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
class Row:
    """An episode with its tokens; `positions` (3, uncached) belong to the ids after the first `cached` ones."""

    episode: Episode
    tokenizer: TurnTokenizer
    turn_positions: TurnPositions
    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    prompt_length: int = 0
    cache: RowCache | None = None
    cached: int = 0
    next_position: int = 0
    positions: Tensor = field(default_factory=lambda: torch.zeros(3, 0, dtype=torch.long))

    def __post_init__(self) -> None:
        # of an episode that somebody else began, the responses so far are part of the prompt
        messages = self.episode.messages
        self._append(self.tokenizer.opening(messages, name=self.name), message_images(messages))
        self.prompt_length = len(self.ids)

    @property
    def name(self) -> str:
        return self.episode.sample.id

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

    def response(self, limit: int) -> Response:
        """An empty response to this row's prompt, that stops at the closed fence if the episode wants a box."""
        scanner = self.tokenizer.scanner(strict=self.episode.strict) if self.episode.wants_box else None
        return Response(scanner, limit)

    def commit(self, response: Response) -> None:
        """Hand the finished response to the episode and append the turn that follows, if any.

        Where the episode reads less of the text than was sampled (a box without a fence, then prose), the tokens
        past it are left out, so that tokens and messages tell the same conversation.
        """
        ended = response.finish_reason == "stop"
        text = self.tokenizer.decode(response.ids[:-1] if ended else response.ids)
        self.episode.observe(
            text, finish_reason=response.finish_reason, seconds=response.seconds, tokens=len(response.ids)
        )
        turn = self.episode.trajectory.turns[-1]
        if len(turn.text) < len(text):
            kept = self.tokenizer.covering(response.ids, len(turn.text))
            ended = ended and kept == len(response.ids)
            response.keep(kept)
            turn.tokens = kept
        self._take(response)
        if not self.episode.done:
            pending = self.episode.pending
            self._append(self.tokenizer.follow_up(pending, ended, name=self.name), message_images(pending))

    def _take(self, response: Response) -> None:
        """Append the sampled tokens (mask 1)."""
        start = len(self.ids)
        self.ids += response.ids
        self.mask += [1] * len(response.ids)
        self.logprobs += response.logprobs
        self.spans.append((start, len(self.ids)))
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
        """Append what the model did not say (mask 0), with its images and positions."""
        self._check_budget(images)
        self.tokenizer.check(ids, images, name=self.name)
        relative, advance = self.turn_positions.of(ids, images)
        self.ids += ids
        self.mask += [0] * len(ids)
        self.logprobs += [0.0] * len(ids)
        self.images += images
        self.positions = torch.cat([self.positions, relative + self.next_position], dim=1)
        self.next_position += advance

    def _check_budget(self, images: Sequence[Image.Image]) -> None:
        budget = self.episode.budget
        for image in images:
            # a picture one cell wide may pass the maximum: smart_resize never goes below one cell
            area, narrow = image.width * image.height, min(image.size) <= budget.factor
            if area < budget.min_pixels or (area > budget.max_pixels and not narrow):
                raise TokenAlignmentError(
                    f"Sample {self.name!r}: an image of {image.width}x{image.height} pixels is outside the budget of "
                    f"{budget.min_pixels} to {budget.max_pixels} pixels; resize it with PixelBudget.resize first."
                )

    def tokens(self) -> Tokens:
        """The whole token record; lists of one length."""
        return Tokens(
            ids=self.ids,
            mask=self.mask,
            logprobs=self.logprobs,
            texts=self.tokenizer.pieces(self.ids),
            spans=self.spans,
            prompt_length=self.prompt_length,
        )
