"""Benchmark rows are read from their columns, and our tasks score what models answer."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from mgpo_core import Box, haystack
from mgpo_core.errors import SampleError
from mgpo_core.runs.response_payload import ResponsePayload, encode_payload
from mgpo_eval.tasks import scoring
from mgpo_eval.tasks.haystack_rows import haystack_rows
from mgpo_eval.tasks.readers import READERS, find_reader

MME = {
    "index": "7",
    "bytes": base64.b64encode(b"image").decode(),
    "question": "Where is the sign?",
    "multi-choice options": ["(A) left (red)", "(B) right", "（C） nowhere"],
    "answer": "B",
    "category": "Perception/OCR with Complex Context",
    "l2-category": "scene/attribute",
}
HR = {
    "index": 1,
    "question": "What? ",
    "image": base64.b64encode(b"image").decode(),
    "A": "x (A)",
    "B": "y",
    "C": None,
    "D": float("nan"),
    "answer": "A",
    "category": "single",
    "cycle_category": "0",
}
VSTAR = {
    "image": {"bytes": b"image", "path": None},
    "text": "Is it (really) red?\n(A) yes (A)\n(B) no\nAnswer with the option letter from the given choices directly.",
    "category": "direct_attributes",
    "label": "b ",
    "question_id": "3",
}


@pytest.mark.parametrize(
    ("row", "name", "question", "choices", "answer", "category"),
    [
        (MME, "mme-realworld", "Where is the sign?", ("left (red)", "right", "nowhere"), "B", "scene/attribute"),
        (HR, "hr-bench", "What?", ("x (A)", "y"), "A", "single"),
        (VSTAR, "vstar", "Is it (really) red?", ("yes (A)", "no"), "B", "direct_attributes"),
    ],
)
def test_rows_of_known_benchmarks_are_read(
    row: dict[str, Any], name: str, question: str, choices: tuple[str, ...], answer: str, category: str
) -> None:
    reader = find_reader(row)
    assert reader is not None and reader.name == name
    assert reader.question(row) == (question, choices)
    assert reader.answer(row) == answer
    assert reader.categories(row)[-1] == category
    assert reader.images(row) in ([b"image"], [{"bytes": b"image", "path": None}])


def test_other_rows_belong_to_nobody() -> None:
    assert find_reader(["question", "image", "answer"]) is None
    assert find_reader([]) is None


@pytest.mark.parametrize(("value", "message"), [("no base64!", "no base64 image"), (None, "holds no image")])
def test_a_cell_without_an_image_is_named(value: Any, message: str) -> None:
    reader = find_reader(MME)
    assert reader is not None
    with pytest.raises(SampleError, match=f"column 'bytes' {message if value is None else 'holds ' + message}"):
        reader.images(MME | {"bytes": value})


@pytest.mark.parametrize("written", ["data:image/jpeg;base64,aW1hZ2U=", "aW1hZ2U", "aW1h\nZ2U="])
def test_base64_is_read_by_the_function_that_training_uses(written: str) -> None:
    reader = find_reader(MME)
    assert reader is not None and reader.images(MME | {"bytes": written}) == [b"image"]


def test_letter_columns_are_read_by_the_function_that_training_uses() -> None:
    reader = find_reader(HR)
    assert reader is not None
    with pytest.raises(SampleError, match="choices A, C alone: give at least A and B, without a gap"):
        reader.question(HR | {"B": None, "C": "z"})


def test_haystack_rows_are_the_samples_of_the_world() -> None:
    rows = haystack_rows("ood", 3, 7, 1)
    reader = find_reader(rows[0])
    assert reader is not None
    for row, sample in zip(rows, haystack.make("ood", 3, 7), strict=True):
        assert reader.question(row) == (sample.question, sample.choices)
        assert (reader.answer(row), reader.boxes(row)) == (sample.answer, sample.boxes)
    assert reader.images(rows[2])[0]().tobytes() == haystack.make("ood", 3, 7)[2].load().tobytes()  # type: ignore[operator]


def test_several_images_keep_their_order_and_their_box() -> None:
    row = haystack_rows("val", 2, 7, 3)[1]
    reader = find_reader(row)
    assert reader is not None and reader.count(row) == len(reader.images(row)) == 3
    [box] = haystack.make("val", 2, 7, images=3)[1].boxes
    assert reader.boxes(row) == (box,) and box.image in range(3)


@pytest.mark.parametrize(
    ("text", "right"),
    [("B", 1.0), (r"It is \boxed{B}", 1.0), ("(B) right", 1.0), ("right", 1.0), ("A", 0.0), ("A or B", 0.0), ("", 0.0)],
)
def test_answers_of_other_models_are_scored_without_a_trajectory(text: str, right: float) -> None:
    row = {name: value for name, value in MME.items() if name != "bytes"}  # as lmms-eval may hand it over
    metrics = scoring.score(row, [text])
    assert metrics["accuracy"] == metrics["accuracy/Perception"] == right
    assert metrics["accuracy/Perception/OCR with Complex Context"] == right
    assert metrics["answered_rate"] == float(text not in ("", "A or B"))
    assert "valid_box_rate" not in metrics and metrics["skipped"] == 0.0


def test_a_skipped_sample_is_wrong_and_counted() -> None:
    encoded = encode_payload(ResponsePayload("Z", {"run": "r", "trajectory": None, "images": {}, "skipped": "gone"}))
    metrics = scoring.score(MME, [encoded])
    assert (metrics["accuracy"], metrics["answered_rate"], metrics["skipped"]) == (0.0, 0.0, 1.0)


def test_other_models_are_asked_for_a_letter() -> None:
    asked = scoring.prompt(HR)
    assert asked == "What?\n(A) x (A)\n(B) y\nAnswer with the option's letter from the given choices directly."
    assert scoring.target(HR) == "A"


def test_every_reader_is_known_by_columns_of_its_own() -> None:
    for reader in READERS:
        assert find_reader(reader.columns) is reader


def test_means_and_intervals_of_scores() -> None:
    values = [1.0] * 8 + [0.0] * 2
    assert scoring.mean(values) == 0.8 and scoring.total(values) == 8.0
    assert scoring.low(values) == pytest.approx(0.4902, abs=1e-4)  # Wilson, 8 of 10
    assert scoring.high(values) == pytest.approx(0.9433, abs=1e-4)


def test_a_hit_needs_the_right_image() -> None:
    from dataclasses import replace

    from mgpo_core.episodes.trajectory import Trajectory, Turn

    row = haystack_rows("val", 1, 7, 3)[0]
    [true] = haystack.make("val", 1, 7, images=3)[0].boxes

    def played(box: Box) -> dict[str, Any]:
        trajectory = Trajectory(
            question=row["question"],
            choices=tuple(row["choices"]),
            sources=(),
            turns=[Turn("", box=box, box_original=box), Turn(r"\boxed{A}")],
            original_sizes=((1344, 1344),) * 3,
            input_sizes=((168, 168),) * 3,
        )
        record = {"run": "r", "trajectory": trajectory.to_dict(), "images": {}}
        return scoring.score(row, [encode_payload(ResponsePayload("A", record))])

    assert played(true)["hit_rate"] == played(true)["image_accuracy"] == 1.0
    elsewhere = played(replace(true, image=(true.image + 1) % 3))
    assert elsewhere["hit_rate"] == elsewhere["image_accuracy"] == elsewhere["mean_iou"] == 0.0
