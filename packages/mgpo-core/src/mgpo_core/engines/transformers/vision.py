"""The vision tower: features of many images in few calls, and two exact rewrites that make it fast on a CPU.

Relies on transformers' patch embeddings and vision attentions of Qwen2.5-VL and Qwen3-VL (5.17), which compute the
same. The towers of other families run as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionAttention, Qwen3VLVisionPatchEmbed

from mgpo_core.engines.families import ModelFamily
from mgpo_core.engines.turn_tokens import TurnTokenizer

__all__ = ["ImageFeatures", "batched_vision_attention", "patch_embed_as_matmul"]

_TOKENS_AT_ONCE = 16_384  # bounds the vision tower's activations; about 12 images of a million pixels


class ImageFeatures:
    """The visual features of images, each image object encoded once until `clear`."""

    def __init__(self, core: Any, family: ModelFamily, tokenizer: TurnTokenizer, device: torch.device) -> None:
        self._core = core
        self._family = family
        self._tokenizer = tokenizer
        self._device = device
        self._known: dict[int, tuple[Image.Image, Tensor]] = {}  # holds the image too, so that its id stays its own

    def of(self, images: Sequence[Image.Image]) -> Tensor:
        """(levels, image tokens of all images, hidden size), in order; those not seen yet are encoded together."""
        missing = {id(image): image for image in images if id(image) not in self._known}
        group: list[Image.Image] = []
        for image in missing.values():
            if group and sum(map(self._tokenizer.image_tokens, [*group, image])) > _TOKENS_AT_ONCE:
                self._encode(group)
                group = []
            group.append(image)
        if group:
            self._encode(group)
        return torch.cat([self._known[id(image)][1] for image in images], dim=1)

    def clear(self) -> None:
        """Let go of all images and features."""
        self._known.clear()

    def _encode(self, images: Sequence[Image.Image]) -> None:
        pixels = self._tokenizer.pixels(images)
        encoded = self._family.encode(
            self._core, pixels["pixel_values"].to(self._device), pixels["image_grid_thw"].to(self._device)
        )
        for image, features in zip(images, encoded, strict=True):
            self._known[id(image)] = (image, features)


class _MatmulPatchEmbed(nn.Module):
    """Stride equals kernel, so the Conv3d is one matrix product over flattened patches; Conv3d is slow on CPUs."""

    proj: nn.Conv3d
    embed_dim: int

    def forward(self, hidden_states: Tensor) -> Tensor:
        weight = self.proj.weight.view(self.embed_dim, -1)
        return F.linear(hidden_states.to(weight.dtype).view(-1, weight.shape[1]), weight, self.proj.bias)


class _BatchedVisionAttention(nn.Module):
    """Chunks (images or windows) that are all of one length attend in one call, instead of a call for each chunk."""

    config: Any
    num_heads: int
    scaling: float
    qkv: nn.Linear
    proj: nn.Linear

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        max_seqlen: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        lengths = cu_seqlens.diff().unique().tolist()
        if self.config._attn_implementation != "sdpa" or position_embeddings is None or len(lengths) != 1:
            return super().forward(hidden_states, cu_seqlens, position_embeddings, max_seqlen, **kwargs)
        total = hidden_states.shape[0]
        query, key, value = self.qkv(hidden_states).reshape(total, 3, self.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        # (patches, heads, size) -> (chunks, heads, patches of a chunk, size)
        query, key, value = (state.unflatten(0, (-1, lengths[0])).transpose(1, 2) for state in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value, scale=self.scaling)
        return self.proj(attended.transpose(1, 2).reshape(total, -1))


class _MatmulPatchEmbed25(_MatmulPatchEmbed, Qwen2_5_VisionPatchEmbed): ...


class _MatmulPatchEmbed3(_MatmulPatchEmbed, Qwen3VLVisionPatchEmbed): ...


class _BatchedVisionAttention25(_BatchedVisionAttention, Qwen2_5_VLVisionAttention): ...


class _BatchedVisionAttention3(_BatchedVisionAttention, Qwen3VLVisionAttention): ...


def patch_embed_as_matmul(model: nn.Module) -> int:
    """Compute patch embeddings by a matrix product; same results and state_dict. Returns how many modules changed."""
    return _recast(model, {Qwen2_5_VisionPatchEmbed: _MatmulPatchEmbed25, Qwen3VLVisionPatchEmbed: _MatmulPatchEmbed3})


def batched_vision_attention(model: nn.Module) -> int:
    """Attend to images of one size at once (under sdpa); same results and state_dict. Returns how many changed."""
    return _recast(
        model,
        {Qwen2_5_VLVisionAttention: _BatchedVisionAttention25, Qwen3VLVisionAttention: _BatchedVisionAttention3},
    )


def _recast(model: nn.Module, classes: dict[type[nn.Module], type[nn.Module]]) -> int:
    # the class is swapped rather than the module, so that parameters, hooks, copies and pickles stay as they are
    found = [module for module in model.modules() if type(module) in classes]
    for module in found:
        module.__class__ = classes[type(module)]
    return len(found)
