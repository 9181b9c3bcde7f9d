"""Files of one JSON text a line: read by place, one line without the others; appended to, whole lines or none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from mgpo_core.errors import MGPOError

__all__ = ["MALFORMED_RECORD", "append_record", "json_at", "numbered_lines", "read_records", "reason"]

Record = TypeVar("Record")

MALFORMED_RECORD = (
    MGPOError,
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)
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


def append_record(path: Path, record: Any, *, sync: bool = False) -> None:
    """Append a dataclass as one line, in one write; a line that was cut short before it is ended first.

    `sync` waits until the disk has it. Raises OSError when it is not written whole.
    """
    line = json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n"
    with path.open("a+b", buffering=0) as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        if (written := file.write(line)) != len(line):
            raise OSError(f"only {written} of {len(line)} bytes were written")
        if sync:
            os.fsync(file.fileno())


def read_records(path: Path, kind: type[Record]) -> tuple[list[Record], int]:
    """The records of this dataclass that `append_record` wrote, and the number of lines that were cut short."""
    records, broken = [], 0
    for _, _, line in numbered_lines(path):
        try:
            records.append(kind(**json.loads(line)))
        except (ValueError, TypeError):
            broken += 1
    return records, broken


def reason(error: Exception) -> str:
    """What was wrong with a line, in words."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error) or type(error).__name__
