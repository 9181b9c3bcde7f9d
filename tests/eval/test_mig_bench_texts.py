"""MIG-Bench: what questions ask and answers say, in every notation that models and the benchmark use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from mig_fixture import EMBEDDED, RECORDS, generate, wide

from mgpo_core import Box
from mgpo_core.boxes.regions import REGION
from mgpo_eval.mig_bench import Record, mark_boxes, published_prompt, read_answer, score
from mgpo_eval.mig_bench.mentions import find_mentions


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("the first image and the Second Image", [0, 1]),
        ("the 1th image, 2th image, 3rd picture, 4 th photo", [0, 1, 2, 3]),
        ("Image-2's table, image 3, Image4, IMAGE #5, image no. 6, image number 7", [1, 2, 3, 4, 5, 6]),
        ("TENTH image, twelfth frame, 10th image", [9, 11, 9]),
        ("these two images, the image, 3 images, the 90th percentile, image(12,3)", []),
        ("image 0", [-1]),
    ],
)
def test_images_are_named_in_words_and_in_numbers(text, places):
    assert [mention.image for mention in find_mentions(text)] == places


@pytest.mark.parametrize("word", ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"])
def test_every_ordinal_names_its_image(word):
    row = {"task": "common_object", "images": ["a"] * 10, "answer": [0, 0, 1, 1]}
    place = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"].index(word)
    for question in (f"First image? No: the {word} image.", f"In the {word.upper()} picture", f"image {place + 1}"):
        assert Record.from_row(row | {"question": question}).target == place


def test_a_record_of_one_image_needs_no_name_for_it():
    row = {"task": "multi_view", "images": ["a.png"], "question": "Where?", "answer": [0, 0, 1, 1]}
    assert Record.from_row(row).target == 0
    assert score(Record.from_row(row), "(0,0),(9,9)").image_accuracy is None


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.task}-{record.index}")
def test_the_published_prompt_has_the_format_the_record_needs(record):
    asked = published_prompt(record)
    assert asked.startswith(record.question.strip())
    rest = asked.removeprefix(record.question.strip())
    assert ("<|box_start|>(x1,y1),(x2,y2)<|box_end|>" in rest) == record.need_format
    assert record.need_format or not rest


@pytest.mark.parametrize("space", ["absolute", "0-1000"])
def test_boxes_in_questions_use_the_model_s_coordinates(space):
    # (record, the box inside its question, the image it lies on)
    embedded = [
        (4, (570, 481, 690, 706), 0),
        (5, (93, 222, 750, 663), 0),
        (6, (439, 57, 689, 999), 0),
        (7, (100, 200, 300, 400), 1),
    ]
    assert len(embedded) == EMBEDDED
    for index, box, image in embedded:
        record = RECORDS[index]
        text, boxes = mark_boxes(record)
        assert text.count(REGION) == 1 and boxes == (Box(*(value / 1000 for value in box), image),)
        regions = tuple(box.scaled(*wide(record)[box.image]) for box in boxes)
        trajectory = generate(record, "", space, question=text, regions=regions)
        width, height = trajectory.input_sizes[image] if space == "absolute" else (1000, 1000)
        numbers = [round(value * side / 1000) for value, side in zip(box, (width, height) * 2, strict=True)]
        assert str(numbers) in trajectory.question and "box_start" not in trajectory.question
        assert published_prompt(record).startswith(record.question.strip())
    assert sum(len(mark_boxes(record)[1]) for record in RECORDS) == EMBEDDED
    assert all(mark_boxes(record)[0] == record.question.strip() for record in RECORDS if not mark_boxes(record)[1])


@pytest.mark.parametrize(
    ("question", "image", "rewritten"),
    [
        ("(1,2),(30,40) is in the first picture. Find it in the 3rd image.", 0, 1),
        ("In the second image at <|box_start|>( 1, 2 ), (30, 40)<|box_end|>. Find it in the 3rd image.", 1, 1),
        ("Find in the third image what is at [1,2,30,40]. It is the third image.", 0, 1),
        ("In image 9 at [1, 2, 30, 40]. Find it in the third image.", 0, 1),
        ("Of [1, 2, 3000, 40] and [1, 2], find it in the third image.", None, 0),
        ("On (1, 2) and (3, 4), find it in the third image.", None, 0),
    ],
)
def test_a_box_lies_on_the_image_named_before_it_or_on_the_first(question, image, rewritten):
    row = {"task": "object_tracking", "images": ["a", "b", "c"], "question": question, "answer": [0, 0, 1, 1]}
    text, boxes = mark_boxes(Record.from_row(row))
    assert len(boxes) == text.count(REGION) == rewritten
    if image is None:
        assert text == question
    else:
        assert boxes == (Box(0.001, 0.002, 0.03, 0.04, image),)


def test_the_corners_of_a_box_in_a_question_are_put_in_order():
    row = {"task": "diff", "images": ["a", "b"], "question": "It was at (30,2),(1,40).", "answer": [0, 0, 1, 1]}
    assert mark_boxes(Record.from_row(row))[1] == (Box(0.001, 0.002, 0.03, 0.04),)


@pytest.mark.parametrize(
    ("text", "box", "named"),
    [
        ("<|box_start|>(316,58),(764,999)<|box_end|>", (316, 58, 764, 999), None),
        ("It's in the third image. (316, 58), (764, 999).", (316, 58, 764, 999), 2),
        ("(316,58)(764,999)", (316, 58, 764, 999), None),
        ("The one of image 1 is in Image-2: [316, 58, 764, 999]", (316, 58, 764, 999), 1),
        ('{"bbox_2d": [316, 58, 764, 999], "image": 2}', (316, 58, 764, 999), 1),
        ('{"bbox_2d": [316, 58, 764, 999], "image": "2"}', (316, 58, 764, 999), 1),
        ('{"bbox_2d": [316, 58, 764, 999], "image": 1}', (316, 58, 764, 999), 0),
        ('{"bbox_2d": [316, 58, 764, 999], "image": 0}', (316, 58, 764, 999), -1),
        ('In image 3: {"bbox_2d": [316, 58, 764, 999]}', (316, 58, 764, 999), 2),
        ('{"bbox_2d": [316, 58, 764, 999]}, in the second picture', (316, 58, 764, 999), 1),
        ("[0.316, 0.058, 0.764, 0.999]", (316, 58, 764, 999), None),
        ("(0.316,0.058),(0.764,0.999)", (316, 58, 764, 999), None),
        ("<think>first image (1,2),(3,4)</think>(316,58),(764,999)", (316, 58, 764, 999), None),
        ("<think>(316,58),(764,999)</think> ", (316, 58, 764, 999), None),
        ("(5,6),(7,8) and (316,58),(764,999)", (5, 6, 7, 8), None),
        ("Of image 1 it is in image 3 at (316,58),(764,999), not in image 2.", (316, 58, 764, 999), 2),
    ],
)
def test_answers_are_read_in_every_usual_notation(text, box, named):
    found = read_answer(text)
    assert found.box is not None and found.box.as_tuple() == pytest.approx(box)
    assert (found.named, found.rejection, found.box.image) == (named, None, 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_json"),
        ("Nowhere.", "no_json"),
        ("<|box_start|>(316,58)<|box_end|>", "not_four_numbers"),
        ('{"bbox_2d": [316, 58, 764]}', "not_four_numbers"),
        ('[{"bbox_2d": [316, 58', "bad_json"),
        ("(764,58),(316,999)", "reversed"),
        ("(316,58),(316,999)", "reversed"),
    ],
)
def test_an_answer_that_cannot_overlap_scores_zero_and_keeps_its_reason(text, reason):
    found = score(RECORDS[10], text)
    assert (found.iou, found.rejection) == (0.0, reason)


@pytest.mark.parametrize("text", ["(1,2)" + " " * 60_000, "{" + "bbox " * 20_000, "image " * 20_000, "(" * 60_000])
def test_long_answers_are_read_to_their_end(text):
    # in a second; a pattern that backtracks takes hours, and runs into pytest's limit
    assert read_answer(text).box is None
