"""What became of each set: the solution that is kept, or the texts that were not, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mgpo_core.annotations import AnnotatedSet
from mgpo_core.boxes import CoordinateSpace
from mgpo_core.budget import PixelBudget
from mgpo_core.multi_image import MultiImage, solution_text
from mgpo_core.regions import Solution
from mgpo_train.trajectories.problems import Problem
from mgpo_train.trajectories.replay import replay
from mgpo_train.trajectories.rule_writer import write_solution
from mgpo_train.trajectories.teacher_reply import read_solution
from mgpo_train.trajectories.teacher_writer import Teacher
from mgpo_train.trajectories.verifier import verify, verify_solution

__all__ = ["Attempt", "Outcome", "Verification", "rule_outcomes", "teacher_outcomes"]


@dataclass(frozen=True)
class Verification:
    """How trajectories are verified: as a model sees and writes them."""

    budget: PixelBudget
    space: CoordinateSpace
    min_iou: float

    def of_text(self, annotated: AnnotatedSet, text: str, vocabulary: Collection[str]) -> list[Problem]:
        """What is wrong with a response."""
        return verify(
            annotated, text, budget=self.budget, space=self.space, min_iou=self.min_iou, vocabulary=vocabulary
        )

    def of_solution(self, annotated: AnnotatedSet, solution: Solution) -> list[Problem]:
        """What is wrong with a solution."""
        return verify_solution(annotated, solution, budget=self.budget, space=self.space, min_iou=self.min_iou)


@dataclass(frozen=True)
class Attempt:
    """A text that was not kept, and what is wrong with it."""

    text: str
    problems: Sequence[Problem]


@dataclass
class Outcome:
    """One set with its solution, or without one, and the attempts that failed before."""

    annotated: AnnotatedSet
    solution: Solution | None = None
    failed: list[Attempt] = field(default_factory=list)


def rule_outcomes(
    sets: Iterable[AnnotatedSet], verification: Verification, *, wording: str, seed: int
) -> Iterator[Outcome]:
    """Each set with the solution that the rules write, if it passes."""
    for annotated in sets:
        solution = write_solution(annotated, wording=wording, seed=seed)
        problems = verification.of_solution(annotated, solution)
        if not problems:
            yield Outcome(annotated, solution)
            continue
        episode = replay(annotated, budget=verification.budget, space=verification.space, template=MultiImage())
        yield Outcome(annotated, failed=[Attempt(solution_text(solution, episode.view), problems)])


def teacher_outcomes(
    sets: Sequence[AnnotatedSet], verification: Verification, teacher: Teacher, *, attempts: int, progress: bool = False
) -> list[Outcome]:
    """Each set with the first of a teacher's replies that passes; those that fail are asked again."""
    vocabulary = {item.label for one in sets for item in one.objects}
    outcomes = [Outcome(annotated) for annotated in sets]
    for attempt in range(attempts):
        open_ones = [outcome for outcome in outcomes if outcome.solution is None]
        replies = teacher.ask([outcome.annotated for outcome in open_ones], attempt, progress=progress)
        for outcome, reply in zip(open_ones, replies, strict=True):
            _take(outcome, reply.text, verification, vocabulary)
    return outcomes


def _take(outcome: Outcome, text: str, verification: Verification, vocabulary: Collection[str]) -> None:
    annotated = outcome.annotated
    problems = verification.of_text(annotated, text, vocabulary)
    if not problems:
        episode = replay(annotated, budget=verification.budget, space=verification.space, template=MultiImage())
        solution = read_solution(annotated, text, episode.view, verification.min_iou)
        problems = verification.of_solution(annotated, solution)
        outcome.solution = None if problems else solution
    if problems:
        outcome.failed.append(Attempt(text, problems))
