"""Is a file still the one that was written? By its size, and its time or a digest that is cheap for large files."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["digest_bytes", "identity", "is_unchanged"]

_WHOLE = 8_000_000
"""Files up to this size in bytes are read whole; of larger ones, evenly spread blocks."""
_BLOCKS, _BLOCK = 32, 65_536


def identity(path: Path) -> list[Any] | None:
    """[size in bytes, modification time in ns, digest] of a regular file; None for anything else."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return None
        return [status.st_size, status.st_mtime_ns, _digest(path, status.st_size)]
    except OSError:
        return None


def is_unchanged(path: Path, entry: Sequence[Any]) -> bool:
    """Whether the file is what it was when `identity` gave `entry`; a copy that lost its time still is."""
    try:
        status = path.lstat()
        size, time, digest = entry
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return False
        return bool(status.st_mtime_ns == time) or _digest(path, size) == digest
    except (OSError, TypeError, ValueError):
        return False


def digest_bytes(data: bytes) -> str:
    """The digest of bytes in memory: all of them when they are few, else blocks of them, and their number."""
    found = hashlib.blake2b(str(len(data)).encode(), digest_size=16)
    for start, end in _spans(len(data)):
        found.update(data[start:end])
    return found.hexdigest()


def _digest(path: Path, size: int) -> str:
    found = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        for start, end in _spans(size):
            file.seek(start)
            found.update(file.read(end - start))
    return found.hexdigest()


def _spans(size: int) -> list[tuple[int, int]]:
    if size <= _WHOLE:
        return [(0, size)]
    last = size - _BLOCK
    return [(start, start + _BLOCK) for start in (last * number // (_BLOCKS - 1) for number in range(_BLOCKS))]
