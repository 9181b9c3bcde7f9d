"""Boxes: geometry against brute force, coordinate spaces there and back, and reading what models really write."""

import json
import math
import re
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from patience import cpu_seconds

from mgpo_core import Box, CoordinateSpace, ParseResult, Rejection, iou, parse_boxes
from mgpo_core.boxes.layouts import Layout, named_layout

Size = tuple[int, int]

NUMBERS = st.integers(0, 5000) | st.floats(0, 5000, allow_nan=False).map(lambda value: round(value, 3))
BOXES = st.builds(Box, *[st.floats(-1e6, 1e6)] * 4)
SMALL = st.builds(Box, *[st.integers(0, 8)] * 4, image=st.integers(0, 1))
LABELS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="`"), max_size=12)

PAPER = """The bird is at the left.
```json
[
    {"bbox_2d": [10, 20, 300, 400], "label": "key image area"}
]
```"""


def box_of(numbers: Sequence[float]) -> Box:
    x1, y1, x2, y2 = numbers
    return Box(float(x1), float(y1), float(x2), float(y2))


# ---------------------------------------------------------------- geometry


def cells(box: Box) -> set[tuple[int, int, int]]:
    xs, ys = range(int(box.x1), int(box.x2)), range(int(box.y1), int(box.y2))
    return {(x, y, box.image) for x, y in product(xs, ys)}


@given(SMALL, SMALL)
def test_iou_equals_counting_pixels(a: Box, b: Box) -> None:
    both, either = cells(a) & cells(b), cells(a) | cells(b)
    expected = len(both) / len(either) if cells(a) and cells(b) else 0.0
    assert iou(a, b) == pytest.approx(expected)
    assert iou(a, b) == iou(b, a)


@pytest.mark.parametrize("huge", [1e200, 1.7e308, math.inf, math.nan])
def test_iou_stays_a_share_on_numbers_no_image_has(huge: float) -> None:
    boxes = [Box(-huge, -huge, huge, huge), Box(0, 0, 1, 1), Box(0, 0, huge, huge)]
    assert all(0.0 <= iou(a, b) <= 1.0 for a in boxes for b in boxes)


@given(SMALL)
def test_area_and_centre_follow_from_the_pixels(box: Box) -> None:
    assert box.area == len(cells(box))
    if cells(box):
        assert box.contains(*box.center)
        assert box.center[0] == sum(x + 0.5 for x, _, _ in cells(box)) / box.area
        assert (box.width, box.height) == (box.x2 - box.x1, box.y2 - box.y1)


@given(BOXES, st.integers(1, 500), st.integers(1, 500))
def test_clipped_corners_are_the_nearest_in_the_image(box: Box, width: int, height: int) -> None:
    clipped = box.clipped(width, height)
    for before, after, limit in zip(box.as_tuple(), clipped.as_tuple(), (width, height) * 2, strict=True):
        assert 0 <= after <= limit
        assert after == before or (after == 0 and before < 0) or (after == limit and before > limit)
    assert clipped.clipped(width, height) == clipped


def test_geometry_keeps_the_image_index() -> None:
    box = Box(1, 2, 3, 4, image=2)
    spaces = [space.to_original(box, (56, 56), (99, 77)).image for space in CoordinateSpace]
    assert [box.scaled(2, 3).image, box.clipped(2, 2).image, *spaces] == [2] * 4
    assert box.scaled(2, 3) == Box(2, 6, 6, 12, image=2)


# ---------------------------------------------------------------- coordinate spaces

SIZES = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))


@given(st.sampled_from(CoordinateSpace), SIZES, SIZES, st.data())
def test_original_to_model_and_back_is_exact(
    space: CoordinateSpace, input_size: Size, original_size: Size, data: st.DataObject
) -> None:
    width, height = original_size
    xs, ys = (
        sorted(data.draw(st.tuples(*[st.floats(0, width)] * 2))),
        sorted(data.draw(st.tuples(*[st.floats(0, height)] * 2))),
    )
    box = Box(xs[0], ys[0], xs[1], ys[1])
    there = space.from_original(box, input_size, original_size)
    back = space.to_original(there, input_size, original_size)
    assert back.as_tuple() == pytest.approx(box.as_tuple(), abs=1e-6)


