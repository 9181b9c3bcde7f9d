"""Batched generation with transformers: own decode loop, one key/value cache per conversation, turns appended to it.

Relies on transformers 5.17: `get_rope_index(input_ids, mm_token_type_ids, image_grid_thw=)`, and `language_model`
taking `inputs_embeds`, 3-row `position_ids` and prepared masks (4-D). What differs between models is in families.py.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgpo_core.engines.families import find_family, inner_model
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_core.engines.sampling_options import SamplingOptions
from mgpo_core.engines.streaming import StreamCallback, TextStream, run_streaming
from mgpo_core.engines.transformers.attention import engine_attention
from mgpo_core.engines.transformers.cached_sequence import CachedResponse, CachedSequence, TurnPositions
from mgpo_core.engines.transformers.confidence import choice_probabilities
from mgpo_core.engines.transformers.kv_cache import BatchCache
from mgpo_core.engines.transformers.sampling import Sampler
from mgpo_core.engines.transformers.vision import ImageFeatures
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import EngineError, TokenAlignmentError

__all__ = ["TransformersEngine"]

_LOG = logging.getLogger(__name__)


class TransformersEngine:
    """Plays episodes with a model of a known family, greedily (temperature 0) or by sampling.

    `model` is a folder, a hub id, "haystack:base", or a loaded model (left as it is; assign `engine.model` to swap
    it). `max_new_tokens` bounds one response, and `max_model_len` the whole conversation (None: the model's own context
    does); an episode without room for an answer to its next turn ends as too long. `seed=None` draws from torch's
    global generator, for a trainer whose checkpoints restore it. `reuse_cache=False` recomputes everything for every
    token, one row at a time: the slow reference. Raises EngineError on a model it cannot load or run with.
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
        batch_size: int = 16,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        reuse_cache: bool = True,
        progress: bool = False,
        max_model_len: int | None = None,
    ) -> None:
        self.options = SamplingOptions(max_new_tokens, temperature, top_p, top_k, seed)
        self.max_model_len = max_model_len
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: give at least 1")
        if isinstance(model, (str, Path)):
            processor = processor or load_processor(model)
            model = load_model(model, device=device, dtype=dtype)
        self.model = model
        self.tokenizer = TurnTokenizer(processor or load_processor(model.config._name_or_path))
        self.batch_size = batch_size
        self.reuse_cache = reuse_cache
        self.progress = progress
        self.generator = None if seed is None else torch.Generator(self._device).manual_seed(seed)
        self.memory_splits = 0
        """How many times a batch was halved because memory ran out."""

    @property
    def _device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    def run(self, episodes: Sequence[Episode], *, on_text: StreamCallback | None = None) -> list[Trajectory]:
        """Run every episode to its end; trajectories in the order given, `tokens` filled.

        `on_text` is called after every sampled token, in this thread.
        """
        run_streaming(lambda text_stream: self._generate_all(episodes, text_stream), on_text)
        return [episode.trajectory for episode in episodes]

    def _generate_all(self, episodes: Sequence[Episode], text_stream: TextStream | None) -> None:
        from tqdm.auto import tqdm

        with _inference(self.model):
            generation = _Generation(self, text_stream)
            with tqdm(total=len(episodes), unit="episode", disable=not self.progress) as bar:
                for start in range(0, len(episodes), self.batch_size):
                    batch = episodes[start : start + self.batch_size]
                    generation.batch(batch)
                    bar.update(len(batch))

    def choice_probabilities(self, trajectory: Trajectory) -> dict[str, float]:
        """How sure the model is of each choice (letter -> probability), for a trajectory that has ended.

        confidence.py says how. Raises ValueError for one without tokens, or with fewer than two choices.
        """
        with _inference(self.model):
            return choice_probabilities(self.model, self.tokenizer, trajectory)


