"""Two runs beside each other: which samples they share, by how much their scores differ there, whether that is fair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mgpo_core.runs.evaluation_runs import Run
from mgpo_core.runs.sample_log import SampleResult, TaskResult, clusters_of
from mgpo_eval.report.significance import PairedDifference, compare_paired

__all__ = ["Matching", "TaskComparison", "comparability", "compare_runs", "flat_provenance"]

UNFAIR = ("budget", "decoding")
"Settings that give a run an advantage which is not the method's: how many pixels it sees, how it samples."


@dataclass(frozen=True)
class Matching:
    """The samples that two runs of a task share: the same doc_id with the same ground truth."""

    pairs: tuple[tuple[SampleResult, SampleResult], ...]
    only_a: int
    only_b: int
    other_ground_truth: int
    "Samples with the same doc_id and another ground truth: not the same data."


@dataclass(frozen=True)
class TaskComparison:
    """A task that both runs have."""

    task: str
    main: str | None
    matching: Matching
    scores: dict[str, PairedDifference]
    "Of every score that some matched sample has in both runs."
    categories: dict[tuple[str, str], PairedDifference]
    "Of the main score, by (kind, category) as the first run has it."
    lower_is_better: frozenset[str]
    "Scores of which less is better, as the results file of either run says."


def compare_runs(a: Run, b: Run) -> list[TaskComparison]:
    """Every task that both runs have, with at least one sample in common or not, in the first one's order."""
    return [_compare_task(task, b.tasks[name]) for name, task in a.tasks.items() if name in b.tasks]


def _compare_task(a: TaskResult, b: TaskResult) -> TaskComparison:
    matching = match_samples(a, b)
    scores = {name: found for name in a.score_names if (found := _difference(matching.pairs, name)) is not None}
    main = a.main if a.main in scores else None
    categories = {}
    for category in a.categories:
        of_category = tuple(pair for pair in matching.pairs if category in pair[0].categories)
        found = None if main is None else _difference(of_category, main)
        if found is not None:
            categories[category] = found
    return TaskComparison(a.name, main, matching, scores, categories, a.lower_is_better | b.lower_is_better)


def match_samples(a: TaskResult, b: TaskResult) -> Matching:
    """The samples of two runs of a task by doc_id, in the first one's order."""
    shared = [(sample, b.samples[doc_id]) for doc_id, sample in a.samples.items() if doc_id in b.samples]
    pairs = tuple((first, second) for first, second in shared if first.ground_truth == second.ground_truth)
    only_a, only_b = len(a.samples) - len(shared), len(b.samples) - len(shared)
    return Matching(pairs, only_a, only_b, len(shared) - len(pairs))


def _difference(pairs: tuple[tuple[SampleResult, SampleResult], ...], name: str) -> PairedDifference | None:
    both = [(a, b) for a, b in pairs if name in a.scores and name in b.scores]
    if not both:
        return None
    clusters = clusters_of([a if a.cluster is not None else b for a, b in both])
    return compare_paired([a.scores[name] for a, _ in both], [b.scores[name] for _, b in both], clusters)


def comparability(a: Run, b: Run) -> list[str]:
    """What makes comparing two runs unfair, one sentence each; empty where nothing does."""
    unknown = [run.name for run in (a, b) if not run.provenance]
    if unknown:
        return [
            "Whether the comparison is fair is unknown: pixel budget and decoding are not recorded for "
            f"{' and '.join(unknown)}."
        ]
    first, second = flat_provenance(a.provenance), flat_provenance(b.provenance)
    differing = [name for name in first | second if first.get(name) != second.get(name)]
    words = {"budget": "see images at different resolutions", "decoding": "decode differently"}
    found = []
    for part in UNFAIR:
        names = [name for name in differing if name.split(".")[0] == part]
        if names:
            values = "; ".join(
                f"{name} {first.get(name, 'not set')} and {second.get(name, 'not set')}" for name in names
            )
            found.append(f"Not a fair comparison: the runs {words[part]} ({values}).")
    return found


def flat_provenance(provenance: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level, `budget.max_pixels` -> its value as text."""
    flat: dict[str, str] = {}
    for name, value in provenance.items():
        if isinstance(value, Mapping):
            flat |= flat_provenance(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = "none" if value is None else str(value)
    return flat
