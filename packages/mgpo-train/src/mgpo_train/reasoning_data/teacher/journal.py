"""What a teacher replied, written to disk at once, so that nothing is asked twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from mgpo_core.errors import EngineError
from mgpo_core.files.json_lines import append_record, read_records

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
            replies, self.broken = read_records(path, Reply)
            self.replies = {reply.key: reply for reply in replies}

    def add(self, reply: Reply) -> None:
        """Write a reply, now; EngineError when it cannot be written."""
        with self._lock:
            try:
                append_record(self.path, reply, sync=True)
            except OSError as error:
                raise EngineError(
                    f"the teacher's answers cannot be written to {self.path} ({error}); free space, and run the same "
                    "command again: what was written is kept"
                ) from error
            self.replies[reply.key] = reply
