"""Which trajectories a report shows, and what stands on their cards: the scorer's verdict beside what the model did."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mgpo_core.boxes import Box
from mgpo_core.report_card import Card
from mgpo_core.report_page import Row
from mgpo_core.trajectory import Trajectory
from mgpo_eval.envelope import Envelope, image_names, kept_picture
from mgpo_eval.logged_scores import TRUE_BOXES
from mgpo_eval.results import Run
from mgpo_eval.sample_log import DAMAGED, SampleResult, TaskResult, read_sample

__all__ = ["KINDS", "Exhibit", "choose_exhibits", "exhibits_of", "gallery_items"]

KINDS = ("changed", "wrong", "refused", "missed", "right")
"What a page filters by, in the order in which samples are chosen for it."

Fact = tuple[str, str, str]
"Name, value and kind, as on a card."


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


def has_card(sample: SampleResult) -> bool:
    """Whether there is something to show of a sample: its trajectory, or why it was skipped."""
    return sample.played or sample.skipped is not None


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
            facts=_category_facts(exhibit.entries[0][2]),
        )
        for exhibit in exhibits
    ]


def _card(exhibit: Exhibit, short: str, run: Run, sample: SampleResult, *, several: bool) -> Card:
    line, envelope = read_sample(sample)
    trajectory, problem = _trajectory(envelope, run.root)
    if trajectory is None:
        trajectory = Trajectory(question=str(line.get("input", "")))
    facts = [] if several else list(_category_facts(sample))
    if sample.skipped is not None:
        facts.append(("skipped", sample.skipped, "bad"))
    if problem:
        facts.append(("pictures", problem, "bad"))
    if envelope.answer != (trajectory.answer or "").strip():
        facts.append(("scored", envelope.answer, ""))
    task = run.tasks[exhibit.task]
    right = task.right(sample)
    if right is None and task.main is not None and task.main in sample.scores:
        facts.append((task.main, f"{sample.scores[task.main]:.3g}", ""))
    name = "" if several else f"{exhibit.task}/{exhibit.doc_id}"
    boxes = tuple(Box(x1, y1, x2, y2, int(image)) for x1, y1, x2, y2, image in line.get(TRUE_BOXES) or ())
    trajectory = dataclasses.replace(trajectory, truth=sample.target or None, true_boxes=boxes, sample_id=name)
    facts += _scored_facts(sample, trajectory.metrics())
    return Card(trajectory, right, sample.hit, short if several else "", tuple(facts))


def _scored_facts(sample: SampleResult, told: Mapping[str, float]) -> Iterator[Fact]:
    """What the scorer says of the box that the card, by the trajectory's own metrics, does not."""
    scores = {} if sample.skipped is not None else {n: v for n, v in sample.scores.items() if n not in told}
    if "image_accuracy" in scores:
        right = scores["image_accuracy"] == 1.0
        yield "image", "right" if right else "wrong", "good" if right else "bad"
    if "mean_iou" in scores:
        yield "IoU", f"{scores['mean_iou']:.2f}", ""


def _category_facts(sample: SampleResult) -> tuple[Fact, ...]:
    return tuple((kind.replace("_", " "), category, "") for kind, category in sample.categories)


def _trajectory(envelope: Envelope, root: Path) -> tuple[Trajectory | None, str]:
    """The trajectory with its pictures, grey where they are not to be had, and why some are not."""
    record = envelope.record or {}
    data = record.get("trajectory")
    if data is None:
        return None, ""
    kept = dict(record.get("pictures") or {})
    wanted = image_names(data)
    missing = [name for name in wanted if name not in kept or kept_picture(root, kept[name]) is None]
    try:
        trajectory = envelope.trajectory(root)
    except DAMAGED as error:
        return envelope.trajectory(), f"cannot be read: {error}"
    if not missing:
        return trajectory, ""
    return trajectory, "not kept" if not kept else f"{len(missing)} of {len(wanted)} not found"
