"""Episodes on any server that speaks OpenAI's chat API (vLLM, SGLang, LMDeploy, a hosted one): text in, text out.

Relies on the `openai` package (3.52): its retries, streams that end in `APIError` when they break, and the
`continuous_usage_stats` of vLLM. The server tokenises, so nothing here knows an id: `trajectory.tokens` stays None.
To train, or for log-probabilities, take the engine "vllm" or "vllm-server".
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import openai
from anyio.from_thread import start_blocking_portal
from tqdm.auto import tqdm

from mgpo_core.engines.chat.data_urls import DataUrls
from mgpo_core.engines.sampling_options import SamplingOptions
from mgpo_core.engines.streaming import StreamCallback, StreamedText, TextStream, run_streaming
from mgpo_core.engines.turn_tokens import FenceScanner
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import EngineError, TokenAlignmentError
from mgpo_core.messages.suggest import nearest
from mgpo_core.templates.base import Message, message_images, message_text

__all__ = ["OpenAIEngine"]

_PAUSE = 0.5
"""Seconds before a response whose stream broke is asked for again; doubled each time."""

_TOO_LONG = "status 4.*(context|length|too long|max_model_len)"
_FLAGS = re.IGNORECASE | re.DOTALL

_REMEDIES = {
    # what was said matches: what the user can do
    "Request timed out": "lower concurrency, or raise timeout",
    "status 40[13]": "give its key as api_key, or in the environment variable OPENAI_API_KEY",
    "status 404": "see that url leads to an OpenAI chat API, and that it still serves the model",
    "status 429": "lower concurrency, or try again later",
    "status 4.*at most .*image": "let it take more images (vLLM: --limit-mm-per-prompt '{\"image\":IMAGES}')",
    _TOO_LONG: "lower max_new_tokens or the pixel budget, or give it a longer context (vLLM: --max-model-len)",
    "status 4": "see that its model reads images and takes these options",
    "": "see that url is right, look at the server's log, start it again, and run again",
}


class OpenAIEngine:
    """Plays episodes on the chat server at `url` ("http://host:port", with or without "/v1").

    `model` is the name it is served under, None for the first that the server lists; `api_key` is by default that of
    the environment (OPENAI_API_KEY). At most `concurrency` episodes are under way at a time; one opens its images
    when its turn comes. What may pass (429, 5xx, a broken connection) is asked again up to `retries` times with growing
    pauses; then the run ends with an EngineError that names the server, the sample and the turn. `timeout` is how many
    seconds the server may be silent. Temperature 0 is greedy; when sampling, every response has a seed of its own.

    The other engines never sample a special token but the end of the turn; a chat API knows no ids, so no server, vLLM
    included, is asked to forbid any. What a request does not name is the server's to choose: vLLM takes it from the
    checkpoint's generation_config.json, where Qwen's have a repetition penalty, so requests to vLLM turn it off.
    """

    def __init__(
        self,
        model: str | None,
        *,
        url: str,
        api_key: str | None = None,
        max_new_tokens: int = 1024,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = 0,
        concurrency: int = 32,
        retries: int = 4,
        timeout: float = 600.0,
        progress: bool = False,
    ) -> None:
        if concurrency < 1 or retries < 0:
            raise ValueError(f"concurrency={concurrency}, retries={retries}: give at least 1 and at least 0")
        self.url = _with_version(url)
        self.options = SamplingOptions(max_new_tokens, temperature, top_p, top_k, seed)
        self.concurrency, self.retries, self.progress = concurrency, retries, progress
        self._client: dict[str, Any] = {
            "base_url": self.url,
            "api_key": api_key or os.environ.get("OPENAI_API_KEY") or "none",
            "max_retries": retries,
            "timeout": openai.Timeout(timeout, connect=30.0, pool=None),
        }
        self.served, self._is_vllm = self._find(model)

    def _find(self, model: str | None) -> tuple[str, bool]:
        """The served model's name, and whether vLLM serves it."""
        try:
            with openai.OpenAI(**self._client) as client:
                listed = getattr(client.models.list(), "data", None)
        except openai.OpenAIError as error:
            raise EngineError(f"the server at {self.url} cannot be used {_told(error, 1)}") from error
        if not listed:
            raise EngineError(f"the server at {self.url} lists no models; see that url leads to an OpenAI chat API")
        owners = {entry.id: entry.owned_by for entry in listed}
        served = next(iter(owners)) if model is None else model
        if served not in owners:
            raise EngineError(f"the server at {self.url} does not serve {served!r}: {nearest(served, owners)}")
        return served, owners[served] == "vllm"

    def run(self, episodes: Sequence[Episode], *, on_text: StreamCallback | None = None) -> list[Trajectory]:
        """Run every episode to its end; trajectories in the order given, without `tokens`.

        `on_text` gets every piece of text that comes, in another thread than the caller's; when it raises, the
        streams are closed. Raises EngineError for a server that fails or refuses, TokenAlignmentError where it has
        shrunk the images. The other episodes are then cancelled.
        """
        run_streaming(lambda text_stream: self._run(episodes, text_stream), on_text)
        return [episode.trajectory for episode in episodes]

    def _run(self, episodes: Sequence[Episode], text_stream: TextStream | None) -> None:
        # a loop in a thread of its own: the caller may be inside one (a notebook, a web app); Ctrl-C stops it
        with start_blocking_portal() as portal:
            try:
                portal.call(self._generate_all, episodes, text_stream)
            except BaseExceptionGroup as group:
                first = group.exceptions[0]  # the first to fail; the others were cancelled for it
                raise first from first.__cause__

    async def _generate_all(self, episodes: Sequence[Episode], text_stream: TextStream | None) -> None:
        urls, places = DataUrls(), asyncio.Semaphore(self.concurrency)
        with tqdm(total=len(episodes), unit="episode", disable=not self.progress) as bar:
            async with openai.AsyncOpenAI(**self._client) as client, asyncio.TaskGroup() as tasks:

                async def in_its_place(index: int, episode: Episode) -> None:
                    async with places:
                        await self._generate(client, urls, index, episode, text_stream)
                    bar.update()

                for index, episode in enumerate(episodes):
                    tasks.create_task(in_its_place(index, episode))

    async def _generate(
        self,
        client: openai.AsyncOpenAI,
        urls: DataUrls,
        index: int,
        episode: Episode,
        text_stream: TextStream | None,
    ) -> None:
        while not episode.done:
            messages = [await _chat_message(message, urls) for message in episode.messages]
            request = self._request(index, episode) | {"messages": messages}
            response = await self._respond(client, request, episode, text_stream)
            if response is None:
                episode.end_too_long()
                break
            episode.observe(
                b"".join(response.pieces).decode(),
                finish_reason=response.finish_reason,
                seconds=response.seconds,
                tokens=max(response.tokens, len(response.pieces)),  # without a usage: one token a piece
                prompt_tokens=response.prompt_tokens,
            )

    def _request(self, index: int, episode: Episode) -> dict[str, Any]:
        """All of a request but its messages; `index` is the episode's place in the run."""
        options = self.options
        request: dict[str, Any] = {
            "model": self.served,
            "max_tokens": options.max_new_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if options.top_k:
            request["extra_body"] = {"top_k": options.top_k}
        if self._is_vllm:
            # exact counts also of a response that is cut, which gets no last word on its usage
            request["stream_options"]["continuous_usage_stats"] = True
            request["extra_body"] = {"top_k": options.top_k, "repetition_penalty": 1.0, "min_p": 0.0}
        if options.temperature > 0 and options.seed is not None:
            request["seed"] = options.seeded(options.seed, index, episode.turn).seed
        return request

    async def _respond(
        self, client: openai.AsyncOpenAI, request: dict[str, Any], episode: Episode, text_stream: TextStream | None
    ) -> _Response | None:
        """One response; the client retries a request that fails, and a stream that breaks is asked for again here.

        A follow-up that the model's context has no room for, with `max_tokens` behind it, may take what is left; None
        where nothing is.
        """
        for attempt in range(self.retries + 1):
            started = time.perf_counter()
            try:
                stream = await client.chat.completions.create(**request)
            except openai.OpenAIError as error:
                if episode.turn and re.match(_TOO_LONG, _said(error), _FLAGS):
                    left = {name: value for name, value in request.items() if name != "max_tokens"}
                    return None if left == request else await self._respond(client, left, episode, text_stream)
                raise self._failure(episode, error) from error
            try:
                response = await self._read(stream, episode, text_stream)
            except (openai.OpenAIError, json.JSONDecodeError) as error:
                if attempt == self.retries:
                    raise self._failure(episode, error) from error
                await asyncio.sleep(_PAUSE * 2.0**attempt)
            else:
                response.seconds = time.perf_counter() - started
                return response
        raise AssertionError("unreachable")

    async def _read(
        self, stream: openai.AsyncStream[Any], episode: Episode, text_stream: TextStream | None
    ) -> _Response:
        """The response of a stream, which is closed where the fence closes: the server then stops generating."""
        response = _Response.to(episode, text_stream)
        async with stream:
            async for chunk in stream:
                if chunk.usage:
                    response.prompt_tokens = chunk.usage.prompt_tokens or 0
                    response.tokens = chunk.usage.completion_tokens or 0
                    self._check_images(episode, response.prompt_tokens)
                for choice in chunk.choices or ():
                    response.take(choice)
                if response.closed and not response.ended:
                    break
        if not response.closed and not response.ended:
            raise openai.OpenAIError(f"the stream ended after {len(response.pieces)} pieces of text")
        return response

    def _check_images(self, episode: Episode, prompt_tokens: int) -> None:
        """Raise TokenAlignmentError if the whole prompt has fewer tokens than its images alone (0: not known)."""
        images = message_images(episode.messages)
        needed = sum(image.width * image.height for image in images) // episode.budget.factor**2
        if 0 < prompt_tokens < needed:
            sizes = ", ".join(f"{image.width}x{image.height}" for image in images)
            raise TokenAlignmentError(
                f"sample {episode.sample.id!r}: the server at {self.url} read {prompt_tokens} tokens, but the images "
                f"alone ({sizes} pixels) take {needed}; it has shrunk them, and boxes in their pixels would be wrong: "
                "give it the pixel budget (vLLM: --mm-processor-kwargs "
                f'\'{{"min_pixels": {episode.budget.min_pixels}, "max_pixels": {episode.budget.max_pixels}}}\'); '
                "for a model with larger visual tokens, set the budget's factor"
            )

    def _failure(self, episode: Episode, error: Exception) -> EngineError:
        count = max(len(message_images(episode.messages)), 2 * len(episode.images))  # a refused box shows all again
        return EngineError(
            f"sample {episode.sample.id!r}: the server at {self.url} did not answer turn {episode.turn + 1} "
            f"{_told(error, count)}"
        )


@dataclass
class _Response:
    """One response while it is read, in the pieces that the server sends (mostly a token each)."""

    scanner: FenceScanner | None
    pieces: list[bytes]
    watched: StreamedText | None = None
    closed: bool = False  # whether the fence of the wanted box has
    ended: str = ""  # the server's finish reason
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @classmethod
    def to(cls, episode: Episode, text_stream: TextStream | None) -> _Response:
        """An empty one, that looks for the closed fence if the episode wants a box."""
        pieces: list[bytes] = []  # the scanner looks bytes up by token; here by the piece's number
        scanner = FenceScanner(cast(Any, pieces), strict=episode.strict) if episode.wants_box else None
        return cls(scanner, pieces, None if text_stream is None else StreamedText(text_stream, episode))

    def take(self, choice: Any) -> None:
        """Read one choice of a chunk."""
        if choice.delta.content:
            self.pieces.append(choice.delta.content.encode(errors="replace"))
            self.closed = self.closed or (self.scanner is not None and self.scanner.push(len(self.pieces) - 1))
            if self.watched is not None:
                self.watched.add(self.pieces[-1])
        self.ended = choice.finish_reason or self.ended

    @property
    def finish_reason(self) -> str:
        """In our words."""
        return "cut" if self.closed else "length" if self.ended == "length" else "stop"


async def _chat_message(message: Message, urls: DataUrls) -> dict[str, Any]:
    """A message as the chat API wants it; one without images is plain text, which every server takes."""
    if not message_images([message]):
        return {"role": message["role"], "content": message_text(message)}
    parts = [
        {"type": "image_url", "image_url": {"url": await urls.url(part["image"])}}
        if part["type"] == "image"
        else {"type": "text", "text": part["text"]}
        for part in message["content"]
    ]
    return {"role": message["role"], "content": parts}


def _with_version(url: str) -> str:
    """`url` with "/v1" where it names a server only; other paths are taken as they are."""
    url = url.rstrip("/")
    return url if urlsplit(url).path else f"{url}/v1"


def _told(error: Exception, images: int) -> str:
    """What went wrong, in the server's own words if it had any, and the remedy; a conversation may hold `images`."""
    said = _said(error)
    remedy = next(remedy for pattern, remedy in _REMEDIES.items() if re.match(pattern, said, _FLAGS))
    return f"({said}); {remedy.replace('IMAGES', str(images))}"


def _said(error: Exception) -> str:
    if isinstance(error, openai.APIStatusError):
        message = error.body.get("message") if isinstance(error.body, dict) else None
        return f"status {error.status_code}: {message or error.response.text[:500]}"
    cause = error.__cause__
    return f"{error}" if cause is None else f"{error} {type(cause).__name__}: {cause}"
