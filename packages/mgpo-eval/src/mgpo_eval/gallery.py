"""Which trajectories a report shows, and which of their cards stand beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mgpo_core.evaluation_runs import Run
from mgpo_core.report_card import Card
from mgpo_core.report_page import Row
from mgpo_core.sample_card import category_facts, has_card, sample_card
from mgpo_core.sample_log import SampleResult, TaskResult

__all__ = ["KINDS", "Exhibit", "choose_exhibits", "exhibits_of", "gallery_items"]

KINDS = ("changed", "wrong", "refused", "missed", "right")
"What a page filters by, in the order in which samples are chosen for it."


@dataclass(frozen=True)
class Exhibit:
    """One sample as every run has it that was asked it: those of one task with the same doc_id and target."""

    task: str
    doc_id: int | str
    entries: tuple[tuple[str, Run, SampleResult], ...]
    "(short name of the run, the run, its result)."

    @cached_property
    def verdicts(self) -> tuple[tuple[str, bool | None], ...]:
        """(short name of the run, right or wrong), as the task's scorer says."""
        return tuple((short, run.tasks[self.task].right(sample)) for short, run, sample in self.entries)

    @cached_property
    def flags(self) -> dict[str, bool]:
        """By kind, whether the sample is of it: in any of the runs that have something to show."""
        shown = [
            (verdict, sample)
            for (_, verdict), (_, _, sample) in zip(self.verdicts, self.entries, strict=True)
            if has_card(sample)
        ]
        return {
            "changed": len({verdict for _, verdict in self.verdicts if verdict is not None}) > 1,
            "wrong": any(verdict is False for verdict, _ in shown),
            "refused": any(sample.refused for _, sample in shown),
            "missed": any(sample.hit is False and not sample.refused for _, sample in shown),
            "right": any(verdict is True for verdict, _ in shown),
        }

    @property
    def kind(self) -> int:
        """The place in `KINDS` of the first kind that it is of; their number when it is of none."""
        return next((place for place, kind in enumerate(KINDS) if self.flags[kind]), len(KINDS))

    @property
    def pictured(self) -> bool:
        """Whether pictures were kept for every card."""
        return all(sample.pictured for _, _, sample in self.entries if sample.played)


def exhibits_of(runs: Mapping[str, Run]) -> list[Exhibit]:
    """Every sample that some run, given by short name, has something to show of; task by task, as in the logs."""
    found: dict[tuple[str, int | str, str], list[tuple[str, Run, SampleResult]]] = {}
    for name in dict.fromkeys(name for run in runs.values() for name in run.tasks):
        for short, run in runs.items():
            task = run.tasks.get(name, TaskResult(name, Path()))
            for sample in task.samples.values():
                found.setdefault((name, sample.doc_id, sample.target), []).append((short, run, sample))
    exhibits = [Exhibit(task, doc_id, tuple(entries)) for (task, doc_id, _), entries in found.items()]
    return [exhibit for exhibit in exhibits if any(has_card(sample) for _, _, sample in exhibit.entries)]


def choose_exhibits(exhibits: Sequence[Exhibit], most: int) -> list[Exhibit]:
    """At most so many of the samples, the same every time, in the order of `KINDS`.

    Half of the places are shared out equally, so that every kind that there is can be looked at; the rest go to the
    kinds in their order. Of one kind, samples are taken evenly over the logs, those whose pictures were kept first.
    """
    most = max(0, most)
    kinds = [kind for kind in KINDS if any(exhibit.flags[kind] for exhibit in exhibits)]
    chosen: set[int] = set()
    share = max(1, most // (2 * len(kinds))) if kinds else 0
    for size in (share, most):
        for kind in kinds:
            pool = [i for i, exhibit in enumerate(exhibits) if exhibit.flags[kind] and i not in chosen]
            chosen.update(_evenly(exhibits, pool, min(size, most - len(chosen))))
    rest = [i for i in range(len(exhibits)) if i not in chosen]
    chosen.update(_evenly(exhibits, rest, most - len(chosen)))
    return sorted((exhibits[i] for i in sorted(chosen)), key=lambda exhibit: exhibit.kind)


def _evenly(exhibits: Sequence[Exhibit], pool: Sequence[int], size: int) -> list[int]:
    pictured = [i for i in pool if exhibits[i].pictured]
    others = [i for i in pool if not exhibits[i].pictured]
    return _spread(pictured, size) + _spread(others, size - len(pictured))


def _spread(values: Sequence[int], size: int) -> list[int]:
    size = max(0, min(size, len(values)))
    return [values[place * len(values) // size] for place in range(size)]


def gallery_items(exhibits: Sequence[Exhibit], *, several: bool) -> list[Card | Row]:
    """What a page shows of the samples: a card each or, of several runs, a row of cards."""
    if not several:
        return [_card(exhibit, *entry, several=False) for exhibit in exhibits for entry in exhibit.entries]
    return [
        Row(
            cards=tuple(_card(exhibit, *entry, several=True) for entry in exhibit.entries if has_card(entry[2])),
            title=f"{exhibit.task}/{exhibit.doc_id}",
            verdicts=exhibit.verdicts,
            facts=category_facts(exhibit.entries[0][2]),
        )
        for exhibit in exhibits
    ]


def _card(exhibit: Exhibit, short: str, run: Run, sample: SampleResult, *, several: bool) -> Card:
    """One card; of several runs, the row above it names the sample and its categories."""
    task = run.tasks[exhibit.task]
    if several:
        return sample_card(task, sample, run.root, run=short)
    name = f"{exhibit.task}/{exhibit.doc_id}"
    return sample_card(task, sample, run.root, name=name, facts=category_facts(sample))
