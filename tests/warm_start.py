"""Commands run in processes that begin with the heavy imports done.

Importing torch, TRL, DeepSpeed and vLLM takes longer than what most tests train. The fork server of `multiprocessing`
imports them once for a pytest process, and every command here is a fork of it: the same code as in a new interpreter
(`python -m MODULE`, a script, a console script), with its own arguments, environment and folder.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from patience import HANG

_SERVER: Any = forkserver._forkserver

ADDRESS = "WARM_START_ADDRESS"
"""The variable by which forks know their fork server."""


def start_server() -> None:
    """Start the fork server of this process and of those that it starts; it imports `warm_imports.py`, beside this."""
    forkserver.set_forkserver_preload(["warm_imports"])
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11 does not give sys.path to its fork server, which passes over what it cannot import
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        patch.setenv("VLLM_LOGGING_LEVEL", os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"))
        forkserver.ensure_running()
    os.environ[ADDRESS] = _SERVER._forkserver_address
    atexit.register(_end_server, _SERVER._forkserver_pid, os.getpid())


def _end_server(server: int, owner: int) -> None:
    """End the fork server and wait for it: only then does its CPU time, forks included, count as this process's."""
    if os.getpid() == owner:
        os.kill(server, signal.SIGTERM)
        os.waitpid(server, 0)


@functools.cache
def _context() -> ForkServerContext:
    """A context whose processes are forks of the server; starts it where no process above this one has."""
    if ADDRESS not in os.environ:
        start_server()
    elif _SERVER._forkserver_pid is None:
        _join_server()
    return multiprocessing.get_context("forkserver")


def _join_server() -> None:
    """Let processes start from the fork server of a process above this one."""
    _SERVER._forkserver_address, _SERVER.ensure_running = os.environ[ADDRESS], lambda: None
    if _SERVER._forkserver_alive_fd is None:  # is sent along, for the fork's own processes
        _SERVER._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)


class SpawnedProcess(ForkServerProcess):
    """A fork of the fork server that takes environment, folder, output and process group from the process that starts
    it, as a spawned process does."""

    _args: tuple[Any, ...]

    def start(self) -> None:
        inherited = (dict(os.environ), str(Path.cwd()), os.getpid(), os.getpgrp())
        self._target, self._args = _spawned, (*inherited, self._target, self._args)
        super().start()


class SpawnContext(ForkServerContext):
    """What `multiprocessing.get_context("spawn")` gives, without the imports; for the processes that vLLM starts."""

    Process = SpawnedProcess


def _settle(environment: dict[str, str], folder: str) -> None:
    """In the fork: take an environment and a folder, and let processes start from the same fork server."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None  # known already; TMPDIR may be another here
    _join_server()


def _spawned(
    environment: dict[str, str], folder: str, parent: int, group: int, target: Any, args: Sequence[Any], **kwargs: Any
) -> None:
    _settle(environment, folder)
    os.setpgid(0, group)
    for stream in (1, 2):
        os.dup2(os.open(f"/proc/{parent}/fd/{stream}", os.O_WRONLY | os.O_APPEND), stream)
    target(*args, **kwargs)


def _run(command: Sequence[str], environment: dict[str, str], folder: str, output: str, errors: str) -> None:
    """In the fork: what `python COMMAND` does, in a process group of its own."""
    os.setpgrp()
    for path, stream in ((output, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
    _settle(environment, folder)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if command[0] == "-m":
            sys.argv = list(command[1:])
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(command)
            sys.path.insert(0, str(Path(command[0]).resolve().parent))
            runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # a process of multiprocessing leaves them out: vLLM's engines would never end
        sys.stdout.flush()
        sys.stderr.flush()


def start(command: Sequence[str], log: Path, **variables: str) -> BaseProcess:
    """Start `python COMMAND` as the leader of a process group; its output and errors go to the end of the file."""
    context = _context()
    given = (list(command), {**os.environ, **variables}, str(Path.cwd()), str(log), str(log))
    process = context.Process(target=_run, args=given)
    process.start()
    return process


def kill_group(process: BaseProcess) -> None:
    """SIGKILL for a process and for those that it started."""
    process.kill()
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def run(
    command: Sequence[str], *, folder: Path | None = None, processes: int = 1, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `python COMMAND` to its end, as so many ranks on this machine as `torchrun` would start.

    The status is 0, or that of the first rank that failed (negative: the signal that killed it); the others then get
    SIGTERM, as from `torchrun`. Output and errors of all ranks are in one text each. Raises TimeoutExpired after HANG
    seconds.
    """
    with tempfile.TemporaryDirectory() as written:
        output, errors = Path(written, "output"), Path(written, "errors")
        output.touch()
        errors.touch()
        context = _context()
        environment = {**os.environ, **variables}
        started = [
            context.Process(
                target=_run,
                args=(list(command), environment | ranked, str(folder or Path.cwd()), str(output), str(errors)),
            )
            for ranked in _ranks(processes, environment)
        ]
        for process in started:
            process.start()
        try:
            status = _first_failure(started)
        finally:
            for process in started:
                kill_group(process)
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in (output, errors)]
    if status is None:
        raise subprocess.TimeoutExpired(list(command), HANG, *texts)
    return subprocess.CompletedProcess(list(command), status, *texts)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _ranks(processes: int, environment: dict[str, str]) -> list[dict[str, str]]:
    """The variables by which torch.distributed knows its ranks; none for one process that nothing launches."""
    if processes == 1 and "ACCELERATE_USE_DEEPSPEED" not in environment:
        return [{}]
    port = str(free_port())
    size = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return [
        {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "LOCAL_RANK": str(rank), **size}
        for rank in range(processes)
    ]


def _first_failure(started: Sequence[BaseProcess]) -> int | None:
    """The status of the processes: 0 when all end well, None when they do not end within HANG seconds."""
    running, status, deadline = {process.sentinel: process for process in started}, 0, time.monotonic() + HANG
    while running:
        ended = wait(list(running), timeout=max(0.0, deadline - time.monotonic()))
        if not ended:
            return None
        for sentinel in ended:
            process = running.pop(sentinel)  # type: ignore[arg-type]
            process.join()
            if status == 0 and process.exitcode:
                status = process.exitcode
                for other in running.values():
                    other.terminate()
    return status


def check(command: Sequence[str], *, folder: Path | None = None, processes: int = 1, **variables: str) -> None:
    """Run a command that must end well."""
    done = run(command, folder=folder, processes=processes, **variables)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
