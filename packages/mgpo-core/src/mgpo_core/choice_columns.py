"""Choices that a row holds in columns of their own: A, B, C, ... or option_a, option_b, ..."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from mgpo_core.answers import choice_letter
from mgpo_core.errors import SampleError
from mgpo_core.shown import show

__all__ = ["choice_columns", "is_missing", "labelled_choices", "lettered_choices"]

_PREFIX = r"(?:option|opt|choice|candidate|answer_option|answer)s?"
_LETTER = re.compile(rf"(?:(?P<prefix>{_PREFIX})[ _-]?)?[(\[]?(?P<letter>[A-Z])[)\].:]{{0,2}}", re.IGNORECASE)
_NUMBER = re.compile(r"(?:option|opt|choice|candidate)[ _-]?\d{1,2}", re.IGNORECASE)


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: null, an empty text, or the NaN that tables put there."""
    return value is None or (isinstance(value, str) and not value.strip()) or _is_nan(value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def choice_columns(columns: Mapping[str, Any]) -> dict[str, str]:
    """Letter -> column, where a row has columns for at least the choices A and B; else empty.

    Raises SampleError when two sets of columns could be meant, and for numbered ones, whose answers cannot be read
    without doubt.
    """
    styles: dict[str, dict[str, str]] = defaultdict(dict)
    for column in columns:
        found = _LETTER.fullmatch(str(column))
        if found is None:
            continue
        bare = "a" if column == found["letter"].lower() else ""  # a column called a, not A, is often a number
        if bare and not isinstance(columns[column], str | None):
            continue
        style = bare + str(column)[: found.start("letter")] + str(column)[found.end("letter") :]
        styles[style.lower()][found["letter"].upper()] = column
    sets = [
        found
        for found in styles.values()
        if len(found) > 1 and "A" in found and not all(is_missing(columns[column]) for column in found.values())
    ]
    if len(sets) > 1:
        raise SampleError(
            f"may hold the choices in {show(list(sets[0].values()))} or in {show(list(sets[1].values()))}: "
            "put them into one column choices, or unmap them with columns=choices="
        )
    numbered = [c for c in columns if _NUMBER.fullmatch(str(c)) and not is_missing(columns[c])]
    if not sets and len(numbered) > 1:
        raise SampleError(
            f"has the numbered columns {show(numbered)}: put the choices into one column choices, "
            "or unmap them with columns=choices="
        )
    return sets[0] if sets else {}


def labelled_choices(value: Any) -> dict[str, Any] | None:
    """Letter -> text of choices that name both, in either form: `[{"label": "A", "text": "red"}, ...]` or
    `{"label": ["A", ...], "text": ["red", ...]}`; None for anything else, and for labels that are not A, B, ..."""
    if isinstance(value, Mapping) and set(value) == {"label", "text"} and isinstance(value["label"], list):
        pairs = list(zip(value["label"], value["text"], strict=False)) if isinstance(value["text"], list) else []
        whole = len(pairs) == len(value["label"]) == len(value["text"] or ())
    elif isinstance(value, list) and all(
        isinstance(entry, Mapping) and set(entry) == {"label", "text"} for entry in value
    ):
        pairs, whole = [(entry["label"], entry["text"]) for entry in value], True
    else:
        return None
    found = {str(label).strip().upper(): text for label, text in pairs}
    letters = [choice_letter(index) for index in range(len(pairs))] if len(pairs) <= 26 else []
    return found if whole and letters and list(found) == letters else None


def lettered_choices(cells: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts of a row's choices from its cells by letter; those at the end may be missing, others may not.

    () where all are missing. Raises SampleError for a gap, for a single choice and for cells that hold no text.
    """
    filled = {letter.upper(): value for letter, value in cells.items() if not is_missing(value)}
    letters = sorted(filled)
    if letters != [choice_letter(index) for index in range(len(letters))] or len(letters) == 1:
        raise SampleError(
            f"gives the choices {', '.join(letters)} alone: give at least A and B, without a gap, or unmap them with "
            "columns=choices="
        )
    for letter in letters:
        value = filled[letter]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise SampleError(f"has the choice {letter} {show(value)}: give a text")
    return tuple(str(filled[letter]).strip() for letter in letters)
