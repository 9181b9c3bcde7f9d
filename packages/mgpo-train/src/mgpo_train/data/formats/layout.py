"""What a layout of data files is: how its rows are recognised, and which of their columns hold our fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import show
from mgpo_core.messages.suggest import nearest
from mgpo_core.samples.choice_columns import is_missing

__all__ = [
    "CHOICES",
    "FIELDS",
    "IMAGES",
    "Fields",
    "Layout",
    "Row",
    "as_layout",
    "by_columns",
    "cell",
    "first_of",
    "has_images",
]

Row = Mapping[str, Any]

FIELDS = ("question", "image", "images", "choices", "answer", "boxes", "id", "regions", "solution")
"""Our fields."""
CHOICES = ("choices", "options", "multi-choice options", "Answer choices")
IMAGES = ("images", "image")


@dataclass(frozen=True)
class Fields:
    """The values of our fields in one row, unchecked, with the columns that they came from (a dot: nested)."""

    values: Mapping[str, Any]
    columns: Mapping[str, str]
    splits: bool = False
    """Whether the question may end in its choices and in instructions how to answer."""
    listed: tuple[str, ...] = ()
    """The choices that the text lists, where they are no longer in the question."""
    box_scale: str | None = None
    """What the numbers of boxes are, where the layout says so; None: what the data spec says."""


@dataclass(frozen=True)
class Layout:
    """One layout: a name, and functions that recognise a row and read our fields out of it.

    `read` raises SampleError that names the column. `fits` is asked for single rows, and never raises.
    """

    name: str
    fits: Callable[[Row], bool]
    read: Callable[[Row], Fields]
    candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For layouts of columns: which may hold each field, the first one that a row has wins."""
    always_choices: bool = False
    """Whether every row has choices, where the table has a column for them."""


def as_layout(entry: Any) -> Layout | None:
    """A layout, or one that reads rows with a function; None for anything else.

    The function gives `Fields`, or a mapping with our fields as keys. A layout made of it fits no row: it is read only
    where the data spec names it.
    """
    made = entry() if isinstance(entry, type) else entry
    if isinstance(made, Layout) or not callable(made):
        return made if isinstance(made, Layout) else None
    return Layout(getattr(made, "__name__", type(made).__name__), lambda row: False, lambda row: _fields_of(made(row)))


def _fields_of(found: Any) -> Fields:
    if isinstance(found, Fields):
        return found
    if not isinstance(found, Mapping):
        raise SampleError(f"layout: the function returned {show(found)}; return a mapping with keys among {FIELDS}")
    for name in found:
        if name not in FIELDS:
            raise SampleError(f"layout: the function returned {show(name)}: {nearest(str(name), FIELDS)}")
    return Fields(found, {name: name for name in found})


def cell(row: Row, column: str) -> Any:
    """A row's value of a column; a dot steps into a nested one, unless a column has the dot in its name."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def first_of(row: Row, columns: tuple[str, ...]) -> str | None:
    """The first of these columns that has a value in the row, else the first that is there at all."""
    filled = next((column for column in columns if not is_missing(cell(row, column))), None)
    return filled or next((column for column in columns if column.split(".")[0] in row), None)


def has_images(row: Row) -> bool:
    """Whether a row has images in a column of the usual names."""
    return any(row.get(name) not in (None, "", []) for name in IMAGES)


def by_columns(candidates: Mapping[str, tuple[str, ...]], *, splits: bool = False) -> Callable[[Row], Fields]:
    """Reads every field out of one column."""

    def read(row: Row) -> Fields:
        columns = {name: column for name, known in candidates.items() if (column := first_of(row, known)) is not None}
        columns |= _one_choice_column(row, candidates.get("choices", ()))
        return Fields({name: cell(row, column) for name, column in columns.items()}, columns, splits=splits)

    return read


def _one_choice_column(row: Row, known: tuple[str, ...]) -> dict[str, str]:
    filled = [column for column in known if cell(row, column) not in (None, "", [])]
    if len(filled) > 1 and len({str(cell(row, column)) for column in filled}) > 1:
        raise SampleError(
            f"columns {show(filled[0])} and {show(filled[1])} both hold choices: "
            f"say which with columns=choices={filled[0]}"
        )
    return {"choices": filled[0]} if filled else {}
