"""Choosing the next token: one masked, scaled distribution for sampling and for the recorded log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from mgpo_core.engines.sampling_options import SamplingOptions

__all__ = ["Sampler"]


class Sampler:
    """Temperature, top-k and top-p sampling over logits in which forbidden ids are impossible.

    `forbidden` is a (vocabulary,) bool tensor. Temperature 0 is greedy, with log-probabilities at temperature 1.
    Recorded log-probabilities belong to the masked, temperature-scaled distribution **before** top-k and top-p, which
    is what a trainer's forward pass computes.
    """

    def __init__(self, forbidden: Tensor, options: SamplingOptions, generator: torch.Generator | None = None) -> None:
        self._forbidden = forbidden
        self._temperature, self._top_p, self._top_k = options.temperature, options.top_p, options.top_k
        self._generator = generator

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(B, vocabulary) logits -> the chosen ids (B,) and their log-probabilities (B,), float32."""
        logits = logits.float().masked_fill(self._forbidden, float("-inf"))
        if self._temperature > 0:
            logits = logits / self._temperature
        logprobs = torch.log_softmax(logits, dim=-1)
        tokens = logprobs.argmax(dim=-1) if self._temperature == 0 else self._draw(logprobs)
        return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]

    def _draw(self, logprobs: Tensor) -> Tensor:
        if self._top_k and self._top_k < logprobs.shape[-1]:
            least = logprobs.topk(self._top_k, dim=-1).values[:, -1:]
            logprobs = logprobs.masked_fill(logprobs < least, float("-inf"))
        probabilities = torch.softmax(logprobs, dim=-1)
        if self._top_p < 1:
            ordered, order = probabilities.sort(dim=-1, descending=True)
            # keep a token while the mass before it is below top_p, so the first one always stays
            outside = ordered.cumsum(dim=-1) - ordered >= self._top_p
            probabilities = probabilities.scatter(-1, order, ordered.masked_fill(outside, 0.0))
        return torch.multinomial(probabilities, 1, generator=self._generator)[:, 0]
