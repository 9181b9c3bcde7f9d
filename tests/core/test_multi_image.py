"""Questions over several images: numbered images, a reasoning block, an answer that names image and box."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mgpo_core import Box, CoordinateSpace, Episode, PixelBudget, Sample, SampleError, Trajectory, haystack, parse_boxes
from mgpo_core.boxes.regions import View, WorkedSolution
from mgpo_core.episodes.metrics import aggregate
from mgpo_core.render import write_report
from mgpo_core.templates.base import message_images, message_text
from mgpo_core.templates.multi_image import MultiImage, MultiImageTwoTurn, after_reasoning, has_reasoning, solution_text

BUDGET = PixelBudget(min_pixels=28 * 28, max_pixels=224 * 112)
RED, BLUE = Image.new("RGB", (448, 224), "red"), Image.new("RGB", (224, 448), "blue")  # seen at half their size
SPACES = list(CoordinateSpace)


def sample(**changes: object) -> Sample:
    fields = {"boxes": (Box(40, 80, 120, 240, image=1),), "id": "s"} | changes
    return Sample.of("Where is the cup?", fields.pop("images", [RED, BLUE]), **fields)


def episode(template=None, space=CoordinateSpace.ABSOLUTE, **changes: object) -> Episode:
    return Episode(sample(**changes), template=template or MultiImage(), budget=BUDGET, space=space)


def entry(image: object, box: list[int], label: str = "cup") -> str:
    return f'```json\n[{{"image": {image}, "bbox_2d": {box}, "label": "{label}"}}]\n```'


def test_images_are_numbered_in_order_before_the_question():
    system, user = episode().messages
    assert message_text(system) == "You are a helpful assistant."
    kinds = [part["text"] if part["type"] == "text" else part["image"].size for part in user["content"]]
    assert kinds[:6] == ["Image 1: ", (224, 112), "\n", "Image 2: ", (112, 224), "\n"]
    assert kinds[6].startswith("Question: Where is the cup? Reason within <think></think>")
    assert '"image": N, "bbox_2d": [x1, y1, x2, y2]' in kinds[6]


@pytest.mark.parametrize("space", SPACES)
def test_a_solution_is_read_back_as_its_box_in_the_pixels_of_its_image(space):
    played = episode(space=space)
    solution = WorkedSolution("In image 2 at <region>.", Box(40, 80, 120, 240, 1), "cup", (Box(40, 80, 120, 240, 1),))
    text = solution_text(solution, played.view)
    numbers = [20, 40, 60, 120] if space is CoordinateSpace.ABSOLUTE else [179, 179, 536, 536]
    assert text == f"<think>In image 2 at {numbers}.</think>\n{entry(2, numbers)}"
    played.observe(text)
    trajectory = played.trajectory
    assert trajectory.done and trajectory.answer_turn is trajectory.turns[-1] and trajectory.box_turn is None
    assert trajectory.answer_image == 1 and trajectory.turns[-1].label == "cup"
    assert trajectory.answer_box is not None
    assert trajectory.answer_box.as_tuple() == pytest.approx((40, 80, 120, 240), abs=0.3)
    assert trajectory.metrics() == pytest.approx(
        {
            "accuracy": 1, "image_accuracy": 1, "valid_box_rate": 1, "hit_rate": 1, "answered_rate": 1,
            "mean_iou": trajectory.answer_iou,
        }
    )  # fmt: skip
    assert trajectory.answer_iou > 0.98 and trajectory.correct
    assert trajectory.answer == "image 2: [40, 80, 120, 240]"


def test_the_answer_is_one_for_parse_boxes_too():
    text = entry(2, [1, 2, 3, 4])
    parsed = parse_boxes(text)
    assert (parsed.boxes, parsed.labels, parsed.numbered) == ((Box(1, 2, 3, 4, image=1),), ("cup",), (True,))
    assert parse_boxes('{"bbox_2d": [1, 2, 3, 4], "image": "2"}').boxes == (Box(1, 2, 3, 4, image=1),)
    for other in ("{}", '{"image": "a.png"}', '{"image": true}', '{"image": 1.5}'):
        merged = '{"bbox_2d": [1, 2, 3, 4], ' + other[1:]
        assert parse_boxes(merged.replace(", }", "}")).numbered == (False,), other


@pytest.mark.parametrize(
    ("text", "rejection", "image"),
    [
        ("", "no_json", None),
        ("<think>never ends " + entry(2, [20, 40, 60, 120]), "no_json", None),
        (entry(3, [20, 40, 60, 120]), "outside", None),
        (entry(0, [20, 40, 60, 120]), "outside", None),
        ('[{"bbox_2d": [20, 40, 60, 120]}]', "no_image", None),
        (entry(2, [60, 40, 20, 120]), "reversed", 1),
        (entry(2, [20, 40, 60, 225]), "outside", 1),
        (entry(2, [20, 40, 60, 224]), None, 1),
        (entry(2, [20, 40, 21, 41]), None, 1),
        (entry(2, [20, 40, 60]), "not_four_numbers", None),
    ],
)
def test_says_why_an_answer_is_none(text, rejection, image):
    played = episode()
    played.observe(text)
    turn = played.trajectory.turns[-1]
    assert (turn.rejection, played.trajectory.answer_image) == (rejection, image)
    assert turn.answers and turn.text == text and turn.finish_reason == "stop", "the answer is never cut"
    answered = rejection is None or (rejection == "outside" and image == 1)
    assert (played.trajectory.answer_box is not None) == answered
    assert aggregate([played.trajectory])["rejections"] == ({rejection: 1} if rejection else {})


def test_an_answer_that_reaches_out_of_its_image_still_counts_by_its_overlap():
    played = episode()
    played.observe(entry(2, [20, 40, 60, 240]))
    assert played.trajectory.answer_iou == pytest.approx(80 / 200)
    assert played.trajectory.metrics()["valid_box_rate"] == 0


def test_a_perfect_box_on_the_wrong_image_is_wrong():
    same = sample(images=(RED, RED), boxes=(Box(40, 80, 120, 160, image=1),))
    played = Episode(same, template=MultiImage(), budget=BUDGET)
    assert played.messages
    played.observe(entry(1, [20, 40, 60, 80]))
    found = played.trajectory.metrics()
    assert (found["accuracy"], found["image_accuracy"], found["mean_iou"], found["hit_rate"]) == (0, 0, 0, 0)


def test_the_crop_is_of_its_own_image_and_the_answer_of_the_whole():
    played = episode(MultiImageTwoTurn())
    assert "First say in JSON which part" in message_text(played.messages[1])
    assert played.wants_box
    played.observe("Let me see. " + entry(2, [14, 28, 70, 112]) + " and more")
    first = played.trajectory.turns[0]
    assert first.finish_reason == "cut" and first.text.endswith("```") and not first.answers
    assert first.box_original == Box(28, 56, 140, 224, image=1)
    [follow_up] = played.pending
    assert message_text(follow_up).startswith("This part of image 2, enlarged:\n\nQuestion: Where is the cup? Reason")
    [crop] = message_images([follow_up])
    assert crop.getpixel((5, 5)) == (0, 0, 255) and not played.wants_box
    played.observe("<think>There.</think>\n" + entry(2, [20, 40, 60, 120]))
    trajectory = played.trajectory
    assert trajectory.done and trajectory.answer_iou > 0.98
    assert trajectory.box_turn is first, "where it looked is not where it answered"
    found = trajectory.metrics()
    assert found["crop_area_fraction"] == pytest.approx(112 * 168 / (224 * 448)) and found["valid_box_rate"] == 1


@pytest.mark.parametrize("text", ["no idea", entry(3, [14, 28, 70, 112]), entry(2, [14, 28, 15, 29])])
def test_a_part_that_cannot_be_cut_is_told_and_the_answer_still_asked_for(text):
    played = episode(MultiImageTwoTurn())
    assert played.messages
    played.observe(text)
    [follow_up] = played.pending
    assert message_text(follow_up).startswith("There is no such part to enlarge.\nQuestion: Where is the cup?")
    assert message_images([follow_up]) == []
    played.observe(entry(2, [20, 40, 60, 120]))
    assert played.trajectory.correct and played.trajectory.metrics()["valid_box_rate"] == 0.5


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("template", [MultiImage(), MultiImageTwoTurn()])
def test_regions_of_the_question_are_written_in_the_model_s_numbers(space, template):
    asked = dataclasses.replace(
        sample(), question="What is at <region> of image 1?", regions=(Box(224, 0, 448, 112, image=0),)
    )
    played = Episode(asked, template=template, budget=BUDGET, space=space)
    numbers = "[112, 0, 224, 56]" if space is CoordinateSpace.ABSOLUTE else "[500, 0, 1000, 500]"
    assert f"What is at {numbers} of image 1?" in message_text(played.messages[1])
    assert played.trajectory.question == f"What is at {numbers} of image 1?"
    played.observe("nothing")
    if not played.done:
        assert numbers in message_text(played.pending[0])
    assert "<region>" not in "".join(message_text(message) for message in played.messages)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"regions": (Box(0, 0, 9, 9),)}, "1 regions for 0 <region>"),
        ({"question": "<region>?", "regions": (Box(0, 0, 9, 9), Box(1, 1, 9, 9))}, "2 regions for 1 <region>"),
        ({"question": "<region>?", "regions": (Box(0, 0, 9, 9, image=2),)}, "lies on none of its 2 images"),
        ({"solution": WorkedSolution("x", Box(0, 0, 9, 9, image=5))}, "lies on none of its 2 images"),
    ],
)
def test_regions_and_solutions_that_do_not_fit_their_sample_are_refused(changes, words):
    with pytest.raises(SampleError, match=words):
        dataclasses.replace(sample(), **changes)
    with pytest.raises(SampleError, match="1 regions for 2 <region>"):
        WorkedSolution("<region> and <region>", Box(0, 0, 1, 1), regions=(Box(0, 0, 1, 1),))


def test_a_marker_without_regions_is_text_like_any_other():
    asked = dataclasses.replace(sample(), question="What does <region> mean?")
    assert "What does <region> mean?" in message_text(Episode(asked, template=MultiImage()).messages[1])


@given(
    st.sampled_from(SPACES),
    st.tuples(st.integers(30, 3000), st.integers(30, 3000)),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_written_boxes_are_whole_inside_and_never_empty(space, size, shares):
    x1, x2 = sorted(share * size[0] for share in shares[:2])
    y1, y2 = sorted(share * size[1] for share in shares[2:])
    shown = BUDGET.smart_resize(*size) if max(size) < 190 * min(size) else (28, 28)
    view = View(space, [shown], [size])
    a, b, c, d = view.numbers(Box(x1, y1, x2, y2))
    width, height = shown if space is CoordinateSpace.ABSOLUTE else (1000, 1000)
    assert 0 <= a < c <= width and 0 <= b < d <= height
    assert all(isinstance(value, int) for value in (a, b, c, d))
    for value, exact, extent, full in ((a, x1, width, size[0]), (b, y1, height, size[1])):
        assert abs(value - exact * extent / full) <= 1


@pytest.mark.parametrize(
    ("text", "answer", "reasoned"),
    [
        ("<think>a</think>b", "b", True),
        ("  <think>a</think>b", "b", True),
        ("<think>a</think>b</think>c", "c", True),
        ("<think> </think>b", "b", False),
        ("b", "b", False),
        ("<think>b", "", False),
        ("a</think>b", "b", False),
        ("x <think>a</think>b", "b", False),
    ],
)
def test_what_is_reasoning_and_what_is_the_answer(text, answer, reasoned):
    assert (after_reasoning(text), has_reasoning(text)) == (answer, reasoned)


@pytest.mark.parametrize("template", [MultiImage(), MultiImageTwoTurn()])
def test_a_trajectory_is_the_same_after_saving_and_loading(template, tmp_path):
    played = episode(template)
    assert played.messages
    while not played.done:
        played.observe("<think>There.</think>\n" + entry(2, [20, 40, 60, 120]))
    loaded = Trajectory.load(played.trajectory.save(tmp_path / "t"))
    assert loaded.metrics() == played.trajectory.metrics() and loaded.answer == played.trajectory.answer
    assert loaded.answers_with_box and loaded.turns == played.trajectory.turns
    data = played.trajectory.to_dict()
    del data["answers_with_box"]  # as versions before this one wrote it
    for turn in data["turns"]:
        del turn["answers"]
    old = Trajectory.from_dict(data, {path.name: path for path in (tmp_path / "t").glob("*.png")})
    assert not old.answers_with_box and old.turns[0].box == played.trajectory.turns[0].box


def test_copies_of_an_episode_ask_the_same():
    [asked] = haystack.make_multi("val", 1, tasks="region")
    first, second = Episode(asked, template=MultiImage(), budget=haystack.BUDGET).copies(2)
    assert first.messages == second.messages and first.view == second.view


def test_a_report_shows_the_answered_box_and_every_metric(tmp_path):
    played = episode()
    played.observe("<think>There.</think>\n" + entry(2, [20, 40, 60, 120]))
    page = write_report(tmp_path / "report.html", [played.trajectory], "One").read_text(encoding="utf-8")
    for words in ("Right image", "Mean IoU", "image 2: [40, 80, 120, 240]", "box of turn 1 [40, 80, 120, 240]"):
        assert words in page
