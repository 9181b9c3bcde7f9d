"""Layouts of data files that people have, one small module each, and how a table's layout is recognised.

A layout reads a row into our fields (`layout.Fields`); `rows.read_row` then checks them, whatever the layout was.
To add one, copy `layouts/mini_o3.py` (columns) or `layouts/trl.py` (a conversation) and add it to the modules
registered below. From outside the package: `LAYOUTS.register(name, layout)`, or a function that the data spec names,
`?layout=my_layout.py:read`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mgpo_core.errors import SampleError
from mgpo_core.registry import Registry
from mgpo_train.data.formats.layout import FIELDS, Fields, Layout, Row, as_layout, cell, has_images
from mgpo_train.data.formats.layouts import (
    easyr1,
    llama_factory,
    mini_o3,
    mme_realworld,
    ms_swift,
    plain,
    trl,
    verl,
    vlm_r1,
    vstar,
)
from mgpo_train.data.formats.saved_as_text import without_texts

__all__ = ["FIELDS", "LAYOUTS", "Fields", "Layout", "Row", "recognise"]

LAYOUTS: Registry[Layout] = Registry("layout", as_layout, "a Layout, or a function that reads a row into our fields")
"""Every layout by name."""

for _module in (plain, mme_realworld, vstar, ms_swift, llama_factory, verl, vlm_r1, trl, easyr1, mini_o3):
    LAYOUTS.register(_module.LAYOUT.name, _module.LAYOUT)

_BY_PATH = ("mme-realworld", "vstar")
"""Layouts that are assumed for paths with their name in them, where the columns allow it."""


def recognise(
    path: str, source: str, available: Sequence[str], rows: Iterable[tuple[str, Row]], image: str | None = None
) -> Layout:
    """The one layout that rows fit, or would with an image and an answer; this project's own where they fit none.

    `path` may name a layout, `source` and the rows' names are for errors; `image` is the column that the user takes
    images from. Raises SampleError where rows fit several
    layouts, or different ones.
    """
    lowered = path.lower().replace("_", "-")
    for name in _BY_PATH:
        if name in lowered and _has(LAYOUTS[name], available):
            return LAYOUTS[name]
    first: tuple[str, Layout] | None = None
    nearest: Layout | None = None
    for row_name, row in rows:
        row = without_texts(row, tuple(filter(None, (image,))))
        row = {**row, "image": cell(row, image)} if image and not has_images(row) else row
        fitting = [layout for layout in LAYOUTS.values() if layout.fits(row)]
        if not fitting and nearest is None:
            nearest = _nearest(row)
        if len(fitting) > 1:
            names = " and as ".join(layout.name for layout in fitting)
            raise SampleError(
                f"{row_name} can be read as {names}: say which with format={fitting[0].name} in the data spec"
            )
        if fitting and first is None:
            first = row_name, fitting[0]
        if fitting and first is not None and fitting[0] is not first[1]:
            raise SampleError(
                f"{source} mixes layouts: {first[0]} is {first[1].name}, {row_name} is {fitting[0].name}; "
                "write a file for each, or say which it is with format="
            )
    return first[1] if first is not None else nearest or LAYOUTS["plain"]


def _nearest(row: Row) -> Layout | None:
    """The layout of columns that a row fits but for its image or its answer, which can be named as missing then."""
    for more in ({"image": "?"}, {"answer": "?"}, {"image": "?", "answer": "?"}):
        fitting = [layout for layout in LAYOUTS.values() if layout.fits({**row, **more})]
        if len(fitting) == 1 and fitting[0].candidates:
            return fitting[0]
    return None


def _has(layout: Layout, available: Sequence[str]) -> bool:
    return all(
        any(column.split(".")[0] in available for column in layout.candidates[name])
        for name in ("question", "image", "answer")
    )
