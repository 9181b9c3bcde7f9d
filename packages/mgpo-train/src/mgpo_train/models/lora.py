"""LoRA and QLoRA by TRL's own options (`trl.ModelConfig`, `get_peft_config`, `get_quantization_config`), and PEFT.

Two things are ours: adapters go to the language model alone unless layers are named, because the vision tower of
Qwen2.5-VL has layers of the same names (`gate_proj`, ...); and parts that `freeze` names get none at all.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgpo_train.config.lora_checks import OPTIONS
from mgpo_train.output.summary import write_json

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig


LANGUAGE_LAYERS = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"
"""The linear layers of the language model's blocks, as PEFT matches names."""

FROZEN: dict[str, str] = {
    "vision": r".*visual\.(?!merger|deepstack_merger).*",
    "merger": r".*visual\.(merger|deepstack_merger_list)\..*",
    "language": r"(.*\.)?(language_model\..*|lm_head)",
}
"""The modules of the parts that `freeze` names, as PEFT matches names."""


def lora_config(config: MGPOConfig) -> Any:
    """The `peft.LoraConfig` of a run, None without `use_peft`."""
    if not config.use_peft:
        return None
    from trl import ModelConfig, get_peft_config

    given = {name: getattr(config, name) for name in OPTIONS} | {"use_peft": True, "dtype": config.dtype}
    made: Any = get_peft_config(ModelConfig(**given))
    made.target_modules = made.target_modules or LANGUAGE_LAYERS
    if isinstance(made.target_modules, str) and re.fullmatch(r"[\w.]+", made.target_modules):
        made.target_modules = {made.target_modules}  # TRL makes a pattern of a single name, which fits no layer
    if config.freeze:
        made.exclude_modules = "|".join(FROZEN[part] for part in config.freeze)
    return made


def quantisation(config: MGPOConfig) -> Any:
    """The `BitsAndBytesConfig` of a QLoRA run, None for any other."""
    if not (config.load_in_4bit or config.load_in_8bit):
        return None
    from trl import ModelConfig, get_quantization_config

    given = {name: getattr(config, name) for name in OPTIONS}
    # bfloat16 also where the rest is float32: the paper on QLoRA computes in it
    return get_quantization_config(ModelConfig(**given, use_peft=True, dtype="bfloat16"))


def name_base(folder: Path, config: MGPOConfig) -> None:
    """Have `adapter_config.json` name the base as it is found from anywhere: a hub id, haystack:base, a whole path.

    PEFT writes the place that it was loaded from, relative, or below site-packages.
    """
    path = folder / "adapter_config.json"
    local = Path(config.model).expanduser()
    described = json.loads(path.read_text("utf-8"))
    described["base_model_name_or_path"] = str(local.resolve()) if local.is_dir() else config.model
    write_json(path, described)


def write_merged(config: MGPOConfig, adapter: Path, folder: Path) -> None:
    """Write the start model with the adapter of a folder merged in, for `AutoModel`; on the CPU, in `dtype`.

    From the folder, not from the live model, whose weights may be quantised or spread over processes.
    """
    import torch
    from peft import PeftModel

    from mgpo_core.engines.loading import load_weights

    base = load_weights(config.model, dtype=getattr(torch, config.dtype), trust_remote_code=config.trust_remote_code)
    PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().save_pretrained(folder)


def restore_adapter(model: Any, folder: str | Path) -> None:
    """Load the adapter of a checkpoint folder into a PEFT model, in place."""
    from peft import load_peft_weights, set_peft_model_state_dict

    set_peft_model_state_dict(model, load_peft_weights(str(folder)))
