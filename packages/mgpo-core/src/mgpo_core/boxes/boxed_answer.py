"""The answer in `\\boxed{...}`, found in what a model wrote."""

from __future__ import annotations

import re

# every alternative begins with a fixed character, which makes the search fast
_BRACES = re.compile(r"\\boxed\s*+\{|\\\\(?!boxed)|\\\{|\\\}|\{|\}")


def extract_boxed(text: str) -> str | None:
    r"""The content of the last complete \boxed{...} of `text` (braces may nest), None without one."""
    open_braces: list[tuple[int, int] | None] = []  # (where \boxed starts, where its content starts)
    best: tuple[int, int, int] | None = None
    for mark in _BRACES.finditer(text):
        if mark.group().startswith("\\b"):
            open_braces.append((mark.start(), mark.end()))
        elif mark.group() == "{":
            open_braces.append(None)
        elif mark.group() == "}" and open_braces:
            box = open_braces.pop()
            if box is not None and (best is None or box[0] > best[0]):
                best = (*box, mark.start())
    return None if best is None else text[best[1] : best[2]].strip()
