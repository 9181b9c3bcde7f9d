"""Requests as lmms-eval makes them, without its tasks: a table, and an object that stands for the task."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
from lmms_eval.api.instance import Instance
from PIL import Image

from mgpo_eval.fingerprint import fingerprint
from mgpo_eval.tasks.haystack_rows import haystack_rows

TAGS = '[["<think>", "</think>"]]'


class StandInTask:
    """What the model may reach of a task through its requests."""

    def __init__(self, output: Path | None, tags: str | None, scorer: Any) -> None:
        self.args = argparse.Namespace(output_path=None if output is None else str(output), reasoning_tags=tags)
        self.config = SimpleNamespace(process_results=scorer, reasoning_tags=None)

    def doc_to_messages(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The row's own prompt behind its media; one of a `size` is a black image."""
        media = [{"type": "image", "url": image} for image in row.get("images", ())]
        media += [{"type": "video", "url": film} for film in row.get("films", ())]
        media += [{"type": "image", "url": Image.new("RGB", tuple(row["size"]))}] if "size" in row else []
        return [{"role": "user", "content": [*media, {"type": "text", "text": row["prompt"]}]}]


def table(rows: list[dict[str, Any]]) -> datasets.Dataset:
    """Rows as a task's data set, known again by their content."""
    made = datasets.Dataset.from_list(rows)
    made._fingerprint = fingerprint({"rows": [{k: str(v)[:200] for k, v in row.items()} for row in rows]})
    return made


def haystack_table(n: int, seed: int = 7, split: str = "val") -> datasets.Dataset:
    """Rows of the haystack world."""
    return table(haystack_rows(split, n, seed, 1))


def generate(
    model: Any,
    rows: Any,
    output: Path | None = None,
    *,
    padding: int = 0,
    tags: str | None = TAGS,
    scorer: Any = None,
) -> list[str]:
    """The texts that a model returns for all rows, as lmms-eval would ask for them."""
    task, stand_in = "t", StandInTask(output, tags, scorer)
    model.task_dict[task] = {"test": rows}
    requests = [
        Instance(
            "generate_until",
            (
                f"context {index}",
                stand_in.doc_to_messages,
                {"until": ["\n\n"], "max_new_tokens": 16},
                index,
                task,
                "test",
            ),
            0,
            {"task": task, "doc_id": index, "repeats": 1},
        )
        for index in range(len(rows))
    ]
    for _ in range(padding):
        spare = requests[-1]
        requests.append(Instance("generate_until", spare.args, 0, {**spare.metadata, "__padding_only__": True}))
    return [result.text for result in model.generate_until(requests)]
