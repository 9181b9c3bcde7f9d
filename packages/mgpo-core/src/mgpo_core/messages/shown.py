"""User data in messages: never more than a line of it, whatever its size and whatever it holds."""

from __future__ import annotations

import reprlib
from typing import Any

__all__ = ["one_line", "show"]

LINE = 200
"""Characters of a message's part that somebody else wrote: a path, an upstream error."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 8


def show(value: Any, limit: int = 80) -> str:
    """`value` as an error shows it, in at most `limit` characters of one line; "missing" for None."""
    if value is None:
        return "missing"
    if isinstance(value, str | bytes | bytearray):
        text = repr(value[: limit + 1])
    else:
        try:
            text = _SHORT.repr(value)
        except Exception:  # a value whose own repr fails, such as an integer of 5,000 digits
            text = f"<{type(value).__name__}>"
    return one_line(text, limit)


def one_line(value: Any, limit: int = LINE) -> str:
    """The text of `value`, an error for instance, on one line of at most `limit` characters, safe to print as UTF-8."""
    text = str(value) or (type(value).__name__ if isinstance(value, BaseException) else "")
    text = " ".join(text[: 4 * limit].split()) + ("..." if len(text) > 4 * limit else "")
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 3] + "..."
