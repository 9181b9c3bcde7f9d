"""`MGPOConfig`: every option of a run, TRL's `GRPOConfig` included, checked when it is made."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

import torch
from trl import GRPOConfig

from mgpo_core import CoordinateSpace, PixelBudget
from mgpo_core.cropping import CropRules
from mgpo_core.errors import SampleError
from mgpo_train.data_spec import parse_columns
from mgpo_train.options import METHODS, PARTS, REWARD_CONTROLS, ConfigError, RunOptions, nearest
from mgpo_train.rewards import REWARDS

if TYPE_CHECKING:
    from mgpo_core.templates import Template

ONLY_WITH_ROLLOUTS = ("rewards", "reward_weights", "reward_control", "beta")
"""Options that say nothing to supervised fine-tuning."""


@dataclass
class MGPOConfig(RunOptions, GRPOConfig):
    """Options of one training run: ours (`RunOptions`) over TRL's `GRPOConfig`; raises ConfigError when they clash.

    The defaults train the tiny checkpoint on haystack, on a CPU or a GPU.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [
        *GRPOConfig._VALID_DICT_FIELDS,
        "train_data",
        "eval_data",
        "eval_ood_data",
        "columns",
    ]

    def __post_init__(self) -> None:
        self._check_method()
        self._read_mappings()
        self._check_data()
        self._check_model()
        self._check_rewards()
        self._adapt_to_device()
        if self.output_dir is None:
            self.output_dir = f"outputs/{self.method}"
        if self.method == "sft":
            # GRPO's rule that a generation batch holds whole groups means nothing here: satisfy it for any batch size
            self.num_generations, self.generation_batch_size, self.steps_per_generation = 2, None, 2
        self._check_batch()
        super().__post_init__()
        if self.use_cpu:
            self.dataloader_pin_memory = False

    def _check_method(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method={self.method!r}: {nearest(str(self.method), METHODS)}")
        if self.template is None:
            self.template = METHODS[self.method]
        if self.method == "sft" and self.template != "single_turn":
            raise ConfigError(
                f"method=sft trains on answers in one turn; template={self.template!r} does not fit: "
                "leave template out, or use method=mgpo"
            )
        self.make_template()
        if self.use_vllm:
            raise ConfigError(
                "use_vllm=true: rollouts with vLLM are not in this version; leave it out, and the transformers engine "
                "makes them"
            )
        if self.use_liger_kernel:
            raise ConfigError(
                "use_liger_kernel=true: Liger's loss cannot leave out the tokens that the sampler may not choose: "
                "leave the option out"
            )
        if self.method == "sft":
            self._check_sft()

    def _check_sft(self) -> None:
        defaults = {field.name: field for field in fields(RunOptions)}
        for name in ONLY_WITH_ROLLOUTS:
            field, value = defaults[name], getattr(self, name)
            if value != (field.default_factory() if callable(field.default_factory) else field.default):
                raise ConfigError(
                    f"{name}={value!r} means nothing to method=sft, which has no rollouts: leave it out, "
                    "or use method=mgpo or method=grpo"
                )

    def _read_mappings(self) -> None:
        """Turn the texts of the command line into mappings where mappings are meant."""
        for name in ("train_data", "eval_data", "eval_ood_data", "columns"):
            value = getattr(self, name)
            if isinstance(value, str) and value.lstrip().startswith("{"):
                try:
                    setattr(self, name, json.loads(value))
                except json.JSONDecodeError as error:
                    raise ConfigError(f"{name}={value!r} is not JSON ({error})") from error
        if self.columns in (None, "", "none"):
            self.columns = None
            return
        try:
            self.columns = parse_columns(self.columns, "columns")
        except SampleError as error:
            raise ConfigError(str(error)) from error

    def _check_data(self) -> None:
        if not self.train_data or self.train_data == "none":
            raise ConfigError(
                f"train_data is {self.train_data or 'empty'}: name a file, a hub id or haystack:train?n=960&seed=1"
            )
        if self.check_images not in ("quick", "full"):
            raise ConfigError(f"check_images={self.check_images!r}: use quick or full")
        if self.on_bad_sample not in ("error", "skip"):
            raise ConfigError(f"on_bad_sample={self.on_bad_sample!r}: use error or skip")
        if not 0.0 <= self.max_bad_fraction <= 1.0:
            raise ConfigError(f"max_bad_fraction={self.max_bad_fraction} is a share: give a number between 0 and 1")
        for name in ("plot_every", "report_every", "report_trajectories", "eval_samples"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name}={value}: give 0 or a positive number")

    def _check_model(self) -> None:
        if not self.model:
            raise ConfigError("model is empty: name a folder, a hub id or haystack:base")
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"dtype={self.dtype!r}: use float32 or bfloat16")
        for part in self.freeze:
            if part not in PARTS:
                raise ConfigError(f"freeze={part!r}: {nearest(part, PARTS)}")
        if set(self.freeze) == set(PARTS):
            raise ConfigError("freeze names every part of the model: nothing is left to train")
        try:
            CoordinateSpace.parse(self.coordinate_space)
        except ValueError as error:
            raise ConfigError(f"coordinate_space: {error}") from error
        try:
            self.budget  # noqa: B018 - the property checks itself
        except ValueError as error:
            raise ConfigError(f"min_pixels, max_pixels: {error} Set both when you set one.") from error

    def _check_rewards(self) -> None:
        if self.reward_control not in REWARD_CONTROLS:
            raise ConfigError(
                f"reward_control={self.reward_control!r}: {nearest(self.reward_control, REWARD_CONTROLS)}"
            )
        if not self.rewards:
            raise ConfigError("rewards is empty: name at least accuracy")
        for name in self.rewards:
            if name not in REWARDS:
                raise ConfigError(f"rewards={name!r}: {nearest(name, REWARDS)}")
        if self.reward_weights is not None and len(self.reward_weights) != len(self.rewards):
            raise ConfigError(
                f"reward_weights has {len(self.reward_weights)} numbers for {len(self.rewards)} rewards "
                f"({', '.join(self.rewards)}): give one for each"
            )

    def _adapt_to_device(self) -> None:
        if not torch.accelerator.is_available():
            self.use_cpu = True
        if self.bf16 is None:
            self.bf16 = (
                not self.fp16 and not self.use_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
            )
        if self.gradient_checkpointing is None:
            self.gradient_checkpointing = not self.use_cpu

    def _check_batch(self) -> None:
        if self.method == "sft" or self.generation_batch_size is not None or self.steps_per_generation is not None:
            return
        devices = int(os.environ.get("WORLD_SIZE", "1"))
        group, batch = self.num_generations or 0, self.per_device_train_batch_size * self.gradient_accumulation_steps
        if group < 2:
            raise ConfigError(f"num_generations={group}: a group needs at least 2 rollouts to compare")
        if batch * devices % group:
            raise ConfigError(
                f"a step has {batch * devices} rollouts (per_device_train_batch_size x "
                f"gradient_accumulation_steps x devices), not a multiple of num_generations={group}: "
                f"try per_device_train_batch_size={max(group, batch // group * group)}"
            )

    @property
    def budget(self) -> PixelBudget:
        """The picture budget: the given pixels, else the haystack world's for its checkpoints, else the paper's."""
        default = PixelBudget()
        if self.model.startswith("haystack:"):
            from mgpo_core import haystack

            default = haystack.BUDGET
        return PixelBudget(
            min_pixels=default.min_pixels if self.min_pixels is None else self.min_pixels,
            max_pixels=default.max_pixels if self.max_pixels is None else self.max_pixels,
            factor=default.factor,
        )

    @property
    def space(self) -> CoordinateSpace:
        """The coordinate space in which the model writes boxes."""
        return CoordinateSpace.parse(self.coordinate_space)

    @property
    def rules(self) -> CropRules:
        """When a box is refused."""
        return CropRules(min_side=self.crop_min_side, max_aspect=self.crop_max_aspect)

    def make_template(self) -> Template:
        """The conversation's template; raises ConfigError for an unknown name."""
        from mgpo_core.templates import load_template

        try:
            return load_template(self.template or METHODS[self.method])
        except (KeyError, ValueError) as error:
            raise ConfigError(f"template: {error}") from error

    @property
    def prompts_per_step(self) -> int:
        """Samples of one optimiser step over all devices (groups for mgpo and grpo)."""
        rollouts = self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size
        return rollouts if self.method == "sft" else rollouts // (self.num_generations or 1)
