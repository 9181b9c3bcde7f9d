"""Choices that a row holds in columns of their own (A, B, C, ... or option_a, ...), or in one under a usual name."""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import show
from mgpo_core.samples.grading import choice_letter
from mgpo_core.samples.questions import split_question

__all__ = [
    "choice_columns",
    "choice_list",
    "choices_by_letter",
    "is_missing",
    "labelled_choices",
    "lettered_choices",
    "saved_value",
    "unread_choices",
]

_PREFIX = r"(?:option|opt|choice|candidate|answer_option|answer|text|选项|备选项?|候选项?|答案)s?+"
_SUFFIX = r"(?:text|option|choice|选项|项|答案)"
_LETTER = re.compile(
    rf"(?:{_PREFIX}[ _\-./:]?)?[(\[]?(?P<letter>[A-Z])[)\].:]{{0,2}}(?:[ _\-./]?{_SUFFIX})?", re.IGNORECASE
)
_NUMBER = re.compile(r"(?:option|opt|choice|candidate|选项)s?+[ _\-./:]?\d{1,2}", re.IGNORECASE)
_NAMES_OF_ONE = frozenset(("choice", "option", "candidate", "answerchoice", "answeroption"))
_LIST_NAMES = frozenset(
    (*(f"{name}s" for name in _NAMES_OF_ONE), "answercandidates", "multichoiceoptions", "选项", "备选项", "备选答案")
)
_LETTER_IN_NAME = re.compile(
    r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])|(?<=[a-z])[A-Z](?![A-Za-z])|(?<![A-Za-z])[A-Z](?=[A-Z][a-z])"
)
_FILE = re.compile(r"\.(?:jpe?g|png|webp|gif|bmp|tiff?)\s*$|^\s*(?:https?|file|data):", re.IGNORECASE)
_LONGEST_LIST = 20_000
"""Characters of a text that lists choices, or that Python printed."""
_LONGEST_CHOICE = 200
"""Characters of a text that is taken for a choice though nothing says that it is one."""


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
        found = _LETTER.fullmatch(name := unicodedata.normalize("NFKC", str(column)))
        if found is None:
            continue
        bare = "a" if name == found["letter"].lower() else ""  # a column called a, not A, is often a number
        if bare and not isinstance(columns[column], str | None):
            continue
        style = bare + name[: found.start("letter")] + name[found.end("letter") :]
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
    numbered = [
        column
        for column in columns
        if _NUMBER.fullmatch(unicodedata.normalize("NFKC", str(column))) and not is_missing(columns[column])
    ]
    if not sets and len(numbered) > 1:
        raise SampleError(
            f"has the numbered columns {show(numbered)}: put the choices into one column choices, "
            "or unmap them with columns=choices="
        )
    return sets[0] if sets else {}


def choice_list(columns: Mapping[str, Any]) -> str | None:
    """The column that holds a row's choices under one of their usual names, whatever its case; None without one.

    A name of one choice (`option`), which may be the right one, counts where it holds a list. Raises SampleError
    for two that differ.
    """
    found = []
    for column, value in columns.items():
        name = _folded(column)
        if name in _LIST_NAMES or (name in _NAMES_OF_ONE and isinstance(saved_value(value), list | tuple | Mapping)):
            found += [] if is_missing(value) or value in ([], (), {}) else [column]
    if len({str(columns[column]) for column in found}) > 1:
        raise SampleError(
            f"columns {show(found[0])} and {show(found[1])} both hold choices: say which with "
            f"columns=choices={found[0]}"
        )
    return found[0] if found else None


def unread_choices(columns: Mapping[str, Any], least: int) -> list[str]:
    """Columns that look as if they held at least `least` choices, though their names do not say so; [] without any.

    One that holds a list of short texts, texts by letter, or a text that lists them; or one column for each letter.
    """
    cells = dict(columns)
    for column, value in columns.items():
        if isinstance(value, Mapping):
            cells |= {f"{column}.{key}": part for key, part in value.items() if _folded(key) in _LIST_NAMES}
    for column, value in cells.items():
        if _listed(value) >= max(2, least):
            return [column]
    styles: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for column, value in columns.items():
        for found in _LETTER_IN_NAME.finditer(str(column)) if _short(value) else ():
            style = str(column)[: found.start()], str(column)[found.end() :]
            styles[style][found.group().upper()] = column
    for by_letter in styles.values():
        if len(by_letter) >= max(2, least) and {"A", "B"} <= set(by_letter):
            return [by_letter[letter] for letter in sorted(by_letter)]
    return []


def saved_value(value: Any, *, printed: bool = True) -> Any:
    """The list or object that a text holds as JSON or, where `printed`, as Python prints it; else the value itself."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    for parse in (json.loads, ast.literal_eval) if printed and len(value) <= _LONGEST_LIST else (json.loads,):
        try:
            read = parse(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(read, list | dict):
            return read
    return value


def choices_by_letter(value: Any) -> dict[str, Any] | None:
    """Letter -> text of a mapping whose keys are all letters of choices (`A`, `(a)`, `option_b`); else None."""
    if not isinstance(value, Mapping) or len(value) < 2:
        return None
    keys = [_LETTER.fullmatch(unicodedata.normalize("NFKC", str(key)).strip()) for key in value]
    found = {key["letter"].upper(): text for key, text in zip(keys, value.values(), strict=True) if key is not None}
    return found if len(found) == len(value) else None


def _folded(column: Any) -> str:
    return re.sub(r"[\s_\-]", "", unicodedata.normalize("NFKC", str(column))).casefold()


def _short(value: Any) -> bool:
    """Whether a cell is a text that may be a choice: no long one, and no name of an image."""
    return isinstance(value, str) and 0 < len(value.strip()) <= _LONGEST_CHOICE and not _FILE.search(value)


def _listed(value: Any) -> int:
    """How many choices a cell seems to list."""
    value = saved_value(value)
    value = labelled_choices(value) or choices_by_letter(value) or value
    if isinstance(value, str):
        return len(split_question(f"?\n{value}")[1]) if len(value) <= _LONGEST_LIST else 0
    if isinstance(value, Mapping):
        return len(value) if choices_by_letter(value) and all(map(_short, value.values())) else 0
    return len(value) if isinstance(value, list | tuple) and len(value) <= 26 and all(map(_short, value)) else 0


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
