"""How responses are sampled, the same words for every engine. No torch and no vLLM here."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

from mgpo_core.engines.tokenized_episode import TokenizedEpisode

__all__ = ["FORBIDDEN_BIAS", "SamplingOptions"]

FORBIDDEN_BIAS = -100.0
"""vLLM's lowest logit bias: e**-100 of a token's mass is left, which is none in any floating-point type in use."""


@dataclass(frozen=True)
class SamplingOptions:
    """How an engine samples responses of at most `max_new_tokens`; temperature 0 is greedy, `top_k` 0 is off.

    `seed=None` leaves drawing to a global generator. Raises ValueError, naming the option.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: give at least 1")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(
                f"temperature={self.temperature} must be >= 0, top_p={self.top_p} in (0, 1], top_k={self.top_k} >= 0 "
                "(0 = off)"
            )

    def seeded(self, *numbers: int) -> SamplingOptions:
        """The same options with a seed made of `numbers`."""
        return dataclasses.replace(self, seed=_mixed(*numbers))

    def request(self, tokenized: TokenizedEpisode, index: int, vocabulary: int, room: int) -> dict[str, Any]:
        """vLLM's sampling parameters for the next response of a dialogue, episode `index` of a run.

        It may fill the `room` of tokens that the model's context has. Each response has a seed of its own, so that it
        does not depend on what is sampled beside it. Log-probabilities differ from the transformers engine's under
        top-p and top-k: vLLM gives those of the cut distribution, which no trainer computes (training leaves both off).
        """
        tokens = tokenized.tokenizer
        forbidden = tokens.forbidden_mask(vocabulary).nonzero()[0]
        return {
            "max_tokens": min(self.max_new_tokens, room - len(tokenized.ids)),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "seed": None if self.seed is None else _mixed(self.seed, index, tokenized.episode.turn),
            "logprobs": 0,  # of the sampled token alone
            "detokenize": False,
            # the ends that a checkpoint's generation_config names are not ours: ours is the end of turn
            "ignore_eos": True,
            "stop_token_ids": [tokens.end_id],
            "logit_bias": {int(i): FORBIDDEN_BIAS for i in forbidden},
        }


def _mixed(*numbers: int) -> int:
    """A 63-bit seed from several numbers."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