@given(st.sampled_from(CoordinateSpace), SIZES, SIZES)
def test_the_whole_image_maps_to_the_whole_image_without_rounding(
    space: CoordinateSpace, input_size: Size, original_size: Size
) -> None:
    extent = input_size if space is CoordinateSpace.ABSOLUTE else (1000, 1000)
    whole = Box(0, 0, *extent)
    assert space.to_original(whole, input_size, original_size).as_tuple() == (0, 0, *original_size)
    assert space.to_input(whole, input_size).as_tuple() == (0, 0, *input_size)


def test_spaces_mean_what_their_names_say() -> None:
    box = Box(100, 200, 300, 400)
    assert CoordinateSpace.ABSOLUTE.to_input(box, (500, 800)) == box
    assert CoordinateSpace.ABSOLUTE.to_original(box, (500, 800), (1000, 800)) == Box(200, 200, 600, 400)
    assert CoordinateSpace.RELATIVE_1000.to_input(box, (500, 800)) == Box(50, 160, 150, 320)
    assert CoordinateSpace.RELATIVE_1000.to_original(box, (500, 800), (10_000, 2000)) == Box(1000, 400, 3000, 800)


def test_space_names_parse_and_a_wrong_one_names_the_nearest() -> None:
    assert CoordinateSpace.parse("absolute") is CoordinateSpace.ABSOLUTE
    assert CoordinateSpace.parse("0-1000") is CoordinateSpace.RELATIVE_1000
    assert CoordinateSpace.parse(CoordinateSpace.ABSOLUTE) is CoordinateSpace.ABSOLUTE
    with pytest.raises(ValueError, match="did you mean 'absolute'"):
        CoordinateSpace.parse("absolut")
    with pytest.raises(ValueError, match="known are 0-1000, absolute"):
        CoordinateSpace.parse("xyzzy")


# ---------------------------------------------------------------- what models write

