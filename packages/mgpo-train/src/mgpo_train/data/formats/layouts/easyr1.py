"""EasyR1, TRL and TreeVGR: problem, images, and the answer or a solution."""

from mgpo_train.data.formats.layout import CHOICES, Layout, Row, by_columns, first_of, has_images

_CANDIDATES = {
    "question": ("problem",),
    "image": ("image",),
    "images": ("images",),
    "choices": CHOICES,
    "answer": ("answer", "solution", "ground_truth"),
    "boxes": ("boxes",),
    "id": ("id", "index"),
}


def _fits(row: Row) -> bool:
    answered = first_of(row, _CANDIDATES["answer"])
    return isinstance(row.get("problem"), str) and "question" not in row and has_images(row) and answered is not None


LAYOUT = Layout("easyr1", _fits, by_columns(_CANDIDATES, splits=True), _CANDIDATES)
