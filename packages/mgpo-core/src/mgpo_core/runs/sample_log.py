"""lmms-eval's sample log of one task: a line per sample, read into scores; trajectories stay in the file.

A log of thousands of trajectories would fill the memory with text that a report shows a part of, so a sample keeps the
place of its line, and `read_sample` reads it again. Checked against lmms-eval 0.7.3
(`EvaluationTracker.save_results_samples`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.files.json_lines import MALFORMED_RECORD, json_at, numbered_lines, reason
from mgpo_core.runs.logged_scores import (
    GROUNDING,
    main_score,
    read_categories,
    read_cluster,
    read_scores,
    repeated_scores,
    verdict,
)
from mgpo_core.runs.response_payload import ResponsePayload, decode_payload

__all__ = ["SampleResult", "TaskResult", "clusters_of", "in_order", "read_sample", "read_task"]


@dataclass(frozen=True)
class SampleResult:
    """One line of a sample log, without its trajectory."""

    doc_id: int | str
    ground_truth: str
    scores: Mapping[str, float]
    "As logged, and from the trajectory those grounding metrics that were not."
    categories: tuple[tuple[str, str], ...]
    'As (kind, category), for example ("sub_category", "Monitoring").'
    file: Path
    offset: int
    "Where in the file its line begins, in bytes."
    run_id: str | None = None
    played: bool = False
    "Whether the line holds a trajectory that can be read."
    has_images: bool = False
    "Whether images were kept for it."
    refused: bool = False
    "Whether the trajectory's box, its answer or where it looked, was refused."
    skipped: str | None = None
    "Why the sample could not be run; it is scored all the same, as lmms-eval does."
    cluster: str | None = None
    "Names the question that it asks, where the task repeats questions; None where it asks its own."
    responses: int = 1
    "How many responses were logged for it; the first is read."

    @property
    def hit(self) -> bool | None:
        """Whether the box contains the centre of a true one; None where the line does not say."""
        return verdict(self.scores.get("hit_rate"))


@dataclass
class TaskResult:
    """One task as a run has it."""

    name: str
    file: Path
    samples: dict[int | str, SampleResult] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    "What could not be read, one text each: file, line number, reason."
    repeated: int = 0
    "Lines whose document had one already (a task with several filters); the first counts."
    reported: Mapping[str, Any] = field(default_factory=dict)
    "lmms-eval's own averages, `metric,filter` -> value; empty without a results file."
    lower_is_better: frozenset[str] = frozenset()

    @cached_property
    def main(self) -> str | None:
        """The score that says whether a sample is right."""
        return main_score((sample.scores for sample in self.samples.values()), self.lower_is_better)

    @cached_property
    def score_names(self) -> list[str]:
        """Every score that some sample has: the main one, then others in the log's order, then those of grounding."""
        names = dict.fromkeys(name for sample in self.samples.values() for name in sample.scores)
        return in_order(names, {self.main})

    @cached_property
    def categories(self) -> list[tuple[str, str]]:
        """Every (kind, category) that some sample has, sorted."""
        return sorted(self._by_category)

    def of(self, category: tuple[str, str] | None) -> list[SampleResult]:
        """The samples of a (kind, category), or all."""
        return list(self.samples.values()) if category is None else self._by_category.get(category, [])

    @cached_property
    def _by_category(self) -> dict[tuple[str, str], list[SampleResult]]:
        found: dict[tuple[str, str], list[SampleResult]] = {}
        for sample in self.samples.values():
            for category in sample.categories:
                found.setdefault(category, []).append(sample)
        return found

    def right(self, sample: SampleResult) -> bool | None:
        """What the task's scorer says of the sample; None between right and wrong, or without a score."""
        return None if self.main is None else verdict(sample.scores.get(self.main))


def clusters_of(samples: Sequence[SampleResult]) -> list[Hashable] | None:
    """The cluster of each sample, for `mgpo_core.episodes.metrics`; None where no task of theirs repeats questions."""
    if all(sample.cluster is None for sample in samples):
        return None
    return [("row", sample.doc_id) if sample.cluster is None else sample.cluster for sample in samples]


