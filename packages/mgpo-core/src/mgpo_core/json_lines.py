"""Files of one JSON text a line: lines with their places, so that one of them can be read again without the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mgpo_core.errors import MGPOError

__all__ = ["DAMAGED", "json_at", "numbered_lines", "reason"]

DAMAGED = (MGPOError, ArithmeticError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)
"What a damaged line or record raises on its way to a trajectory or a card."


def numbered_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number from 1, offset in bytes, line) of every line that is not blank."""
    offset = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, offset, line
            offset += len(line)


def json_at(path: Path, offset: int) -> Any:
    """The value of the line that begins at this offset in bytes."""
    with path.open("rb") as lines:
        lines.seek(offset)
        return json.loads(lines.readline())


def reason(error: Exception) -> str:
    """What was wrong with a line, in words."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error) or type(error).__name__
