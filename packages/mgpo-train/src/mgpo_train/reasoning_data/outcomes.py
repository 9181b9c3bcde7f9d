"""What became of each set: the solution that is kept, or the texts that were dropped, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mgpo_core.boxes.regions import WorkedSolution
from mgpo_core.samples.annotations import AnnotatedSet
from mgpo_train.reasoning_data.teacher.client import Teacher
from mgpo_train.reasoning_data.teacher.reply import ReplyError, read_reply
from mgpo_train.reasoning_data.verifier import Problem, Verifier
from mgpo_train.reasoning_data.writers import write_trace

__all__ = ["Attempt", "Outcome", "rule_outcomes", "teacher_outcomes"]


@dataclass(frozen=True)
class Attempt:
    """A text that was not kept, and what is wrong with it."""

    text: str
    problems: Sequence[Problem]


@dataclass
class Outcome:
    """A set with its solution, if one was kept, and the attempts that failed before."""

    annotated: AnnotatedSet
    solution: WorkedSolution | None = None
    failed: list[Attempt] = field(default_factory=list)


def rule_outcomes(sets: Iterable[AnnotatedSet], verifier: Verifier, *, wording: str, seed: int) -> Iterator[Outcome]:
    """Each set with the solution that the rules write, if it passes."""
    for annotated in sets:
        trace = write_trace(annotated, wording=wording, seed=seed)
        problems = verifier.problems(annotated, trace)
        if problems:
            yield Outcome(annotated, failed=[Attempt(verifier.text(annotated, trace), problems)])
        else:
            yield Outcome(annotated, trace.solution)


def teacher_outcomes(
    sets: Sequence[AnnotatedSet], verifier: Verifier, teacher: Teacher, *, attempts: int, progress: bool = False
) -> list[Outcome]:
    """Each set with the first of a teacher's replies that passes; sets whose reply fails are asked again."""
    outcomes = [Outcome(annotated) for annotated in sets]
    for attempt in range(attempts):
        pending = [outcome for outcome in outcomes if outcome.solution is None]
        replies = teacher.ask([outcome.annotated for outcome in pending], attempt, progress=progress)
        for outcome, reply in zip(pending, replies, strict=True):
            _take(outcome, reply.text, verifier)
    return outcomes


def _take(outcome: Outcome, text: str, verifier: Verifier) -> None:
    annotated = outcome.annotated
    try:
        trace = read_reply(annotated, text, verifier.view(annotated))
    except ReplyError as error:
        outcome.failed.append(Attempt(text, [error.problem]))
        return
    problems = verifier.problems(annotated, trace)
    if problems:
        outcome.failed.append(Attempt(text, problems))
    else:
        outcome.solution = trace.solution
