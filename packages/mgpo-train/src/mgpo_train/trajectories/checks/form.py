"""The form of a response: one reasoning, then one answer that names an image and a box, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from mgpo_core.boxes import Rejection, parse_boxes
from mgpo_core.multi_image import THINK, after_reasoning, has_reasoning
from mgpo_core.regions import REGION
from mgpo_core.trajectory import Turn
from mgpo_train.trajectories.checks.facts import Facts
from mgpo_train.trajectories.language.lexicon import folded
from mgpo_train.trajectories.problems import Problem, Reason

__all__ = ["answer_problems", "form_problems", "reasoning_of"]

_REJECTIONS = {
    Rejection.NO_JSON: Reason.NO_ANSWER,
    Rejection.BAD_JSON: Reason.NO_ANSWER,
    Rejection.ANSWERED: Reason.NO_ANSWER,
    Rejection.NOT_FOUR_NUMBERS: Reason.NO_ANSWER,
    Rejection.OTHER_LAYOUT: Reason.NO_ANSWER,
    Rejection.NO_IMAGE: Reason.NO_IMAGE_NUMBER,
    Rejection.REVERSED: Reason.BAD_BOX,
    Rejection.OUTSIDE: Reason.BAD_BOX,
}
_FENCES = ("```json", "```", "[", "{")


def reasoning_of(text: str) -> str:
    """What stands in the reasoning block of a response, "" without one."""
    return text.partition(THINK[0])[2].partition(THINK[1])[0].strip()


def form_problems(text: str) -> Iterator[Problem]:
    """What is wrong with the blocks of a response."""
    opening, closing = (text.count(mark) for mark in THINK)
    if not opening or not closing:
        yield Problem(Reason.NO_REASONING, f"no {' '.join(THINK)} around the reasoning: {text!r:.80}")
    elif opening > 1 or closing > 1:
        yield Problem(Reason.SEVERAL_REASONINGS, f"{opening} {THINK[0]} and {closing} {THINK[1]}")
    elif not text.lstrip().startswith(THINK[0]):
        yield Problem(Reason.TEXT_BEFORE_REASONING, f"the response begins with {text.lstrip()!r:.60}")
    elif not has_reasoning(text):
        yield Problem(Reason.EMPTY_REASONING, "nothing stands in the reasoning block")
    if REGION in text:
        yield Problem(Reason.MARKER_LEFT, f"a {REGION} stands where numbers should")
    yield from _around_the_answer(after_reasoning(text).strip())


def _around_the_answer(answer: str) -> Iterator[Problem]:
    found = parse_boxes(answer)
    if found.end is None:
        return  # that there is none is told by the turn
    rest = answer[found.end :].strip()
    if len(found.boxes) > 1 or parse_boxes(rest).boxes:
        yield Problem(Reason.SEVERAL_ANSWERS, f"more than one box: {answer!r:.120}")
    elif rest or not answer.startswith(_FENCES):
        yield Problem(Reason.TEXT_AROUND_ANSWER, f"beside the reasoning and the answer: {answer!r:.120}")


def answer_problems(turn: Turn, facts: Facts) -> Iterator[Problem]:
    """What is wrong with the answer, as the episode read it."""
    box = turn.box
    if turn.rejection is not None:
        reason = _REJECTIONS[Rejection(turn.rejection)]
        if turn.rejection == Rejection.OUTSIDE and (box is None or box.image >= facts.count):
            reason = Reason.NO_SUCH_IMAGE
        yield Problem(reason, f"the answer was refused ({turn.rejection}): {box or after_reasoning(turn.text)!r:.120}")
    if folded(turn.label or "") != facts.asked and box is not None:
        yield Problem(
            Reason.WRONG_LABEL, f"the answer is labelled {turn.label!r}, not {facts.annotated.answer.label!r}"
        )
    if turn.rejection is not None or box is None:
        return
    if box.image != facts.target:
        yield Problem(Reason.WRONG_IMAGE, f"the answer is in image {box.image + 1}, not in image {facts.target + 1}")
    elif not facts.is_box(box.as_tuple(), facts.annotated.answer.box):
        true = facts.view.numbers(facts.annotated.answer.box)
        yield Problem(Reason.WRONG_BOX, f"the answer is {list(box.as_tuple())}, the object is at {true}")
