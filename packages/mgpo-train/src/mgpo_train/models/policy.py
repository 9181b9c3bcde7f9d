"""The model and processor that a run starts from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError

from mgpo_core.engines.loading import adapter_base, load_processor, load_weights
from mgpo_core.engines.transformers.vision import batched_vision_attention, patch_embed_as_matmul
from mgpo_core.errors import EngineError, MGPOError
from mgpo_core.messages.shown import one_line
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import ConfigError
from mgpo_train.config.user_errors import worded
from mgpo_train.models.lora import quantisation

PART_PREFIXES: dict[str, tuple[str, ...]] = {
    # the merger lies inside the vision tower's module: the longest prefix that fits decides
    "vision": ("model.visual.", "visual."),
    "merger": (
        "model.visual.merger.",
        "visual.merger.",
        "model.visual.deepstack_merger_list.",  # Qwen3-VL's, which feed the first layers of the language model
        "visual.deepstack_merger_list.",
    ),
    "language": ("model.language_model.", "language_model.", "lm_head."),
}


def load_policy(config: MGPOConfig) -> tuple[Any, Any]:
    """(model, processor) of a run, frozen parts frozen, on the run's device; raises EngineError naming the remedy."""
    _check_adapter(config)
    options = dict(config.model_init_kwargs) if isinstance(config.model_init_kwargs, dict) else {}
    options.setdefault("dtype", getattr(torch, config.dtype))
    if config.attn_implementation:
        options["attn_implementation"] = config.attn_implementation
    quantised = quantisation(config)
    if quantised is not None:
        options |= {"quantization_config": quantised, "device_map": {"": config.device}}
    with _readable(config):
        model = load_weights(config.model, trust_remote_code=config.trust_remote_code, **options)
        processor = load_processor(config.model)
    if config.use_cpu:
        patch_embed_as_matmul(model)
    batched_vision_attention(model)
    freeze_parts(model, config.freeze)
    # quantised weights are where they belong since they were loaded
    with worded(config):
        return model if quantised is not None else model.to(config.device), processor


@contextlib.contextmanager
def _readable(config: MGPOConfig) -> Iterator[None]:
    """EngineError or ConfigError, with the remedy, for what goes wrong while a user's model is read."""
    # tokenizers raises Exception itself for a file that is not whole
    caused = (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, SafetensorError)
    try:
        with worded(config):
            yield
    except ConfigError:
        raise
    except Exception as error:
        if config.attn_implementation and config.attn_implementation in str(error):
            raise ConfigError(f"attn_implementation={config.attn_implementation}: {one_line(error, 300)}") from error
        if isinstance(error, MGPOError) or (not isinstance(error, caused) and type(error) is not Exception):
            raise
        raise EngineError(
            f"could not load model={config.model!r} ({one_line(error)}): check the name, the network, that its "
            "files are whole, and that it is an image-text-to-text checkpoint"
        ) from error


def _check_adapter(config: MGPOConfig) -> None:
    """Raise ConfigError for options that cannot be with a `model` that is a LoRA adapter."""
    if adapter_base(config.model) is None:
        return
    why = None
    if config.load_in_4bit or config.load_in_8bit:
        why = "load_in_4bit, load_in_8bit: an adapter cannot be merged into quantised weights"
    elif config.beta > 0 and config.method != "sft" and not config.use_peft:
        why = f"beta={config.beta}: the reference would be the base model"
    if why is not None:
        raise ConfigError(
            f"{why}, and model={config.model!r} is a LoRA adapter; name the merged model (model/ in the output folder "
            "of its run)"
        )


def part_of(parameter: str) -> str | None:
    """Which part (vision, merger, language) a parameter belongs to by its name, under PEFT too; None for any other."""
    parameter = parameter.removeprefix("base_model.model.")
    fits = [
        (len(prefix), part)
        for part, prefixes in PART_PREFIXES.items()
        for prefix in prefixes
        if parameter.startswith(prefix)
    ]
    return max(fits)[1] if fits else None


def freeze_parts(model: Any, parts: list[str]) -> int:
    """Stop the parts' parameters from training; how many numbers that are. Raises ConfigError for a part not found."""
    frozen = 0
    for part in parts:
        found = [p for name, p in model.named_parameters() if part_of(name) == part]
        if not found:
            raise ConfigError(f"freeze={part!r}: {type(model).__name__} has no parameters that this name stands for")
        for parameter in found:
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    return frozen
