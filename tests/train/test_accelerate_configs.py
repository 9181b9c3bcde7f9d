"""Every shipped accelerate configuration is one that `accelerate launch` reads, and says what its name says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from mgpo_train.distributed.sharding_plan import PLANS

FILES = sorted(PLANS.glob("*.yaml"))
DEEPSPEED = [path for path in FILES if "zero" in path.stem]


def test_there_is_one_for_every_setting_that_the_documentation_names() -> None:
    names = {path.stem for path in FILES}
    assert names >= {"one-gpu", "ddp", "zero2", "zero2-offload", "zero3", "zero3-offload", "fsdp2", "multi-node-zero3"}
    assert names >= {"cpu-2-zero2", "cpu-2-zero3"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_s_own_loader_reads_it(path: Path) -> None:
    config = load_config_from_file(str(path))
    kinds = {"one-gpu": "NO", "ddp": "MULTI_GPU", "fsdp2": "FSDP"}
    assert str(getattr(config.distributed_type, "value", config.distributed_type)) == kinds.get(path.stem, "DEEPSPEED")
    assert config.num_machines == (2 if "multi-node" in path.stem else 1)
    assert config.num_processes == (
        1 if path.stem == "one-gpu" else 2 if "cpu" in path.stem else 8 * config.num_machines
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_launch_takes_it(path: Path) -> None:
    parsed = launch_command_parser().parse_args(["--config_file", str(path), "-m", "mgpo_train", "haystack-mgpo"])
    arguments, _, _ = _validate_launch_command(parsed)
    assert arguments.use_deepspeed == (path in DEEPSPEED)
    if path in DEEPSPEED:
        assert arguments.zero_stage == (3 if "zero3" in path.stem else 2)
        # without it model/ and the checkpoints of ZeRO-3 would hold nothing that AutoModel loads
        assert (str(arguments.zero3_save_16bit_model).lower() == "true") == (arguments.zero_stage == 3)
        assert arguments.offload_optimizer_device == ("cpu" if "offload" in path.stem else "none")
    if path.stem == "fsdp2":
        assert int(arguments.fsdp_version) == 2 and arguments.use_fsdp


@pytest.mark.parametrize("path", DEEPSPEED, ids=lambda path: path.stem)
def test_deepspeed_s_plugin_is_made_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("deepspeed")
    from accelerate.utils import DeepSpeedPlugin
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    parsed = launch_command_parser().parse_args(["--config_file", str(path), "-m", "mgpo_train", "haystack-mgpo"])
    arguments, _, _ = _validate_launch_command(parsed)
    arguments.deepspeed_fields_from_accelerate_config = ""  # as `launch_command` sets it
    arguments.num_machines = 1  # of several, a host file and pdsh's launcher would be looked for
    _, environment = prepare_deepspeed_cmd_env(arguments)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    plugin = DeepSpeedPlugin()
    assert plugin.zero_stage == arguments.zero_stage
    zero = plugin.deepspeed_config["zero_optimization"]
    assert zero["offload_optimizer"]["device"] == ("cpu" if "offload" in path.stem else "none")


def test_the_slurm_script_starts_the_shipped_configuration() -> None:
    script = PLANS / "multi-node.slurm"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    assert "multi-node-zero3.yaml" in text and text.startswith("#!/bin/bash\n#")
