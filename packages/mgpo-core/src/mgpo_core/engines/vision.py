"""The vision tower: features of many images in few calls, and two exact rewrites that make it fast on a CPU.

Stands on transformers' `Qwen2_5_VisionPatchEmbed` and `Qwen2_5_VLVisionAttention` (5.17).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)

__all__ = ["batched_vision_attention", "patch_embed_as_matmul"]


class _MatmulPatchEmbed(Qwen2_5_VisionPatchEmbed):
    """Stride equals kernel, so the Conv3d is one matrix product over flattened patches; Conv3d is slow on CPUs."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        weight = self.proj.weight.view(self.embed_dim, -1)
        return F.linear(hidden_states.to(weight.dtype).view(-1, weight.shape[1]), weight)


class _BatchedVisionAttention(Qwen2_5_VLVisionAttention):
    """Attention over all chunks (images or windows) of one length in one call, instead of a call for each chunk."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        max_seqlen: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if self.config._attn_implementation != "sdpa" or position_embeddings is None:
            return super().forward(hidden_states, cu_seqlens, position_embeddings, max_seqlen, **kwargs)
        total = hidden_states.shape[0]
        query, key, value = self.qkv(hidden_states).reshape(total, 3, self.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        starts = cu_seqlens.tolist()
        lengths = [end - start for start, end in zip(starts, starts[1:], strict=False)]
        if len(set(lengths)) == 1:
            return self.proj(self._attend(query, key, value, lengths[0]).reshape(total, -1))
        mixed = torch.empty_like(query)
        for length in sorted(set(lengths) - {0}):
            chunks = [torch.arange(start, start + length) for start, n in zip(starts, lengths, strict=False) if n == length]
            where = torch.cat(chunks).to(query.device)
            mixed = mixed.index_copy(0, where, self._attend(query[where], key[where], value[where], length))
        return self.proj(mixed.reshape(total, -1))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, length: int) -> Tensor:
        """(n * length, heads, size) each: attention within every chunk of `length`."""
        chunked = [state.unflatten(0, (-1, length)).transpose(1, 2) for state in (query, key, value)]
        return F.scaled_dot_product_attention(*chunked, scale=self.scaling).transpose(1, 2).flatten(0, 1)


def patch_embed_as_matmul(model: nn.Module) -> int:
    """Compute patch embeddings of `model` by a matrix product; same results and state_dict. Returns how many changed."""
    return _recast(model, Qwen2_5_VisionPatchEmbed, _MatmulPatchEmbed)


def batched_vision_attention(model: nn.Module) -> int:
    """Attend to all images or windows of one size at once (sdpa only); same results and state_dict. Returns how many."""
    return _recast(model, Qwen2_5_VLVisionAttention, _BatchedVisionAttention)


def _recast(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> int:
    # the class is swapped rather than the module, so that parameters, hooks, copies and pickles stay as they are
    found = [module for module in model.modules() if type(module) is old]
    for module in found:
        module.__class__ = new
    return len(found)
