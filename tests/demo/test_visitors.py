"""Visitors are apart from each other, and what is theirs goes when they go."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgpo_core import Box, haystack
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import Stopped
from mgpo_demo.session.image import DemoImage, keep_image
from mgpo_demo.session.limits import DemoError, Limits
from mgpo_demo.session.steps import Question, Step
from mgpo_demo.session.visitors import Visitor, Visitors

STEP = Step("model", Trajectory())


def example(folder: Path) -> DemoImage:
    return keep_image(haystack.make("val", 1, 0)[0].images[0], "example", folder)


def test_each_page_has_its_own_visitor_and_private_folder() -> None:
    visitors = Visitors(Limits())
    anna, bert = visitors.of("anna"), visitors.of("bert")
    assert anna is visitors.of("anna") and anna is not bert
    assert anna.folder != bert.folder and anna.folder.stat().st_mode & 0o077 == 0
    visitors.close()


def test_a_call_from_no_page_is_refused() -> None:
    with pytest.raises(DemoError, match="no page"):
        Visitors(Limits()).of(None)


def test_files_go_with_the_visitor_and_with_the_image() -> None:
    visitors = Visitors(Limits())
    anna = visitors.of("anna")
    first = anna.show(example)
    assert first.path.is_file()
    second = anna.show(example)
    assert second.path.is_file() and not first.path.exists()
    stop = anna.start()
    visitors.leave("anna")
    assert not second.path.exists() and stop.due and len(visitors) == 0
    visitors.leave("anna")


def test_the_longest_idle_gives_way_and_never_the_one_who_asks() -> None:
    visitors = Visitors(Limits(visitors=3))
    known = {name: visitors.of(name) for name in ("a", "b", "c")}
    assert visitors.of("a") is known["a"]  # though it was the oldest and the place is full
    folder = known["b"].folder
    visitors.of("d")
    assert len(visitors) == 3 and not folder.exists()
    assert visitors.of("a") is known["a"] and visitors.of("c") is known["c"]
    assert visitors.of("b") is not known["b"]
    visitors.close()


def test_whoever_was_idle_too_long_is_forgotten_when_somebody_comes() -> None:
    visitors = Visitors(Limits(), idle_seconds=0.0)
    folder = visitors.of("a").folder
    visitors.of("b")
    assert not folder.exists() and len(visitors) == 1
    visitors.close()


def test_an_image_that_cannot_be_taken_leaves_everything_as_it_was() -> None:
    visitor = Visitor(Limits())
    image = visitor.show(example)
    stop = visitor.start()
    visitor.add(STEP, stop)

    def fails(folder: Path) -> DemoImage:
        raise DemoError("no")

    with pytest.raises(DemoError):
        visitor.show(fails)
    assert visitor.image is image and image.path.is_file() and visitor.steps == [STEP] and not stop.due
    visitor.close()


def test_a_run_that_ends_after_another_image_was_chosen_leaves_no_look_there() -> None:
    visitor = Visitor(Limits())
    visitor.show(example)
    stop = visitor.start()
    visitor.show(example)
    with pytest.raises(Stopped):
        visitor.add(STEP, stop)
    again = visitor.start()
    with pytest.raises(Stopped):
        visitor.add(STEP, stop)
    assert visitor.steps == []
    visitor.add(STEP, again)
    visitor.close()


def test_history_is_bounded_and_undone_in_order() -> None:
    visitor = Visitor(Limits(looks=2))
    with pytest.raises(DemoError, match="nothing to undo"):
        visitor.undo()
    steps = [STEP, Step("person", Trajectory())]
    for step in steps:
        visitor.check_room()
        visitor.add(step, visitor.stop)
    with pytest.raises(DemoError, match="2 steps"):
        visitor.check_room()
    visitor.undo()
    assert visitor.step is STEP
    with pytest.raises(DemoError, match="nothing to undo"):
        visitor.undo()
    visitor.close()


def test_an_examples_own_question_keeps_its_answer_and_another_has_none() -> None:
    visitor = Visitor(Limits())
    known = Question("Which?", ("red", "blue"), "A", (Box(0, 0, 9, 9),))
    visitor.show(example, known)
    assert visitor.asked("Which?", ("red", "blue")) is known
    assert visitor.asked("Which?", ()) == Question("Which?")
    visitor.show(example)
    assert visitor.asked("Which?", ("red", "blue")) == Question("Which?", ("red", "blue"))
    visitor.close()
