"""Which process writes into a folder, and whether it still runs."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

__all__ = ["this_process", "writer_alive"]


def this_process() -> dict[str, Any]:
    """What tells this process from every other: its machine, its number, and when it was started."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}


def writer_alive(process: Any) -> bool:
    """Whether the process of a record runs on this machine and is another than this one; False when unknown."""
    if not isinstance(process, dict) or process.get("host") != socket.gethostname():
        return False
    pid = process.get("pid")
    if not isinstance(pid, int) or pid == os.getpid():
        return False
    started = _started(pid)
    return started is not None and started == process.get("started")


def _started(pid: int) -> str | None:
    """When a process was started, by the kernel's clock; None when it has ended, or where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
