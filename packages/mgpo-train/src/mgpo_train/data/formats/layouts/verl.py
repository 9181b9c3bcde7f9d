"""verl, DeepEyes and InSight-o3: prompt (messages), images, reward_model.ground_truth, extra_info."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import show
from mgpo_core.samples.image_marks import count_marks
from mgpo_core.samples.questions import split_question
from mgpo_train.data.formats.conversation import is_conversation, read_conversation
from mgpo_train.data.formats.conversation_fields import conversation_fields
from mgpo_train.data.formats.layout import Fields, Layout, Row, cell

_GROUND_TRUTH = "reward_model.ground_truth"
_ASKED = "extra_info.question"


def _fits(row: Row) -> bool:
    return is_conversation(row.get("prompt")) and isinstance(row.get("reward_model"), Mapping | str)


def _read(row: Row) -> Fields:
    """The question is extra_info.question where the prompt has it in it: what else the prompt says are instructions."""
    if isinstance(row.get("reward_model"), str):
        raise SampleError(f"column 'reward_model' is {show(row['reward_model'])}: give an object with ground_truth")
    said = read_conversation(row.get("prompt"), "prompt")
    fields = conversation_fields(row, "prompt", said, answers=(_GROUND_TRUTH,), ids=("id", "extra_info.index"))
    values: dict[str, Any] = dict(fields.values)
    columns = dict(fields.columns) | {"prompt": "prompt"}
    values["answer"], columns["answer"] = cell(row, _GROUND_TRUTH), _GROUND_TRUTH
    asked = cell(row, _ASKED)
    listed: tuple[str, ...] = ()
    if isinstance(asked, str) and _asks(said.question, asked):
        listed = split_question(said.question)[1]
        marks = 0 if count_marks(asked) else count_marks(said.question)
        values["question"], columns["question"] = "<image>" * marks + asked, _ASKED
    return Fields(values, columns, splits=True, listed=listed)


def _asks(prompt: str, asked: str) -> bool:
    """Whether a prompt has a question in it, at the beginning of a line or a sentence, whatever the spaces."""
    words = asked.replace("<image>", " ").split()
    question = r"\s+".join(map(re.escape, words))
    sentence = rf"(?:^|[\n.?!:>。？！：])\s*{question}(?:(?<=\W)|(?!\w))"
    return bool(words) and re.search(sentence, prompt.replace("<image>", "\n")) is not None


LAYOUT = Layout("verl", _fits, _read)
