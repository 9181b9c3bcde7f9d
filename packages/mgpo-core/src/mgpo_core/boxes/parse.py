"""Reading boxes out of what a model wrote."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mgpo_core.boxes.box import Box, CoordinateSpace, Size, iou
from mgpo_core.boxes.boxed_answer import extract_boxed
from mgpo_core.boxes.layouts import Layout, box_key, corners, holds_several, is_no_box, named_layout
from mgpo_core.boxes.loose_json import FENCE, Value, find_values
from mgpo_core.boxes.plain_text import MarkedBoxes, bare_box, marked_boxes, without_latex, without_reasoning

__all__ = ["Box", "CoordinateSpace", "ParseResult", "Rejection", "Size", "iou", "parse_boxes", "rejection_words"]


class Rejection(enum.StrEnum):
    """Why a turn gave no usable box (paper section 3: the original image is returned instead)."""

    NO_JSON = "no_json"  # nothing that looks like JSON
    ANSWERED = "answered"  # the answer in \\boxed{} instead of a box
    BAD_JSON = "bad_json"  # JSON that breaks off or does not parse
    NOT_FOUR_NUMBERS = "not_four_numbers"  # JSON, but no box of four finite numbers in it
    OTHER_LAYOUT = "other_layout"  # a key or a format that names a layout or a scale that is not read
    REVERSED = "reversed"  # x2 <= x1 or y2 <= y1
    OUTSIDE = "outside"  # not wholly inside the image, or on an image that does not exist
    TOO_SMALL = "too_small"
    TOO_ELONGATED = "too_elongated"
    NO_IMAGE = "no_image"  # an answer over several images that does not say which one it means


def rejection_words(rejection: str) -> str:
    """A Rejection value as reports and the demo word it."""
    return "answered instead of giving a box" if rejection == Rejection.ANSWERED else rejection.replace("_", " ")


@dataclass(frozen=True)
class ParseResult:
    """Boxes with their labels ("" where there is none), in the order written.

    `end`: index into the text just behind the winning block (behind its closing fence, if it has one), None without a
    box. `error`: a Rejection value when there is no box, else None. `numbered`: for each box, whether it came with the
    number of its image (a box without is on image 0).
    """

    boxes: tuple[Box, ...] = ()
    labels: tuple[str, ...] = ()
    end: int | None = None
    error: str | None = None
    numbered: tuple[bool, ...] = field(default=(), compare=False)


def parse_boxes(text: str, *, strict: bool = False) -> ParseResult:
    """Read the first block of boxes out of a model's text; never raises, linear in the text's length.

    What is in a reasoning (`<think>...</think>`, or one that is not closed) is no answer and is not read. Accepts
    lists and dicts, fenced or bare, keyed `bbox_2d` or `bbox`, in the dialects of JSON that models write
    (loose_json), numbers also as texts; a key or a format that names another layout (`bbox_xywh`) is read as it says.
    Also what stands between box tokens (`<|box_start|>(10,20),(110,120)<|box_end|>`). Without any of these, a plain
    list of four numbers, or what `bare_box` reads; a list in the prose of a text that ends with its answer in
    \\boxed{} is none. Full-width signs (`［10，20，110，120］`) are read if plain ones give no box. An `image` key
    (1-based) becomes Box.image (0-based). `strict=True` is the paper's rule: the first fenced `json`
    block holding a list with a dict whose `bbox_2d` is four ints and whose `label` is a string.
    """
    result = _parse_strict(text) if strict else _parse_loose(text)
    if not strict and not result.boxes and _WIDE_SIGN.search(text):
        result = _parse_loose(text.translate(_PLAIN_SIGNS))  # as long as the text was
    if result.error in _ANSWERED_INSTEAD and _answers(text, strict=strict):
        return ParseResult(error=Rejection.ANSWERED.value)
    return result


_MEANT_BOX = re.compile(r"bo?x_?2d|bbox|bounding|[\"']\w{1,40}[\"']\s{0,9}:|\[\s{0,9}-?\d", re.IGNORECASE)
"""What a box that breaks off begins with."""
_WIDE_SIGN = re.compile("[，：［（【｛“「０-９]")
_PLAIN_SIGNS = str.maketrans("，：［］（）｛｝【】“”「」‘’０１２３４５６７８９．", ',:[](){}[]""""\'\'0123456789.')
"""What a model that answers in Chinese may write for JSON's own signs."""
_ANSWERED_INSTEAD = (Rejection.NO_JSON, Rejection.BAD_JSON, Rejection.NOT_FOUR_NUMBERS)


def _answers(text: str, *, strict: bool) -> bool:
    r"""Whether a text without a box holds an answer in \boxed{}, and beside it nothing that was to be a box."""
    said = text if strict else without_reasoning(text)
    if "\\boxed" not in said or "```json" in said or extract_boxed(said) is None:
        return False
    values, broken = find_values(without_latex(said))
    meant = broken and _MEANT_BOX.search(said) is not None  # not the braces of x_{i}
    return not meant and not any(_entries(value.value) for value in values) and not marked_boxes(said)


