"""Which run of a report is the baseline: what the others are compared with, whatever order they were named in.

The rules, the first that tells runs apart: weights before those that were trained from them; `mode=single_turn` before
two turns; the run that was named first. The page says which one it is and why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mgpo_core.runs.evaluation_runs import Run
from mgpo_core.templates.registry import TEMPLATES

__all__ = ["baseline_first", "describe_baseline"]

_SUMMARY = "summary.json"
"What a training leaves in its output folder, beside or above its weights; `model` is what it started from."


def baseline_first(runs: Sequence[Run]) -> tuple[list[Run], str]:
    """The runs with the baseline in front, the others in their order; and the reason for the choice, in words."""
    left, reasons = list(runs), []
    names = {_weights(run) for run in runs}
    start = [run for run in left if _trained_from(run) not in names]
    if 0 < len(start) < len(left):
        left = start
        reasons.append("the weights that training started from")
    single = [run for run in left if _turns(run) == 1]
    if single and all(_turns(run) is not None for run in left) and len(single) < len(left):
        left = single
        reasons.append("single turn")
    if len(left) > 1:
        reasons.append("the first named")
    first = left[0]
    return [first, *(run for run in runs if run is not first)], ", ".join(reasons)


def describe_baseline(runs: Mapping[str, Run], reason: str) -> str:
    """Which run is the baseline and what a difference is, in a sentence; `runs` by their letters, baseline first."""
    first, *others = runs
    minus = ", ".join(f"{letter} − {first}" for letter in others)
    rest = ", ".join(f"{letter} {runs[letter].name}" for letter in others)
    return f"baseline: {first} {runs[first].name} ({reason}); difference = {minus}: {rest} minus baseline"


def _weights(run: Run) -> str | None:
    weights = run.provenance.get("weights")
    name = weights.get("name") if isinstance(weights, Mapping) else None
    name = name or run.provenance.get("pretrained")
    return _plain(name) if isinstance(name, str) else None


def _plain(name: str) -> str:
    """A name of weights, the same however a folder is written."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _trained_from(run: Run) -> str | None:
    """The weights that a run's own were trained from; None where nothing tells."""
    name = _weights(run)
    if name is None or name == "haystack:base":
        return None
    if name.startswith("haystack:"):
        return "haystack:base"
    for folder in (Path(name), Path(name).parent):
        try:
            model = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))["model"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(model, str):
            return _plain(model)
    return None


def _turns(run: Run) -> int | None:
    """How many turns the model has: 1, 2 for more than one, None where the run does not say."""
    mode, template = run.provenance.get("mode"), run.provenance.get("template")
    if isinstance(mode, str):
        return 1 if mode == "single_turn" else 2
    template = template.get("words") if isinstance(template, Mapping) else template
    if not isinstance(template, str):
        return None
    return min(TEMPLATES.get(template).max_turns, 2) if template in TEMPLATES else 2
