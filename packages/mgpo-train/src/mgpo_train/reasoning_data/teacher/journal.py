"""What a teacher replied, written to disk at once, so that nothing is asked twice."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from mgpo_core.errors import EngineError

__all__ = ["Reply", "ReplyJournal"]


@dataclass(frozen=True)
class Reply:
    """One answer; `key` is a hash of everything that it was asked by."""

    key: str
    id: str
    attempt: int
    text: str
    finish_reason: str = "stop"
    tokens: int = 0
    seconds: float = 0.0


class ReplyJournal:
    """Replies by their keys, one to a line of a JSONL file; lines that were cut short are asked for again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.replies: dict[str, Reply] = {}
        self.broken = 0
        """Lines that a kill or a full disk cut short."""
        self._lock = Lock()
        if path.exists():
            self._read(path.read_bytes())

    def _read(self, data: bytes) -> None:
        for line in data.splitlines():
            try:
                reply = Reply(**json.loads(line))
            except (ValueError, TypeError):
                self.broken += bool(line.strip())
            else:
                self.replies[reply.key] = reply
        if data and not data.endswith(b"\n"):
            self._append(b"\n")  # what is written next begins a line of its own

    def add(self, reply: Reply) -> None:
        """Write a reply, now; EngineError when it cannot be written."""
        with self._lock:
            self._append(json.dumps(asdict(reply)).encode() + b"\n")
            self.replies[reply.key] = reply

    def _append(self, line: bytes) -> None:
        try:
            with open(self.path, "ab", buffering=0) as file:
                if file.write(line) != len(line):
                    raise OSError("the line was not written whole")
                os.fsync(file.fileno())
        except OSError as error:
            raise EngineError(
                f"The teacher's answers cannot be written to {self.path} ({error}); free space, and run the same "
                "command again: what was written is kept."
            ) from error
