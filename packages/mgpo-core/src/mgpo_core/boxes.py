"""Boxes, the spaces their coordinates live in, and reading them out of what a model wrote."""

from __future__ import annotations

import difflib
import enum
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mgpo_core.loose_json import FENCE, find_values

Size = tuple[int, int]  # width, height in pixels


class Rejection(enum.StrEnum):
    """Why a turn gave no usable box (paper section 3: the original image is returned instead)."""

    NO_JSON = "no_json"  # nothing that looks like JSON
    BAD_JSON = "bad_json"  # JSON that breaks off or does not parse
    NOT_FOUR_NUMBERS = "not_four_numbers"  # JSON, but no box of four finite numbers in it
    REVERSED = "reversed"  # x2 <= x1 or y2 <= y1
    OUTSIDE = "outside"  # not wholly inside the image, or on an image that does not exist
    TOO_SMALL = "too_small"
    TOO_ELONGATED = "too_elongated"
    NO_IMAGE = "no_image"  # an answer over several images that does not say which one it means


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle from corner (x1, y1) to corner (x2, y2) on the `image`-th image (0-based) of its sample.

    Plain numbers: the unit is that of the space the box is used in (see CoordinateSpace), and nothing is checked here.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    image: int = 0

    @property
    def width(self) -> float:
        """x2 - x1; negative for a reversed box."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """y2 - y1; negative for a reversed box."""
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """Width times height, 0 for a reversed box."""
        return max(self.width, 0.0) * max(self.height, 0.0)

    @property
    def center(self) -> tuple[float, float]:
        """The middle point (x, y)."""
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    def contains(self, x: float, y: float) -> bool:
        """Whether the point lies inside or on the border."""
        return self.x1 <= x <= self.x2 and self.y1 <= y <= self.y2

    def scaled(self, sx: float, sy: float) -> Box:
        """The box with x multiplied by `sx` and y by `sy`."""
        return Box(self.x1 * sx, self.y1 * sy, self.x2 * sx, self.y2 * sy, self.image)

    def clipped(self, width: float, height: float) -> Box:
        """The box with its corners moved into 0..width and 0..height."""
        x1, x2 = (min(max(x, 0), width) for x in (self.x1, self.x2))
        y1, y2 = (min(max(y, 0), height) for y in (self.y1, self.y2))
        return Box(x1, y1, x2, y2, self.image)

    def as_tuple(self) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2)."""
        return self.x1, self.y1, self.x2, self.y2

    def in_words(self) -> str:
        """Its image, from 1, and its corners in whole numbers: how an answer over several images is logged."""
        return f"image {self.image + 1}: {[round(value) for value in self.as_tuple()]}"


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0..1; 0 when the boxes lie on different images or one of them has no area."""
    if a.image != b.image or not a.area > 0 or not b.area > 0:
        return 0.0
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    if width <= 0 or height <= 0:
        return 0.0
    # of areas that overflow a double no share can be told
    share = width * height / (a.area + b.area - width * height)
    return min(share, 1.0) if math.isfinite(share) else 0.0


class CoordinateSpace(enum.Enum):
    """What the numbers a model writes mean; sizes are (width, height) in pixels throughout."""

    ABSOLUTE = "absolute"  # pixels of the resized image the model sees (Qwen2.5-VL)
    RELATIVE_1000 = "0-1000"  # thousandths of the width and of the height (Qwen3-VL)

    @classmethod
    def parse(cls, name: str | CoordinateSpace) -> CoordinateSpace:
        """The space called `name`; raises ValueError with the nearest right name."""
        if isinstance(name, cls):
            return name
        names = [space.value for space in cls]
        try:
            return cls(name)
        except ValueError:
            near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(map(repr, names))}."
            raise ValueError(f"Unknown coordinate space {name!r}: {hint}") from None

    def _extent(self, input_size: Size) -> Size:
        return input_size if self is CoordinateSpace.ABSOLUTE else (1000, 1000)

    def to_original(self, box: Box, input_size: Size, original_size: Size) -> Box:
        """A model's box in pixels of the original image, unrounded."""
        return _mapped(box, self._extent(input_size), original_size)

    def from_original(self, box: Box, input_size: Size, original_size: Size) -> Box:
        """A box in original pixels as the model would write it, unrounded."""
        return _mapped(box, original_size, self._extent(input_size))

    def to_input(self, box: Box, input_size: Size) -> Box:
        """A model's box in pixels of the resized image."""
        return _mapped(box, self._extent(input_size), input_size)


