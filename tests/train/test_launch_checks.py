"""Ways of launching that would hang, or lose the weights, are refused with the remedy before anything is loaded."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import DistributedType

from mgpo_train.config.options import ConfigError
from mgpo_train.distributed.launch_checks import LONGEST_BUILD, check_launch, check_trainer


def config(**options: Any) -> Any:
    """What the checks read of a configuration: two processes under ZeRO-3 unless told otherwise."""
    whole = options.pop("save_whole", True)
    zero = {"zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": whole}}
    defaults = {
        "method": "mgpo",
        "use_vllm": False,
        "ds3_gather_for_generation": True,
        "world_size": 2,
        "eval_data": "haystack:val?n=8&seed=7",
        "eval_ood_data": None,
        "eval_samples": None,
        "eval_tasks": [],
        "deepspeed_plugin": SimpleNamespace(zero_stage=3, deepspeed_config=zero),
    }
    return SimpleNamespace(**(defaults | options))


def test_what_works_passes():
    check_launch(config())
    check_launch(config(ds3_gather_for_generation=False, world_size=1))
    check_launch(config(ds3_gather_for_generation=False, use_vllm=True))
    check_launch(config(ds3_gather_for_generation=False, method="sft"))
    check_launch(config(deepspeed_plugin=None))


def test_rollouts_on_weights_that_stay_split_are_refused():
    with pytest.raises(ConfigError, match=r"ds3_gather_for_generation=false under ZeRO-3.*leave it out"):
        check_launch(config(ds3_gather_for_generation=False))


def test_zero3_without_whole_weights_is_refused():
    with pytest.raises(ConfigError, match="zero3_save_16bit_model: true"):
        check_launch(config(save_whole=False))


def test_a_lock_that_a_killed_build_left_is_named_instead_of_waited_for(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    mine, somebodys = tmp_path / "py311_cu130" / "cpu_adam" / "lock", tmp_path / "py311_cu130" / "my_op" / "lock"
    for lock in (mine, somebodys):
        lock.parent.mkdir(parents=True)
        lock.touch()
    check_launch(config())
    assert caplog.text.count("another process") == 1 and str(mine) in caplog.text
    for lock in (mine, somebodys):
        os.utime(lock, (0.0, time.time() - LONGEST_BUILD - 60))
    with pytest.raises(ConfigError, match=r"cpu_adam/lock: left 16 minutes ago.*delete this file"):
        check_launch(config())
    assert mine.exists()
    mine.unlink()
    check_launch(config())


@pytest.mark.parametrize("method", ["mgpo", "grpo"])
def test_rollouts_under_fsdp_are_refused(method, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=r"under FSDP.*zero3\.yaml"):
        check_launch(config(method=method, deepspeed_plugin=None))


def test_evaluation_under_fsdp_is_refused_and_training_on_answers_is_not(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=r"evaluation under FSDP.*--eval_samples 0"):
        check_launch(config(method="sft", deepspeed_plugin=None))
    with pytest.raises(ConfigError, match=r"evaluation under FSDP.*no eval_tasks"):
        check_launch(config(method="sft", deepspeed_plugin=None, eval_samples=0, eval_tasks=["haystack"]))
    check_launch(config(method="sft", deepspeed_plugin=None, eval_samples=0))
    check_launch(config(method="sft", deepspeed_plugin=None, eval_data="none"))


def test_deepspeed_or_fsdp_that_was_asked_for_and_is_off_is_refused(monkeypatch):
    trainer = SimpleNamespace(accelerator=SimpleNamespace(distributed_type=DistributedType.MULTI_CPU))
    with pytest.raises(ConfigError, match="unset ACCELERATE_USE_CPU"):
        check_trainer(trainer, config())
    check_trainer(trainer, config(deepspeed_plugin=None))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="FSDP on GPUs alone"):
        check_trainer(trainer, config(deepspeed_plugin=None))
    trainer.accelerator.distributed_type = DistributedType.DEEPSPEED
    check_trainer(trainer, config())
