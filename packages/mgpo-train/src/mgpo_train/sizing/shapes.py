"""The sizes of a run's model, from its configuration alone: no weight is loaded, and the hub need not be reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.model_description import model_config
from mgpo_train.models.policy import freeze_parts, part_of


@dataclass(frozen=True)
class ModelShapes:
    """Numbers (parameters) of a model, and what its layers look like."""

    parts: dict[str, int]
    """Parameters of vision, merger and language, adapters not counted; tied weights are counted once."""
    trained: dict[str, int]
    """Those of them that are trained, adapters included."""
    adapters: int
    """Parameters that LoRA adds."""
    layers: int
    hidden: int
    vocabulary: int
    embedding: int
    """Parameters that are only looked up: the input embedding, where the output has its own."""
    attention: int
    """Query heads x head size."""
    cache: int
    """Numbers that the key/value cache keeps for a token, over all layers."""
    vision_layers: int
    vision_hidden: int
    note: str | None = None
    """Where the configuration came from, if not from where the run will take it."""

    @property
    def parameters(self) -> int:
        """All parameters, adapters included."""
        return sum(self.parts.values()) + self.adapters

    @property
    def trained_parameters(self) -> int:
        """Parameters that the optimiser moves."""
        return sum(self.trained.values())


def read_shapes(config: MGPOConfig) -> ModelShapes:
    """Build the model of a run on the meta device and measure it; raises EngineError when nothing is known of it."""
    from transformers import AutoModelForImageTextToText

    from mgpo_train.models.lora import lora_config

    described, note = model_config(config.model, trust_remote_code=config.trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(described)
        freeze_parts(model, config.freeze)
        parts = _by_part(model.named_parameters())
        adapter = lora_config(config)
        if adapter is not None:
            from peft import get_peft_model

            model = get_peft_model(model, adapter)
    trained = _by_part((name, p) for name, p in model.named_parameters() if p.requires_grad)
    text, vision = described.get_text_config(), described.vision_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelShapes(
        parts=parts,
        trained=trained,
        adapters=sum(p.numel() for p in model.parameters()) - sum(parts.values()),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
        embedding=0 if described.tie_word_embeddings else text.vocab_size * text.hidden_size,
        attention=text.num_attention_heads * head,
        cache=2 * text.num_hidden_layers * text.num_key_value_heads * head,
        vision_layers=vision.depth,
        vision_hidden=vision.hidden_size,
        note=note,
    )


def _by_part(named: Any) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, parameter in named:
        part = part_of(name) or "other"
        sizes[part] = sizes.get(part, 0) + parameter.numel()
    return sizes
