"""The rule-based writer: what it says, in how many ways, and that the same seed says the same."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from reasoning_fixture import LABELS, haystack_sets, kitchen, reasons, scene_set

from mgpo_core.boxes.parse import Box
from mgpo_core.boxes.regions import REGION
from mgpo_core.errors import SampleError
from mgpo_core.samples.annotations import AnnotatedObject, AnnotatedSet
from mgpo_train.reasoning_data.writers import write_trace
from mgpo_train.reasoning_data.writers.english import counted, joined, plural, position_words
from mgpo_train.reasoning_data.writers.wordings import WORDINGS


def test_the_terse_wording_is_what_data_specs_have_always_given() -> None:
    one = kitchen()
    given = write_trace(one).solution
    assert write_trace(one) == write_trace(one, wording="terse", seed=5)
    assert given.reasoning == "Image 1: cup.\nImage 2: no cup.\nImage 3: cup.\nThe cup is in image 3."
    assert (given.box, given.label, given.regions) == (one.objects[4].box, "cup", ())
    compared = next(one for one in haystack_sets(3) if one.task == "common_object")
    lines = write_trace(compared).solution.reasoning.split("\n")
    assert lines[:3] == [f"Image {image + 1}: {', '.join(compared.labels(image))}." for image in range(3)]


def test_the_varied_wording_is_a_function_of_seed_and_set() -> None:
    one, other = haystack_sets(3)[:2]
    texts = [write_trace(one, wording="varied", seed=seed).solution.reasoning for seed in range(30)]
    assert texts == [write_trace(one, wording="varied", seed=seed).solution.reasoning for seed in range(30)]
    assert len(set(texts)) > 25
    renamed = dataclasses.replace(one, id=other.id)
    assert write_trace(renamed, wording="varied").solution.reasoning != texts[0]


def test_every_kind_of_statement_has_four_wordings_all_used() -> None:
    assert all(len(set(wordings)) >= 4 for wordings in WORDINGS.values())
    patterns = {
        wording: re.compile(re.sub(r"\\\{\w+\\\}", ".+?", re.escape(wording)), re.IGNORECASE)
        for kind, wordings in WORDINGS.items()
        if kind != "image"
        for wording in wordings
    }
    used: Counter[str] = Counter()
    for seed in range(300):
        text = write_trace(scene_set(seed), wording="varied", seed=seed).solution.reasoning
        used.update(wording for wording in set(patterns) - set(used) if patterns[wording].search(text))
    assert set(patterns) == set(used)


def test_the_varied_wording_weighs_all_images_and_marks_the_box() -> None:
    for annotated in haystack_sets(4):
        given = write_trace(annotated, wording="varied").solution
        images, *rest = given.reasoning.split("\n")
        assert given.box == annotated.answer.box and given.regions[-1] == annotated.answer.box
        assert given.reasoning.count(REGION) == len(given.regions)
        assert len(re.findall(r"image \d|\w+ image", images, re.IGNORECASE)) >= len(annotated.images)
        assert any(annotated.answer.label in line for line in rest)
        if annotated.task == "region":
            assert given.regions[0] == annotated.regions[0]


def test_an_unknown_wording_is_an_error_with_the_nearest() -> None:
    with pytest.raises(SampleError, match="did you mean 'varied'"):
        write_trace(haystack_sets(2)[0], wording="varid")


def two_images(first: list[str], second: list[str], asked: str) -> AnnotatedSet:
    """Things side by side in each of two images; the asked one is the last of the second."""
    objects = [
        AnnotatedObject(label, Box(40 * place + 1, 30 * image + 1, 40 * place + 39, 90 + 30 * image, image))
        for image, labels in enumerate((first, [*second, asked]))
        for place, label in enumerate(labels)
    ]
    size = (400, 200)
    return AnnotatedSet(
        "two", "Which?", ("a.png", "b.png"), tuple(objects), target=len(objects) - 1, sizes=(size, size)
    )


things = st.lists(
    st.sampled_from([*LABELS, "image", "answer", "view", "glasses", "No Entry sign", "a.k.a. tag"]), max_size=6
)


@settings(max_examples=60)
@given(things, things, st.sampled_from(LABELS), st.integers(0, 9))
def test_whatever_the_images_hold_is_told_truly(first, second, asked, seed) -> None:
    annotated = two_images(first, [label for label in second if label != asked], asked)
    for wording in ("terse", "varied"):
        trace = write_trace(annotated, wording=wording, seed=seed)
        assert not reasons(annotated, trace), trace


@pytest.mark.parametrize("wording", ["terse", "varied"])
def test_a_plural_that_is_another_label_is_not_written(wording: str) -> None:
    for seed in range(20):
        annotated = two_images(["buses", "cup"], ["bus", "bus"], "cup")
        trace = write_trace(annotated, wording=wording, seed=seed)
        assert not reasons(annotated, trace), trace
        assert "two buses" not in trace.solution.reasoning


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("cup", "cups"), ("coffee cup", "coffee cups"), ("bus", "buses"), ("box", "boxes"), ("person", "people"),
        ("berry", "berries"), ("toy", "toys"), ("knife", "knives"), ("sheep", "sheep"), ("St. Bernard", "St. Bernards"),
        ("woman", "women"), ("fireman", "firemen"), ("human", "humans"), ("wine glass", "wine glasses"),
        ("bench", "benches"), ("scissors", "scissors"), ("Man", "Men"),
    ],
)  # fmt: skip
def test_plurals(noun: str, expected: str) -> None:
    assert plural(noun) == expected


def test_articles_numbers_and_lists() -> None:
    assert [counted(noun, 1) for noun in ("cup", "apple", "scissors")] == ["a cup", "an apple", "scissors"]
    assert [counted("cup", 3), counted("cup", 12)] == ["three cups", "12 cups"]
    assert [joined(list("abc")[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (0.32, 0.2, "in the upper left"), (0.35, 0.2, "in the upper middle"), (0.68, 0.2, "in the upper right"),
        (0.32, 0.5, "in the middle left"), (0.65, 0.5, "in the centre"), (0.68, 0.5, "in the middle right"),
        (0.32, 0.9, "in the lower left"), (0.65, 0.9, "in the lower middle"), (0.68, 0.9, "in the lower right"),
    ],
)  # fmt: skip
def test_positions_are_thirds_of_the_image(x: float, y: float, words: str) -> None:
    assert position_words(Box(400 * x - 5, 300 * y - 5, 400 * x + 5, 300 * y + 5), (400, 300))[0] == words
