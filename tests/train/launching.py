"""Starting scripts in several processes on a CPU, and vLLM servers."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from mgpo_train.hardware import LAYOUTS

sys.path.insert(0, str(Path(__file__).parents[1]))
from patience import HANG


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
    if layout.startswith("zero"):
        build_deepspeed_operators()
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAYOUTS / f"cpu-2-{layout}.yaml"),
        "--num_processes", str(processes), "--main_process_port", str(free_port()), *command,
    ]  # fmt: skip


@functools.cache
def build_deepspeed_operators() -> None:
    """Build what DeepSpeed would build in a run, once for an environment: it takes minutes.

    A run that a test kills in the middle of it would leave PyTorch's lock behind, and all others would wait for ever.
    """
    root = Path(os.environ["TORCH_EXTENSIONS_DIR"])
    root.mkdir(parents=True, exist_ok=True)
    with (root / "being-built").open("w") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX)  # released when its process dies, unlike PyTorch's
        if any(root.rglob("*.so")):
            return
        for left in root.rglob("lock"):
            left.unlink()
        build = "from deepspeed.comm.torch import build_shm_op; build_shm_op()"
        subprocess.run([sys.executable, "-c", build], check=True, timeout=HANG, stdout=subprocess.DEVNULL)


def environment(layout: str) -> dict[str, str]:
    """The environment of such a command."""
    return os.environ | ({"ACCELERATE_USE_CPU": "true"} if layout == "ddp" else {})


@contextlib.contextmanager
def serving(command: list[str], log: Path, **variables: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """(address, process) of the vLLM server that a command starts, once it answers; killed in the end."""
    port = free_port()
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"VLLM_SERVER_DEV_MODE": "1"} | variables,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_up(url, process, log)
        yield url, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + HANG
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            urllib.request.urlopen(f"{url}/health", timeout=HANG)
            return
        except OSError:
            time.sleep(1)
    raise AssertionError(f"no server after {HANG:.0f} s: {log.read_text()[-4000:]}")
