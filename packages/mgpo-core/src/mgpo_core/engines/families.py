"""Model families: how each writes boxes, and what its images bring to the language model.

To add a family, write one class and register it: `FAMILIES.register("My-VL", MyVL)`. It says which `model_type`s of
transformers it covers and in which space its boxes are; where its images enter like Qwen2.5-VL's, that is all. Else it
overrides `encode` and `language_inputs`. What every family must have is a module with `get_image_features`,
`get_rope_index(input_ids, mm_token_type_ids, image_grid_thw=)` and a `language_model` that takes `inputs_embeds`, 3-row
`position_ids` and 4-D masks. tests/core/test_families.py runs a tiny random model of each family: add one there.

No torch is imported here: the space of a family can be asked for where there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.errors import EngineError
from mgpo_core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FAMILIES", "ModelFamily", "find_family", "inner_model", "visual_factor"]


class ModelFamily:
    """A family whose image features take the place of the image tokens' embeddings, and that is all they do.

    Relies on transformers' `get_image_features(...).pooler_output`, one (tokens, hidden) for each image (5.17).
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    """`config.model_type` of the checkpoints that belong to it."""
    space: ClassVar[CoordinateSpace]
    """What the numbers of a box mean in the checkpoints as published."""

    def encode(self, core: Any, pixel_values: Tensor, image_grid_thw: Tensor) -> list[Tensor]:
        """Features of images, (levels, tokens, hidden) for each: level 0 replaces the embeddings of its tokens."""
        return [features[None] for features in core.get_image_features(pixel_values, image_grid_thw).pooler_output]

    def language_inputs(self, image_mask: Tensor, features: Tensor) -> dict[str, Any]:
        """What the language model must be given beside the embeddings.

        `image_mask` (B, T) marks the image tokens that are fed now, `features` (levels, tokens, hidden) are theirs, in
        reading order.
        """
        return {}


class Qwen2VL(ModelFamily):
    """Qwen2-VL: boxes in thousandths (github.com/QwenLM/Qwen3-VL/issues/866)."""

    name = "Qwen2-VL"
    model_types = ("qwen2_vl",)
    space = CoordinateSpace.RELATIVE_1000


class Qwen25VL(ModelFamily):
    """Qwen2.5-VL: boxes in pixels of the resized input (github.com/QwenLM/Qwen3-VL/issues/676)."""

    name = "Qwen2.5-VL"
    model_types = ("qwen2_5_vl",)
    space = CoordinateSpace.ABSOLUTE


class Qwen3VL(ModelFamily):
    """Qwen3-VL, dense and mixture of experts: boxes in thousandths (github.com/QwenLM/Qwen3-VL/issues/1741).

    Deepstack: features of some vision layers are added, at the image tokens, to what the language model's first layers
    put out (level n to layer n - 1). A cache holds their effect: they are given once, with the image tokens.
    """

    name = "Qwen3-VL"
    model_types = ("qwen3_vl", "qwen3_vl_moe")
    space = CoordinateSpace.RELATIVE_1000

    def encode(self, core: Any, pixel_values: Tensor, image_grid_thw: Tensor) -> list[Tensor]:
        import torch

        output = core.get_image_features(pixel_values, image_grid_thw)
        sizes = [len(features) for features in output.pooler_output]
        levels = torch.stack([torch.cat(tuple(output.pooler_output)), *output.deepstack_features])
        return list(levels.split(sizes, dim=1))

    def language_inputs(self, image_mask: Tensor, features: Tensor) -> dict[str, Any]:
        return {"visual_pos_masks": image_mask, "deepstack_visual_embeds": list(features[1:])}


def _as_family(entry: Any) -> ModelFamily | None:
    made = entry() if isinstance(entry, type) else entry
    return made if isinstance(made, ModelFamily) else None


FAMILIES: Registry[ModelFamily] = Registry("model family", _as_family, "a subclass of ModelFamily")
"""Every family by its `name`."""

for _family in (Qwen2VL, Qwen25VL, Qwen3VL):
    FAMILIES.register(_family.name, _family)


def find_family(config: Any) -> ModelFamily:
    """The family of a transformers configuration, or of its `model_type` given as text.

    Raises EngineError for a family that is not known here.
    """
    model_type = config if isinstance(config, str) else getattr(config, "model_type", None)
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    known = ", ".join(f"{family.name} ({', '.join(family.model_types)})" for family in FAMILIES.values())
    raise EngineError(
        f"no model family with model_type={model_type!r} is known; known are {known}; if a "
        "file of yours registers it, name that file in plugins; to write one, see mgpo_core/engines/families.py"
    )


def inner_model(model: Any) -> Any:
    """The module that owns the vision tower, the language model and the M-RoPE positions, under any wrapper.

    Raises EngineError when there is none.
    """
    for module in model.modules():
        if hasattr(module, "get_rope_index") and hasattr(module, "language_model"):
            return module
    names = ", ".join(FAMILIES)
    raise EngineError(
        f"{type(model).__name__} has no 3-D positions (get_rope_index) beside a language model; use a model of a known "
        f"family: {names}"
    )


def visual_factor(config: Any) -> int:
    """The side in pixels of one visual token of a model, for `PixelBudget(factor=)`: 28 of Qwen2.5-VL, 32 of Qwen3-VL.

    Raises EngineError for a transformers configuration that does not tell.
    """
    vision = getattr(config, "vision_config", None)
    patch, merge = getattr(vision, "patch_size", None), getattr(vision, "spatial_merge_size", None)
    if not isinstance(patch, int) or not isinstance(merge, int):
        raise EngineError(
            f"the configuration of this {getattr(config, 'model_type', 'unknown')} model has no vision_config with one "
            f"patch_size and one spatial_merge_size (found {patch!r} and {merge!r}): use a model of a known family"
        )
    return patch * merge
