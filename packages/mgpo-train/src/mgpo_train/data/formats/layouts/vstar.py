"""V*: the question, its choices and an instruction in one text, with image and label."""

from mgpo_train.data.formats.layout import Layout, Row, by_columns, has_images

_CANDIDATES = {
    "question": ("text",),
    "image": ("image",),
    "choices": ("text",),
    "answer": ("label",),
    "id": ("question_id",),
}


def _fits(row: Row) -> bool:
    return isinstance(row.get("text"), str) and isinstance(row.get("label"), str) and has_images(row)


LAYOUT = Layout("vstar", _fits, by_columns(_CANDIDATES), _CANDIDATES)
