"""Which trajectories a report shows, and which of their cards are side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mgpo_core.render.card import Card
from mgpo_core.render.page import Row
from mgpo_core.runs.evaluation_runs import Run
from mgpo_core.runs.sample_card import category_facts, has_card, sample_card
from mgpo_core.runs.sample_log import SampleResult, TaskResult

__all__ = ["KINDS", "GallerySample", "choose_samples", "gallery_items", "gallery_note", "gallery_samples"]

_KIND_WORDS = {
    "changed": "changed between runs",
    "wrong": "wrong",
    "refused": "invalid box",
    "missed": "box missed",
    "right": "right",
}
KINDS = tuple(_KIND_WORDS)
"What a page filters by, in the order in which samples are chosen for it."


@dataclass(frozen=True)
class GallerySample:
    """One sample as every run has it that was asked it: those of one task with the same doc_id and ground truth."""

    task: str
    doc_id: int | str
    entries: tuple[tuple[str, Run, SampleResult], ...]
    "(short name of the run, the run, its result)."

    @cached_property
    def verdicts(self) -> tuple[tuple[str, bool | None], ...]:
        """(short name of the run, right or wrong), as the task's scorer says."""
        return tuple((short, run.tasks[self.task].right(result)) for short, run, result in self.entries)

    @cached_property
    def flags(self) -> dict[str, bool]:
        """By kind, whether the sample is of it: in any of the runs that have something to show."""
        shown = [
            (verdict, result)
            for (_, verdict), (_, _, result) in zip(self.verdicts, self.entries, strict=True)
            if has_card(result)
        ]
        return {
            "changed": len({verdict for _, verdict in self.verdicts if verdict is not None}) > 1,
            "wrong": any(verdict is False for verdict, _ in shown),
            "refused": any(result.refused for _, result in shown),
            "missed": any(result.hit is False and not result.refused for _, result in shown),
            "right": any(verdict is True for verdict, _ in shown),
        }

    @property
    def kind(self) -> int:
        """The place in `KINDS` of the first kind that it is of; their number when it is of none."""
        return next((place for place, kind in enumerate(KINDS) if self.flags[kind]), len(KINDS))

    @property
    def has_images(self) -> bool:
        """Whether images were kept for every card."""
        return all(result.has_images for _, _, result in self.entries if result.played)


def gallery_samples(runs: Mapping[str, Run]) -> list[GallerySample]:
    """Every sample that some run, given by short name, has something to show of; task by task, as in the logs."""
    found: dict[tuple[str, int | str, str], list[tuple[str, Run, SampleResult]]] = {}
    for name in dict.fromkeys(name for run in runs.values() for name in run.tasks):
        for short, run in runs.items():
            task = run.tasks.get(name, TaskResult(name, Path()))
            for result in task.samples.values():
                found.setdefault((name, result.doc_id, result.ground_truth), []).append((short, run, result))
    samples = [GallerySample(task, doc_id, tuple(entries)) for (task, doc_id, _), entries in found.items()]
    return [sample for sample in samples if any(has_card(result) for _, _, result in sample.entries)]


def choose_samples(samples: Sequence[GallerySample], most: int) -> list[GallerySample]:
    """At most `limit` of the samples, the same every time, in the order of `KINDS`.

    Half of the places are shared out equally, so that every kind that there is can be looked at; the rest go to the
    kinds in their order. Of one kind, samples are taken evenly over the logs, those whose images were kept first.
    """
    most = max(0, most)
    kinds = [kind for kind in KINDS if any(sample.flags[kind] for sample in samples)]
    chosen: set[int] = set()
    share = max(1, most // (2 * len(kinds))) if kinds else 0
    for size in (share, most):
        for kind in kinds:
            pool = [i for i, sample in enumerate(samples) if sample.flags[kind] and i not in chosen]
            chosen.update(_evenly(samples, pool, min(size, most - len(chosen))))
    rest = [i for i in range(len(samples)) if i not in chosen]
    chosen.update(_evenly(samples, rest, most - len(chosen)))
    return sorted((samples[i] for i in sorted(chosen)), key=lambda sample: sample.kind)


def _evenly(samples: Sequence[GallerySample], pool: Sequence[int], size: int) -> list[int]:
    with_images = [i for i in pool if samples[i].has_images]
    others = [i for i in pool if not samples[i].has_images]
    return _spread(with_images, size) + _spread(others, size - len(with_images))


def _spread(values: Sequence[int], size: int) -> list[int]:
    size = max(0, min(size, len(values)))
    return [values[place * len(values) // size] for place in range(size)]


def gallery_note(shown: Sequence[GallerySample], samples: Sequence[GallerySample]) -> str:
    """How many samples of how many the page shows, per kind; empty when there is none."""
    if not samples:
        return ""
    counts = [
        f"{words} {sum(sample.flags[kind] for sample in shown)} of {total}"
        for kind, words in _KIND_WORDS.items()
        if (total := sum(sample.flags[kind] for sample in samples))
    ]
    how = "" if len(shown) == len(samples) else ", chosen evenly so that every kind is there; --samples shows more"
    return f"{len(shown)} of {len(samples)} samples are shown{how}: {', '.join(counts)}."


def gallery_items(samples: Sequence[GallerySample], *, several: bool) -> list[Card | Row]:
    """What a page shows of the samples: a card each or, of several runs, a row of cards."""
    if not several:
        return [_card(sample, *entry, several=False) for sample in samples for entry in sample.entries]
    return [
        Row(
            cards=tuple(_card(sample, *entry, several=True) for entry in sample.entries if has_card(entry[2])),
            title=f"{sample.task}/{sample.doc_id}",
            verdicts=sample.verdicts,
            facts=category_facts(sample.entries[0][2]),
        )
        for sample in samples
    ]


def _card(sample: GallerySample, short: str, run: Run, result: SampleResult, *, several: bool) -> Card:
    """One card; of several runs, the row above it names the sample and its categories."""
    task = run.tasks[sample.task]
    if several:
        return sample_card(task, result, run.root, run=short)
    name = f"{sample.task}/{sample.doc_id}"
    return sample_card(task, result, run.root, name=name, facts=category_facts(result))
