"""Rollouts with vLLM in this process: every episode goes on as soon as its own turn is over.

Relies on `vllm.LLM.llm_engine` (0.31), driven request by request, where `LLM.generate` would wait for the slowest of
a batch: `add_request`, `step` (deltas of ids and log-probabilities), `abort_request` at the closed fence. Prompts are
rendered by `LLM._preprocess_cmpl`. tests/train/test_vllm_contract.py fails when one of these names moves.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from vllm import LLM, SamplingParams
from vllm.sampling_params import RequestOutputKind

from mgpo_core.engines.sampling_options import SamplingOptions
from mgpo_core.engines.streaming import StreamCallback, TextStream, run_streaming
from mgpo_core.engines.tokenized_episode import Response, TokenizedEpisode
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.engines.vllm.requests import ON_CPU, RolloutCounts, check_prompt, collapse_images
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import EngineError

__all__ = ["VLLMEngine"]

_REQUESTS = itertools.count()


class VLLMEngine:
    """Plays episodes with vLLM, greedily (temperature 0) or by sampling.

    `model` is a folder, a hub id, "haystack:base", or a `vllm.LLM` (which must have been made with
    `logprobs_mode="processed_logprobs"`); `llm_options` go to `vllm.LLM`, without CUDA over those of `ON_CPU`.
    `seed=None` leaves sampling to vLLM's own generator. `counts` holds what the last `run` found in the prefix cache.
    Raises EngineError when vLLM cannot start.
    """

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        max_new_tokens: int = 1024,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = 0,
        progress: bool = False,
        **llm_options: Any,
    ) -> None:
        self.options = SamplingOptions(max_new_tokens, temperature, top_p, top_k, seed)
        if isinstance(model, (str, Path)):
            processor = processor or _processor(model)
            model = _start(model, llm_options)
        elif llm_options:
            raise EngineError(f"{', '.join(llm_options)}: options for a vLLM that is already running; leave them out")
        self.llm = model
        self.tokenizer = TurnTokenizer(processor or _processor(model.model_config.model))
        if model.model_config.logprobs_mode != "processed_logprobs":
            raise EngineError(
                f"the vLLM at hand has logprobs_mode={model.model_config.logprobs_mode!r}: its log-probabilities would "
                "not be those of the sampler; make it with logprobs_mode='processed_logprobs'"
            )
        self.progress = progress
        self.counts = RolloutCounts()

    def run(self, episodes: Sequence[Episode], *, on_text: StreamCallback | None = None) -> list[Trajectory]:
        """Run every episode to its end; trajectories in the order given, `tokens` filled.

        `on_text` is called in this thread, once for every token, when the step of vLLM that made it has ended: tokens
        come one per step, or several with speculative decoding. Meanwhile vLLM stands still.
        """
        run_streaming(lambda text_stream: self._generate_all(episodes, text_stream), on_text)
        return [episode.trajectory for episode in episodes]

    def _generate_all(self, episodes: Sequence[Episode], text_stream: TextStream | None) -> None:
        from tqdm.auto import tqdm

        self.counts = RolloutCounts()
        generation = _Generation(self, text_stream)
        with tqdm(total=len(episodes), unit="episode", disable=not self.progress) as bar:
            try:
                waiting = iter(enumerate(episodes))
                while generation.take_on(waiting):
                    bar.update(generation.step())
            finally:
                generation.abort()


@dataclass
class _Flight:
    """A request that vLLM is working on."""

    index: int
    tokenized: TokenizedEpisode
    response: Response
    started: float


class _Generation:
    """One call of `run`."""

    def __init__(self, engine: VLLMEngine, text_stream: TextStream | None) -> None:
        self.owner = engine
        self.text_stream = text_stream
        self.llm = engine.llm
        self.core = engine.llm.llm_engine
        self.tokenizer = engine.tokenizer
        self.vocabulary = int(self.llm.model_config.get_vocab_size())
        self.room = int(self.llm.model_config.max_model_len)
        # enough that vLLM never idles; all at once would hold the images of thousands of episodes
        self.most = 2 * int(self.core.vllm_config.scheduler_config.max_num_seqs)
        self.flights: dict[str, _Flight] = {}

    def take_on(self, waiting: Iterator[tuple[int, Episode]]) -> bool:
        """Begin episodes while there is room; False when nothing is under way any more."""
        while len(self.flights) < self.most:
            index, episode = next(waiting, (0, None))
            if episode is None:
                break
            if not episode.done:
                self.begin(
                    index, TokenizedEpisode(episode, self.tokenizer, text_stream=self.text_stream, room=self.room)
                )
        return bool(self.flights)

    def begin(self, index: int, tokenized: TokenizedEpisode) -> int:
        """Ask vLLM for the dialogue's next response; 1 if the episode ended because the context has no room for it."""
        turn = tokenized.episode.turn
        flight = _Flight(index, tokenized, tokenized.response(self.owner.options.max_new_tokens), time.perf_counter())
        if tokenized.full:
            return self._commit(flight)
        request = self.owner.options.request(tokenized, index, self.vocabulary, self.room)
        params = SamplingParams(**request, output_kind=RequestOutputKind.DELTA)
        prompt: dict[str, Any] = {"prompt_token_ids": collapse_images(tokenized.ids, self.tokenizer.image_id)}
        if tokenized.images:
            prompt["multi_modal_data"] = {"image": list(tokenized.images)}
        try:
            (rendered,) = self.llm._preprocess_cmpl([prompt])
            name = f"mgpo-{next(_REQUESTS)}"
            self.core.add_request(name, rendered, params)
        except (ValueError, TypeError) as error:
            raise EngineError(f"sample {tokenized.name!r}: vLLM refused turn {turn + 1}: {error}") from error
        self.flights[name] = flight
        return 0

    def step(self) -> int:
        """One step of vLLM; follow-up turns are asked for at once. Returns how many episodes ended."""
        finished = 0
        for output in self.core.step():
            flight = self.flights.get(output.request_id)
            if flight is None:  # a token that was under way when its request was aborted
                continue
            if not flight.response.ids:
                check_prompt(flight.tokenized, output.prompt_token_ids)
                self.owner.counts.add(
                    flight.tokenized.episode.turn, len(flight.tokenized.ids), output.num_cached_tokens or 0
                )
            if self._take(flight, output):
                del self.flights[output.request_id]
                if not output.finished:
                    self.core.abort_request([output.request_id])
                finished += self._commit(flight)
        return finished

    def _take(self, flight: _Flight, output: Any) -> bool:
        """Take over the new tokens up to the response's end; True when it is over."""
        (piece,) = output.outputs
        for token, logprobs in zip(piece.token_ids, piece.logprobs or (), strict=True):
            if flight.response.push(token, float(logprobs[token].logprob), self.tokenizer.end_id):
                return True
        if output.finished:
            raise EngineError(
                f"sample {flight.tokenized.name!r}: vLLM ended a response of {len(flight.response.ids)} tokens with "
                f"{piece.finish_reason!r} before its limit of {flight.response.limit}"
            )
        return False

    def _commit(self, flight: _Flight) -> int:
        flight.response.seconds = time.perf_counter() - flight.started
        tokenized = flight.tokenized
        tokenized.commit(flight.response)
        if not tokenized.episode.done:
            return self.begin(flight.index, tokenized)
        tokenized.episode.trajectory.tokens = tokenized.tokens()
        return 1

    def abort(self) -> None:
        """Let go of what is still under way, after an error."""
        if self.flights:
            self.core.abort_request(list(self.flights))
            self.flights.clear()


def _processor(model: str | Path) -> Any:
    from mgpo_core.engines.loading import load_processor

    return load_processor(model)


def _start(model: str | Path, options: Mapping[str, Any]) -> Any:
    from mgpo_core.engines.loading import whole_model

    place = whole_model(model, "vLLM")
    settings = {} if torch.cuda.is_available() else ON_CPU
    settings = settings | {"logprobs_mode": "processed_logprobs", "enable_prefix_caching": True, "seed": 0, **options}
    try:
        return LLM(model=place, **settings)
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise EngineError(f"vLLM could not start with model {str(model)!r} and {settings}: {error}") from error
