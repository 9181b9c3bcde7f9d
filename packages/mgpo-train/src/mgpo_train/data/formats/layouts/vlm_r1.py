"""VLM-R1 and LLaVA: id, image (a path or a list), conversations."""

from mgpo_train.data.formats.conversation import is_conversation, read_conversation
from mgpo_train.data.formats.conversation_fields import conversation_fields
from mgpo_train.data.formats.layout import Fields, Layout, Row


def _fits(row: Row) -> bool:
    return is_conversation(row.get("conversations")) and row.get("image") is not None and row.get("images") is None


def _read(row: Row) -> Fields:
    return conversation_fields(row, "conversations", read_conversation(row.get("conversations"), "conversations"))


LAYOUT = Layout("vlm-r1", _fits, _read)
