"""This project's own layout (docs/data.md): question, image or images, choices, answer, boxes, ..."""

from mgpo_train.data.formats.layout import CHOICES, FIELDS, Layout, Row, by_columns, has_images

_CANDIDATES = {name: (name,) for name in FIELDS} | {"choices": CHOICES}


def _fits(row: Row) -> bool:
    answered = row.get("answer") is not None or bool(row.get("boxes")) or isinstance(row.get("solution"), dict)
    return isinstance(row.get("question"), str) and has_images(row) and answered


LAYOUT = Layout("plain", _fits, by_columns(_CANDIDATES), _CANDIDATES)
