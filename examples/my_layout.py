r"""Your own data layout: a function that reads one row into our fields.

    mgpo-train photos --train_data "shots.jsonl?layout=examples/my_layout.py:read" --eval_data none

Each line of this `shots.jsonl` has a caption with the question in it, the options as one text, and the right one:

    {"shot": "a.jpg", "caption": "Street. Q: Which colour is the car?", "options": "red|blue", "right": "blue"}

What is returned is checked as for any other layout, images included; errors name the file and the line. To have a
layout recognised without being named, register a `Layout` with `mgpo_train.data.formats.LAYOUTS.register`.
"""

from __future__ import annotations

from typing import Any

from mgpo_train.data.formats import Row


def read(row: Row) -> dict[str, Any]:
    """Our fields of a row: question, image (relative to the file's folder), choices, answer."""
    return {
        "question": row["caption"].partition("Q: ")[2],
        "image": row["shot"],
        "choices": row["options"].split("|"),
        "answer": row["right"],
    }
