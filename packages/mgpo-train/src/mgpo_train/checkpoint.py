"""Weights of a checkpoint back into a model that is being trained.

transformers (5.17) writes Qwen2.5-VL checkpoints under the hub's names (`model.layers...`, `visual...`), which are not
the names of the model's own parameters (`model.language_model.layers...`, `model.visual...`). `from_pretrained` maps
them; `Trainer._load_from_checkpoint` does not: it loads with `strict=False`, finds nothing that fits, and a resumed run
goes on from the start weights with the optimiser state of a later step. It only warns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mgpo_core.errors import EngineError


class ResumesWeights:
    """Mixin for a transformers `Trainer`: checkpoints of whole models are loaded name by name, or refused."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = getattr(self, "model") if model is None else model  # noqa: B009, the host class has it
        if hasattr(target, "peft_config") or getattr(self, "is_fsdp_enabled", False):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        restore_weights(target, resume_from_checkpoint)


def restore_weights(model: Any, folder: str | Path) -> None:
    """Load every weight of a checkpoint folder into `model`, in place; raises EngineError when one does not fit."""
    loaded = type(model).from_pretrained(folder, dtype=model.dtype)
    try:
        model.load_state_dict(loaded.state_dict(), strict=True)
    except RuntimeError as error:
        raise EngineError(
            f"checkpoint {str(folder)!r} does not fit the model it is to be loaded into: {error}; resume with the same "
            "--model as before"
        ) from error
