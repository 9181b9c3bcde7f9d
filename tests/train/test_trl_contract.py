"""The names of TRL that training/grpo.py relies on, and what they do; a failure names the file to mend."""

from __future__ import annotations

import inspect

import pytest
import transformers
import trl
from trl.trainer import utils

from mgpo_train.training.trl_grpo import GRPOTrainer

MEND = "mend packages/mgpo-train/src/mgpo_train/training/grpo.py"


def test_trl_is_of_the_pinned_minor_version():
    assert trl.__version__.startswith("1.16."), f"TRL {trl.__version__} is not 1.16: check every test here, then {MEND}"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_generate", ["self", "prompts"]),
        ("_generate_and_score_completions", ["self", "inputs"]),
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("_get_per_token_logps_and_entropies", ["self", "model", "input_ids", "attention_mask", "logits_to_keep"]),
        ("_compute_loss", ["self", "model", "inputs"]),
    ],
)
def test_overridden_methods_have_the_expected_signature(name, parameters):
    method = getattr(GRPOTrainer, name, None)
    assert method is not None, f"GRPOTrainer.{name} is gone: {MEND}"
    assert list(inspect.signature(method).parameters)[: len(parameters)] == parameters, f"{name} has changed: {MEND}"


@pytest.mark.parametrize(
    ("method", "fragment", "why"),
    [
        ("_generate_and_score_completions", "tool_images,\n        ) = self._generate(prompts)", "the result's order"),
        (
            "_generate_and_score_completions",
            "if self.tools and any(imgs for imgs in tool_images)",
            "images mid-sequence",
        ),
        ("_generate_and_score_completions", "self._standalone_tools", "tool dictionaries are built from it"),
        ("_generate_and_score_completions", 'output["sampling_per_token_logps"]', "the log-prob gap needs it"),
        ("_generate_and_score_completions", 'output["tool_mask"]', "the loss mask"),
        ("_generate_and_score_completions", "inp[key] = values[i]", "extra fields reach the rewards"),
        ("_compute_loss", 'completion_mask * inputs["tool_mask"]', "the loss mask"),
        ("_get_per_token_logps_and_entropies", "fused_lm_head=True", "the output embedding is masked for it"),
        ("__init__", "self._standalone_tools = tools", "set again after the constructor"),
        (
            "_generate_and_score_completions",
            "if images is not None and self.log_multimodal:\n"
            '            self._logs["images"].extend(gather_object(images))',
            "dummy_image.with_placeholder_image keeps a process without images from leaving the others waiting here",
        ),
        (
            "_generate_and_score_completions",
            "if has_mismatch:\n                    # Drop all images: safer than partial trim which is error-prone\n"
            '                    forward_kwargs.pop("pixel_values", None)',
            "what becomes of dummy_image.with_placeholder_image's image, which no image token meets",
        ),
    ],
)
def test_upstream_code_still_does_what_the_trainer_counts_on(method, fragment, why):
    source = inspect.getsource(getattr(GRPOTrainer, method))
    # the profiling decorator keeps the source by functools.wraps
    assert fragment in source, f"GRPOTrainer.{method} no longer contains {fragment!r} ({why}): {MEND}"


def test_the_fused_head_reads_weight_and_bias_of_the_output_embeddings():
    source = inspect.getsource(utils.add_fused_lm_head)
    assert "lm_head = self.get_output_embeddings()" in source, MEND
    assert "weight, bias = lm_head.weight, lm_head.bias" in source, MEND


def test_transformers_resumes_weights_through_our_override():
    source = inspect.getsource(transformers.Trainer)
    mend = "mend packages/mgpo-train/src/mgpo_train/models/checkpoint.py"
    assert list(inspect.signature(transformers.Trainer._load_from_checkpoint).parameters)[:2] == [
        "self",
        "resume_from_checkpoint",
    ], mend
    assert "self._load_from_checkpoint(resume_from_checkpoint)" in source, mend


def test_transformers_saves_and_ends_through_our_overrides():
    mend = "mend packages/mgpo-train/src/mgpo_train/models/checkpoint.py"
    saving = inspect.getsource(transformers.Trainer._save_checkpoint)
    # all processes have written their parts before the main one writes the file that makes a checkpoint complete
    order = ["self.save_model(", "_save_optimizer_and_scheduler(", "_save_rng_state(", "self.state.save_to_json("]
    places = [saving.find(call) for call in order]
    assert -1 not in places and places == sorted(places), mend
    loop = inspect.getsource(transformers.Trainer._inner_training_loop)
    assert "self._run_epoch(\n" in loop and "if self.control.should_training_stop:\n                break" in loop, mend


def test_transformers_removes_checkpoints_by_save_total_limit():
    source = inspect.getsource(transformers.Trainer._save_checkpoint)
    calls = "rotate_checkpoints(" in source and "save_total_limit=self.args.save_total_limit" in source
    assert calls, "mend packages/mgpo-train/src/mgpo_train/output/checkpoint_rotation.py"
