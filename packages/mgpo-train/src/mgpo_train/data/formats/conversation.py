"""Conversations of one question: the text of the user's turn, the images in it, and the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import show

__all__ = ["Conversation", "is_conversation", "is_list_as_text", "read_conversation", "spoken"]

_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot"), "assistant"),
    "system": "system",
}
_ORDER = {"system": 0, "user": 1, "assistant": 2}
_LIST_AS_TEXT = re.compile(r"\s*\[?\s*\{\s*['\"](?:type|role|from)['\"]\s*:")
"""How messages and their parts begin where somebody saved a list as text."""


@dataclass
class Conversation:
    """What is said; `images` are those in the user's turn itself. System prompts are the template's to give."""

    question: str = ""
    answer: str | None = None
    images: list[Any] = field(default_factory=list)


def is_conversation(value: Any) -> bool:
    """Whether a cell looks like a list of messages."""
    if isinstance(value, Mapping):
        return ("role" in value or "from" in value) and isinstance(next(iter(value.values())), list)
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping) and _role(value[0]) is not None


def read_conversation(value: Any, column: str) -> Conversation:
    """A system message at most, one user's turn, and at most one answer; raises SampleError for anything else."""
    said = Conversation()
    last = -1
    for message in _messages(value, column):
        role = _ROLES.get(str(_role(message)).strip().lower())
        if role is None:
            raise SampleError(
                f"column {column!r} has a turn of {show(_role(message))}: only system, user and assistant are read"
            )
        if _ORDER[role] <= last:
            raise SampleError(
                f"column {column!r} has several turns ({_roles(value, column)}): "
                "give each question with its answer a row of its own"
            )
        last = _ORDER[role]
        content = _content(message)
        if role == "user":
            said.question, said.images = _parts(content, column)
        elif role == "assistant":
            said.answer = _parts(content, column)[0]
    if last < 1 or not said.question.strip():
        raise SampleError(f"column {column!r} has no user's turn with a text: give the question in one")
    return said


def spoken(value: Any, column: str) -> Any:
    """The text of an answer that is one assistant's message, alone or in a list; any other value as it is."""
    message = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(message, Mapping) or _ROLES.get(str(_role(message)).strip().lower()) != "assistant":
        return value
    return _parts(_content(message), column)[0]


def is_list_as_text(text: str) -> bool:
    """Whether a text is a list of messages, or of their parts, that somebody saved as text."""
    return _LIST_AS_TEXT.match(text) is not None


def _content(message: Mapping[str, Any]) -> Any:
    return next((message[key] for key in ("content", "value") if message.get(key) is not None), None)


def _messages(value: Any, column: str) -> Sequence[Mapping[str, Any]]:
    if isinstance(value, Mapping) and all(isinstance(part, list) for part in value.values()):  # a table of columns
        length = {len(part) for part in value.values()}
        value = (
            [dict(zip(value, parts, strict=True)) for parts in zip(*value.values(), strict=True)]
            if len(length) == 1
            else None
        )
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        raise SampleError(f"column {column!r} is {show(value)}: give a list of messages with role and content")
    return value


def _role(message: Mapping[str, Any]) -> Any:
    return message.get("role") if message.get("role") is not None else message.get("from")


def _roles(value: Any, column: str) -> str:
    return show(", ".join(str(_role(message)) for message in _messages(value, column)))


def _parts(content: Any, column: str) -> tuple[str, list[Any]]:
    """(text, images) of a message; an image in it becomes an `<image>` in the text."""
    if any(
        isinstance(part, str) and is_list_as_text(part)
        for part in (content if isinstance(content, list) else [content])
    ):
        raise SampleError(f"column {column!r} has a message with a list written as text: give the list itself")
    if isinstance(content, str):
        return content, []
    texts: list[str] = []
    images: list[Any] = []
    if not isinstance(content, list):
        raise SampleError(f"column {column!r} has a message with the content {show(content)}: give a text")
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        filled = {key: value for key, value in part.items() if value is not None} if isinstance(part, Mapping) else {}
        kind = str(filled.get("type") or next((key for key in filled if key != "type"), ""))
        if kind == "text" and isinstance(filled.get("text"), str):
            texts.append(filled["text"])
        elif kind in ("image", "image_url"):
            texts.append("<image>\n")
            sources = [value for key, value in filled.items() if key in ("image", "image_url", "url", "path", "bytes")]
            images += sources[:1]
        else:
            raise SampleError(f"column {column!r} has a message part {show(part)}: only texts and images are read")
    marks = sum(text == "<image>\n" for text in texts)
    if images and len(images) != marks:
        raise SampleError(f"column {column!r} has {marks} image parts, {len(images)} of them with an image")
    return "".join(texts), images