def _mapped(box: Box, source: Size, target: Size) -> Box:
    if source == target:
        return box
    # multiply, then divide: a result that is a whole number comes out whole, so outward rounding adds no pixel
    (sw, sh), (tw, th) = source, target
    return Box(box.x1 * tw / sw, box.y1 * th / sh, box.x2 * tw / sw, box.y2 * th / sh, box.image)


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

    Accepts lists and dicts, fenced or bare, keyed `bbox_2d` or `bbox`, in the dialects of JSON that models write
    (loose_json); without any such key, a plain list of four numbers. An `image` key (1-based) becomes Box.image
    (0-based). `strict=True` is the paper's rule: the first fenced `json` block holding a list with a dict whose
    `bbox_2d` is four ints and whose `label` is a string.
    """
    return _parse_strict(text) if strict else _parse_loose(text)


def _parse_loose(text: str) -> ParseResult:
    values, broken = find_values(text)
    error: Rejection | None = None
    keyed = False
    for value in values:
        entries = [entry for entry in _walk(value.value) if _box_value(entry) is not None]
        keyed = keyed or bool(entries)
        boxes = [_read(entry) for entry in entries]
        good = [(box, entry) for box, entry in zip(boxes, entries, strict=True) if isinstance(box, Box)]
        if good:
            return ParseResult(
                tuple(box for box, _ in good),
                tuple(_label(entry) for _, entry in good),
                _block_end(text, value.start, value.end),
                numbered=tuple(_image_number(entry) is not None for _, entry in good),
            )
        error = error or next((box for box in boxes if isinstance(box, Rejection)), None)
    if not keyed:
        for value in values:
            if value.rescued:
                continue  # the numbers of an entry that broke off are no entry
            plain = next((box for part in _walk(value.value) if (box := _four(part)) is not None), None)
            if plain is not None:
                return ParseResult((plain,), ("",), _block_end(text, value.start, value.end), numbered=(False,))
    if error is None:
        fenced = "```json" in text
        error = Rejection.BAD_JSON if broken or (fenced and not values) else Rejection.NO_JSON
        error = Rejection.NOT_FOUR_NUMBERS if values and not broken else error
    return ParseResult(error=error.value)


def _walk(value: Any) -> Iterator[Any]:
    """`value` and every list and dict inside it, in the order written (depth is bounded by loose_json.MAX_DEPTH)."""
    if isinstance(value, (list, dict)):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _walk(part)


def _box_value(entry: Any) -> Any:
    """What stands under `bbox_2d` or `bbox`, None when `entry` is no dict with such a key."""
    if not isinstance(entry, dict):
        return None
    by_name = {key.strip().lower(): value for key, value in entry.items()}
    # a null or empty box is a wrong box, not a missing key
    return next((by_name[name] or "" for name in ("bbox_2d", "bbox") if name in by_name), None)


def _read(entry: dict[str, Any]) -> Box | Rejection:
    value = _box_value(entry)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # [[x1, y1, x2, y2]]
    box = _four(value)
    if box is None:
        return Rejection.NOT_FOUR_NUMBERS
    image = _image_number(entry)
    if image is None:
        return box
    return Box(*box.as_tuple(), image=image - 1) if image >= 1 else Rejection.OUTSIDE


def _image_number(entry: dict[str, Any]) -> int | None:
    """The number under `image`, also as a text of digits; None without one (a file name is an extra key)."""
    image = entry.get("image")
    if isinstance(image, str) and image.strip().isdecimal() and len(image) < 10:
        return int(image)
    return image if isinstance(image, int) and not isinstance(image, bool) else None


def _four(value: Any) -> Box | None:
    """A Box of exactly four finite numbers, else None."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if any(isinstance(part, bool) or not isinstance(part, (int, float)) for part in value):
        return None
    try:
        x1, y1, x2, y2 = (float(part) for part in value)
    except OverflowError:
        return None
    return Box(x1, y1, x2, y2) if all(map(math.isfinite, (x1, y1, x2, y2))) else None


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
            boxes = [(box, entry["label"]) for entry in good if (box := _four(entry["bbox_2d"])) is not None]
            if boxes:
                labels = tuple(label for _, label in boxes)
                return ParseResult(tuple(box for box, _ in boxes), labels, closing + 3, numbered=(False,) * len(boxes))
        opening = text.find("```json", closing)
    return ParseResult(error=error.value)


def _is_papers_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        return False
    numbers = entry.get("bbox_2d")
    return isinstance(numbers, list) and len(numbers) == 4 and all(type(number) is int for number in numbers)