KEY = Box(10, 20, 300, 400)
ONE_BOX = {
    "the paper's": PAPER,
    "bare list": '[{"bbox_2d": [10, 20, 300, 400], "label": "a"}]',
    "bare dict": '{"bbox_2d": [10, 20, 300, 400], "label": "a"}',
    "fenced dict": '```json\n{"bbox_2d": [10, 20, 300, 400], "label": "a"}\n```',
    "fence without a language": '```\n[{"bbox_2d": [10, 20, 300, 400]}]\n```',
    "bbox": '```json\n[{"bbox": [10, 20, 300, 400]}]\n```',
    "floats": '[{"bbox_2d": [10.0, 20.0, 3e2, 400.]}]',
    "extra keys": '[{"id": 7, "bbox_2d": [10, 20, 300, 400], "score": {"p": [0.5, null, true]}, "label": "x"}]',
    "single quotes": "[{'bbox_2d': [10, 20, 300, 400], 'label': 'a'}]",
    "an apostrophe in single quotes": "[{'label': 'the dog's tail', 'bbox_2d': [10, 20, 300, 400]}]",
    "trailing commas": '[{"bbox_2d": [10, 20, 300, 400,], "label": "a",},]',
    "bare keys": "[{bbox_2d: [10, 20, 300, 400], label: 'a'}]",
    "tuple": '{"bbox_2d": (10, 20, 300, 400)}',
    "doubly nested numbers": '{"bbox_2d": [[10, 20, 300, 400]]}',
    "wrapped in a dict": '{"objects": [{"bbox_2d": [10, 20, 300, 400]}]}',
    "several lines": '[\n  {\n   "bbox_2d" : [\n10,\n20,\n300,\n400\n]\n}\n]',
    "text around": 'I [think] {it} is [1, 2]: [{"bbox_2d": [10, 20, 300, 400]}] (see [4]). Done }]',
    "open brackets before": 'see [ and { and [[ then {"bbox_2d": [10, 20, 300, 400]}',
    "a broken block before": '```json\n[{"bbox_2d": [1, 2\n```\n```json\n[{"bbox_2d": [10, 20, 300, 400]}]\n```',
    "a wrong block before": '```json\n[{"bbox_2d": [1, 2, 3]}]\n```\n```json\n[{"bbox_2d": [10, 20, 300, 400]}]\n```',
    "an unclosed fence": '```json\n[{"bbox_2d": [10, 20, 300, 400]}]',
    "a list cut off behind its first dict": '[{"bbox_2d": [10, 20, 300, 400]}, {"bbox_2d": [1, 2',
    "no key at all": "```json\n[10, 20, 300, 400]\n```",
    "a keyed box behind plain numbers": 'Of [1, 2, 3, 4] take {"bbox_2d": [10, 20, 300, 400]}',
    "inline code": 'It is `{"bbox_2d": [10, 20, 300, 400]}`.',
    # numbers as texts, and boxes in other clothes
    "numbers as texts": '[{"bbox_2d": ["10", "20", " 300.0", "4e2"]}]',
    "a bare list of texts": '["10", "20", "300", "400"]',
    "one text": '{"bbox_2d": "10, 20, 300, 400"}',
    "one text with brackets": '{"bbox_2d": "[10, 20, 300, 400]"}',
    "two points": '{"bbox_2d": [[10, 20], [300, 400]]}',
    "two tuples": "[(10, 20), (300, 400)]",
    "named numbers": '{"bbox_2d": {"x1": 10, "y1": 20, "x2": 300, "y2": 400}, "label": "a"}',
    "named numbers alone": '[{"xmin": "10", "ymin": 20, "xmax": 300, "ymax": 400}]',
    # between box tokens
    "box tokens": "<|box_start|>(10,20),(300,400)<|box_end|>",
    "box tokens of a named object": "<|object_ref_start|>it<|object_ref_end|><|box_start|>(10,20),(300,400)<|box_end|>",
    "box tokens round a list": "So: <|box_start|>[[10, 20, 300, 400]]<|box_end|>",
    "box tokens, cut off": "<|box_start|>(10,20),(300,400)",
    "box tags": "<ref>it</ref><box>[[10, 20, 300, 400]]</box>",
    "bbox tags": "<bbox>[10, 20, 300, 400]</bbox>",
    "the other box tokens": "<|begin_of_box|>[[10,20,300,400]]<|end_of_box|>",
    "box tokens behind plain numbers": "Of [1, 2, 3, 4]: <|box_start|>(10,20),(300,400)<|box_end|>",
    "dropped box tokens": "It is at (10,20),(300,400).",
    "JSON between box tokens": '<|begin_of_box|>{"bbox_2d": [10, 20, 300, 400]}<|end_of_box|>',
    "a box token in a label": '{"label": "<box>(1,2),(3,4)</box>", "bbox_2d": [10, 20, 300, 400]}',
    # other layouts, which the key or a format beside it says
    "xywh": '{"bbox_xywh": [10, 20, 290, 380]}',
    "xywh in a list": '[{"xywh": ["10", 20, 290, 380], "label": "a"}]',
    "xyxy": '{"bbox_xyxy": [10, 20, 300, 400]}',
    "ltrb": '{"box_ltrb": [10, 20, 300, 400]}',
    "cxcywh": '{"bbox_cxcywh": [155, 210, 290, 380]}',
    "cxcywh alone": '{"cxcywh": [155, 210, 290, 380]}',
    "yxyx": '{"bbox_yxyx": [20, 10, 400, 300]}',
    "a format": '{"bbox": [10, 20, 290, 380], "bbox_format": "xywh"}',
    "a format before it": '{"format": "COCO", "bbox": [10, 20, 290, 380]}',
    "a format around it": '{"format": "xywh", "boxes": [{"bbox": [10, 20, 290, 380]}]}',
    "a format of another kind": '{"format": "json", "bbox": [10, 20, 300, 400]}',
    "width and height": '{"x": 10, "y": 20, "width": 290, "height": 380}',
    "left and top": '{"bbox": {"left": 10, "top": 20, "width": 290, "height": 380}}',
    # full-width signs
    "full-width commas": '[{"bbox_2d": [10，20，300，400]}]',
    "full-width JSON": "［｛“bbox_2d”：［10，20，300，400］，“label”：“杯子”｝］",
    "full-width points": "在（10，20），（300，400）。",
    "full-width numbers": "方框：［１０、20、３００，400］".replace("、", "，"),
    # reasoning
    "a box in the reasoning": '<think>[{"bbox_2d": [1, 2, 3, 4]}]?</think> [{"bbox_2d": [10, 20, 300, 400]}]',
    "a fenced box in the reasoning": f"<think>\n```json\n[{{'bbox_2d': [1, 2, 3, 4]}}]\n```\n</think>\n{PAPER}",
    "half a fence in the reasoning": f"<think>see ```json [</think>\n{PAPER}",
    "a reasoning that the prompt opened": f'[{{"bbox_2d": [1, 2, 3, 4]}}]</think>\n{PAPER}',
    "several reasonings": f"<think>[1, 2, 3, 4]</think><think>(1,2),(3,4)</think>\n{PAPER}",
    "a reasoning under another name": f'<thinking>{{"bbox": [1, 2, 3, 4]}}</thinking>{PAPER}',
    "box tokens in the reasoning": f"<think><|box_start|>(1,2),(3,4)<|box_end|></think>{PAPER}",
    "an open reasoning behind it": f'{PAPER}<think>or {{"bbox_2d": [1, 2, 3, 4]}}',
    # layouts and scales in words
    "a centre in words": '{"center_xywh": [155, 210, 290, 380]}',
    "a centre behind": '{"bbox_xywh_center": [155, 210, 290, 380]}',
    "corner, width and height": '{"bbox_x1y1wh": [10, 20, 290, 380]}',
    "a format in brackets": '{"bbox": [10, 20, 290, 380], "format": "[x, y, width, height]"}',
    "a format in words": '{"bbox": [10, 20, 290, 380], "format": "x_min, y_min, width, height"}',
    "a format of centres": '{"bbox": [155, 210, 290, 380], "format": "center x, center y, width, height"}',
    "a format of corners": '{"bbox": [10, 20, 300, 400], "format": "(x1, y1), (x2, y2)"}',
    "a format that counts from 0": '{"bbox": [20, 10, 400, 300], "format": "y0, x0, y1, x1"}',
    "a format in the key": '{"bbox [x, y, width, height]": [10, 20, 290, 380]}',
    "a key of four names": '{"x_y_width_height": [10, 20, 290, 380]}',
    "a format of coordinates": '{"bbox": [10, 20, 290, 380], "coordinate_format": "xywh"}',
    "a format of a plain list": '{"coordinates": [10, 20, 290, 380], "format": "xywh"}',
    "a mode by number": '{"bbox": [10, 20, 290, 380], "bbox_mode": 1}',
    "pixels": '{"bbox": [10, 20, 300, 400], "mode": "XYXY_ABS", "unit": "pixels", "scale": 1, "normalized": "False"}',
    "numbers from x0": '{"x0": 10, "y0": 20, "x1": 300, "y1": 400}',
    "numbers of a centre": '{"x_center": 155, "y_center": 210, "width": 290, "height": 380}',
    "two named corners": '{"top_left": [10, 20], "bottom_right": {"x": 300, "y": 400}}',
    # without JSON, or with more than JSON has
    "a tuple": "It is at (10, 20, 300, 400).",
    "numbers by name": "x1=10, y1=20, x2=300, y2=400",
    "numbers by name in a sentence": "I count 3: left: 10px, top: 20px, width: 290px and height: 380px.",
    "numbers by name in braces": "{x1=10, y1=20, x2=300, y2=400}",
    "nothing but numbers": "10, 20, 300, 400",
    "numbers between answer tags": "<answer>10, 20, 300, 400</answer>",
    "a tool call": '{"name": "zoom", "arguments": "{\\"bbox_2d\\": [10, 20, 300, 400]}"}',
    "comments": '[ // all\n{"bbox_2d": [10, 20, # corner\n300, 400], "label": "a" // the "one"\n}, /* {no} */ ]',
}
for opening, closing in (
    ("<Think>", "</Think>"),
    ("<THINK>", "</THINK>"),
    ("<think >", "</think >"),
    ("<rethink>", "</rethink>"),
    ("<cot>", "</cot>"),
    ("<thoughts>", "</ thoughts>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
):
    ONE_BOX[f"a box in {opening}"] = f"{opening}[1, 2, 3, 4]{closing}[10, 20, 300, 400]"


@pytest.mark.parametrize("text", ONE_BOX.values(), ids=ONE_BOX.keys())
def test_reads_what_models_write(text: str) -> None:
    result = parse_boxes(text)
    assert result.boxes == (KEY,)
    assert result.error is None
    # the winning block is complete at `end` and not before
    assert result.end is not None and parse_boxes(text[: result.end]).boxes == (KEY,)


@pytest.mark.parametrize(
    "text",
    [
        "[10, 20, 300, 400]\n\\boxed{A}",
        "The box is [10, 20, 300, 400]. \\boxed{A}",
        "Found (10,20),(300,400): \\boxed{A}",
        "```json\n[10, 20, 300, 400]\n``` so \\boxed{A}",
        "Here [10, 20, 300, 400] \\boxed{A} it is.",
        "So it is \\boxed{[10, 20, 300, 400]}",
    ],
)
def test_a_box_counts_though_an_answer_stands_beside_it(text: str) -> None:
    assert parse_boxes(text).boxes == (KEY,)


NO_BOX = {
    "": Rejection.NO_JSON,
    "The bird is at the left [maybe].": Rejection.NO_JSON,
    "bbox_2d: 1, 2, 3, 4": Rejection.NO_JSON,
    '```json\n[{"bbox_2d": [10, 20': Rejection.BAD_JSON,
    '[{"bbox_2d": [10, 20, 300, 400], "label": "key im': Rejection.BAD_JSON,
    '{"bbox_2d": [10, 20, 300 400]}': Rejection.BAD_JSON,
    '{"bbox_2d": [1 0, 20, 300, 400]}': Rejection.BAD_JSON,
    "```json\nnothing\n```": Rejection.BAD_JSON,
    '[{"bbox_2d": [10, 20, 300]}]': Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": [10, 20, 300, 400, 500]}]': Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": ["10", "20", "300", "x"]}]': Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": ["10", "20", "300", "1_0"]}]': Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": ["10", "20", "300", "NaN"]}]': Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": "10, 20, 300"}]': Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": {"x1": 10, "y1": 20}}]': Rejection.NOT_FOUR_NUMBERS,
    '{"point_2d": [10, 20]}': Rejection.NOT_FOUR_NUMBERS,
    '{"point_2d": [10, 20, 30, 40]}': Rejection.NOT_FOUR_NUMBERS,
    '{"image_size": [0, 0, 640, 480]}': Rejection.NOT_FOUR_NUMBERS,
    "<|box_start|>(316,58)<|box_end|>": Rejection.NOT_FOUR_NUMBERS,
    '{"object`: [{point_2d: (41, 51, 87, 64), label: "a"}]}': Rejection.BAD_JSON,
    "<|begin_of_box|>A<|end_of_box|>": Rejection.NO_JSON,
    '{"bbox_norm": [0.1, 0.2, 0.3, 0.4]}': Rejection.OTHER_LAYOUT,
    '{"normalized_bbox": [0.1, 0.2, 0.3, 0.4]}': Rejection.OTHER_LAYOUT,
    '{"bbox_yolo": [0.1, 0.2, 0.3, 0.4]}': Rejection.OTHER_LAYOUT,
    '{"bbox_xyxyn": [0.1, 0.2, 0.3, 0.4]}': Rejection.OTHER_LAYOUT,
    '{"box_2d": [20, 10, 400, 300]}': Rejection.OTHER_LAYOUT,
    '{"bbox": [0.1, 0.2, 0.3, 0.4], "normalized": true}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "bbox_format": "yolo"}': Rejection.OTHER_LAYOUT,
    '{"bbox_xyhw": [1, 2, 3, 4]}': Rejection.OTHER_LAYOUT,
    '{"bbox_yxhw": [1, 2, 3, 4]}': Rejection.OTHER_LAYOUT,
    '{"bbox_xywha": [1, 2, 3, 4]}': Rejection.OTHER_LAYOUT,
    '{"bbox_center": [1, 2, 3, 4]}': Rejection.OTHER_LAYOUT,
    '{"top_left_bottom_right": [1, 2, 3, 4]}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "format": "xmin, xmax, ymin, ymax"}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "format": "xywh", "box_format": "xyxy"}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "mode": "XYXY_REL"}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "bbox_mode": 2}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "format": "xywh", "normalized": true}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "normalized": "true"}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "is_normalized": true}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "relative": 1}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "unit": "percent"}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "scale": "0-1000"}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "scale": 1000}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "coordinate_range": [0, 1]}': Rejection.OTHER_LAYOUT,
    '{"bbox": [1, 2, 3, 4], "coordinate_system": "normalized (0..1)"}': Rejection.OTHER_LAYOUT,
    '{"rel_bbox": [1, 2, 3, 4]}': Rejection.OTHER_LAYOUT,
    '{"normalized_coordinates": [1, 2, 3, 4]}': Rejection.OTHER_LAYOUT,
    "<answer>5</answer>": Rejection.NO_JSON,
    '{"point_2d": (1, 2, 3, 4)}': Rejection.NOT_FOUR_NUMBERS,
    "{x1: 10, y1: 20, x2: 300, y2: 4": Rejection.BAD_JSON,
    '{"arguments": "{}"}': Rejection.NOT_FOUR_NUMBERS,
    r"The years [1990, 1995, 2000, 2005] \boxed{A}": Rejection.ANSWERED,
    r"In (1990, 1995, 2000, 2005), so **\boxed{\text{A}}**.": Rejection.ANSWERED,
    '{"bbox": [1, 2, 3, 4], "box_format": "mine"}': Rejection.OTHER_LAYOUT,
    '{"bbox_xyxy": [1, 2, 3, 4], "format": "xywh"}': Rejection.OTHER_LAYOUT,
    '<think>[{"bbox_2d": [1, 2, 3, 4]}]': Rejection.NO_JSON,
    '<think>[{"bbox_2d": [1, 2, 3, 4]}]</think> It is there.': Rejection.NO_JSON,
    r"The sign is red. \boxed{A}": Rejection.ANSWERED,
    r"So $\frac{a}{b}$ it is \boxed{\text{(A)}}.": Rejection.ANSWERED,
    r"<think>Hm.</think> The answer is \boxed{A. red}": Rejection.ANSWERED,
    r"See [4] and [1, 2]. \boxed{5}": Rejection.ANSWERED,
    r"So $x_{i} = {x}^2$, in {all} \boxed{A}": Rejection.ANSWERED,
    r"So \boxed{A": Rejection.BAD_JSON,
    r"[10, 20, 300 \boxed{A}": Rejection.BAD_JSON,
    r"<think>\boxed{A}</think> Nothing.": Rejection.NO_JSON,
    '```json\n[{"bbox_2d": [10, 20' + r" so \boxed{A}": Rejection.BAD_JSON,
    '[{"bbox_2d": [10, 20, 300]}] ' + r"so \boxed{A}": Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": [10, 20, 300, true]}]': Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": [10, 20, 300, null]}]': Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": [10, 20, 300, NaN]}]': Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": [-Infinity, 20, 300, 400]}]': Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": [10, 20, 300, 1e999]}]': Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": [10, 20, 300, ' + "9" * 350 + "]}]": Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": [10, 20, 300, ' + "9" * 5000 + "]}]": Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": null, "other": [1, 2, 3, 4]}]': Rejection.NOT_FOUR_NUMBERS,
    '[{"label": "key image area"}]': Rejection.NOT_FOUR_NUMBERS,
    "```json\n[]\n```": Rejection.NOT_FOUR_NUMBERS,
    '[{"bbox_2d": [1, 2, 3, 4], "image": 0}]': Rejection.OUTSIDE,
}


