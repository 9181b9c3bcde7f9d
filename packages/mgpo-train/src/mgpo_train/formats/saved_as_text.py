"""Columns whose lists and objects somebody saved as texts, as tables without nested columns have them."""

from __future__ import annotations

import ast
import json
from typing import Any

from mgpo_train.formats.layout import IMAGES, Row

__all__ = ["without_texts"]

_TURNS = ("messages", "conversations", "prompt", "completion", "chosen")
_NESTED = ("reward_model", "extra_info", "objects")
"""Columns that hold no text which begins as a list or an object does."""
_LONGEST_LIST = 20_000
"""Characters of a list or an object as Python prints it."""


def without_texts(row: Row, images: tuple[str, ...] = ()) -> Row:
    """The row with the lists and objects themselves where such a column, or one of images, holds them as JSON.

    What Python printed is read too, but for messages, of which it may have left the commas out (arrays of NumPy).
    """
    read = {name: value for name in _TURNS if (value := _read(row.get(name))) is not None}
    for name in (*_NESTED, *IMAGES, *images):
        value = _read(row.get(name))
        value = _printed(row.get(name)) if value is None else value
        read |= {} if value is None else {name: value}
    return {**row, **read} if read else row


def _read(value: Any) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return None
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, list | dict) else None


def _printed(value: Any) -> Any:
    if not isinstance(value, str) or len(value) > _LONGEST_LIST or not value.lstrip().startswith(("['", "{'")):
        return None
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
