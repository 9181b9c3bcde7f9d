"""Command lines that start a script in several processes on a CPU."""

from __future__ import annotations

import os
import socket
import sys

from mgpo_train.hardware import LAYOUTS


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def launched(layout: str, processes: int, *command: str) -> list[str]:
    """The command line that runs a script, or `-m` and a module, under ddp, zero2 or zero3; plain: as it is."""
    if layout == "plain":
        return [sys.executable, *command]
    if layout == "ddp":
        return [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes),
            "--master_port", str(free_port()), *command,
        ]  # fmt: skip
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAYOUTS / f"cpu-2-{layout}.yaml"),
        "--num_processes", str(processes), "--main_process_port", str(free_port()), *command,
    ]  # fmt: skip


def environment(layout: str) -> dict[str, str]:
    """The environment of such a command."""
    return os.environ | ({"ACCELERATE_USE_CPU": "true"} if layout == "ddp" else {})