def _parse_loose(text: str) -> ParseResult:
    text = without_reasoning(text)
    values, broken = find_values(text)
    error: Rejection | None = None
    keyed = False
    for block in _in_order(values, marked_boxes(text)):
        if isinstance(block, MarkedBoxes):
            read: list[tuple[Box | Rejection, dict[str, Any]]]
            read = [(Box(*four), {}) for four in block.boxes] or [(Rejection.NOT_FOUR_NUMBERS, {})]
        else:
            read = [(box, entry) for entry, said in _entries(block.value) for box in _read(entry, said)]
        keyed = keyed or bool(read)
        good = [(box, entry) for box, entry in read if isinstance(box, Box)]
        if good:
            return ParseResult(
                tuple(box for box, _ in good),
                tuple(_label(entry) for _, entry in good),
                _block_end(text, block.start, block.end),
                numbered=tuple(_image_number(entry) is not None for _, entry in good),
            )
        error = error or next((box for box, _ in read if isinstance(box, Rejection)), None)
    plain = None if keyed else _plain_box(text, values)
    if isinstance(plain, MarkedBoxes):
        [four], end = plain.boxes, _block_end(text, plain.start, plain.end)
        if end == plain.end and _is_prose(text, plain) and _ends_with_answer(text):
            return ParseResult(error=Rejection.ANSWERED.value)
        return ParseResult((Box(*four),), ("",), end, numbered=(False,))
    error = error or plain
    if error is None:
        fenced = "```json" in text
        error = Rejection.BAD_JSON if broken or (fenced and not values) else Rejection.NO_JSON
        error = Rejection.NOT_FOUR_NUMBERS if values and not broken else error
    return ParseResult(error=error.value)


def _in_order(values: list[Value], marked: list[MarkedBoxes]) -> Iterator[Value | MarkedBoxes]:
    """Blocks as they begin in the text; what lies inside an earlier one is part of it."""
    if not marked:
        yield from values
        return
    until = 0
    blocks: list[Value | MarkedBoxes] = [*marked, *values]
    for block in sorted(blocks, key=lambda block: block.start):
        if block.start >= until:
            until = block.end
            yield block


def _plain_box(text: str, values: list[Value]) -> MarkedBoxes | Rejection | None:
    """The first plain list of four numbers, or box without JSON, whichever begins first; why it is not read."""
    bare = bare_box(_without_values(text, values))
    for value in values:
        if bare is not None and bare.start < value.start:
            return bare
        if value.rescued:
            continue  # the numbers of an entry that broke off are no entry
        for part, key, said in _walk(value.value):
            if not isinstance(part, list) or len(part) not in (2, 4) or is_no_box(key) or corners(part) is None:
                continue
            layout = named_layout({key: True}) or said or Layout.UNSAID  # "normalized_coordinates"
            four = corners(part, layout)
            if layout is Layout.OTHER or four is None:
                return Rejection.OTHER_LAYOUT
            return MarkedBoxes((four,), value.start, value.end)
    return bare


def _without_values(text: str, values: list[Value]) -> str:
    """`text` with its values blanked out, of the same length."""
    parts, done = [], 0
    for value in sorted(values, key=lambda value: value.start):
        if value.end > done:
            parts += [text[done : value.start], "\1" * (value.end - max(done, value.start))]
            done = value.end
    return "".join([*parts, text[done:]])


_SAYS_BOX = re.compile(r"bo?x(?![a-z])|bo?x_?2d|bounding|coordinate|region|area|crop", re.IGNORECASE)
_ENDS = ("<|im_end|>", "<|endoftext|>", "</s>", "</answer>")


def _is_prose(text: str, plain: MarkedBoxes) -> bool:
    """Whether flat numbers in brackets are in a sentence that does not speak of a box."""
    numbers = text[plain.start : plain.end]
    if numbers[:1] not in ("[", "(") or re.search(r"[\[({]", numbers[1:]):
        return False
    until = text.find("\n", plain.end)
    behind = text[plain.end : until if until >= 0 else len(text)].partition("\\boxed")[0]
    line = text[text.rfind("\n", 0, plain.start) + 1 : plain.start] + behind
    return re.search(r"[^\W\d_]", line) is not None and _SAYS_BOX.search(line) is None


def _ends_with_answer(text: str) -> bool:
    r"""Whether a text ends with a \boxed{} that holds more than a list of numbers."""
    said = extract_boxed(text)
    if not said or not re.search(r"[^\s\d.,;()\[\]+-]", said):
        return False
    text = text.rstrip("\0 \t\r\n")
    for end in _ENDS:
        text = text.removesuffix(end).rstrip("\0 \t\r\n")
    text = text.rstrip(" \t\r\n.。!！$*)]`\\")
    return text.endswith("}") and text[:-1].rstrip().endswith(said)


_ARGUMENTS = frozenset(("arguments", "args", "parameters", "params", "input", "tool_input"))


