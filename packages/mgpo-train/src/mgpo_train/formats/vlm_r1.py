"""VLM-R1 and LLaVA: id, image (a path or a list), conversations; an answer that is a box is a true box."""

import json
from dataclasses import replace
from typing import Any

from mgpo_core.boxes import parse_boxes
from mgpo_train.formats.conversation import is_conversation, read_conversation
from mgpo_train.formats.conversation_fields import conversation_fields
from mgpo_train.formats.layout import Fields, Layout, Row
from mgpo_train.formats.worked_answer import final_answer


def _fits(row: Row) -> bool:
    return is_conversation(row.get("conversations")) and row.get("image") is not None and row.get("images") is None


def _read(row: Row) -> Fields:
    fields = conversation_fields(row, "conversations", read_conversation(row.get("conversations"), "conversations"))
    boxes = boxes_of(fields.values.get("answer"))
    if boxes is None or fields.values.get("boxes") is not None:
        return fields
    values = {name: value for name, value in fields.values.items() if name != "answer"}
    columns = dict(fields.columns) | {"boxes": fields.columns["answer"]}
    return replace(fields, values=values | {"boxes": boxes}, columns=columns)


def boxes_of(answer: Any) -> list[list[float]] | None:
    """The boxes of an answer that is nothing but boxes, as `[x1, y1, x2, y2]` or in JSON; None for any other."""
    if not isinstance(answer, str) or "[" not in answer:
        return None
    text = final_answer(answer)
    plain = text.strip().removeprefix("```json").removesuffix("```").strip()
    try:
        value = json.loads(plain)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and len(value) == 4 and all(type(number) in (int, float) for number in value):
        return [value]
    found = parse_boxes(json.dumps(value)) if isinstance(value, list | dict) else None
    return [list(box.as_tuple()) for box in found.boxes] if found is not None and found.boxes else None


LAYOUT = Layout("vlm-r1", "conversations, image", _fits, _read)
