"""Weights into a folder, and out of a checkpoint back into a model that is being trained.

transformers (5.17) writes Qwen2.5-VL checkpoints under the hub's names (`model.layers...`, `visual...`), which are not
the names of the model's own parameters (`model.language_model.layers...`, `model.visual...`). `from_pretrained` maps
them; `Trainer._load_from_checkpoint` does not: it loads with `strict=False`, finds nothing that fits, and a resumed run
goes on from the start weights with the optimiser state of a later step. It only warns.

Relies on `transformers.utils.hub.PushInProgress`, and on `Trainer._load_from_checkpoint`, `_push_from_checkpoint`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils.hub import PushInProgress

from mgpo_core.errors import EngineError
from mgpo_train.models.lora import name_base, restore_adapter, write_merged
from mgpo_train.output.checkpoint_rotation import OwnCheckpoints
from mgpo_train.output.model_card import RunFacts, write_card
from mgpo_train.output.publishing import Destination, upload, upload_checkpoint

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig


class CheckpointResumeMixin(OwnCheckpoints):
    """Mixin for a transformers `Trainer`: what upstream leaves open when a run goes on from a checkpoint.

    Whole models are loaded name by name, or refused; a checkpoint is complete once it has a `trainer_state.json`; and
    a run that has taken its last step takes no more. Beside all weights that are written lies `mgpo.json`.
    """

    run_config: MGPOConfig | None = None
    card_facts: RunFacts | None = None
    """What the cards say of the run; without them checkpoints get none."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)  # type: ignore[attr-defined]
        _without_peft_card(self.accelerator.unwrap_model(self.model))  # type: ignore[attr-defined]
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        (folder / "training_args.bin").unlink(missing_ok=True)  # it holds the hub's token, and nothing reads it
        if self.run_config is None:
            return
        self.run_config.episode_settings.write(folder)
        if (folder / "adapter_config.json").is_file():
            name_base(folder, self.run_config)
        if self.card_facts is not None:
            step = self.state.global_step  # type: ignore[attr-defined]
            write_card(folder, self.run_config, self.card_facts, step=step)

    # --- the hub: upstream would upload the output folder, a user's files in it included -----------------------

    def init_hf_repo(self, token: str | None = None) -> None:
        """Nothing: a repository is made when there is something to upload."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: upstream's describes a text model, and lies in the output folder; see `write_card`."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.run_config is None or not self.is_world_process_zero():  # type: ignore[attr-defined]
            return
        self._finish_current_push()  # type: ignore[attr-defined]  # transformers removes old checkpoints after this
        job = upload_checkpoint(Path(checkpoint_folder), self.state.global_step, self.run_config)  # type: ignore[attr-defined]
        self.push_in_progress = None if job is None else PushInProgress([job])

    def push_to_hub(self, commit_message: str | None = None, *args: Any, **kwargs: Any) -> str | None:
        """Save the model (of a LoRA run the adapter) into `model/` in the output folder, and upload that alone."""
        assert self.run_config is not None
        folder = Path(self.args.output_dir) / "model"  # type: ignore[attr-defined]
        self.save_model(str(folder), _internal_call=True)  # type: ignore[attr-defined]
        if not self.is_world_process_zero():  # type: ignore[attr-defined]
            return None
        return upload(folder, Destination.of(self.run_config), message=commit_message or "Model save")

    # --- resuming ----------------------------------------------------------------------------------------------

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


def write_model(trainer: Any, config: MGPOConfig, processor: Any, folder: Path, adapter: Path) -> None:
    """Write the trained model for AutoModel and AutoProcessor, with `mgpo.json` and its card.

    The adapter of a LoRA run goes into the folder `adapter`, and the merged weights into `folder`. For all processes to
    call; the main one writes.
    """
    trainer.save_model(str(adapter if config.use_peft else folder), _internal_call=True)
    if config.process_index != 0:
        return
    if config.use_peft:
        write_merged(config, adapter, folder)
        config.episode_settings.write(folder)
    processor.save_pretrained(folder)
    for written in (folder, adapter) if config.use_peft else (folder,):
        write_card(written, config, trainer.card_facts, step=trainer.state.global_step)


def _without_peft_card(model: Any) -> None:
    """Keep PEFT from writing its own README.md, over one that may be a user's."""
    if hasattr(model, "create_or_update_model_card"):
        model.create_or_update_model_card = lambda output_dir: None