@pytest.mark.parametrize(("text", "reason"), NO_BOX.items(), ids=[text[:40] for text in NO_BOX])
def test_says_why_there_is_no_box(text: str, reason: Rejection) -> None:
    assert parse_boxes(text) == ParseResult((), (), None, reason.value)


def test_end_is_behind_the_closing_fence_or_the_bare_value() -> None:
    bare = '[{"bbox_2d": [1, 2, 3, 4]}]'
    for block in (bare, f"```json\n{bare}\n```", f"```json\n{bare} there it is\n\n```", f"```\n{bare}\n````"):
        for before, after in product(("", "Here: ", "```py\nx[0]\n```\n", "it's "), ("", "\nmore ``` text", "}]")):
            text = before + block + after
            assert text[: parse_boxes(text).end] == before + block


def test_first_valid_block_wins_and_all_its_boxes_come_in_order() -> None:
    first = '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8]}]\n```'
    result = parse_boxes(first + '\n```json\n[{"bbox_2d": [9, 9, 10, 10]}]\n```')
    assert result == ParseResult((Box(1, 2, 3, 4), Box(5, 6, 7, 8)), ("a", ""), len(first), None)


def test_image_key_counts_from_one_and_becomes_an_index() -> None:
    text = '[{"image": 2, "bbox_2d": [1, 2, 3, 4]}, {"image": "a.jpg", "bbox_2d": [1, 2, 3, 4]}]'
    assert [box.image for box in parse_boxes(text).boxes] == [1, 0]