class _Generation:
    """One call of `run`: the model's parts, the sampler, and the features of the images in hand."""

    def __init__(self, engine: TransformersEngine, text_stream: TextStream | None = None) -> None:
        self.engine = engine
        self.text_stream = text_stream
        self.model = engine.model
        self.tokenizer = engine.tokenizer
        self.core = inner_model(engine.model)
        self.family = find_family(self.core.config)
        self.embed = engine.model.get_input_embeddings()
        self.head = engine.model.get_output_embeddings()
        self.device = self.embed.weight.device
        self.text_config = self.core.language_model.config
        contexts = [engine.max_model_len, getattr(self.text_config, "max_position_embeddings", None)]
        self.room = min((tokens for tokens in contexts if tokens), default=None)
        self.positions = TurnPositions(self.core, self.tokenizer)
        # sliding windows need caches that forget; such models are run without reuse
        layer_types = set(getattr(self.text_config, "layer_types", None) or ["full_attention"])
        self.reuse_cache = engine.reuse_cache and layer_types == {"full_attention"}
        forbidden = torch.from_numpy(self.tokenizer.forbidden_mask(self.head.weight.shape[0])).to(self.device)
        self.sample = Sampler(forbidden, engine.options, engine.generator)
        self.features = ImageFeatures(self.core, self.family, self.tokenizer, self.device)

    def batch(self, episodes: Sequence[Episode]) -> None:
        """Play these episodes turn by turn until all are done."""
        rows = [
            CachedSequence(
                episode, self.tokenizer, turn_positions=self.positions, text_stream=self.text_stream, room=self.room
            )
            for episode in episodes
            if not episode.done
        ]
        everyone = list(rows)
        for row in rows:
            if row.full:
                row.commit(row.response(0))
        while rows := [row for row in rows if not row.episode.done]:
            for row, response in zip(rows, self._responses(rows), strict=True):
                row.commit(response)
        for row in everyone:
            row.episode.trajectory.tokens = row.tokens()
        self.features.clear()

    def _responses(self, rows: list[CachedSequence]) -> list[CachedResponse]:
        """Responses to all rows; a batch that does not fit into memory is halved until it does."""
        if not self.reuse_cache:
            return [self._respond_without_cache(row) for row in rows]
        try:
            return self._respond(rows)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            if len(rows) == 1:
                raise EngineError(
                    f"sample {rows[0].name!r} alone does not fit into memory ({len(rows[0].ids)} prompt tokens); "
                    "lower max_pixels or max_new_tokens, or load the model with a smaller dtype"
                ) from error
        # outside the except block, where the traceback would keep the tensors alive
        self.features.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.engine.memory_splits += 1
        half = len(rows) // 2
        _LOG.warning("out of memory with %d rows; going on with %d and %d", len(rows), half, len(rows) - half)
        return self._responses(rows[:half]) + self._responses(rows[half:])

    @torch.no_grad()
    def _respond(self, rows: list[CachedSequence]) -> list[CachedResponse]:
        """Sample one response for each row; all rows have a cache or none has."""
        started = time.perf_counter()
        cache, logits = self._prefill(rows)
        responses = [row.response(self.engine.options.max_new_tokens) for row in rows]
        slots = list(range(len(rows)))  # which row each batch entry belongs to
        running = [True] * len(rows)
        position = torch.tensor([row.next_position for row in rows], device=self.device)
        while True:
            tokens, logprobs = self.sample(logits)
            for slot, (token, logprob) in enumerate(zip(tokens.tolist(), logprobs.tolist(), strict=True)):
                response = responses[slots[slot]]
                if running[slot] and response.push(token, logprob, self.tokenizer.end_id):
                    running[slot] = False
                    response.seconds = time.perf_counter() - started
            if not any(running):
                break
            if sum(running) <= len(slots) // 2:
                self._keep_caches(cache, rows, responses, slots, running)
                left = [slot for slot, active in enumerate(running) if active]
                chosen = torch.tensor(left, device=self.device)
                cache.select(chosen)
                tokens, position = tokens[chosen], position[chosen]
                slots, running = [slots[slot] for slot in left], [True] * len(left)
            logits = self._step(cache, tokens, position)
            position = position + 1
        self._keep_caches(cache, rows, responses, slots, running)
        return responses

    def _keep_caches(
        self,
        cache: BatchCache,
        rows: list[CachedSequence],
        responses: list[CachedResponse],
        slots: list[int],
        running: list[bool],
    ) -> None:
        """Cut out the caches of rows that have just finished, if another turn may follow."""
        for slot, active in enumerate(running):
            row, response = rows[slots[slot]], responses[slots[slot]]
            if not active and row.episode.turn + 1 < row.episode.template.max_turns:
                # the last sampled token was never fed to the model
                response.cache = cache.row(slot, len(row.ids) + len(response.ids) - 1)

    def _prefill(self, rows: list[CachedSequence]) -> tuple[BatchCache, Tensor]:
        """Feed what the cache lacks; equal prompts are computed once. Returns the cache and the next logits (B, V)."""
        caches = [row.cache for row in rows if row.cache is not None]
        if caches:
            cache = BatchCache.join(caches, self.device)
            return cache, self._feed(cache, rows)
        unique: dict[Any, int] = {}
        where = [unique.setdefault(row.prompt_key, len(unique)) for row in rows]
        firsts = [rows[where.index(index)] for index in range(len(unique))]
        cache = BatchCache(self.text_config.num_hidden_layers, len(firsts), self.device)
        logits = self._feed(cache, firsts)
        if len(firsts) < len(rows):
            chosen = torch.tensor(where, device=self.device)
            cache.select(chosen)
            logits = logits[chosen]
        return cache, logits

    def _feed(self, cache: BatchCache, rows: list[CachedSequence]) -> Tensor:
        """Run the uncached ids of `rows`, padded on the left, through the model; logits after the last (B, V)."""
        lengths = [len(row.ids) - row.cached for row in rows]
        width = max(lengths)
        ids = torch.full((len(rows), width), self.tokenizer.pad_id)
        valid = torch.zeros(len(rows), width, dtype=torch.bool)
        positions = torch.zeros(3, len(rows), width, dtype=torch.long)
        for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            ids[index, width - length :] = torch.tensor(row.ids[row.cached :])
            valid[index, width - length :] = True
            positions[:, index, width - length :] = row.positions
        ids = ids.to(self.device)
        embeds, visual = self._insert_features(ids, self.embed(ids), rows)
        mask = cache.extend(valid.to(self.device))
        return self._forward(cache, embeds, mask, positions.to(self.device), **visual)

    def _step(self, cache: BatchCache, tokens: Tensor, position: Tensor) -> Tensor:
        """Feed one token per row at M-RoPE position `position` (B,); the next logits (B, V)."""
        mask = cache.extend(torch.ones(len(tokens), 1, dtype=torch.bool, device=self.device))
        return self._forward(cache, self.embed(tokens[:, None]), mask, position[None, :, None].expand(3, -1, 1))

    def _forward(
        self, cache: BatchCache, embeds: Tensor, mask: Tensor | None, positions: Tensor, **visual: Any
    ) -> Tensor:
        if mask is not None:  # added to the scores; made once, where every layer would convert a bool mask
            mask = torch.zeros_like(mask, dtype=embeds.dtype).masked_fill_(~mask, torch.finfo(embeds.dtype).min)
        with engine_attention(self.text_config):
            output = self.core.language_model(
                inputs_embeds=embeds,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache.cache,
                use_cache=True,
                **visual,
            )
        return self.head(output.last_hidden_state[:, -1])

    def _insert_features(
        self, ids: Tensor, embeds: Tensor, rows: list[CachedSequence]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Embeddings with the features of images that are not in the cache yet, and what else these bring."""
        images = [image for row in rows for image in row.new_images]
        if not images:
            return embeds, {}
        features = self.features.of(images).to(embeds.dtype)
        image_mask = ids == self.tokenizer.image_id
        if int(image_mask.sum()) != features.shape[1]:
            names = ", ".join(repr(row.name) for row in rows)
            raise TokenAlignmentError(
                f"{int(image_mask.sum())} image tokens but {features.shape[1]} visual features in the batch of {names}"
            )
        embeds = embeds.masked_scatter(image_mask[..., None], features[0])
        return embeds, self.family.language_inputs(image_mask, features)

    @torch.no_grad()
    def _respond_without_cache(self, row: CachedSequence) -> CachedResponse:
        """The reference: the whole conversation through the model's own forward for every single token."""
        started = time.perf_counter()
        response = row.response(self.engine.options.max_new_tokens)
        pixels = {name: value.to(self.device) for name, value in self.tokenizer.pixels(row.images).items()}
        while not response.finish_reason:
            ids = torch.tensor([row.ids + response.ids], device=self.device)
            kinds = (ids == self.tokenizer.image_id).int()
            positions, _ = self.core.get_rope_index(ids, kinds, image_grid_thw=pixels.get("image_grid_thw"))
            output = self.model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=1, **pixels)
            tokens, logprobs = self.sample(output.logits[:, -1])
            response.push(int(tokens[0]), float(logprobs[0]), self.tokenizer.end_id)
        response.seconds = time.perf_counter() - started
        return response


@contextlib.contextmanager
def _inference(model: Any) -> Iterator[None]:
    """Dropout and gradient checkpointing off; modules that were training are put back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
