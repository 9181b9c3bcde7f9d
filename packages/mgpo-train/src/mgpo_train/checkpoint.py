"""Weights into a folder, and out of a checkpoint back into a model that is being trained.

transformers (5.17) writes Qwen2.5-VL checkpoints under the hub's names (`model.layers...`, `visual...`), which are not
the names of the model's own parameters (`model.language_model.layers...`, `model.visual...`). `from_pretrained` maps
them; `Trainer._load_from_checkpoint` does not: it loads with `strict=False`, finds nothing that fits, and a resumed run
goes on from the start weights with the optimiser state of a later step. It only warns.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgpo_core.errors import EngineError
from mgpo_train.checkpoint_rotation import OwnCheckpoints
from mgpo_train.lora import restore_adapter, write_merged

if TYPE_CHECKING:
    from mgpo_train.config import MGPOConfig


class ResumesWeights(OwnCheckpoints):
    """Mixin for a transformers `Trainer`: what upstream leaves open when a run goes on from a checkpoint.

    Whole models are loaded name by name, or refused; a checkpoint is complete once it has a `trainer_state.json`; and
    a run that has taken its last step takes no more. Beside all weights that are written lies `mgpo.json`.
    """

    run_config: MGPOConfig | None = None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        if self.run_config is not None:
            self.run_config.episode_settings.write(output_dir or self.args.output_dir)  # type: ignore[attr-defined]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = getattr(self, "model") if model is None else model  # noqa: B009, the host class has it
        if hasattr(target, "peft_config") or getattr(self, "is_fsdp_enabled", False):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        restore_weights(target, resume_from_checkpoint)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        # the main process writes trainer_state.json next: only when the others have written their parts
        self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # type: ignore[attr-defined]
            # killed between the last step and the summary: upstream would take one step more
            self.control.should_training_stop = True  # type: ignore[attr-defined]
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[misc]


def restore_weights(model: Any, folder: str | Path) -> None:
    """Load every weight of a checkpoint folder into `model`, in place; raises EngineError when one does not fit."""
    if hasattr(model, "peft_config"):
        restore_adapter(model, folder)
        return
    loaded = type(model).from_pretrained(folder, dtype=model.dtype)
    try:
        model.load_state_dict(loaded.state_dict(), strict=True)
    except RuntimeError as error:
        raise EngineError(
            f"checkpoint {str(folder)!r} does not fit the model it is to be loaded into: {error}; resume with the same "
            "--model as before"
        ) from error


def write_model(
    trainer: Any, config: MGPOConfig, processor: Any, folder: Path, adapter: Path, *, push: bool = False
) -> None:
    """Write the trained model for AutoModel and AutoProcessor, with `mgpo.json`: of a LoRA run the merged weights.

    The adapter of a LoRA run goes into the folder `adapter`. For all processes to call; the main one writes. With
    `push`, and transformers' `push_to_hub`, the run's folder goes to the hub.
    """
    trainer.save_model(str(adapter if config.use_peft else folder), _internal_call=not push)
    if config.process_index != 0:
        return
    if config.use_peft:
        write_merged(config, adapter, folder)
        config.episode_settings.write(folder)
    processor.save_pretrained(folder)
