"""Rollouts from a running `vllm serve`, token in, token out: episodes advance one by one, asynchronously.

Relies on vLLM's `/inference/v1/generate` (0.31, `--enable-scale-out`): `token_ids` with one image token per image,
`content_parts` with the images, and a stream of ids with log-probabilities, which is closed at the json fence (vLLM
then stops generating). The chat endpoints take text, which would have to be encoded again: not used.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from mgpo_core.engines.chat.data_urls import DataUrls
from mgpo_core.engines.sampling_options import SamplingOptions
from mgpo_core.engines.streaming import StreamCallback, TextStream, run_streaming
from mgpo_core.engines.tokenized_episode import Response, TokenizedEpisode
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.engines.vllm.requests import RolloutCounts, check_prompt, collapse_images
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import EngineError

__all__ = ["SERVE_FLAGS", "VLLMServerEngine"]

SERVE_FLAGS = "--enable-scale-out --logprobs-mode processed_logprobs --enable-prompt-tokens-details"
"""What `vllm serve` has to be started with."""


class VLLMServerEngine:
    """Plays episodes on the `vllm serve` at `url` ("http://host:port"), as many at a time as `concurrency` says.

    `model` names where processor and vocabulary are read from (folder, hub id, "haystack:base"): the checkpoint that is
    served. A request that fails is asked again up to `retries` times with growing pauses, counted in `retried`; then
    EngineError names the server. `counts` holds what turns that ended by themselves found in the prefix cache.
    """

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        url: str,
        max_new_tokens: int = 1024,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = 0,
        concurrency: int = 256,
        retries: int = 4,
        timeout: float = 600.0,
        progress: bool = False,
    ) -> None:
        from mgpo_core.engines.loading import load_processor

        self.url = url.rstrip("/")
        self.options = SamplingOptions(max_new_tokens, temperature, top_p, top_k, seed)
        self.tokenizer = TurnTokenizer(processor or load_processor(model))
        self.vocabulary = _vocabulary_size(model)
        self.concurrency, self.retries, self.timeout = concurrency, retries, timeout
        self.progress = progress
        self.counts = RolloutCounts()
        self.retried = 0
        self.served = self._ask_server()

    def _ask_server(self) -> str:
        """The served model's name; raises EngineError when the server cannot do what is needed.

        Whether log-probabilities are the sampler's is seen by trying: a token that a bias makes certain has one of 0.
        """
        certain = self.tokenizer.pad_id
        body = {
            "token_ids": [self.tokenizer.end_id],
            "sampling_params": {
                "max_tokens": 1,
                "logprobs": 0,
                "ignore_eos": True,
                "logit_bias": {str(certain): 100.0},
            },
        }
        try:
            served = httpx.get(f"{self.url}/v1/models", timeout=30.0).raise_for_status().json()["data"][0]
            reply = httpx.post(f"{self.url}/inference/v1/generate", json=body, timeout=self.timeout).raise_for_status()
            choice = reply.json()["choices"][0]
            logprob = choice["logprobs"]["content"][0]["logprob"]
        except (httpx.HTTPError, KeyError, ValueError) as error:
            raise EngineError(
                f"the vLLM server at {self.url} cannot be used ({type(error).__name__}: {error}); start one with "
                f"`vllm serve MODEL {SERVE_FLAGS}`"
            ) from error
        if choice["token_ids"] != [certain] or logprob < -1e-3:
            raise EngineError(
                f"the log-probabilities of the vLLM server at {self.url} are not its sampler's (a certain token has "
                f"{logprob}); restart it with {SERVE_FLAGS}"
            )
        self.room = int(served["max_model_len"])
        return str(served["id"])

    def run(self, episodes: Sequence[Episode], *, on_text: StreamCallback | None = None) -> list[Trajectory]:
        """Run every episode to its end; trajectories in the order given, `tokens` filled.

        `on_text` is called for every token that comes, in another thread than the caller's; when it raises, the streams
        are closed, and vLLM then stops generating.
        """
        run_streaming(lambda text_stream: self._run(episodes, text_stream), on_text)
        return [episode.trajectory for episode in episodes]

    def _run(self, episodes: Sequence[Episode], text_stream: TextStream | None) -> None:
        self.counts = RolloutCounts()
        # a thread of its own: the caller may be inside an event loop (a notebook, a web app)
        with ThreadPoolExecutor(max_workers=1) as executor:
            try:
                executor.submit(asyncio.run, self._generate_all(episodes, text_stream)).result()
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from None  # the first to fail; the others were cancelled for it

    async def _generate_all(self, episodes: Sequence[Episode], text_stream: TextStream | None) -> None:
        from tqdm.auto import tqdm

        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        timeout = httpx.Timeout(self.timeout, connect=30.0, pool=None)
        urls, places = DataUrls(), asyncio.Semaphore(self.concurrency)
        with tqdm(total=len(episodes), unit="episode", disable=not self.progress) as bar:
            async with (
                httpx.AsyncClient(base_url=self.url, limits=limits, timeout=timeout) as client,
                asyncio.TaskGroup() as tasks,
            ):
                for index, episode in enumerate(episodes):
                    task = tasks.create_task(self._generate(client, urls, places, index, episode, text_stream))
                    task.add_done_callback(lambda _: bar.update())

    async def _generate(
        self,
        client: httpx.AsyncClient,
        urls: DataUrls,
        places: asyncio.Semaphore,
        index: int,
        episode: Episode,
        text_stream: TextStream | None,
    ) -> None:
        async with places:
            if episode.done:
                return
            tokenized = TokenizedEpisode(episode, self.tokenizer, text_stream=text_stream, room=self.room)
            while not episode.done:
                full = tokenized.full  # by the prompt alone
                response = tokenized.response(0) if full else await self._respond(client, urls, index, tokenized)
                tokenized.commit(response)
            episode.trajectory.tokens = tokenized.tokens()

    async def _respond(
        self, client: httpx.AsyncClient, urls: DataUrls, index: int, tokenized: TokenizedEpisode
    ) -> Response:
        """One response, asked for again when the connection breaks; the same seed samples the same tokens again."""
        body = {
            "model": self.served,
            "token_ids": collapse_images(tokenized.ids, self.tokenizer.image_id),
            "content_parts": [{"type": "image_url", "url": await urls.url(image)} for image in tokenized.images],
            "sampling_params": self._sampling(index, tokenized),
            "return_token_ids": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for attempt in range(self.retries + 1):
            try:
                return await self._stream(client, body, tokenized)
            except (httpx.TransportError, _ServerError) as error:
                if attempt == self.retries:
                    raise EngineError(
                        f"sample {tokenized.name!r}: the vLLM server at {self.url} did not answer turn "
                        f"{tokenized.episode.turn + 1} after {attempt + 1} attempts ({type(error).__name__}: {error}); "
                        "look at its log, restart it, and continue with --resume"
                    ) from error
                self.retried += 1
                await asyncio.sleep(2.0**attempt)
        raise AssertionError("unreachable")

    def _sampling(self, index: int, tokenized: TokenizedEpisode) -> dict[str, Any]:
        request = self.options.request(tokenized, index, self.vocabulary, self.room)
        # JSON has no integer keys; vLLM turns them back
        return request | {"logit_bias": {str(i): bias for i, bias in request["logit_bias"].items()}}

    async def _stream(self, client: httpx.AsyncClient, body: dict[str, Any], tokenized: TokenizedEpisode) -> Response:
        response = tokenized.response(body["sampling_params"]["max_tokens"])
        started = time.perf_counter()
        async with client.stream("POST", "/inference/v1/generate", json=body) as reply:
            await self._check_status(reply, tokenized)
            async for chunk in _events(reply):
                if chunk.get("prompt_token_ids"):
                    check_prompt(tokenized, chunk["prompt_token_ids"])
                self._count(chunk, tokenized)
                # after a stop or the limit the usage is still to come; at a closed fence the server is cut short
                if not response.finish_reason and self._take(chunk, response) and response.finish_reason == "cut":
                    break
        if not response.finish_reason:
            raise _ServerError(f"the stream ended after {len(response.ids)} tokens")
        response.seconds = time.perf_counter() - started
        return response

    async def _check_status(self, reply: httpx.Response, tokenized: TokenizedEpisode) -> None:
        if reply.status_code == 200:
            return
        text = (await reply.aread()).decode(errors="replace")[:500]
        if reply.status_code >= 500:
            raise _ServerError(f"status {reply.status_code}: {text}")
        hint = f"; restart it with {SERVE_FLAGS}" if reply.status_code == 404 else ""
        raise EngineError(
            f"sample {tokenized.name!r}: the vLLM server at {self.url} refused turn {tokenized.episode.turn + 1} "
            f"(status {reply.status_code}: {text}){hint}"
        )

    def _take(self, chunk: dict[str, Any], response: Response) -> bool:
        """Take over the chunk's tokens up to the response's end; True when it is over."""
        for choice in chunk.get("choices") or ():
            entries = (choice.get("logprobs") or {}).get("content") or ()
            for token, entry in zip(choice.get("token_ids") or (), entries, strict=True):
                if response.push(token, float(entry["logprob"]), self.tokenizer.end_id):
                    return True
        return False

    def _count(self, chunk: dict[str, Any], tokenized: TokenizedEpisode) -> None:
        usage = chunk.get("usage") or {}
        if details := usage.get("prompt_tokens_details"):
            self.counts.add(tokenized.episode.turn, usage["prompt_tokens"], details.get("cached_tokens") or 0)


def _vocabulary_size(model: Any) -> int:
    from transformers import AutoConfig

    from mgpo_core.engines.loading import whole_model

    return int(AutoConfig.from_pretrained(whole_model(model, "vLLM")).get_text_config().vocab_size)


class _ServerError(Exception):
    """A failure that may pass."""


async def _events(reply: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events."""
    async for line in reply.aiter_lines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            raise _ServerError(str(chunk["error"])[:500])
        yield chunk
