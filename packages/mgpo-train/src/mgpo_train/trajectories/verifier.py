"""Replays a trajectory and holds everything that it says against the annotations.

The text is played through an `Episode`, so that what training reads is what is verified. The paper (arXiv 2509.21788)
does not say how its trajectories were checked: the checks are this project's own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from mgpo_core.annotations import AnnotatedSet
from mgpo_core.boxes import CoordinateSpace
from mgpo_core.budget import PixelBudget
from mgpo_core.episode import Episode
from mgpo_core.multi_image import MultiImage, solution_text
from mgpo_core.regions import Solution, View
from mgpo_core.templates import Template
from mgpo_train.trajectories.checks.course import course_problems
from mgpo_train.trajectories.checks.details import detail_problems
from mgpo_train.trajectories.checks.facts import Facts
from mgpo_train.trajectories.checks.form import answer_problems, form_problems, reasoning_of
from mgpo_train.trajectories.checks.presence import presence_problems
from mgpo_train.trajectories.checks.relations import relation_problems
from mgpo_train.trajectories.language.lexicon import lexicon_of
from mgpo_train.trajectories.language.sentences import Sentence, read_sentences
from mgpo_train.trajectories.problems import Problem, Reason
from mgpo_train.trajectories.replay import replay

__all__ = ["MIN_IOU", "Problem", "Reason", "verify", "verify_solution"]

MIN_IOU = 0.9
"""From which overlap on, in the numbers that the model writes, a box counts as the annotated one."""

_LONGEST = 200
"""So many words and marks a sentence may have: models that go on without end write no full stop."""
_SPEAKS_OF_ANNOTATIONS = re.compile(
    r"\bannotat\w+|\bground[ -]truth\b|\bmetadata\b|\bjson\b"
    r"|\b(?:given|provided|supplied) (?:answer|data|boxes|labels|objects)\b"
)


def verify(
    annotated: AnnotatedSet,
    response_text: str,
    *,
    budget: PixelBudget,
    space: CoordinateSpace,
    template: Template | None = None,
    min_iou: float = MIN_IOU,
    vocabulary: Collection[str] = (),
) -> list[Problem]:
    """Everything that is wrong with a response as a trajectory of the set; nothing: keep it.

    Boxes count as the annotated ones from an overlap of `min_iou` on. `vocabulary`: further labels that the text may
    use, of which the set then has none. What cannot be read as a statement about the annotations is let pass.
    """
    episode = replay(annotated, budget=budget, space=space, template=template or MultiImage())
    return _problems(annotated, response_text, episode, episode.view, min_iou, vocabulary)


def verify_solution(
    annotated: AnnotatedSet,
    solution: Solution,
    *,
    budget: PixelBudget,
    space: CoordinateSpace,
    template: Template | None = None,
    min_iou: float = MIN_IOU,
    vocabulary: Collection[str] = (),
) -> list[Problem]:
    """`verify`, of the response that a solution becomes under this budget and in this space."""
    for box in (solution.box, *solution.regions):
        if not 0 <= box.image < len(annotated.images):
            return [Problem(Reason.NO_SUCH_IMAGE, f"{box} is on none of the {len(annotated.images)} images (from 0)")]
    episode = replay(annotated, budget=budget, space=space, template=template or MultiImage())
    view = episode.view
    return _problems(annotated, solution_text(solution, view), episode, view, min_iou, vocabulary)


def _problems(
    annotated: AnnotatedSet, text: str, episode: Episode, view: View, min_iou: float, vocabulary: Collection[str]
) -> list[Problem]:
    facts = Facts(annotated, view, min_iou)
    problems = [*form_problems(text)]
    episode.observe(text)
    turn = episode.trajectory.answer_turn
    if turn is None:
        problems.append(
            Problem(Reason.NO_ANSWER, f"under {episode.template.name} the episode goes on after {text!r:.80}")
        )
    else:
        problems += answer_problems(turn, facts)
    reasoning = reasoning_of(text)
    if reasoning:
        problems += _reasoning_problems(reasoning, facts, vocabulary)
    return problems


def _reasoning_problems(reasoning: str, facts: Facts, vocabulary: Collection[str]) -> Iterator[Problem]:
    lexicon = lexicon_of(facts.annotated, vocabulary)
    sentences = read_sentences(reasoning, lexicon, facts.count)
    endless = next((sentence for sentence in sentences if len(sentence.tokens) > _LONGEST), None)
    if endless is not None:
        told = f"a sentence of {len(endless.tokens)} words: {str(endless)!r:.120}"
        yield Problem(Reason.RUNS_ON, told)
        return
    for sentence in sentences:
        yield from presence_problems(sentence, facts)
        yield from relation_problems(sentence, facts)
        yield from detail_problems(sentence, facts, lexicon)
        yield from _leaks(sentence)
    yield from course_problems(sentences, facts)


def _leaks(sentence: Sentence) -> Iterator[Problem]:
    if _SPEAKS_OF_ANNOTATIONS.search(sentence.skeleton):
        yield Problem(Reason.SPEAKS_OF_ANNOTATIONS, f"a model that sees only images would not say {str(sentence)!r}")
