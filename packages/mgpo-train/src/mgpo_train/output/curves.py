"""`curves.png`: how a run went, drawn from its metrics; valid boxes and hits over steps as in the paper's figure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mgpo_core.files.whole_file import whole_file
from mgpo_train.output.metrics import HELD_OUT, TASKS

NOT_REWARDED = " (not rewarded)"
REWARDS_APART = "Rewards apart"

PANELS: dict[str, dict[str, str]] = {
    # title of the panel: metric -> label
    "Accuracy": {
        "accuracy": "rollouts",
        "image_accuracy": "rollouts: right image",
        "answered_rate": "rollouts: answered",
        HELD_OUT + "accuracy": "held out, greedy",
        HELD_OUT + "image_accuracy": "right image, held out",
    },
    "Ratio of valid boxes" + NOT_REWARDED: {
        "valid_box_rate": "rollouts",
        HELD_OUT + "valid_box_rate": "held out, greedy",
    },
    "Where it looked" + NOT_REWARDED: {
        "hit_rate": "hit rate",
        "mean_iou": "mean IoU",
        "crop_area_fraction": "crop area",
        HELD_OUT + "hit_rate": "hit rate, held out",
        HELD_OUT + "mean_iou": "mean IoU, held out",
    },
    "Reward": {
        "reward": "mean",
        "reward_std": "standard deviation",
        "frac_zero_advantage_groups": "groups without advantage",
    },
    REWARDS_APART: {},  # whatever rewards the run has
    "Response length (tokens)": {"length/turn1": "turn 1", "length/turn2": "turn 2"},
    "Entropy (nats)": {"entropy/turn1": "turn 1", "entropy/turn2": "turn 2"},
    "Log-probability gap to the sampler": {"logprob_gap/turn1": "turn 1", "logprob_gap/turn2": "turn 2"},
    "Loss": {"loss": "loss"},
}
SHARES = {
    "accuracy",
    "image_accuracy",
    "answered_rate",
    "valid_box_rate",
    "hit_rate",
    "reward",
    "frac_zero_advantage_groups",
}
SHARES |= {"mean_iou", "crop_area_fraction"}

MOST_LINES = 6
"""Most metrics of one task that are drawn."""


def series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one metric, where it was logged, both `(N,)`."""
    pairs = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)]
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64)


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Centred running mean over `width` entries, fewer at the ends; `(N,)` -> `(N,)`."""
    half = width // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(0, index - half), np.minimum(len(values), index + half + 1)
    return (sums[high] - sums[low]) / (high - low)


def reward_panel(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The panel of the means of single rewards, as the log names them, in its order."""
    found = (re.fullmatch("rewards/(.+)/mean", name) for name in dict.fromkeys(name for row in rows for name in row))
    return {REWARDS_APART: {match[0]: match[1] for match in found if match}}


def task_panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """A panel for each task of lmms-eval in the log, without ends of intervals, parts of the task, and counts."""
    names = sorted({name for row in rows for name in row if name.startswith(TASKS)})
    panels: dict[str, dict[str, str]] = {}
    for name in names:
        task, _, metric = name.removeprefix(TASKS).partition("/")
        panel = panels.setdefault(f"lmms-eval: {task}", {})
        if "/" not in metric and metric != "skipped" and not metric.endswith(("_low", "_high")):
            panel[name] = metric.replace("_", " ")
    return {title: dict(list(panel.items())[:MOST_LINES]) for title, panel in panels.items()}


def plot_curves(rows: Sequence[Mapping[str, Any]], path: str | Path, *, title: str = "") -> Path | None:
    """Draw the panels that have data into a PNG; None, and no file, when nothing was logged yet."""
    rewarded = any("rewards/object/mean" in row for row in rows)  # then boxes are, and no panel may say otherwise
    panels = {
        name.removesuffix(NOT_REWARDED) if rewarded else name: wanted
        for name, metrics in (PANELS | reward_panel(rows) | task_panels(rows)).items()
        if (wanted := {metric: label for metric, label in metrics.items() if len(series(rows, metric)[0])})
    }
    if not panels:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * lines), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, (name, metrics) in zip(figure.subplots(lines, columns, squeeze=False).flat, panels.items(), strict=False):
        _draw(axes, name, metrics, rows)
    for axes in figure.axes[len(panels) :]:
        axes.set_axis_off()
    path = Path(path)
    with whole_file(path, "wb") as file:
        canvas.print_figure(file, dpi=110, format="png")
    return path


def _draw(axes: Any, name: str, metrics: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    axes.set_title(name, fontsize=10)
    axes.set_xlabel("step", fontsize=8)
    axes.grid(alpha=0.3)
    for index, (metric, label) in enumerate(metrics.items()):
        steps, values = series(rows, metric)
        width = max(1, len(values) // 15)
        colour = f"C{index}"
        if metric.startswith((HELD_OUT, TASKS)):  # few, and each the mean over a whole set
            axes.plot(steps, values, "o-", color=colour, markersize=4, label=label)
            continue
        if width > 2:
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth(values, width) if width > 2 else values, color=colour, label=label)
    if {metric.removeprefix(HELD_OUT) for metric in metrics} <= SHARES:
        axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize=8)
