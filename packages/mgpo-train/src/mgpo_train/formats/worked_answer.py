"""The final answer of a text that may reason first, by declared rules alone: nothing is guessed out of prose."""

from __future__ import annotations

import re

from mgpo_core.answers import extract_boxed
from mgpo_core.errors import SampleError
from mgpo_core.image_marks import count_marks
from mgpo_core.shown import show

__all__ = ["final_answer"]

LONGEST = 300
"""Characters of an answer without any mark: what is longer explains rather than answers."""
_ANSWER = re.compile(r"<\s*answer\s*>(.*?)<\s*/\s*answer\s*>", re.IGNORECASE | re.DOTALL)
_REASONING = re.compile(r"<\s*(?P<closes>/?)\s*(?:think|thinking|reasoning|thought|rethink|cot)\s*>", re.IGNORECASE)
_TAG = re.compile(r"<\s*/?\s*answer\s*>", re.IGNORECASE)
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
"""What says no more than that an answer follows: it is no part of the answer."""
_REMEDY = "mark it with <answer>...</answer> or \\boxed{...}"


def final_answer(text: str, *, may_explain: bool = False) -> str:
    r"""The answer in a text: what stands in its `<answer>` tags, else in its last `\boxed{}`, else behind its
    last `####` or its reasoning, else the text itself if it is short, without "the answer is" in front.

    `may_explain`: the text is what somebody said, not a column of answers, so that several lines, or "the answer is" in
    its middle, are an explanation. Raises SampleError where these rules give no answer, or two different ones.
    """
    if count_marks(text):
        raise SampleError(f"is {show(text)}, with an image mark in it: give the answer alone")
    tagged = {answer.strip() for answer in _ANSWER.findall(text)}
    if len(tagged) > 1:
        raise SampleError(f"holds {len(tagged)} different answers in <answer> tags: leave one")
    if tagged:
        text = tagged.pop()
    elif _TAG.search(text):
        raise SampleError(f"is {show(text)}, with an <answer> tag that is not closed: {_REMEDY}")
    if "\\boxed" in text:
        boxed = extract_boxed(text)
        if not boxed:
            raise SampleError(f"is {show(text)}, without a complete \\boxed{{...}}: {_REMEDY}")
        return boxed
    if not tagged and (hashed := _HASHES.findall(text)):
        return hashed[-1]
    if not tagged and (marks := list(_REASONING.finditer(text))):
        if not marks[-1]["closes"]:
            raise SampleError(f"is {show(text)}, with reasoning that is not closed: {_REMEDY}")
        text = text[marks[-1].end() :]
    text = text.strip()
    if not text:
        raise SampleError(f"ends without an answer: {_REMEDY}")
    said = _SAID.search(text) is not None and _SAID_FIRST.match(text) is None
    if not tagged and (("\n" in text and (may_explain or said)) or (may_explain and said)):
        raise SampleError(f"is {show(text)}, which explains an answer: {_REMEDY}")
    if len(text) > LONGEST:
        raise SampleError(f"is {show(text)}, a text of {len(text):,} characters: {_REMEDY}")
    return text[stated.end() :] if (stated := _STATED.match(text)) else text
