"""A batch without images must still go through the vision tower when several processes train.

A process whose samples happen to hold no image would skip the vision tower. Under ZeRO-3 and FSDP the others then wait
for ever for its part of the tower's parameters; under DDP the tower's gradients never arrive. Such a batch therefore
encodes one tiny black image, of which nothing reaches the result: its features are multiplied by zero and added.

Relies on the inner model of a family (transformers 5.17), `language_model(inputs_embeds=)` among its parts.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn

from mgpo_core.engines.families import find_family, inner_model

_PIXELS = ("pixel_values", "image_grid_thw")


class DummyImage:
    """Hooks on a vision-language model; in a group of several processes, a forward without images encodes a dummy.

    The result stays the same to the bit. It acts on every forward of the whole model, with gradients or without;
    calls of the language model by itself (the rollout engine's) are left alone.
    """

    def __init__(self, model: nn.Module) -> None:
        self._core: Any = inner_model(model)
        self._missing = False
        # before DeepSpeed's own hooks, so that the tower runs where it runs in a batch with images
        self._core.register_forward_pre_hook(self._look, with_kwargs=True)
        self._core.language_model.register_forward_pre_hook(self._add, with_kwargs=True)

    def _look(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pixels = kwargs.get("pixel_values")
        without = pixels is None or len(pixels) == 0
        self._missing = without and _in_a_group()
        if pixels is None or not without:
            return None
        # TRL hands a micro-batch without images an empty slice of the batch's pixels, which no tower takes
        return args, {name: value for name, value in kwargs.items() if name not in _PIXELS}

    def _add(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._missing:
            return None
        self._missing = False
        embeds = kwargs["inputs_embeds"]
        return args, kwargs | {"inputs_embeds": embeds + self._nothing().to(embeds)}

    def _nothing(self) -> Tensor:
        """A zero that hangs on every parameter of the vision tower."""
        vision = self._core.config.vision_config
        merge = vision.spatial_merge_size
        size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        device = self._core.language_model.get_input_embeddings().weight.device
        pixels = torch.zeros(merge * merge, size, device=device)
        grid = torch.tensor([[1, merge, merge]], device=device)
        # by the family: Qwen3-VL's features have levels, each with a merger of its own
        encoded = find_family(self._core.config).encode(self._core, pixels, grid)
        return torch.stack([features.sum() for features in encoded]).sum() * 0


def with_placeholder_image(images: list[list[Image.Image]], side: int) -> list[list[Image.Image]]:
    """The images of every rollout for TRL: where a whole batch has none, one black image of `side` x `side` pixels.

    TRL (1.16) gathers the images of all processes for its logs, on those processes that have some: one without
    would leave the others waiting. It drops every image of a batch when one is not met by image tokens, which is
    what becomes of the stand-in (MGPOTrainer checks that nothing else is dropped).
    """
    if any(images):
        return images
    return [[Image.new("RGB", (side, side))], *images[1:]]


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
