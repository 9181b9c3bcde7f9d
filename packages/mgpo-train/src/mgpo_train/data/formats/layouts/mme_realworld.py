"""MME-RealWorld: lmms-eval's copies, the authors' own release, and the paper's training questions."""

from mgpo_train.data.formats.layout import Layout, Row, by_columns
from mgpo_train.data.formats.layouts import plain

_CANDIDATES = {
    "question": ("question", "Text"),
    "image": ("image", "bytes", "images", "image_path", "Image"),
    "choices": ("multi-choice options", "choices", "Answer choices"),
    "answer": ("answer", "Ground truth", "ground_truth", "solution", "reward_model.ground_truth"),
    "id": ("index", "Question_id", "question_id", "id"),
}
_CHOICES = ("multi-choice options", "Answer choices")


def _fits(row: Row) -> bool:
    asked = isinstance(row.get("question"), str) or isinstance(row.get("Text"), str)
    return asked and any(row.get(name) is not None for name in _CHOICES) and not plain.LAYOUT.fits(row)


LAYOUT = Layout("mme-realworld", _fits, by_columns(_CANDIDATES), _CANDIDATES, always_choices=True)
