"""Files written aside and renamed: a reader, or a kill, never meets half of one."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["aside_of", "is_aside", "whole_file"]

_ASIDE = re.compile(r"\.mgpo-[0-9a-f]{16}\.tmp")


def aside_of(path: Path) -> Path:
    """A name beside `path` that nothing else uses, not even another process that writes the same file."""
    return path.with_name(f".mgpo-{secrets.token_hex(8)}.tmp")


def is_aside(name: str) -> bool:
    """Whether a file of this name was written aside here, and left behind by a kill."""
    return _ASIDE.fullmatch(name) is not None


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Open a file for writing (`w` or `wb`) that takes its name once the block ends, in place of one of that name."""
    aside = aside_of(path)
    try:
        with aside.open(mode.replace("w", "x"), **options) as file:
            yield file
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