def in_order(names: Iterable[str], mains: Collection[str | None]) -> list[str]:
    """Names of scores with the main ones first and those of grounding last, in the order of `GROUNDING`."""
    order = {name: place for place, name in enumerate(GROUNDING)}
    return sorted(names, key=lambda name: (name not in mains, order.get(name, -1)))


def read_task(name: str, path: Path, report: Mapping[str, Any]) -> TaskResult:
    """Read a task's log; `report` is the content of the results file beside it, empty where there is none.

    A line that cannot be read is left out and named in `broken`; so is a trajectory that cannot, but its sample counts.
    """
    higher = (report.get("higher_is_better") or {}).get(name) or {}
    lower = frozenset(metric for metric, better in higher.items() if better is False)
    task = TaskResult(name, path, reported=(report.get("results") or {}).get(name) or {}, lower_is_better=lower)
    seen: Counter[tuple[str, ...]] = Counter()
    for number, offset, raw in numbered_lines(path):
        try:
            line = json.loads(raw)
            sample, problem = _sample(line, path, offset, higher, seen)
        except MALFORMED_RECORD as error:
            task.broken.append(f"{path.name}, line {number}: {reason(error)}; left out")
            continue
        if problem is not None:
            task.broken.append(f"{path.name}, line {number}: {reason(problem)}; scored, its trajectory is not shown")
        if sample.doc_id in task.samples:
            task.repeated += 1
        else:
            task.samples[sample.doc_id] = sample
    again = repeated_scores(sample.scores for sample in task.samples.values())
    for doc_id, sample in task.samples.items():
        kept = {score: value for score, value in sample.scores.items() if score not in again}
        task.samples[doc_id] = replace(sample, scores=kept)
    return task


def read_sample(sample: SampleResult) -> tuple[dict[str, Any], ResponsePayload]:
    """The sample's line and its envelope, read from its file again."""
    line = json_at(sample.file, sample.offset)
    return line, decode_payload(_responses(line)[0])


def _sample(
    line: Mapping[str, Any],
    path: Path,
    offset: int,
    metrics: Mapping[str, Any],
    seen: Counter[tuple[str, ...]],
) -> tuple[SampleResult, Exception | None]:
    """The sample of a line, and what was wrong with its trajectory."""
    doc_id, responses = line["doc_id"], _responses(line)
    if not isinstance(doc_id, (int, str)):
        raise ValueError(f"doc_id {doc_id!r} is neither a number nor a text")
    payload, trajectory, problem = ResponsePayload(""), None, None
    try:
        payload = decode_payload(responses[0])
        trajectory = payload.trajectory()
    except MALFORMED_RECORD as error:
        problem = error
    turn = None if trajectory is None else trajectory.judged_turn
    sample = SampleResult(
        doc_id=doc_id,
        ground_truth=str(line.get("target", "")),
        scores=_grounding(trajectory) | read_scores(line, metrics),
        categories=read_categories(line),
        file=path,
        offset=offset,
        run_id=_run_id(payload),
        played=trajectory is not None,
        has_images=bool(payload.kept_images),
        refused=turn is not None and turn.rejection is not None,
        skipped=payload.skipped,
        cluster=read_cluster(line, seen),
        responses=len(responses),
    )
    return sample, problem


def _run_id(payload: ResponsePayload) -> str | None:
    named = None if payload.record is None else payload.record.get("run")
    return named if isinstance(named, str) else None


def _grounding(trajectory: Trajectory | None) -> dict[str, float]:
    """What the trajectory itself says of where the model looked, the ground truth not known."""
    metrics = {} if trajectory is None else trajectory.metrics()
    return {name: metrics[name] for name in GROUNDING if name in metrics}


def _responses(line: Mapping[str, Any]) -> list[str]:
    """A line's responses as they came from the model; lmms-eval leaves `resps` out where filters changed nothing."""
    found = line["resps"] if "resps" in line else line["filtered_resps"]
    while isinstance(found, list) and len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    texts = found if isinstance(found, list) else [found]
    return [text if isinstance(text, str) else json.dumps(text) for text in texts] or [""]
