"""How the rows of one table are read: its layout, and the user's mapping over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mgpo_core.boxes.regions import REGION
from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import one_line, show
from mgpo_core.messages.suggest import nearest
from mgpo_core.samples.choice_columns import choice_columns, is_missing, lettered_choices
from mgpo_train.data.formats.conversation import spoken
from mgpo_train.data.formats.layout import FIELDS, IMAGES, Fields, Layout, Row, cell
from mgpo_train.data.formats.saved_as_text import without_texts
from mgpo_train.data.row_boxes import BoxNumbers

__all__ = ["Reading"]


@dataclass(frozen=True)
class Reading:
    """How the rows of one table are read: its layout, the user's mapping over it, and what boxes' numbers are."""

    layout: Layout
    source: str
    available: tuple[str, ...]
    mapping: Mapping[str, str]
    """Our field -> the user's column; an empty one unbinds the field."""
    ground_truth: str = "answer"
    """The field that rewards compare with: `answer`, or `boxes` where the answer is a box."""
    numbers: BoxNumbers = BoxNumbers()

    def check(self) -> None:
        """Raise SampleError when a mapped column does not exist, or no column can hold a needed field."""
        for name, column in self.mapping.items():
            if name not in FIELDS:
                raise SampleError(
                    f"{self.source}: columns: {show(name)} is not one of our fields: {nearest(name, FIELDS)}"
                )
            if column and column.split(".")[0] not in self.available and column not in self.available:
                raise SampleError(
                    f"{self.source}: columns maps {name!r} to {show(column)}, which the data does not have "
                    f"(it has {self._names()}): {nearest(column, self.available)}"
                )
        if not self.layout.candidates:
            return
        for name in ("question", "image", self.ground_truth):
            # true boxes may be the answers themselves
            fields = {"image": ("image", "images"), "boxes": ("boxes", "answer")}.get(name, (name,))
            if not any(self._has(field) for field in fields):
                raise SampleError(
                    f"{self.source}: no column holds the {name} (columns: {self._names()}): {self._remedy(name)}"
                )

    def _remedy(self, name: str) -> str:
        turns = next((column for column in ("messages", "conversations") if column in self.available), None)
        if name == "question" and turns is not None:
            wanted = "list of messages with role and content, or from and value"
            return f"{turns!r} is no {wanted}, in a row with images: write one"
        return f"rename it, or map it with columns={{{name!r}: 'YOUR COLUMN'}}"

    def _has(self, field: str) -> bool:
        if field in self.mapping:
            return bool(self.mapping[field])
        known = self.layout.candidates.get(field, ())
        return any(column.split(".")[0] in self.available and column not in self._claimed for column in known)

    def _names(self) -> str:
        return one_line(", ".join(self.available) or "none")

    @property
    def _claimed(self) -> set[str]:
        """The user's columns: none of them is read a second time under another name."""
        return {column for column in self.mapping.values() if column}

    def whole(self, row: Row) -> Row:
        """A row with its lists and objects where it holds them as texts."""
        return without_texts(row, tuple(column for name, column in self.mapping.items() if name in IMAGES))

    def fields(self, row: Row) -> Fields:
        """The values of our fields, unchecked; raises SampleError as the layout does."""
        row = self.whole(row)
        found = self.layout.read(row)
        columns = {
            name: column
            for name, column in found.columns.items()
            if name not in self.mapping and not any(_within(column, claimed) for claimed in self._claimed)
        }
        if "image" in self.mapping or "images" in self.mapping:
            columns = {name: column for name, column in columns.items() if name not in ("image", "images")}
        values = {name: found.values[name] for name in columns if name in found.values}
        for name, column in self.mapping.items():
            if column:
                columns[name], values[name] = column, cell(row, column)
        if "answer" in values:
            values["answer"] = spoken(values["answer"], columns["answer"])
        if is_missing(values.get("choices")) and "choices" not in self.mapping:
            self._add_choice_columns(row, values, columns)
        asked = str(values.get("question"))
        if "regions" not in self.mapping and self.ground_truth != "boxes" and REGION not in asked:
            columns.pop("regions", None)
        if "solution" not in self.mapping and self.ground_truth != "boxes":
            columns.pop("solution", None)
        return replace(found, columns=columns, values={k: v for k, v in values.items() if k in columns})

    def _add_choice_columns(self, row: Row, values: dict[str, Any], columns: dict[str, str]) -> None:
        taken = set(columns.values())
        cells = {name: row.get(name) for name in dict.fromkeys((*self.available, *row)) if name not in taken}
        letters = choice_columns(cells)
        texts = lettered_choices({letter: cells[column] for letter, column in letters.items()}) if letters else ()
        if texts:
            values["choices"] = texts
            columns["choices"] = letters["A"]
            columns |= {f"choice {letter}": column for letter, column in letters.items()}


def _within(column: str, claimed: str) -> bool:
    return column == claimed or column.startswith(f"{claimed}.")
