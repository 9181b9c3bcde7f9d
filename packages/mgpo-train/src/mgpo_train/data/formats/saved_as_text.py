"""Columns whose lists and objects somebody saved as texts, as tables without nested columns have them."""

from __future__ import annotations

from mgpo_core.samples.choice_columns import saved_value
from mgpo_train.data.formats.layout import IMAGES, Row

__all__ = ["without_texts"]

_TURNS = ("messages", "conversations", "prompt", "completion", "chosen")
_NESTED = ("reward_model", "extra_info", "objects")
"""Columns that hold no text which begins as a list or an object does."""


def without_texts(row: Row, images: tuple[str, ...] = ()) -> Row:
    """The row with the lists and objects themselves where such a column, or one of images, holds them as JSON.

    What Python printed is read too, but for messages, of which it may have left the commas out (arrays of NumPy).
    """
    read = {name: saved_value(row.get(name), printed=False) for name in _TURNS}
    read |= {name: saved_value(row.get(name)) for name in (*_NESTED, *IMAGES, *images)}
    return {**row, **{name: value for name, value in read.items() if isinstance(row.get(name), str)}}
