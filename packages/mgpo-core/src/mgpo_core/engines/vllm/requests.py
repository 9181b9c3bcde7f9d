"""What both vLLM engines say to vLLM and check of its replies; no vLLM and no torch here.

Relies on vLLM 0.31: prompts as token ids in which **one** image token stands for each image (vLLM repeats it itself,
and would repeat an already repeated one again), `logprobs_mode="processed_logprobs"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mgpo_core.engines.tokenized_episode import TokenizedEpisode
from mgpo_core.errors import TokenAlignmentError

__all__ = [
    "ON_CPU",
    "RolloutCounts",
    "check_prompt",
    "collapse_images",
]

ON_CPU: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "block_size": 32,
    "kv_cache_memory_bytes": 2**29,
    # a prompt that is read in parts makes vLLM 0.31 turn back its seed, which a CPU generator cannot
    "enable_chunked_prefill": False,
    "max_num_batched_tokens": 2**16,
}
"""Arguments of `vllm.LLM` where there is no CUDA."""


@dataclass
class RolloutCounts:
    """Prompt tokens fed per turn, and how many of them vLLM took from its prefix cache (its own count)."""

    prompt_tokens: dict[int, int] = field(default_factory=dict)
    cached_tokens: dict[int, int] = field(default_factory=dict)

    def add(self, turn: int, prompt: int, cached: int) -> None:
        """Count one request of 0-based `turn`."""
        self.prompt_tokens[turn] = self.prompt_tokens.get(turn, 0) + prompt
        self.cached_tokens[turn] = self.cached_tokens.get(turn, 0) + cached

    def merge(self, other: RolloutCounts) -> None:
        """Add another run's counts."""
        for turn, prompt in other.prompt_tokens.items():
            self.add(turn, prompt, other.cached_tokens[turn])

    def hit_rates(self) -> dict[str, float]:
        """`prefix_cache_hit_rate/turnN`: share of the turn's prompt tokens that came from the cache."""
        return {
            f"prefix_cache_hit_rate/turn{turn + 1}": self.cached_tokens[turn] / count
            for turn, count in sorted(self.prompt_tokens.items())
            if count
        }


def collapse_images(ids: Sequence[int], image_id: int) -> list[int]:
    """Ids with every run of image tokens as a single one, as vLLM wants them."""
    return [token for at, token in enumerate(ids) if token != image_id or at == 0 or ids[at - 1] != image_id]


def check_prompt(tokenized: TokenizedEpisode, seen: Sequence[int] | None) -> None:
    """Raise TokenAlignmentError unless vLLM's expanded prompt is the dialogue's: it may have resized an image."""
    if seen is None or list(seen) == tokenized.ids:
        return
    image_id = tokenized.tokenizer.image_id
    theirs, ours = list(seen).count(image_id), tokenized.ids.count(image_id)
    sizes = ", ".join(f"{image.width}x{image.height}" for image in tokenized.images)
    raise TokenAlignmentError(
        f"sample {tokenized.name!r}: vLLM read {len(seen)} prompt tokens ({theirs} of images) where there are "
        f"{len(tokenized.ids)} ({ours} of images of {sizes} pixels); it resized an image: start it with "
        "mm_processor_kwargs whose min_pixels and max_pixels are those of the pixel budget"
    )
