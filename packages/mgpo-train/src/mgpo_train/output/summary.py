"""`summary.json`: what a run was, how long it took, and its scores before and after with 95% intervals."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mgpo_core.episodes.trajectory import RIGHT_IOU
from mgpo_core.files.whole_file import whole_file
from mgpo_train.output.metrics import TIMING

PACKAGES = ("mgpo-core", "mgpo-train", "torch", "transformers", "trl", "accelerate", "datasets", "pillow", "numpy")
COLUMNS = {
    "accuracy": "accuracy",
    "image_accuracy": "right image",
    "hit_rate": "hit rate",
    "valid_box_rate": "valid boxes",
    "mean_iou": "mean IoU",
    "answered_rate": "answered",
}
"""Metrics in the printed table with their headings; where the answer is a box, its accuracy is by overlap."""

BY_OVERLAP = {"accuracy": f"IoU >= {RIGHT_IOU}"}
"""Headings where the answer is a box."""

EVALUATIONS = {
    "before": "before, T=1",
    "after": "after, T=1",
    "before_greedy": "before, greedy",
    "after_greedy": "after, greedy",
}
"""Evaluations of a run by their key in summary.json, in the table's order; `ood_` in front: of eval_ood_data."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # run from a source tree
    return found


def timing(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Steps, seconds and seconds per step from the metrics file, so that a resumed run counts all of its parts."""
    seconds = math.fsum(float(row.get(TIMING + "seconds") or 0.0) for row in rows)
    steps = int(rows[-1]["step"]) if rows else 0
    return {
        "steps": steps,
        "seconds": round(seconds, 2),
        "seconds_per_step": round(seconds / steps, 4) if steps else None,
    }


def table_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """The before/after table as texts, headings first; a score is followed by its 95% interval."""
    shown = [(key, label) for prefix in ("", "ood_") for key, label in _evaluations(prefix) if key in summary]
    names = [name for name in COLUMNS if any(name in summary[key] for key, _ in shown)]
    headings = COLUMNS | BY_OVERLAP if summary.get("answers_with_box") else COLUMNS
    rows = [["", *(headings[name] for name in names), "n"]]
    for key, label in shown:
        scores = summary[key]
        rows.append([label, *(_score(scores, name) for name in names), str(scores.get("n", ""))])
    return rows


def _evaluations(prefix: str) -> list[tuple[str, str]]:
    return [(prefix + key, ("ood " if prefix else "") + label) for key, label in EVALUATIONS.items()]


def _score(scores: Mapping[str, Any], name: str) -> str:
    if name not in scores:
        return "-"
    low, high = scores["intervals"][name]
    return f"{scores[name]:.3f} [{low:.2f}, {high:.2f}]"


def print_table(summary: Mapping[str, Any]) -> None:
    """Print the before/after table with aligned columns."""
    rows = table_rows(summary)
    if len(rows) < 2:
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    sys.stdout.flush()


def print_warnings(summary: Mapping[str, Any]) -> None:
    """Print what went wrong in the training to the error stream, a line each; nothing where nothing did."""
    for text in summary.get("warnings") or ():
        print(f"warning: {text}", file=sys.stderr, flush=True)


def write_json(path: str | Path, data: Mapping[str, Any]) -> None:
    """Write JSON aside and rename it, so that the file is whole whenever it exists."""
    with whole_file(Path(path), encoding="utf-8") as file:
        file.write(json.dumps(data, indent=2, default=str) + "\n")
