"""The attention of the engine's language model: torch's kernel under any mask, without copies of shared keys.

Relies on transformers' `AttentionInterface` (5.17). Its own "sdpa" repeats keys and values for every query head when
there is a mask, which costs more than attending on a CPU; flash kernels read left padding only, and cannot be given
the holes that a turn appended to rows of different lengths leaves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

__all__ = ["engine_attention"]

_NAME = "mgpo_engine"


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """(B, heads, queries, size) against (B, key heads, width, size) -> (B, queries, heads, size)."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and attention_mask is not None and query.device.type != "cpu":
        # on a GPU, shared keys under a mask would fall back to the kernel that stores all scores
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    output = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        scale=scaling,
        is_causal=attention_mask is None and query.shape[2] > 1,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attend)


@contextlib.contextmanager
def engine_attention(config: Any) -> Iterator[None]:
    """Within the block, the language model of this text config attends by `_attend`, whatever it was loaded with."""
    before = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
