"""Supervised fine-tuning: the paper's SFT baseline on answers, and MIRG-RL's first stage on reasoning trajectories.

One turn (`SingleTurn`): the downsized image and the question, then `\\boxed{answer}`; or (`MultiImage`) several
images, then the sample's solution. The loss covers the response's tokens alone. Uses `trl.SFTTrainer` with our
collator, so that template and image handling are the engines' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer

from mgpo_core import Episode, Sample
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.errors import SampleError
from mgpo_core.templates.base import message_images
from mgpo_core.templates.multi_image import solution_text
from mgpo_train.config.config import MGPOConfig
from mgpo_train.distributed.dummy_image import DummyImage
from mgpo_train.models.checkpoint import CheckpointResumeMixin
from mgpo_train.models.lora import lora_config

_IGNORED = -100


def check_sft_sample(sample: Sample, *, with_box: bool) -> None:
    """Raise SampleError when the sample lacks what is taught: a solution where the answer is a box, else an answer."""
    if with_box and sample.solution is None:
        raise SampleError(
            f"sample {sample.id!r} has no solution to teach: write some with `mgpo-train build-reasoning-data` "
            "(haystack_multi: add solutions=true)"
        )
    if not with_box and sample.answer is None:
        raise SampleError(f"sample {sample.id!r} has no answer to teach: add one, or leave the row out")


def sft_target(episode: Episode) -> str:
    r"""The response that is taught: the sample's solution where the answer is a box, else `\boxed{answer}` alone."""
    sample = episode.sample
    check_sft_sample(sample, with_box=episode.template.answers_with_box)
    if episode.template.answers_with_box and sample.solution is not None:
        return solution_text(sample.solution, episode.view)
    return f"\\boxed{{{sample.answer}}}"


class AnswerCollator:
    """Rows of the index dataset -> model inputs `(B, T)`, right padded; labels on the response's tokens alone."""

    def __init__(self, samples: Sequence[Sample], tokens: TurnTokenizer, config: MGPOConfig) -> None:
        self.samples, self.tokens, self.config = samples, tokens, config

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sequences, labels, images = [], [], []
        for row in rows:
            sample = self.samples[row["sample"]]
            episode = self.config.episode(sample)
            messages = episode.messages
            prompt = self.tokens.opening(messages, name=sample.id)
            response = self.tokens.tokenizer.encode(sft_target(episode), add_special_tokens=False)
            response = [*response, self.tokens.end_id]
            self.tokens.check(prompt + response, message_images(messages), name=sample.id)
            sequences.append(prompt + response)
            labels.append([_IGNORED] * len(prompt) + response)
            images += message_images(messages)
        ids = _padded(sequences, self.tokens.pad_id)
        return {
            "input_ids": ids,
            "attention_mask": _padded([[1] * len(sequence) for sequence in sequences], 0),
            "labels": _padded(labels, _IGNORED),
            "mm_token_type_ids": (ids == self.tokens.image_id).long(),
            **self.tokens.pixels(images),
        }


def _padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


class AnswerTrainer(CheckpointResumeMixin, SFTTrainer):
    """TRL's trainer; batches may lack images."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Qwen's classes say that their own loss takes no number of tokens; TRL computes it and does. Without the number
        # it would be a mean of the means of processes and passes, in which tokens of short responses weigh more.
        self.model_accepts_loss_kwargs = True
        DummyImage(self.model)


def make_trainer(model: Any, processor: Any, config: MGPOConfig, samples: Sequence[Sample]) -> SFTTrainer:
    """An `SFTTrainer` over the samples with the run's training arguments; SampleError when one has no answer."""
    with_box = config.make_template().answers_with_box
    for sample in samples:  # missing files are reported before training starts
        check_sft_sample(sample, with_box=with_box)
    tokens = TurnTokenizer(processor)
    indices = Dataset.from_dict({"input_ids": [[0]] * len(samples), "sample": list(range(len(samples)))})
    trainer = AnswerTrainer(
        model=model,
        args=_sft_config(config),
        train_dataset=indices,
        data_collator=AnswerCollator(samples, tokens, config),
        processing_class=processor,
        peft_config=lora_config(config),
    )
    trainer.run_config = config
    return trainer


def _sft_config(config: MGPOConfig) -> SFTConfig:
    """The training arguments that both configs share; what only GRPO knows is left behind."""
    shared = {name: getattr(config, name) for name in TrainingArguments.__dataclass_fields__ if hasattr(config, name)}
    names = {name: value for name, value in shared.items() if TrainingArguments.__dataclass_fields__[name].init}
    names |= {"remove_unused_columns": False, "dataset_kwargs": {"skip_prepare_dataset": True}, "max_length": None}
    return SFTConfig(**names)
