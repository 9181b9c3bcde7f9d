"""The final answer of a text that may reason first, by declared rules alone: nothing is guessed out of prose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mgpo_core.boxes.boxed_answer import extract_boxed
from mgpo_core.boxes.plain_text import REASONING_TAG, marked_boxes
from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import show
from mgpo_core.samples.grading import normalise
from mgpo_core.samples.image_marks import count_marks

__all__ = ["final_answer", "said_last"]

LONGEST = 300
"""Characters of an answer without any mark: what is longer explains rather than answers."""
_TAG = re.compile(
    r"(?P<opening>[<◁\[])(?P<bar>[|｜]?)\s{0,3}(?P<slash>/?)\s{0,3}"
    r"(?P<name>[A-Za-z](?:[\w:.▁-]|\s(?=answer\b)){0,60})"
    r"(?:\s[^<>\[\]◁▷]{0,200})?[|｜]?[>▷\]]",
    re.IGNORECASE,
)
"""A tag or token in any of the forms that models write: `<think>`, `◁/think▷`, `[THINK]`, `<|end_of_thought|>`."""
_BEGINS = re.compile(r"^(?:begin|start)(?:_of)?_|_(?:start|begin)$")
_ENDS = re.compile(r"^end(?:_of)?_|_end$")
_REASONING = re.compile(REASONING_TAG)
_ANSWERS = (("answer", "final_answer", "finalanswer"), ("conclusion",), ("solution", "response", "output"))
"""Tags around an answer, the surest first; what is in the last ones may explain it."""
_KNOWN = frozenset(name for names in _ANSWERS[:2] for name in names)
_LAST_TOKENS = (
    "<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|eos|>", "<|return|>",
    "<end_of_turn>", "<eos>", "</s>", "[eos]", "<｜end▁of▁sentence｜>", "<|end_of_sentence|>",
)  # fmt: skip
_HASHES = re.compile(r"^[ \t]*####[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_SAID = re.compile(r"\banswer\s*(?:is\b|:)|答案", re.IGNORECASE)
_SAID_FIRST = re.compile(
    r"(?:(?:so|thus|hence|therefore)\b[\s,]*)?(?:the\s+)?(?:\w+\s+)?(?:answer|答案)", re.IGNORECASE
)
_STATED = re.compile(
    r"(?:(?:so|thus|hence|therefore)\b[\s,]*)?(?:the\s+)?(?:(?:final|correct|right|best)\s+)?answer\s*(?:is\b\s*:?|:)\s*(?=\S)"
    r"|(?:正确|最终)?答案[是为:：\s]+(?=\S)",
    re.IGNORECASE,
)
"""What says no more than that an answer follows: it is not part of the answer."""
_LOCATION = re.compile(r"<loc_?\d{1,4}>")
_REMEDY = "mark it with <answer>...</answer> or \\boxed{...}"


@dataclass(frozen=True, slots=True)
class _Tag:
    """A tag or token at `text[start:end]`, by its plain name."""

    name: str
    closes: bool
    token: bool
    """Whether it is written as no prose is: `<|name|>`, `◁name▷`."""
    start: int
    end: int


def final_answer(text: str, *, may_explain: bool = False) -> str:
    r"""The answer in a text: what is in its `<answer>` tags, else in its `\boxed{}`, else behind its last `####`
    or its reasoning, else the text itself if it is short, without "the answer is" in front.

    `may_explain`: the text is what somebody said, not a column of answers, so that several lines, or "the answer is" in
    its middle, are an explanation. Raises SampleError where these rules give no answer, or two different ones, and for
    an answer with markup in it.
    """
    if count_marks(text):
        raise SampleError(f"is {show(text)}, with an image mark in it: give the answer alone")
    answer = _final(text, may_explain)
    markup = _markup(answer)
    if markup is not None:
        raise SampleError(f"is {show(answer)}, with the markup {show(markup)} in it: give the answer alone")
    return answer


def said_last(text: str) -> tuple[str, bool]:
    """(what is in the text's answer tags, else behind its reasoning, whether it was in such tags).

    Raises SampleError where it has two different answers, or a tag that is not closed.
    """
    text = _without_last_tokens(text)
    tags = list(_tags(text))
    for sure, names in zip((True, True, False), _ANSWERS, strict=True):
        inside = _inside(text, [tag for tag in tags if tag.name in names])
        if len({normalise(answer) for answer in inside}) > 1:
            raise SampleError(f"holds {len(inside)} different answers in <{names[0]}> tags: leave one")
        if inside:
            return inside[-1], sure
    reasoning = [tag for tag in tags if _is_reasoning(tag.name)]
    if not reasoning:
        return text, False
    behind = text[reasoning[-1].end :].strip() if reasoning[-1].closes else ""
    if not behind and "\\boxed" in text:
        return text, False
    if not reasoning[-1].closes:
        raise SampleError(f"is {show(text)}, with reasoning that is not closed: {_REMEDY}")
    return behind, False


def _final(text: str, may_explain: bool) -> str:
    said, tagged = said_last(text)
    if not marked_boxes(said) and (framed := _inside(said, [tag for tag in _tags(said) if tag.name == "box"])):
        said, tagged = framed[-1], True
    if "\\boxed" in said:
        return _boxed(said)
    if not tagged and (hashed := _HASHES.findall(said)):
        return hashed[-1]
    if not said:
        raise SampleError(f"ends without an answer: {_REMEDY}")
    explains = _SAID.search(said) is not None and _SAID_FIRST.match(said) is None
    if not tagged and (("\n" in said and (may_explain or explains)) or (may_explain and explains)):
        raise SampleError(f"is {show(said)}, which explains an answer: {_REMEDY}")
    if len(said) > LONGEST:
        raise SampleError(f"is {show(said)}, a text of {len(said):,} characters: {_REMEDY}")
    return said[stated.end() :] if (stated := _STATED.match(said)) else said


def _boxed(text: str) -> str:
    r"""What is in the text's \boxed{}, which must not be two different answers."""
    parts = text.split("\\boxed")[1:]
    boxed = [content for part in parts if (content := extract_boxed("\\boxed" + part))]
    if not boxed:
        raise SampleError(f"is {show(text)}, without a complete \\boxed{{...}}: {_REMEDY}")
    if len({normalise(content) for content in boxed}) > 1:
        raise SampleError(f"is {show(text)}, which holds {len(boxed)} different answers in \\boxed{{}}: leave one")
    return boxed[-1]


def _tags(text: str) -> Iterator[_Tag]:
    for mark in _TAG.finditer(text):
        name = re.sub(r"[-▁\s]", "_", mark["name"].lower())
        yield _Tag(
            _ENDS.sub("", _BEGINS.sub("", name)).rpartition(":")[2],
            bool(mark["slash"] or _ENDS.search(name)),
            bool(mark["bar"]) or mark["opening"] == "◁",
            mark.start(),
            mark.end(),
        )


def _inside(text: str, tags: Sequence[_Tag]) -> list[str]:
    """What stands between each opening tag and the closing one behind it; SampleError for one that has no other."""
    found: list[str] = []
    opened: _Tag | None = None
    for tag in tags:
        if not tag.closes:
            opened = opened or tag
        elif opened is not None:
            found.append(text[opened.end : tag.start].strip())
            opened = None
    if tags and not found and tags[0].name in _KNOWN:
        raise SampleError(f"is {show(text)}, with an <{tags[0].name}> tag that is not closed: {_REMEDY}")
    return found


def _markup(answer: str) -> str | None:
    """A tag with its closing one, or a token, that an answer still holds."""
    tags = list(_tags(answer))
    closed = {tag.name for tag in tags if tag.closes}
    for tag in tags:
        if tag.token or (tag.name in closed and not tag.closes) or tag.name in _KNOWN:
            return answer[tag.start : tag.end]
    found = _LOCATION.search(answer)
    return None if found is None else found.group()


def _is_reasoning(name: str) -> bool:
    return _REASONING.fullmatch(f"<{name}>") is not None


def _without_last_tokens(text: str) -> str:
    """`text` without the tokens that end a turn."""
    text = text.strip()
    for _ in range(4):
        last = next((token for token in _LAST_TOKENS if text[-len(token) :].lower() == token), "")
        text = text[: len(text) - len(last)].rstrip()
    return text
