"""Looks: a person's box goes the same way as the model's, and boxes of a part are found on the whole image."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hostile_text import assert_shown_as_text, poisoned
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mgpo_core import Box, Episode, crop, parse_boxes
from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.boxes.regions import View
from mgpo_core.episodes.trajectory import Tokens
from mgpo_core.templates.base import message_images, message_text
from mgpo_demo.page import views
from mgpo_demo.session.limits import DemoError
from mgpo_demo.session.steps import Question, Step, answer_from_box, box_text, closer_look, first_look, whole
from mgpo_demo.session.stream import StopSignal, stream

sys.path.insert(0, str(Path(__file__).parent))
from scripted_model import BUDGET, image_of, noise, scripted

QUESTION = Question("Which?", ("red", "blue"))


def generate(model, episode: Episode) -> Episode:
    for _ in stream(model, {"look": episode}, StopSignal(60)):
        pass
    return episode


@pytest.mark.parametrize("space", list(CoordinateSpace))
@pytest.mark.parametrize("size", [(1000, 750), (750, 1000), (160, 120)])
def test_a_persons_box_is_cut_as_the_same_box_of_the_models_is(space, size, tmp_path: Path) -> None:
    image, model = noise(*size), scripted()
    model.space = space
    demo_image = image_of(image, tmp_path)
    mine = Box(size[0] * 0.3, size[1] * 0.25, size[0] * 0.72, size[1] * 0.8)
    episode = generate(model, answer_from_box(model, demo_image, QUESTION, mine))
    shown = BUDGET.smart_resize(*size)
    extent = shown if space is CoordinateSpace.ABSOLUTE else (1000, 1000)
    numbers = [
        round(value * extent[side] / size[side]) for value, side in zip(mine.as_tuple(), (0, 1, 0, 1), strict=True)
    ]
    expected = crop(image, Box(*numbers), budget=BUDGET, space=space, rules=model.settings.rules)
    assert expected.image is not None
    trajectory = episode.trajectory
    assert trajectory.box_original == expected.box_original
    assert message_images(trajectory.messages)[-1].tobytes() == expected.image.tobytes()
    assert len(trajectory.turns) == 2 and trajectory.answer == "B"
    # the grid of what the model sees is as fine as that: the box is the person's, to a step of it
    for was, now, side in zip(mine.as_tuple(), trajectory.box_original.as_tuple(), (0, 1, 0, 1), strict=True):
        assert abs(was - now) <= size[side] / extent[side] + 1


@given(
    size=st.tuples(st.integers(30, 3000), st.integers(30, 3000)),
    shares=st.tuples(*[st.floats(0, 1)] * 4),
    space=st.sampled_from(list(CoordinateSpace)),
)
def test_what_is_written_for_a_box_is_read_as_that_box(size, shares, space) -> None:
    (x1, x2), (y1, y2) = sorted(shares[:2]), sorted(shares[2:])
    box = Box(x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1])
    view = View(space, (BUDGET.smart_resize(*size),), (size,))
    for strict in (False, True):
        result = parse_boxes(box_text(box, view), strict=strict)
        assert [list(found.as_tuple()) for found in result.boxes] == [view.numbers(box)]


@pytest.mark.parametrize(
    ("box", "said"), [(Box(10, 10, 30, 400), "too small: make each side longer than"), (Box(0, 0, 1, 1), "too small")]
)
def test_a_box_that_the_rules_refuse_is_told_what_to_do(box: Box, said: str, tmp_path: Path) -> None:
    model = scripted()
    with pytest.raises(DemoError, match=said):
        answer_from_box(model, image_of(noise(1000, 750), tmp_path), QUESTION, box)


def test_the_least_side_that_is_told_is_taken(tmp_path: Path) -> None:
    model, demo_image = scripted(), image_of(noise(1000, 750), tmp_path)
    with pytest.raises(DemoError) as told:
        answer_from_box(model, demo_image, QUESTION, Box(0, 0, 40, 40))
    side = int("".join(filter(str.isdigit, str(told.value))))
    step = 1000 / BUDGET.smart_resize(1000, 750)[0]
    assert answer_from_box(model, demo_image, QUESTION, Box(0, 0, side + step, side + step)).turn == 1


def test_a_closer_looks_box_lies_on_the_whole_original_where_its_pixels_are(tmp_path: Path) -> None:
    image, model = noise(1000, 800), scripted()
    demo_image = image_of(image, tmp_path)
    episode, area = closer_look(model, demo_image, QUESTION, Box(300.4, 199.6, 700.2, 600.5), tmp_path)
    assert area == Box(300, 200, 700, 601)
    generate(model, episode)
    step = Step("closer", episode.trajectory, area)
    assert step.box is not None and step.box != episode.trajectory.box_original
    corners = tuple(int(value) for value in step.box.as_tuple())
    assert area.x1 <= corners[0] < corners[2] <= area.x2 and area.y1 <= corners[1] < corners[3] <= area.y2
    shown = message_images(episode.trajectory.messages)[-1]
    assert shown.tobytes() == BUDGET.resize(image.crop(corners)).tobytes()


def test_a_part_without_enough_pixels_is_refused(tmp_path: Path) -> None:
    model = scripted()
    with pytest.raises(DemoError, match=r"nothing to look closer at: the box is 27×400 pixels"):
        closer_look(model, image_of(noise(1000, 750), tmp_path), QUESTION, Box(10, 10, 37, 410), tmp_path)


def test_boxes_of_a_part_are_moved_and_those_of_the_whole_are_not() -> None:
    assert whole(Box(1, 2, 3, 4), Box(10, 20, 90, 90)) == Box(11, 22, 13, 24)
    assert whole(Box(1, 2, 3, 4), None) == Box(1, 2, 3, 4)
    assert whole(None, Box(10, 20, 90, 90)) is None


def test_first_look_plays_both_ways_over_the_same_image(tmp_path: Path) -> None:
    model = scripted()
    boxes = (Box(0, 0, 100, 100),)
    played = first_look(model, image_of(noise(400, 300), tmp_path), Question("Which?", ("red", "blue"), "B", boxes))
    for _ in stream(model, played, StopSignal(60)):
        pass
    look, single_turn = played["look"].trajectory, played["single_turn"].trajectory
    assert (len(look.turns), len(single_turn.turns)) == (2, 1) and look.correct and single_turn.correct
    assert look.true_boxes == boxes
    assert Image.open(look.sources[0]).size == (400, 300)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "named"),
    [(0, ""), (2, " (A, B, C, D, or E)"), (5, " (A, B, C, D, or E)"), (7, " (A, B, C, D, E, F, or G)")],
)
def test_the_prompts_name_the_letters_that_there_are(count: int, named: str, tmp_path: Path) -> None:
    asked = Question("Which?", tuple(f"thing {index}" for index in range(count)))
    played = first_look(scripted(), image_of(noise(400, 300), tmp_path), asked)
    for episode, times in ((played["look"], 2), (played["single_turn"], 1)):
        if times == 2:
            episode.observe("I do not know.")
        said = "\n".join(map(message_text, episode.messages))
        assert said.count("provide the final answer") == times
        assert said.count(f"provide the final answer{named} enclosed") == times


def test_an_answer_instead_of_a_box_is_told_in_words(tmp_path: Path) -> None:
    episode = first_look(scripted(), image_of(noise(400, 300), tmp_path), QUESTION)["look"]
    episode.observe(r"It is red: \boxed{A}")
    assert "No crop (answered instead of giving a box)" in views.crop(episode.trajectory)
    assert "answered instead of giving a box" in views.said(1, "", episode.trajectory.turns[0])


def test_hostile_text_in_any_part_of_the_page_stays_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = scripted()
    played = first_look(model, image_of(noise(400, 300), tmp_path), QUESTION)
    for _ in stream(model, played, StopSignal(60)):
        pass
    look, single_turn = played["look"].trajectory, played["single_turn"].trajectory
    look.tokens = Tokens(ids=[1], mask=[1], texts=["a"])
    steps = [
        Step("model", look, others=(("a", look),), confidence={"A": 0.5}),
        Step("closer", single_turn, Box(0, 0, 9, 9)),
    ]
    made = views._html
    monkeypatch.setattr(views, "_html", lambda macro, *values: made(macro, *poisoned(values)))
    for html in (
        views.note("a"), views.problems(["a"]), views.said(1, "", look.turns[0]), views.crop(look),
        views.waiting("model"), views.answer(look, "model"), views.single_turn("a", single_turn),
        views.others(steps[0].others),
        views.history(steps), views.explanation(steps[0], 28), views.explanation(steps[1], 28),
        views.cards_frame("a", 1, 1),
    ):  # fmt: skip
        assert_shown_as_text(html, handlers={"onload"})