@given(st.lists(st.tuples(st.tuples(*[NUMBERS] * 4), LABELS), min_size=1, max_size=4), st.booleans(), st.data())
def test_json_of_any_boxes_is_read_back(entries: list[tuple[Any, str]], fenced: bool, data: st.DataObject) -> None:
    written = [{"bbox_2d": list(numbers), "label": label} for numbers, label in entries]
    block = json.dumps(written, indent=data.draw(st.sampled_from([None, 2])), ensure_ascii=data.draw(st.booleans()))
    block = f"```json\n{block}\n```" if fenced else block
    prose = st.text(st.characters(exclude_characters="`[{", exclude_categories=["Cs"]), max_size=20)
    before = data.draw(prose)
    result = parse_boxes(before + block + data.draw(prose))
    assert result.boxes == tuple(box_of(numbers) for numbers, _ in entries)
    assert result.labels == tuple(label for _, label in entries)
    assert result.end == len(before + block)


PIECES = st.lists(
    st.sampled_from(["```", "```json", "[", "]", "{", "}", "(", ")", ",", ":", '"', "'", "\\", "\n", " ", "bbox_2d"])
    | st.sampled_from(['"bbox_2d"', "bbox", "1", "-2.5", "1e9", "NaN", "x", '"label": "a"', "[1, 2, 3, 4]", PAPER]),
    max_size=40,
).map("".join)


