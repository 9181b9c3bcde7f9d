"""LoRA's options, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import fields
from importlib.util import find_spec

from mgpo_core.messages.install import from_clone
from mgpo_train.config.options import ConfigError, RunOptions

OPTIONS = (
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_modules_to_save",
    "use_rslora",
    "load_in_4bit",
    "load_in_8bit",
    "bnb_4bit_quant_type",
    "use_bnb_nested_quant",
)
"""Options that mean something with `use_peft` alone."""


def check_lora(options: RunOptions, *, use_vllm: bool) -> None:
    """Raise ConfigError for LoRA options that clash or need a package that is not installed."""
    if not options.use_peft:
        defaults = {field.name: field.default for field in fields(RunOptions)}
        for name in OPTIONS:
            if getattr(options, name) != defaults[name]:
                raise ConfigError(
                    f"{name}={getattr(options, name)!r} has no effect without use_peft: add use_peft=true"
                )
        return
    if find_spec("peft") is None:
        raise ConfigError(f"use_peft=true needs the package peft: {from_clone('mgpo-train', 'peft')}")
    if "language" in options.freeze and not options.lora_target_modules:
        raise ConfigError(
            "freeze names language, where LoRA's layers are by default: leave it out (LoRA trains adapters alone), "
            "or name lora_target_modules elsewhere"
        )
    if options.load_in_4bit and options.load_in_8bit:
        raise ConfigError("load_in_4bit and load_in_8bit: choose one")
    if options.load_in_4bit or options.load_in_8bit:
        _check_quantised(options, use_vllm)


def _check_quantised(options: RunOptions, use_vllm: bool) -> None:
    name = "load_in_4bit" if options.load_in_4bit else "load_in_8bit"
    if find_spec("bitsandbytes") is None:
        raise ConfigError(f"{name}=true needs the package bitsandbytes and a CUDA GPU: pip install bitsandbytes")
    if use_vllm:
        raise ConfigError(
            f"{name}=true with use_vllm=true: vLLM cannot take quantised weights over from the trainer; leave one out"
        )
