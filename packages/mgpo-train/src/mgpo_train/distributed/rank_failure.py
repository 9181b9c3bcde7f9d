"""When one process of a run fails, the others end too, soon and with a message that names it.

Without this they wait inside a collective until its timeout (30 minutes) and then complain about the network. Every
process has a thread that talks to the others through the run's key/value store (the one at MASTER_ADDR:MASTER_PORT):
it sends a heartbeat, and looks for a process that has announced its failure, has fallen silent, or is gone.
A launcher that ends the others first (torchrun, accelerate) does so by SIGTERM, which the thread answers by the same
message, even while the main thread is stuck in a collective.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from mgpo_core.errors import MGPOError
from mgpo_train.config.options import ConfigError
from mgpo_train.config.user_errors import disk_failure

HEARTBEAT_INTERVAL = 3.0
"""Seconds between two heartbeats."""

HEARTBEAT_TIMEOUT = 40.0
"""Seconds without a heartbeat after which a process counts as gone."""

GRACE = 2.0
"""Seconds to look for another process's end when a collective fails: connections break before a process is gone."""

FAILED, INTERRUPTED = 1, 130
_PREFIX = "mgpo_train/"


@contextlib.contextmanager
def fail_fast(interrupted: Callable[[], str] = lambda: "interrupted") -> Iterator[None]:
    """Run the body, monitoring the other ranks; does nothing where there is one process (RANK, WORLD_SIZE).

    An exception of the body is announced to the others, printed, and ends this process with status 1; a Ctrl-C with
    130, and with what `interrupted` says.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world < 2:
        yield
        return
    monitor = RankMonitor(rank, world, _store())
    monitor.start()
    try:
        yield
    except KeyboardInterrupt as error:
        monitor.announce(error)
        _end(f"rank {rank}: {interrupted()}", INTERRUPTED)
    except BaseException as error:
        cause = monitor.cause(error)
        if cause:
            _end(f"rank {rank} ends, because {cause}", FAILED)
        monitor.announce(error)
        if full := disk_failure(error):
            _end(f"rank {rank}: {full}", FAILED)
        if not isinstance(error, (MGPOError, ConfigError)):  # their message says all
            traceback.print_exc()
        _end(f"rank {rank} failed: {type(error).__name__}: {error}", FAILED)
    monitor.finish()


class RankMonitor:
    """Sends this process's heartbeat and checks those of the others."""

    def __init__(self, rank: int, world: int, store: Any) -> None:
        self.rank, self.world, self.store = rank, world, store
        self._finished = threading.Event()
        self._seen: dict[int, tuple[str, float]] = {}
        self._signals, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._monitor, name="rank-watch", daemon=True)

    def start(self) -> None:
        """Begin; in the main thread, for the sake of the signal handler."""
        self._signals.setblocking(False)
        self._wake.setblocking(False)
        # the byte that Python writes for a signal reaches the thread even while the main thread is inside a collective
        self._before = (
            signal.signal(signal.SIGTERM, lambda number, frame: None),
            signal.set_wakeup_fd(self._wake.fileno()),
        )
        self._thread.start()

    def cause(self, error: BaseException) -> str | None:
        """What is known of another process whose end may be why this one failed: a collective that it has left."""
        if not isinstance(error, RuntimeError):
            return None
        deadline = time.monotonic() + GRACE
        with contextlib.suppress(Exception):  # the store may be what has failed
            while time.monotonic() < deadline:
                found = self._failure()
                if found:
                    return found
                time.sleep(0.1)
        return None

    def announce(self, error: BaseException) -> None:
        """Tell the others that this process fails and why."""
        self._finished.set()
        with contextlib.suppress(Exception):  # the store may be what has failed
            self.store.set(f"{_PREFIX}failed", f"rank {self.rank} failed: {_line(error)}")

    def finish(self) -> None:
        """Wait for the others, which may still need the store, and stop."""
        self.store.set(f"{_PREFIX}done/{self.rank}", "1")
        with contextlib.suppress(Exception):  # without a launcher that keeps it, the store ends with rank 0
            while self._thread.is_alive() and not all(self._done(rank) for rank in range(self.world)):
                time.sleep(0.1)
        self._finished.set()
        signal.set_wakeup_fd(self._before[1])
        signal.signal(signal.SIGTERM, self._before[0])

    def _monitor(self) -> None:
        beats = 0
        while not self._finished.is_set():
            try:
                self.store.set(f"{_PREFIX}alive/{self.rank}", f"{beats} {socket.gethostname()} {os.getpid()}")
                found = self._failure()
            except Exception as error:  # whatever the store raises when its host is gone
                if self._finished.wait(HEARTBEAT_INTERVAL):
                    return
                found = f"rank 0 or its launcher, which holds the run's store, is gone ({_line(error)})"
            if found:
                _end(f"rank {self.rank} ends, because {found}", FAILED)
            if self._told_to_end():
                _end(self._why_told(), 128 + signal.SIGTERM)
            beats += 1

    def _failure(self) -> str | None:
        """What is known of a process that failed; None when all is well."""
        if self.store.check([f"{_PREFIX}failed"]):
            return str(self.store.get(f"{_PREFIX}failed").decode())
        for rank in range(self.world):
            if rank == self.rank or self._done(rank) or not self.store.check([f"{_PREFIX}alive/{rank}"]):
                continue
            beat, now = self.store.get(f"{_PREFIX}alive/{rank}").decode(), time.monotonic()
            last, since = self._seen.get(rank, ("", now))
            self._seen[rank] = (beat, since if beat == last else now)
            if now - self._seen[rank][1] > HEARTBEAT_TIMEOUT:
                silent = f"rank {rank} has sent no heartbeat for {HEARTBEAT_TIMEOUT:.0f} s"
                return f"{silent}: it was killed, or its machine is down"
            if _is_gone(beat):
                return f"rank {rank} exited without an error message: it was killed (out of memory?)"
        return None

    def _done(self, rank: int) -> bool:
        return bool(self.store.check([f"{_PREFIX}done/{rank}"]))

    def _told_to_end(self) -> bool:
        """Wait one beat; True as soon as SIGTERM arrives."""
        readable, _, _ = select.select([self._signals], [], [], HEARTBEAT_INTERVAL)
        return bool(readable) and signal.SIGTERM in self._signals.recv(64)

    def _why_told(self) -> str:
        try:
            found = self._failure()
        except Exception:
            found = None
        if found:
            return f"rank {self.rank} ends, because {found}"
        return f"rank {self.rank} was told to end (SIGTERM): --resume continues from the newest checkpoint, if any"


def _store() -> Any:
    """A client of our own to the run's store: the default one may be busy in the main thread."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    client = TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=30)
    )
    # a launcher that restarts the group keeps its store
    return PrefixStore(f"attempt{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", client)


def _is_gone(beat: str) -> bool:
    """Whether the process that sent this heartbeat ran on this machine and has ended."""
    _, host, process = beat.split(" ")
    if host != socket.gethostname():
        return False
    import psutil

    try:
        return bool(psutil.Process(int(process)).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _end(message: str, status: int) -> None:
    print(f"mgpo-train: error: {message}", file=sys.stderr)
    sys.stderr.flush()
    sys.stdout.flush()
    # not sys.exit: the interpreter would wait for threads and collectives that wait for a dead process
    os._exit(status)
