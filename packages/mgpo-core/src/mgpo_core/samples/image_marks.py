"""Image marks in texts (`<image>`, `<image 1>`, `<|image_pad|>`, ...): counted, taken out, or put into words.

Templates place the images in front of the question, so marks that only say where an image goes are taken out, with
their labels ("Image 1: <image>"). A mark inside a sentence or a choice stands for an image that the text speaks of: it
becomes "image 1", counted from 1 in the order of the images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import show

__all__ = ["count_marks", "resolve_marks"]

_NAME = r"(?:images?|img|media|picture|photo|图片|图像|图)"
_MARK = re.compile(
    r"<\|vision_start\|>\s*(?:<\|image_pad\|>)+\s*<\|vision_end\|>"
    r"|<im_start>\s*(?:<image>|(?:<im_patch>)+)\s*<im_end>"
    r"|\(<image>\./</image>\)"
    r"|<(?:image|img)>\s*(?:[^<>\s]{1,300}|(?:<(?:imagehere|img_context)>)+)?\s*</(?:image|img)>"
    rf"|<\|?\s*{_NAME}[\s_-]?(?P<number>\d{{1,3}})\s*/?\|?>"
    rf"|<{_NAME}>"
    r"|<\|(?:image|image_pad|image_placeholder|imgpad|img)\|>"
    r"|<(?:image|img)\b[^<>|\d]{0,200}>"
    r"|<(?:image_placeholder|image_token|image_pad|imagehere|img_context|image_soft_token|start_of_image)>"
    r"|\[(?:IMG|IMAGE)\]"
    # a placeholder of a template, but no argument of LaTeX: \text{image}
    rf"|(?<![A-Za-z_^\\}}]){{{{1,2}}\s?{_NAME}[\s_-]?(?P<filled>\d{{1,3}})?\s?}}{{1,2}}"
    # Markdown's
    r"|!\[[^\[\]\n]{0,200}+\]\([^()\n]*+\)",
    re.IGNORECASE,
)
_OTHER_MEDIA = re.compile(r"<\|?\s*(?:video|audio|sound|speech)(?:_?(?:pad|bos|eos|\d{1,3}))?\s*\|?>", re.IGNORECASE)
_STRAY = re.compile(
    r"<\|(?:vision_start|vision_end|image_pad|video_pad|vision_pad)\|>|<im_(?:start|end|patch)>|</(?:image|img)>",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"[(\[]?(?:(?:image|picture|photo|figure|img|pic|图片?)[ \t]*[-_#]?[ \t]*(?P<number>\d{1,3})?[ \t]*[.:)\]：]*"
    r"|(?P<plain>\d{1,3})[ \t]*[.:)\]：]+)[ \t]*$",
    re.IGNORECASE,
)
_BETWEEN = " \t\r\n,;，；、"
_SENTENCE_END = (".", "?", "!", ":", "。", "？", "！", "：", ")")


def count_marks(text: str) -> int:
    """How many image marks a text has."""
    return sum(1 for _ in _MARK.finditer(text))


def resolve_marks(texts: Sequence[str], images: int) -> tuple[str, ...]:
    """The texts of a sample (question, then choices) without marks, for this number of images.

    Raises SampleError when there are marks but not one for each image, and for marks of video and sound.
    """
    for text in texts:
        other = _OTHER_MEDIA.search(text)
        if other is not None:
            raise SampleError(f"has the mark {other.group()!r}: only images are read; leave the row out")
    marks = [(place, mark) for place, text in enumerate(texts) for mark in _MARK.finditer(text)]
    numbers = _numbers([mark for _, mark in marks], images)
    found = []
    for place, text in enumerate(texts):
        here = [(mark, n) for (where, mark), n in zip(marks, numbers, strict=True) if where == place]
        found.append(_without(text, here, in_choice=place > 0))
    for text in found:
        stray = _STRAY.search(text)
        if stray is not None:
            raise SampleError(f"has a lone {stray.group()!r}: write one <image> for each image, or none")
    return tuple(found)


def _numbers(marks: Sequence[re.Match[str]], images: int) -> list[int]:
    """The image (from 1) of every mark, by its own number or by its order."""
    given = [int(number) for mark in marks if (number := mark["number"] or mark["filled"])]
    if given and len(given) < len(marks):
        raise SampleError("has marks with and without a number: number all of them, or none")
    if not given:
        if marks and len(marks) != images:
            raise SampleError(f"has {_count(len(marks))} for {images} images: give one for each image, or none")
        return list(range(1, len(marks) + 1))
    if set(given) != set(range(1, images + 1)):
        shown = show(", ".join(mark.group() for mark in marks))
        raise SampleError(f"has the marks {shown} for {images} images: number them from 1, one for each image, or none")
    return given


def _count(marks: int) -> str:
    return "1 image mark" if marks == 1 else f"{marks} image marks"


def _without(text: str, marks: Sequence[tuple[re.Match[str], int]], *, in_choice: bool) -> str:
    """`text` with its marks, which stand for these images, taken out or put into words."""
    if not marks:
        return text
    ends = [0, *(mark.end() for mark, _ in marks)]
    spans = [
        (_label_start(text, mark, number, end), mark.end())
        for (mark, number), end in zip(marks, ends[:-1], strict=True)
    ]
    head = _leading(text, spans)
    tail = _trailing(text, spans[head:])
    if not in_choice and head + tail == len(spans):
        start = spans[head - 1][1] if head else 0
        end = spans[head][0] if tail else len(text)
        between = text[start:end].lstrip(_BETWEEN) if head else text[start:end]
        return (between.rstrip(_BETWEEN) if tail else between).strip()
    parts, last = [], 0
    for mark, number in marks:
        parts += [text[last : mark.start()], _in_words(text, mark, number)]
        last = mark.end()
    return "".join([*parts, text[last:]]).strip()


def _label_start(text: str, mark: re.Match[str], number: int, last: int) -> int:
    """Where a mark begins, with the label in front of it if that only counts the images; `last`: the mark before it."""
    line = max(text.rfind("\n", 0, mark.start()) + 1, last)
    label = _LABEL.search(text, line, mark.start())
    if label is None or text[line : label.start()].strip(_BETWEEN):
        return mark.start()
    named = label["number"] or label["plain"]
    return label.start() if named is None or int(named) == number else mark.start()


def _leading(text: str, spans: Sequence[tuple[int, int]]) -> int:
    """How many marks precede the text, nothing but space and commas between them."""
    at, count = 0, 0
    for start, end in spans:
        if text[at:start].strip(_BETWEEN):
            break
        at, count = end, count + 1
    return count


def _trailing(text: str, spans: Sequence[tuple[int, int]]) -> int:
    """How many marks follow a text that had ended before them."""
    at, count = len(text), 0
    for start, end in reversed(spans):
        if text[end:at].strip(_BETWEEN):
            break
        at, count = start, count + 1
    if not count:
        return 0
    before = text[:at].rstrip(" \t")
    return count if not before or before.endswith("\n") or before.rstrip().endswith(_SENTENCE_END) else 0


def _in_words(text: str, mark: re.Match[str], number: int) -> str:
    """ "image 2", with a space to a word that it would run into."""
    before, after = text[: mark.start()][-1:], text[mark.end() : mark.end() + 1]
    return f"{' ' if before.isalnum() else ''}image {number}{' ' if after.isalnum() else ''}"