def _walk(value: Any, key: str = "", said: Layout | None = None) -> Iterator[tuple[Any, str, Layout | None]]:
    """(part, the key it stands under, the layout stated around it) of `value` and every list and dict inside it.

    In the order written; the depth is bounded by loose_json.MAX_DEPTH. The arguments of a tool call may be JSON text.
    """
    if isinstance(value, dict):
        said = named_layout(value) or said
        yield value, key, said
        for name, part in value.items():
            if isinstance(part, str) and name in _ARGUMENTS:
                found = [inner.value for inner in find_values(part)[0]]
                part = [
                    {n: p for n, p in v.items() if n not in _ARGUMENTS} if isinstance(v, dict) else v for v in found
                ]
            yield from _walk(part, name, said)
    elif isinstance(value, list):
        yield value, key, said
        for part in value:
            yield from _walk(part, key, said)


def _entries(value: Any) -> list[tuple[dict[str, Any], Layout | None]]:
    """(entry, the layout stated for it) for every dict that holds a box, or should."""
    return [
        (part, said)
        for part, key, said in _walk(value)
        if isinstance(part, dict) and (_box_value(part) is not None or _is_box(part, key))
    ]


def _is_box(entry: dict[str, Any], key: str) -> bool:
    """Whether a dict is itself a box (`{"x1": ..., ...}`), and not one that the entry around it has read already."""
    return box_key(key) is None and not is_no_box(key) and corners(entry) is not None


def _box_value(entry: dict[str, Any]) -> tuple[Layout, Any] | None:
    """(layout, value) under `bbox_2d` or `bbox`, else under the first key of a box; None without one."""
    found = [(key, layout, value) for key, value in entry.items() if (layout := _value_layout(key, value)) is not None]
    by_name = {key.strip().lower(): (layout, value) for key, layout, value in reversed(found)}
    own = next((by_name[name] for name in ("bbox_2d", "bbox") if name in by_name), None)
    return own or (found[0][1:] if found else None)


def _value_layout(key: str, value: Any) -> Layout | None:
    lists = holds_several(key) and isinstance(value, list) and value and all(isinstance(part, list) for part in value)
    return Layout.UNSAID if lists else box_key(key)


def _read(entry: dict[str, Any], said: Layout | None) -> list[Box | Rejection]:
    """The box of an entry, or the boxes in a list under its key, or why there is none."""
    layout, value = _box_value(entry) or (Layout.UNSAID, entry)
    if said is not None and said is not layout:
        layout = said if layout is Layout.UNSAID else Layout.OTHER
    if layout is Layout.OTHER:
        return [Rejection.OTHER_LAYOUT]
    one = corners(value, layout)
    parts = value if one is None and isinstance(value, list) else []
    fours = [one] if one is not None else [four for part in parts if (four := corners(part, layout)) is not None]
    image = _image_number(entry)
    if not fours:
        return [Rejection.NOT_FOUR_NUMBERS]
    if image is None:
        return [Box(*four) for four in fours]
    return [Box(*four, image=image - 1) for four in fours] if image >= 1 else [Rejection.OUTSIDE]


def _image_number(entry: dict[str, Any]) -> int | None:
    """The number under `image`, also as a text of digits; None without one (a file name is an extra key)."""
    image = entry.get("image")
    if isinstance(image, str) and image.strip().isdecimal() and len(image) < 10:
        return int(image)
    return image if isinstance(image, int) and not isinstance(image, bool) else None


def _label(entry: dict[str, Any]) -> str:
    label = entry.get("label")
    return label if isinstance(label, str) else ""


def _block_end(text: str, start: int, end: int) -> int:
    """Where the block around text[start:end] ends: behind the closing fence if a fence is open at `start`."""
    is_open = False
    for fence in FENCE.finditer(text, 0, start):
        # "```json" always opens, whatever came before; any other fence alternates
        is_open = text.startswith("json", fence.end()) or not is_open
    closing = FENCE.search(text, end) if is_open else None
    return end if closing is None else closing.end()


def _parse_strict(text: str) -> ParseResult:
    error = Rejection.NO_JSON
    opening = text.find("```json")
    while opening >= 0:
        closing = text.find("```", opening + 7)
        if closing < 0:
            return ParseResult(error=(Rejection.BAD_JSON if error is Rejection.NO_JSON else error).value)
        try:
            value = json.loads(text[opening + 7 : closing])
        except (ValueError, RecursionError):
            error = Rejection.BAD_JSON
        else:
            error = Rejection.NOT_FOUR_NUMBERS
            good = [entry for entry in value if _is_papers_entry(entry)] if isinstance(value, list) else []
            boxes = [(four, entry["label"]) for entry in good if (four := corners(entry["bbox_2d"])) is not None]
            if boxes:
                labels = tuple(label for _, label in boxes)
                return ParseResult(
                    tuple(Box(*four) for four, _ in boxes), labels, closing + 3, numbered=(False,) * len(boxes)
                )
        opening = text.find("```json", closing)
    return ParseResult(error=error.value)


def _is_papers_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        return False
    numbers = entry.get("bbox_2d")
    return isinstance(numbers, list) and len(numbers) == 4 and all(type(number) is int for number in numbers)
