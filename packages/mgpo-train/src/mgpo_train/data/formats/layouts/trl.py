"""TRL's conversational prompts: prompt (messages), image or images, and the answer or a solution."""

from mgpo_train.data.formats.conversation import is_conversation, read_conversation
from mgpo_train.data.formats.conversation_fields import conversation_fields
from mgpo_train.data.formats.layout import Fields, Layout, Row


def _fits(row: Row) -> bool:
    return is_conversation(row.get("prompt")) and row.get("reward_model") is None


def _read(row: Row) -> Fields:
    return conversation_fields(row, "prompt", read_conversation(row.get("prompt"), "prompt"))


LAYOUT = Layout("trl", _fits, _read)