@given(PIECES | st.text(), st.booleans())
@example("\ud800[{'bbox': [1,2,3,4]}]", False)
@example('{"\\u', False)
@example("[1e5000]", True)
def test_any_text_is_read_without_raising(text: str, strict: bool) -> None:
    result = parse_boxes(text, strict=strict)
    if result.boxes:
        assert result.error is None and len(result.labels) == len(result.boxes)
        assert result.end is not None and parse_boxes(text[: result.end], strict=strict).boxes == result.boxes
        assert all(math.isfinite(number) for box in result.boxes for number in box.as_tuple())
    else:
        assert result.error in set(Rejection) and result.end is None and result.labels == ()


def papers_rule(text: str) -> tuple[list[Box], int] | None:
    """The paper's rule, written the plain way."""
    for match in re.finditer(r"```json(.*?)(?=```)", text, re.DOTALL):
        try:
            value = json.loads(match[1])
        except ValueError:
            continue
        entries = value if isinstance(value, list) else []
        good = [
            box_of(entry["bbox_2d"])
            for entry in entries
            if isinstance(entry, dict)
            and isinstance(entry.get("label"), str)
            and isinstance(entry.get("bbox_2d"), list)
            and [type(number) for number in entry["bbox_2d"]] == [int] * 4
        ]
        if good:
            return good, match.end() + 3
    return None


