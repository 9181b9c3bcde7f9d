"""What `tasks/mig_bench.yaml` names with `!function`: prompt, pictures, scores and their means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from mgpo_core.sample import load_image
from mgpo_eval import mig_bench
from mgpo_eval.envelope import open_envelope
from mgpo_eval.requests import mig_format

__all__ = ["macro_high", "macro_low", "macro_mean", "pictures", "prompt", "score", "target"]

Row = Mapping[str, Any]


def pictures(row: Row) -> list[Image.Image]:
    """`doc_to_visual`: the record's images in order, decoded."""
    record = mig_bench.Record.from_row(row)
    return [load_image(mig_bench.image_source(row["place"], name)) for name in record.images]


def prompt(row: Row, lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """`doc_to_text`: the published prompt (thousandths), for models that take one; ours reads the row itself."""
    return mig_bench.prompt(mig_bench.Record.from_row(row), mig_bench.Format.RELATIVE).text


def target(row: Row) -> str:
    """`doc_to_target`: the true box in 0-1 and its image, counted from 1."""
    truth = mig_bench.Record.from_row(row).truth
    return f"image {truth.image + 1}: {[round(value, 4) for value in truth.as_tuple()]}"


def score(row: Row, results: Sequence[str]) -> dict[str, Any]:
    """`process_results`: every metric of one record, for all tasks and for its own."""
    record = mig_bench.Record.from_row(row)
    envelope = open_envelope(results[0])
    trajectory = envelope.trajectory()
    if trajectory is None:  # another model, asked as published, or a record that could not be played
        found = mig_bench.score(record, envelope.answer, mig_bench.Format.RELATIVE)
    else:
        sizes = trajectory.input_sizes
        found = mig_bench.score(record, envelope.answer, mig_format(trajectory.space), sizes)
    values = found.metrics()
    entries = {name: {"score": value, "task": record.task} for name, value in values.items()}
    metrics: dict[str, Any] = {
        f"{name}{end}": entry for name, entry in entries.items() for end in ("", "_low", "_high")
    }
    metrics |= {f"{name}/{record.task}": value for name, value in values.items()}
    metrics |= {"valid_box_rate": float(found.box is not None), "skipped": float(envelope.skipped is not None)}
    metrics |= {"inverted": float(record.inverted), "clipped": float(record.clipped)}
    return metrics | {"category": record.task}


def macro_mean(entries: Sequence[Mapping[str, Any]]) -> float:
    """The mean over tasks of a metric's mean per task: what papers publish."""
    return _macro(entries)[0]


def macro_low(entries: Sequence[Mapping[str, Any]]) -> float:
    """The lower end of its 95% interval."""
    return _macro(entries)[1]


def macro_high(entries: Sequence[Mapping[str, Any]]) -> float:
    """The upper end of its 95% interval."""
    return _macro(entries)[2]


def _macro(entries: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    columns: dict[str, list[float]] = {}
    for entry in entries:
        columns.setdefault(entry["task"], []).append(entry["score"])
    return mig_bench.macro_mean(columns)
