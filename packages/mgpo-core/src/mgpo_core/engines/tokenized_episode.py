"""The token side of one episode in flight: ids, mask, log-probabilities, spans and images. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from mgpo_core.engines.streaming import StreamedText, TextStream
from mgpo_core.engines.turn_tokens import FenceScanner, TurnTokenizer
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.trajectory import Tokens
from mgpo_core.errors import TokenAlignmentError
from mgpo_core.templates.base import message_images

__all__ = ["LEAST_ANSWER", "Response", "TokenizedEpisode"]

LEAST_ANSWER = 8
"""Tokens that must be left for the answer to a follow-up: `\\boxed{A}` and its end take six or seven."""


@dataclass
class Response:
    """One sampled response while it grows, and how it ended: "stop", "cut" (fence closed) or "length"."""

    scanner: FenceScanner | None
    limit: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = ""
    seconds: float = 0.0
    watched: StreamedTokens | None = None

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
        if self.watched is not None:
            self.watched.push(token, over=bool(self.finish_reason))
        return bool(self.finish_reason)

    def keep(self, count: int) -> None:
        """Leave out all but the first `count` tokens."""
        del self.ids[count:], self.logprobs[count:]


class StreamedTokens:
    """Tells the run's watcher what the sampled tokens of one response read, after every token."""

    def __init__(self, text_stream: TextStream, episode: Episode, tokenizer: TurnTokenizer) -> None:
        self._text = StreamedText(text_stream, episode)
        self._tokenizer = tokenizer

    def push(self, token: int, *, over: bool) -> None:
        """Take one more sampled token; `over` with the response's last."""
        ended = token == self._tokenizer.end_id
        self._text.add(b"" if ended else self._tokenizer.token_bytes[token], last=over)


@dataclass
class TokenizedEpisode:
    """An episode with its tokens: an engine samples a `Response` to `ids` and commits it, until the episode is done."""

    episode: Episode
    tokenizer: TurnTokenizer
    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    prompt_length: int = 0
    text_stream: TextStream | None = field(default=None, kw_only=True)
    """Receives the text of every response as it grows."""
    room: int | None = field(default=None, kw_only=True)
    """How many tokens the whole conversation may have, the last response included; None: no limit."""

    def __post_init__(self) -> None:
        # of an episode that somebody else began, the responses so far are part of the prompt
        messages = self.episode.messages
        self._append(self.tokenizer.opening(messages, name=self.name), message_images(messages))
        self.prompt_length = len(self.ids)

    @property
    def name(self) -> str:
        """The sample's id, for errors."""
        return self.episode.sample.id

    @property
    def full(self) -> bool:
        """Whether there is no room for another token."""
        return self.room is not None and len(self.ids) >= self.room

    def response(self, limit: int) -> Response:
        """An empty response of at most `limit` tokens, that stops at the closed fence if the episode wants a box.

        It may fill the room that is left. Where there is none, it has ended by its length before it began.
        """
        response = self._response(limit if self.room is None else min(limit, self.room - len(self.ids)))
        if self.full:
            response.finish_reason = "length"
        return response

    def _response(self, limit: int) -> Response:
        return Response(self._scanner(), limit, watched=self._watched())

    def _watched(self) -> StreamedTokens | None:
        return None if self.text_stream is None else StreamedTokens(self.text_stream, self.episode, self.tokenizer)

    def _scanner(self) -> FenceScanner | None:
        return self.tokenizer.scanner(strict=self.episode.strict) if self.episode.wants_box else None

    def commit(self, response: Response) -> None:
        """Hand the finished response to the episode and append the turn that follows, if any.

        Where an answer to that turn would not fit into the room, it is not appended: the episode ends as too long.
        Where the episode reads less of the text than was sampled (a box without a fence, then prose), the tokens
        past it are left out, so that tokens and messages tell the same conversation.
        """
        ended = response.finish_reason == "stop"
        text = self.tokenizer.decode(response.ids[:-1] if ended else response.ids)
        self.episode.observe(
            text,
            finish_reason=response.finish_reason,
            seconds=response.seconds,
            tokens=len(response.ids),
            prompt_tokens=len(self.ids),
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
            ids = self.tokenizer.follow_up(pending, ended, name=self.name)
            if self.room is not None and len(self.ids) + len(ids) + LEAST_ANSWER > self.room:
                self.episode.end_too_long()
            else:
                self._append(ids, message_images(pending))

    def _take(self, response: Response) -> None:
        """Append the sampled tokens (mask 1)."""
        start = len(self.ids)
        self.ids += response.ids
        self.mask += [1] * len(response.ids)
        self.logprobs += response.logprobs
        self.spans.append((start, len(self.ids)))

    def _append(self, ids: list[int], images: Sequence[Image.Image]) -> None:
        """Append what the model did not say (mask 0), with its images."""
        self._check_budget(images)
        self.tokenizer.check(ids, images, name=self.name)
        self.ids += ids
        self.mask += [0] * len(ids)
        self.logprobs += [0.0] * len(ids)
        self.images += images

    def _check_budget(self, images: Sequence[Image.Image]) -> None:
        budget = self.episode.budget
        for image in images:
            # an image one cell wide may pass the maximum: smart_resize never goes below one cell
            area, narrow = image.width * image.height, min(image.size) <= budget.factor
            if area < budget.min_pixels or (area > budget.max_pixels and not narrow):
                raise TokenAlignmentError(
                    f"sample {self.name!r}: an image of {image.width}x{image.height} pixels is outside the budget of "
                    f"{budget.min_pixels} to {budget.max_pixels} pixels; resize it with PixelBudget.resize first"
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
