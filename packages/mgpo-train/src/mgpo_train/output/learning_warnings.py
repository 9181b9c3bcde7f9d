"""What to tell a person whose training taught nothing, and why that is likely: a function of the metrics and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mgpo_train.output.metrics import is_evaluation

__all__ = ["learning_warnings"]

_MOST = 0.9
"From which mean share of groups without advantage on little was learnt."
_HARDLY = 0.1
"Below which a share of answers or of valid boxes explains why."
_FEW = 4
"With fewer logged steps in a half, the halves of a training are not compared."

Rows = Sequence[Mapping[str, Any]]


def learning_warnings(rows: Rows, scores: Mapping[str, Any]) -> list[str]:
    """What went wrong in a training, each finding followed by its likely reasons with their remedies; empty if nothing.

    `rows` are those of `metrics.jsonl`, `scores` the evaluations by their key in `summary.json`. That the score after
    training is no better than before is no finding: few samples or steps explain it too.
    """
    steps = [row for row in rows if not is_evaluation(row)]
    return [*_broken_steps(steps), *(_zero_variance_groups(steps) or _collapsed(steps)), *_worse(scores)]


def _broken_steps(steps: Rows) -> list[str]:
    """Steps whose loss is not a number, and training that could not move the weights."""
    found = []
    broken = sum(any(name in row and row[name] is None for name in ("loss", "grad_norm")) for row in steps)
    if broken:
        found.append(
            f"the loss or its gradient was not a finite number in {broken} of {len(steps)} steps: the weights may be "
            "spoilt; lower learning_rate, or train in bf16 or fp32"
        )
    for name, remedy in (
        ("learning_rate", "raise it, or shorten warmup_steps"),
        ("grad_norm", "check freeze and the rewards"),
    ):
        values = _values(steps, name)
        if len(values) == len(steps) > 1 and not any(values):
            found.append(f"nothing was learnt: {name} was 0 in all {len(steps)} steps; {remedy}")
    return found


def _zero_variance_groups(steps: Rows) -> list[str]:
    """Whether groups of rollouts had an advantage to learn from."""
    flat = _values(steps, "frac_zero_advantage_groups")
    mean = _mean(flat)
    if mean is None or mean < _MOST:
        return []
    groups = f"{'all' if min(flat) == 1.0 else f'{mean:.0%} of the'} groups of rollouts had equal rewards"
    reward = _mean(_values(steps, "reward"))
    told = "" if reward is None else f" (mean reward {reward:.3f})"
    what = "nothing" if min(flat) == 1.0 else "next to nothing"
    finding = f"{what} was learnt: {groups}, hence no advantage, over {len(flat)} steps{told}"
    return [finding, *(f"likely reason: {reason}" for reason in _reasons(steps))]


def _collapsed(steps: Rows) -> list[str]:
    """Whether rewards were lost on the way: the first half of the steps had them, the second has no advantage left."""
    early, late = steps[: len(steps) // 2], steps[len(steps) // 2 :]
    before, after = _mean(_values(early, "reward")), _mean(_values(late, "reward"))
    flat = _mean(_values(late, "frac_zero_advantage_groups"))
    if len(early) < _FEW or None in (before, after, flat):
        return []
    assert before is not None and after is not None and flat is not None
    if flat < _MOST or after >= before / 2:
        return []
    finding = (
        f"training collapsed: in the second half of the steps {flat:.0%} of the groups of rollouts had equal rewards, "
        f"and the mean reward fell from {before:.3f} to {after:.3f}; lower learning_rate, or raise beta"
    )
    return [finding, *(f"likely reason: {reason}" for reason in _reasons(late))]


def _reasons(steps: Rows) -> list[str]:
    """Why all rollouts of a sample fare alike, with the remedy."""
    found = []
    cut = max((_mean(_values(steps, name)) or 0.0 for name in _turns(steps, "truncated")), default=0.0)
    answered, boxes = _mean(_values(steps, "answered_rate")), _mean(_values(steps, "valid_box_rate"))
    accuracy, reward = _mean(_values(steps, "accuracy")), _values(steps, "reward")
    if cut >= 0.5:
        found.append(f"{cut:.0%} of the responses were cut off at their limit; raise max_completion_length")
    if answered is not None and answered < _HARDLY:
        found.append(
            f"{answered:.0%} of the rollouts gave an answer in its form, such as \\boxed{{A}}; start from a checkpoint "
            "that follows it (train one with method: sft), or add the reward format"
        )
    if boxes is not None and boxes < _HARDLY:
        found.append(
            f"{boxes:.0%} of the boxes were valid; check coordinate_space (metrics.jsonl counts the reasons as "
            "rejected/...), or start from a checkpoint that gives boxes"
        )
    if found:
        return found
    if accuracy is not None and accuracy > 1 - _HARDLY:
        return [f"the samples are too easy: {accuracy:.0%} of the rollouts were right; choose harder ones"]
    if not any(reward) or (accuracy is not None and accuracy < _HARDLY):
        return [
            "answers were given and hardly any was right; check that the data's answers have the form that the model "
            "gives (the letter of a choice, say), choose easier samples, or raise num_generations"
        ]
    return ["rollouts of one sample hardly differ; raise temperature or num_generations, or set dynamic_sampling"]


def _worse(scores: Mapping[str, Any]) -> list[str]:
    """Evaluations after training that are clearly below those before it, or hold no answers."""
    found = []
    for key in ("after", "after_greedy"):
        before, after = scores.get(key.replace("after", "before")) or {}, scores.get(key) or {}
        answered = after.get("answered_rate")
        if answered is not None and answered < _HARDLY:
            found.append(f"the trained model answered {answered:.0%} of the evaluation's samples ({key})")
        if "accuracy" not in before or "accuracy" not in after:
            continue
        if after["intervals"]["accuracy"][1] < before["intervals"]["accuracy"][0]:
            found.append(
                f"accuracy fell from {before['accuracy']:.3f} to {after['accuracy']:.3f} ({key}, the 95% intervals do "
                "not overlap); lower learning_rate, or train on more samples"
            )
    return found


def _turns(steps: Rows, name: str) -> list[str]:
    return sorted({column for row in steps for column in row if column.startswith(f"{name}/turn")})


def _values(steps: Rows, name: str) -> list[float]:
    """A metric's values, where it was logged."""
    return [float(row[name]) for row in steps if isinstance(row.get(name), (int, float))]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
