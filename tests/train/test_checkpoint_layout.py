"""A checkpoint's files tell whether it is whole, who wrote it, and who may go on from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgpo_train.config.options import ConfigError
from mgpo_train.distributed.checkpoint_layout import check_layout, checkpoint_layout, is_whole, needs_conversion
from mgpo_train.distributed.sharding_plan import ShardingPlan


def write(folder: Path, kind: str, processes: int) -> Path:
    """A checkpoint of step 4 by the names of its files."""
    checkpoint = folder / "checkpoint-4"
    names = [f"rng_state_{rank}.pth" for rank in range(processes)] if processes > 1 else ["rng_state.pth"]
    for rank in range(processes):
        shard = f"global_step4/{{}}zero_pp_rank_{rank}_mp_rank_00_{{}}_states.pt"
        if kind.startswith("zero"):
            names.append(shard.format("bf16_" if kind == "zero2" else "", "optim"))
        if kind == "zero3":
            names.append(shard.format("", "model"))
    names += {"zero2": ["global_step4/mp_rank_00_model_states.pt"], "fsdp": ["pytorch_model_fsdp.bin"]}.get(kind, [])
    names += {"plain": ["optimizer.pt"], "fsdp": ["optimizer.bin"]}.get(kind, [])
    for name in names:
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).touch()
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": 4}), encoding="utf-8")
    return checkpoint


@pytest.mark.parametrize("processes", [1, 2, 11])
@pytest.mark.parametrize(
    ("kind", "expected", "stage"),
    [("zero2", "deepspeed", 2), ("zero3", "deepspeed", 3), ("fsdp", "fsdp", 3), ("plain", "", 0)],
)
def test_the_layout_is_told_from_the_files(kind, expected, stage, processes, tmp_path):
    checkpoint = write(tmp_path, kind, processes)
    plan = checkpoint_layout(checkpoint)
    assert is_whole(checkpoint)
    assert (plan.kind, plan.stage, plan.devices) == (
        expected or ("ddp" if processes > 1 else "one"),
        stage,
        processes,
    )


@pytest.mark.parametrize("kind", ["zero2", "zero3"])
def test_a_checkpoint_that_lacks_a_file_of_one_process_is_not_whole(kind, tmp_path):
    checkpoint = write(tmp_path, kind, 3)
    split = [path for path in checkpoint.rglob("*.pt") if "zero_pp_rank" in path.name]
    for path in [*split, checkpoint / "trainer_state.json", checkpoint / "rng_state_1.pth"]:
        content = path.read_bytes()
        path.unlink()
        assert not is_whole(checkpoint), path
        path.write_bytes(content)
    assert is_whole(checkpoint)


def test_weights_without_an_optimiser_are_not_resumed_from(tmp_path):
    """As save_only_model leaves them: upstream would continue with a new optimiser, and not say so."""
    checkpoint = write(tmp_path, "plain", 1)
    check_layout(checkpoint, ShardingPlan("", 1))
    for path in checkpoint.glob("optimizer*"):
        path.unlink()
    with pytest.raises(ConfigError, match="no optimiser state .*save_only_model=true.*--model .*another --output_dir"):
        check_layout(checkpoint, ShardingPlan("", 1))


@pytest.mark.parametrize("written", ["zero2", "zero3", "fsdp", "plain"])
@pytest.mark.parametrize("running", ["zero2", "zero3", "fsdp", "plain"])
def test_a_run_of_another_kind_is_refused_and_told_how_to_launch(written, running, tmp_path):
    layouts = {
        "zero2": ShardingPlan("", 1, "deepspeed", 2),
        "zero3": ShardingPlan("", 1, "deepspeed", 3),
        "fsdp": ShardingPlan("", 1, "fsdp", 3),
        "plain": ShardingPlan("", 1),
    }
    checkpoint = write(tmp_path, written, 2)
    if written == running:
        check_layout(checkpoint, layouts[running])
        assert needs_conversion(checkpoint, layouts[running]) == written.startswith("zero")
        return
    remedy = {"plain": "without DeepSpeed and FSDP", "fsdp": "fsdp2.yaml"}.get(written, f"{written}.yaml")
    with pytest.raises(ConfigError, match=f"launch it as before.*{remedy}"):
        check_layout(checkpoint, layouts[running])
