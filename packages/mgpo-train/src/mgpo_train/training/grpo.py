"""`MGPOTrainer`: TRL's `GRPOTrainer` with multi-turn rollouts that insert images.

Relies on these internals of `trl.GRPOTrainer` (1.16; it comes from trl_grpo.py);
tests/train/test_trl_contract.py fails when one of them moves:

- `_generate(prompts)` returns `(prompt_ids, completion_ids, tool_mask, completions, logprobs, extra_fields, images,
  tool_images)`; overridden with our rollouts.
- `_generate_and_score_completions(inputs)`: pads those, and takes the image processor's features of prompt *and*
  completion images, with `mm_token_type_ids` over the whole sequence, when `self.tools` is truthy and `tool_images`
  is not empty. TRL calls an environment that answers mid-sequence a tool; ours is the crop.
- `_calculate_rewards(...)` returns gathered rewards (B, number of functions).
- `_get_per_token_logps_and_entropies(model, input_ids, attention_mask, logits_to_keep, ...)` goes through
  `model.get_output_embeddings()`, of which it reads `weight` and `bias` (`trl.trainer.utils.add_fused_lm_head`).
- `_compute_loss(model, inputs)`, `_metrics`, `_standalone_tools`, `num_generations`.

Loss, advantages, weight sync, distribution, resume and logging are upstream's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor

from mgpo_core import Episode, Sample, Trajectory
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.errors import TokenAlignmentError
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import check_weights
from mgpo_train.distributed.dummy_image import DummyImage, with_placeholder_image
from mgpo_train.models.checkpoint import CheckpointResumeMixin
from mgpo_train.output.metrics import Measured, MetricsLog, mean_of, step_metrics
from mgpo_train.rewards import Reward, difficulty_weights, make_rewards, shuffle_rewards
from mgpo_train.training.dynamic_sampling import resample, zero_variance_groups
from mgpo_train.training.logprob_gap import DEFAULT_LIMITS, LogprobGapGuard, gaps_by_turn, together, turn_numbers
from mgpo_train.training.reward_functions import last_message, reward_function
from mgpo_train.training.rollout import Rollouts, collect, make_episodes, without_overlong
from mgpo_train.training.timing import PhaseClock
from mgpo_train.training.transformers_rollouts import TransformersRollouts
from mgpo_train.training.trl_grpo import GRPOTrainer

_IMPOSSIBLE = -1e4
"""Added to the logits of tokens that may not be sampled; finite, so that 0 times it stays 0 in the entropy."""


class MGPOTrainer(CheckpointResumeMixin, GRPOTrainer):
    """GRPO on multi-turn trajectories: loss on the sampled tokens of every turn, images where the engine saw them.

    `samples` are what is trained on; `metrics_log` keeps the last step's trajectories for the report. `reward_funcs` is
    a reward or a list of them, each a function, a registered name or a spec (`mgpo_train.rewards` says how functions
    are called); default: `args.rewards`. `args.reward_weights` has one weight for each. Raises RegistryError and
    ConfigError for rewards that cannot be used, and TokenAlignmentError, naming the sample, wherever tokens, images and
    features do not line up.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        args: MGPOConfig,
        samples: Sequence[Sample],
        metrics_log: MetricsLog | None = None,
        reward_funcs: str | Reward | Sequence[str | Reward] | None = None,
        **kwargs: Any,
    ) -> None:
        self.samples = list(samples)
        self.metrics_log = metrics_log
        self.run_config = args
        self.tokens = TurnTokenizer(processor)
        chosen = args.rewards or () if reward_funcs is None else reward_funcs
        chosen = [chosen] if isinstance(chosen, str) or callable(chosen) else list(chosen)
        rewards = make_rewards(chosen, threshold=args.object_threshold)
        check_weights(args.reward_weights, list(rewards))
        with _vllm_of(args):
            super().__init__(
                model=model,
                args=args,
                processing_class=processor,
                reward_funcs=[reward_function(name, reward, self.samples) for name, reward in rewards.items()],
                train_dataset=_index_dataset(self.samples),
                **kwargs,
            )
        # rollouts that are too long are masked here; TRL would take their image tokens out of the attention as well
        self.mask_truncated_completions = False
        DummyImage(self.model)
        # the crop is our environment's answer; see the note on `self.tools` above
        self.tools: list[Any] = [_crop_tool]
        self._standalone_tools: list[Any] = []
        self.clock = PhaseClock()
        self.rollout_backend = _rollout_backend(self, args, processor)
        self._inputs: list[dict[str, Any]] = []
        self._rounds, self._rounds_of = 0, ("", -1)
        self._gap_guard = LogprobGapGuard(_gap_limit(args))
        self._rollouts: Rollouts | None = None
        self._head_bias: Tensor | None = None
        self._scored: tuple[Tensor, Tensor] | None = None

    # --- rollouts ---------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._inputs = inputs
        if self.model.training:
            self._buffered_inputs = None  # the batch before, with all its images, must not outlive these rollouts
        with _as_resized(self.processing_class.image_processor):
            output = super()._generate_and_score_completions(inputs)
        assert self._rollouts is not None
        _check_features(output, self._rollouts, self.tokens)
        if self.args.difficulty_weighting and self.model.training:
            self._weight_by_difficulty(output, self._rollouts.trajectories)
        if self.args.bf16 and "pixel_values" in output:
            output["pixel_values"] = output["pixel_values"].bfloat16()  # as autocast would, at half the memory
        return output

    def _generate_trajectories(self, indices: Sequence[int]) -> list[Trajectory]:
        """One rollout of each of the samples at `indices`, sampled by a seed of its own; on all processes at once."""
        self._rounds += 1
        seed = hash((self.args.seed, self.state.global_step, self._rounds, self.model.training))
        with self.clock("rollouts"):
            return self.rollout_backend.run(self._episodes, indices, seed)

    def _episodes(self, indices: Sequence[int]) -> list[Episode]:
        return make_episodes([self.samples[index] for index in indices], self.args)

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        mode = "train" if self.model.training else "eval"
        if self._rounds_of != (mode, self.state.global_step):
            self._rounds, self._rounds_of = 0, (mode, self.state.global_step)
        with self.clock("sync"):
            self.rollout_backend.sync(self.state.global_step)
        with self.rollout_backend.awake():
            trajectories = self._generate_trajectories([row["sample"] for row in self._inputs])
            if mode == "train" and self.args.dynamic_sampling:
                trajectories = self._replace_zero_variance_groups(trajectories)
        rollouts, engine_metrics = collect(trajectories, self.tokens), self.rollout_backend.metrics()
        if self.args.mask_truncated_completions:
            rollouts, engine_metrics["overlong_filtered"] = without_overlong(rollouts)
        for name, value in mean_of(gather_object([engine_metrics])).items():
            self._metrics[mode][name].append(value)
        self._rollouts = rollouts
        if mode == "train":
            sampled = sum(sum(mask) for mask in rollouts.mask) + sum(map(len, rollouts.prompt_ids))
            counted = self.accelerator.gather(torch.tensor(sampled, device=self.accelerator.device)).sum().item()
            self.state.num_input_tokens_seen += counted
        self._metrics[mode]["num_tokens"] = [self.state.num_input_tokens_seen]
        completions = [last_message(t) for t in trajectories]
        images = with_placeholder_image(rollouts.images, self.args.budget.factor)
        return (
            rollouts.prompt_ids,
            rollouts.completion_ids,
            rollouts.mask,
            completions,
            rollouts.logprobs,
            {"trajectory": trajectories},
            images,
            images,
        )

    def _replace_zero_variance_groups(self, trajectories: list[Trajectory]) -> list[Trajectory]:
        """Replace zero-variance groups by rollouts of fresh samples, for at most `dynamic_sampling` rounds.

        Groups may lie across processes: all of them see all rewards, and draw the same fresh samples.
        """
        group, first = self.num_generations, self.accelerator.process_index * len(trajectories)
        indices, replaced = gather_object([row["sample"] for row in self._inputs]), 0
        flat: list[int] = []
        for step_round in range(self.args.dynamic_sampling + 1):
            flat = zero_variance_groups(gather_object(self._totals(trajectories)), group)
            if not flat or step_round == self.args.dynamic_sampling:
                break
            fresh = resample(len(flat), len(self.samples), indices, self.args.seed, self.state.global_step, step_round)
            for place, sample in zip(flat, fresh, strict=True):
                indices[place * group : (place + 1) * group] = [sample] * group
            rows = [row for row in range(len(trajectories)) if (first + row) // group in flat]
            for row, new in zip(rows, self._generate_trajectories([indices[first + row] for row in rows]), strict=True):
                trajectories[row] = new
                self._inputs[row].update(self.train_dataset[indices[first + row]])
            replaced += len(flat)
        self._metrics["train"]["dynamic_sampling/replaced_groups"].append(replaced)
        self._metrics["train"]["dynamic_sampling/flat_groups_left"].append(len(flat))
        return trajectories

    def _weight_by_difficulty(self, output: dict[str, Any], trajectories: list[Trajectory]) -> None:
        """Scale this process's advantages (B,) by how poorly their whole group, on all processes, overlaps."""
        overlaps = gather_object([trajectory.answer_iou for trajectory in trajectories])
        weights = difficulty_weights(overlaps, self.num_generations)
        self._metrics["train"]["difficulty_weight"].append(float(weights.mean()))
        first = self.accelerator.process_index * len(trajectories)
        mine = torch.from_numpy(weights[first : first + len(trajectories)])
        output["advantages"] = output["advantages"] * mine.to(output["advantages"])

    def _totals(self, trajectories: list[Trajectory]) -> list[float]:
        """The weighted reward of each trajectory of this process's rows, without logging anything."""
        rows = self._inputs
        tokens = [t.tokens for t in trajectories]
        batch = {
            "prompts": [row["prompt"] for row in rows],
            "completions": [last_message(t) for t in trajectories],
            "completion_ids": [[] if record is None else record.ids[record.prompt_length :] for record in tokens],
            "sample": [row["sample"] for row in rows],
            "trajectory": trajectories,
            "trainer_state": self.state,
            "log_extra": _log_nothing,
            "log_metric": _log_nothing,
        }
        found = [function(**batch) for function in self.reward_funcs]
        scores = np.array([[np.nan if one is None else one for one in column] for column in found], dtype=np.float64)
        return np.nansum(scores.T * self.reward_weights.numpy(), axis=1).tolist()

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.args.reward_control == "shuffle":
            shuffled = shuffle_rewards(rewards.cpu().numpy(), self.args.seed, self.state.global_step)
            rewards = torch.from_numpy(np.ascontiguousarray(shuffled)).to(rewards)
        self._record(rewards)
        return rewards

    def _record(self, rewards: Tensor) -> None:
        """Log the metrics of the step's rollouts on all processes, and keep trajectories for the report.

        `rewards` (processes * B, functions) are of all processes: a group may lie across several of them.
        """
        assert self._rollouts is not None
        trajectories = self._rollouts.trajectories
        totals = (rewards * self.reward_weights.to(rewards.device)).nansum(dim=1).cpu().numpy()
        first = self.accelerator.process_index * len(trajectories)
        for trajectory, reward in zip(trajectories, totals[first : first + len(trajectories)], strict=True):
            trajectory.reward = float(reward)
        mode = "train" if self.model.training else "eval"
        group = self.num_generations if mode == "train" else self.num_generations_eval
        everyone = gather_object([Measured.of(trajectory) for trajectory in trajectories])
        found = step_metrics(everyone, rewards=totals, group_size=group)
        for name in ("reward", "reward_std"):  # TRL logs these itself
            found.pop(name, None)
        for name, value in found.items():
            self._metrics[mode][name].append(value)
        if self.metrics_log is not None and mode == "train":
            self.metrics_log.keep(self.state.global_step + 1, trajectories)

    # --- loss -------------------------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Upstream's, under the sampler's distribution: tokens that cannot be sampled have no probability."""
        timed = contextlib.nullcontext() if torch.is_grad_enabled() else self.clock("logprobs")
        with timed, self._sampler_mask(self.accelerator.unwrap_model(model)):
            logps, entropies, aux = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        impossible = self._bias(logps) < 0
        # image and turn marks that we appended ourselves; the loss mask leaves them out, but they must stay finite
        logps = logps.masked_fill(impossible[input_ids[:, -logits_to_keep:]], 0.0)
        if entropies is not None:
            self._scored = (logps.detach(), entropies.detach())
        return logps, entropies, aux

    @contextlib.contextmanager
    def _sampler_mask(self, model: Any) -> Iterator[None]:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        head = base.get_output_embeddings()
        base.get_output_embeddings = lambda: _MaskedHead(head, self._bias(head.weight))
        try:
            yield
        finally:
            del base.get_output_embeddings

    def _bias(self, like: Tensor) -> Tensor:
        """(vocabulary,) 0 for tokens that may be sampled, `_IMPOSSIBLE` for the others."""
        if self._head_bias is None or self._head_bias.device != like.device:
            vocabulary = self.model.config.get_text_config().vocab_size
            forbidden = torch.from_numpy(self.tokens.forbidden_mask(vocabulary))
            self._head_bias = torch.zeros(vocabulary).masked_fill(forbidden, _IMPOSSIBLE).to(like.device)
        return self._head_bias.to(like.dtype)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss = super()._compute_loss(model, inputs)
        for name, seconds in self.clock.take().items():  # several micro-batches may share a batch of rollouts
            self._metrics["train" if self.model.training else "eval"][name].append(seconds)
        if self._scored is not None:
            self._log_turns(inputs, *self._scored)
        self._scored = None
        return loss

    def _log_turns(self, inputs: dict[str, Any], logps: Tensor, entropies: Tensor) -> None:
        """Per turn: entropy, and how far the trainer's log-probabilities are from the rollout engine's.

        Means over the tokens of all processes, which are then stopped by the same numbers.
        """
        metrics = self._metrics["train" if self.model.training else "eval"]
        turns = turn_numbers(inputs["completion_mask"] * inputs["tool_mask"])
        # old log-probabilities, where there are any, are of the policy that sampled; the new ones have moved on
        gaps = gaps_by_turn(inputs.get("old_per_token_logps", logps), inputs["sampling_per_token_logps"], turns)
        gaps = together(gather_object(gaps))
        for gap in gaps:
            metrics[f"logprob_gap/turn{gap.turn}"].append(gap.mean)
            metrics[f"logprob_gap_max/turn{gap.turn}"].append(gap.max)
        for gap in together(gather_object(gaps_by_turn(entropies, torch.zeros_like(entropies), turns))):
            metrics[f"entropy/turn{gap.turn}"].append(gap.mean)
        self._gap_guard.add(gaps, step=self.state.global_step + 1)


def _gap_limit(args: MGPOConfig) -> float:
    if args.max_logprob_gap is not None:
        return args.max_logprob_gap
    return DEFAULT_LIMITS["bfloat16" if args.in_bfloat16 else "float32"]


class _MaskedHead:
    """What TRL reads of an output embedding, with a bias that rules tokens out."""

    def __init__(self, head: Any, bias: Tensor) -> None:
        self.weight = head.weight
        self.bias = bias if head.bias is None else head.bias + bias
        split = getattr(head.weight, "ds_status", None)
        if split is not None:  # under ZeRO-3 TRL gathers what is split over the processes; our bias is whole
            self.bias.ds_status = type(split).AVAILABLE  # type: ignore[union-attr]


def _rollout_backend(trainer: MGPOTrainer, args: MGPOConfig, processor: Any) -> Any:
    if not args.use_vllm:
        return TransformersRollouts(trainer, args, processor)
    from mgpo_train.training.vllm_rollouts import VLLMRollouts

    return VLLMRollouts(trainer, args, processor)


def _vllm_of(args: MGPOConfig) -> contextlib.AbstractContextManager[None]:
    if not args.use_vllm:
        return contextlib.nullcontext()
    from mgpo_train.training.vllm_rollouts import installed

    return installed(args)


def _crop_tool() -> None:
    """Stands in `self.tools`; never called."""


def _log_nothing(*args: Any) -> None:
    """Stands in for TRL's `log_extra` and `log_metric` where rewards are computed beside its own pass."""


def _index_dataset(samples: Sequence[Sample]) -> Dataset:
    """What TRL iterates over: the question, for its logs, and the sample's index; images stay where they are."""
    prompts = [[{"role": "user", "content": sample.question}] for sample in samples]
    return Dataset.from_dict({"prompt": prompts, "sample": list(range(len(samples)))})


@contextlib.contextmanager
def _as_resized(image_processor: Any) -> Iterator[None]:
    """Images come resized from the episode: the processor must not touch their size again."""
    before = image_processor.do_resize
    image_processor.do_resize = False
    try:
        yield
    finally:
        image_processor.do_resize = before


def _check_features(output: dict[str, Any], rollouts: Rollouts, tokens: TurnTokenizer) -> None:
    """TRL drops every image of a batch, silently, when one sample does not add up: refuse instead, by name."""
    grids = [grid for images in rollouts.images for grid in map(tokens.grid, images)]
    got = output.get("image_grid_thw")
    found = [] if got is None else [tuple(row) for row in got.tolist()]
    if found != grids or ("pixel_values" in output) != bool(grids):
        counts = {t.sample_id: len(images) for t, images in zip(rollouts.trajectories, rollouts.images, strict=True)}
        raise TokenAlignmentError(
            f"the batch reached the loss without the images of its rollouts (images by sample: {counts})"
        )
    sequences = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    for row, (trajectory, images) in enumerate(zip(rollouts.trajectories, rollouts.images, strict=True)):
        tokens.check(sequences[row].tolist(), images, name=trajectory.sample_id)
