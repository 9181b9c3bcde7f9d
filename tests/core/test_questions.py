"""A benchmark's prompt comes apart into question and choices, whatever stands inside them."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgpo_core.questions import split_question, strip_instructions, without_letters

LETTER = "Answer with the option's letter from the given choices directly."
INSTRUCTIONS = [
    LETTER,
    "Answer the option letter directly.",
    "Answer with the option letter from the given choices directly.",
    "Select the best answer to the above multiple-choice question based on the image. Respond with only the letter "
    "(A, B, C, D, or E) of the correct option.",
    "Select the best answer to the above multiple-choice question based on the image. Respond with only the letter "
    "(A, B, C, D, or E) of the correct option.\nThe best answer is: ",
    "Please select the correct answer from the options above.",
]
MARKERS = {"parentheses": "({}) {}", "dot": "{}. {}", "half": "{}) {}"}


def listed(choices: list[str], marker: str) -> str:
    return "\n".join(marker.format(letter, text) for letter, text in zip(string.ascii_uppercase, choices, strict=False))


@pytest.mark.parametrize("instruction", ["", *INSTRUCTIONS])
@pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)
def test_question_choices_and_instruction_come_apart(marker: str, instruction: str) -> None:
    question = "Based on the image, which (of A or B) is left of (the) sign?"
    choices = ["the red (left) one", "Based on it, A", "B", "(C)"]
    assert split_question(f"{question}\n{listed(choices, marker)}\n{instruction}") == (question, tuple(choices))


def test_choices_within_a_line_are_found() -> None:
    text = f"Is the (red) cup left? (A) yes (left) (B) no (right) (C) sign (B) {LETTER}"
    assert split_question(text) == ("Is the (red) cup left?", ("yes (left)", "no (right)", "sign (B)"))


def test_a_headline_over_the_choices_is_no_part_of_the_question() -> None:
    text = "What? The choices are listed below:\n(A) x\n(B) y\n"
    assert split_question(text) == ("What?", ("x", "y"))
    assert split_question("What?\nOptions:\nA. x\nB. y") == ("What?", ("x", "y"))


def test_the_last_list_is_the_list_of_choices() -> None:
    text = "Read the text: A. Smith\nWho wrote it?\nA. Smith\nB. Jones"
    assert split_question(text) == ("Read the text: A. Smith\nWho wrote it?", ("Smith", "Jones"))


@pytest.mark.parametrize(
    "text",
    [
        "Please answer which letter is on the sign?",
        "Which of (A) and (B)?",
        "What is 3. in the list?",
        "A. Smith",
        "(A) only (C) here",
    ],
)
def test_a_text_without_a_list_is_all_question(text: str) -> None:
    assert split_question(text) == (text, ())


def test_an_instruction_alone_is_kept() -> None:
    assert strip_instructions(LETTER) == LETTER
    assert strip_instructions(f"Which? {LETTER} {LETTER}") == "Which?"
    assert strip_instructions("Who? Answer the question using a single word or phrase.") == "Who?"
    assert strip_instructions("Give the number on the sign.") == "Give the number on the sign."


def test_letters_before_choices_are_taken_off_once() -> None:
    assert without_letters(["(A) A. Smith", "B. (B)", "C) 3", "D: x", "plain"]) == (
        "A. Smith",
        "(B)",
        "3",
        "x",
        "plain",
    )
    assert without_letters(["B blue", 7]) == ("B blue", "7")


words = st.text(st.sampled_from("abcdefg ()ABC.,'?"), min_size=1, max_size=24).map(str.strip)
plain = words.filter(lambda text: text and not text[0].isspace())


@given(question=plain.map(lambda text: f"What is {text}?"), choices=st.lists(plain, min_size=2, max_size=6))
def test_whatever_is_listed_in_lines_comes_back(question: str, choices: list[str]) -> None:
    choices = [f"x {choice}" for choice in choices]  # a choice that looks like a marker is one
    assert split_question(f"{question}\n{listed(choices, '({}) {}')}\n{LETTER}") == (question, tuple(choices))