STRICT_VALUES = ["[1, 2, 3, 4]", "[1, 2, 3, 4.0]", "[1, 2, 3]", "[1, 2, 3, true]", "7"]
STRICT_ENTRIES = [f'{{"bbox_2d": {value}, "label": {label}}}' for value in STRICT_VALUES for label in ('"a"', "3")]
STRICT_PIECES = st.lists(
    st.sampled_from(["```", "```json\n", "\n```\n", "[", "]", ",", "text ", '{"bbox_2d": [1, 2, 3, 4]}', PAPER])
    | st.sampled_from(STRICT_ENTRIES),
    max_size=12,
).map("".join)


@given(STRICT_PIECES)
def test_strict_is_the_papers_rule(text: str) -> None:
    expected = papers_rule(text)
    result = parse_boxes(text, strict=True)
    assert (list(result.boxes), result.end) == (expected or ([], None))


@pytest.mark.parametrize("name", [name for name in ONE_BOX if name not in ("the paper's",)])
def test_strict_refuses_the_dialects(name: str) -> None:
    if PAPER in ONE_BOX[name]:
        return  # the paper's rule knows of no reasoning: it reads the block
    result = parse_boxes(ONE_BOX[name], strict=True)
    assert result.boxes == () and result.error in {"no_json", "bad_json", "not_four_numbers"}


