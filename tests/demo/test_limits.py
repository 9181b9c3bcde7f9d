"""What a visitor may ask: each limit has its sentence, and what is within it passes."""

from __future__ import annotations

import dataclasses

import pytest

from mgpo_demo.session.limits import DemoError, Limits

LIMITS = Limits(upload_mb=2, megapixels=3, question=20)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_would_let_nobody_in_or_everything_through_is_refused(name: str, value: float) -> None:
    with pytest.raises(DemoError, match=name):
        Limits(**{name: value})


def test_a_file_may_have_as_many_bytes_as_the_limit_and_no_more() -> None:
    LIMITS.check_upload(2_000_000, "It")
    with pytest.raises(DemoError, match=r"It has 2\.0 MB; at most 2 MB"):
        LIMITS.check_upload(2_000_001, "It")


def test_an_image_may_have_as_many_pixels_as_the_limit_and_no_more() -> None:
    LIMITS.check_pixels((1500, 2000), "It")
    with pytest.raises(DemoError, match=r"1,501×2,000 = 3 million pixels; at most 3 million"):
        LIMITS.check_pixels((1501, 2000), "It")


def test_questions_come_back_stripped() -> None:
    assert LIMITS.question_of("  Which  one?\n") == "Which  one?"
    assert LIMITS.question_of("x" * 20) == "x" * 20


@pytest.mark.parametrize("text", [None, "", "  \n "])
def test_an_empty_question_is_told_so(text: str | None) -> None:
    with pytest.raises(DemoError, match="empty"):
        LIMITS.question_of(text)


def test_a_long_question_is_told_how_long_it_may_be() -> None:
    with pytest.raises(DemoError, match="21 characters; at most 20"):
        LIMITS.question_of("x" * 21)


@pytest.mark.parametrize(
    ("question", "choices", "asked"),
    [
        ("Which?", "(A) red\nB. blue", ("Which?", ("red", "blue"))),
        ("When?", "A.M.\nP.M.", ("When?", ("A.M.", "P.M."))),
        ("Which? Options: A: red, B: blue", "", ("Which?", ("red", "blue"))),
        ("Which?\nA. red\nB. blue", None, ("Which?", ("red", "blue"))),
        ("Which? Answer with a letter.", "", ("Which? Answer with a letter.", ())),
    ],
)
def test_choices_are_read_as_training_and_evaluation_read_them(question, choices, asked) -> None:
    assert Limits().asked(question, choices) == asked


def test_choices_are_lines_without_blank_ones() -> None:
    assert LIMITS.choices_of(" red \n\n blue\n") == ("red", "blue")
    assert LIMITS.choices_of(None) == LIMITS.choices_of(" \n ") == ()
    assert len(LIMITS.choices_of("\n".join("abcdefghijklmnopqrst"))) == 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("red", "one choice is no choice"),
        ("\n".join("a" * 27), "27 choices"),
        ("a" * 11 + "\n" + "b" * 10, "more than 20 char"),
    ],
)
def test_choices_that_are_none_are_refused(text: str, said: str) -> None:
    with pytest.raises(DemoError, match=said):
        LIMITS.choices_of(text)
