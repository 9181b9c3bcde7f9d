"""Mini-o3's and VisualProbe's training files: question, images, solution (a text), doc_id."""

from mgpo_train.data.formats.layout import CHOICES, Layout, Row, by_columns, has_images

_CANDIDATES = {
    "question": ("question",),
    "image": ("image",),
    "images": ("images",),
    "choices": CHOICES,
    "answer": ("solution",),
    "boxes": ("boxes",),
    "id": ("doc_id", "id"),
}


def _fits(row: Row) -> bool:
    solved = isinstance(row.get("solution"), str | int | float) and row.get("answer") is None and not row.get("boxes")
    return isinstance(row.get("question"), str) and has_images(row) and solved


LAYOUT = Layout("mini-o3", _fits, by_columns(_CANDIDATES, splits=True), _CANDIDATES)