def test_strict_reads_the_papers_own_block() -> None:
    assert parse_boxes(PAPER + " and more", strict=True) == ParseResult((KEY,), ("key image area",), len(PAPER), None)


@pytest.mark.parametrize("text", [r"It is red. \boxed{A}", r"{A} \boxed{A}", r"<think>x</think>\boxed{\frac{1}{2}}"])
def test_strict_too_tells_an_answer_from_no_box(text: str) -> None:
    assert parse_boxes(text, strict=True).error == "answered"


def test_strict_reads_a_block_in_the_reasoning_as_the_paper_does() -> None:
    assert parse_boxes(f"<think>{PAPER}</think>", strict=True).boxes == (KEY,)


def test_all_boxes_between_box_tokens_come_in_order() -> None:
    result = parse_boxes("<|box_start|>[[1, 2, 3, 4], [5, 6, 7, 8]]<|box_end|> and (9,9),(10,10)")
    assert result.boxes == (Box(1, 2, 3, 4), Box(5, 6, 7, 8)) and result.labels == ("", "")


def test_all_boxes_under_one_key_come_in_order() -> None:
    for key in ("bbox_2d", "bboxes"):
        result = parse_boxes(f'{{"{key}": [[1, 2, 3, 4], [5, 6, 7], [5, 6, 7, 8]], "label": "a", "image": 2}}')
        assert result.boxes == (Box(1, 2, 3, 4, image=1), Box(5, 6, 7, 8, image=1)) and result.labels == ("a", "a")


def test_a_scale_that_is_known_already_is_no_obstacle() -> None:
    for stated in ({"normalized": True}, {"unit": "ratio"}, {"format": "xywh", "scale": "[0, 1]"}):
        assert named_layout(stated) is Layout.OTHER and named_layout(stated, scale="0-1000") is Layout.OTHER
        assert named_layout(stated, scale="0-1") is (Layout.XYWH if "format" in stated else None)


MEGABYTE = 1_000_000
UNITS = [
    "[",
    "`",
    "{",
    "]",
    '"',
    "'",
    "\\",
    "[1,",
    '["',
    "['a",
    "```json",
    '{"a":[',
    "[ ",
    '[{"bbox_2d": [',
    "[1",
    "- ",
    "<think>",
    "</think>",
    "<box>1",
    "\\boxed{",
    "(1,2),",
    "[1//",
    "[1//\n",
    "[1/*",
    "x=1 ",
    "{x1:1,",
    "xmin",
    '{"arguments": "[',
    "< think",
]


@pytest.mark.parametrize(("unit", "tail"), [*((unit, "") for unit in UNITS), *((unit, ']"}') for unit in "[`{]\"'")])
def test_junk_is_read_in_linear_time(unit: str, tail: str) -> None:
    def read(size: int) -> None:
        text = '["' * (unit == "\\") + unit * (size // len(unit)) + tail
        parse_boxes(text)
        parse_boxes(text, strict=True)

    few, many = (cpu_seconds(lambda size=size: read(size), rounds=2) for size in (2**14, 2**17))
    assert many < 8 * few * 3 + 0.05  # quadratic would be 64 times


def test_a_box_behind_a_megabyte_of_junk_is_found() -> None:
    for unit in "[{`(\n":
        result = parse_boxes(unit * MEGABYTE + " " + ONE_BOX["bare list"])
        assert result.boxes == (KEY,)
