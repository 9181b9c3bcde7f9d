"""A benchmark's prompt comes apart into question and choices, whatever stands inside them."""

from __future__ import annotations

import string
import time

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
        "What is vitamin A: a fruit, B: a mineral or C: a drink?",
        "Which of the panels (A) and (B) shows a cat?",
        "Who wrote it? A. Smith or B. Jones?",
        "When was it? At 9 A.M. or at 9 P.M.",
        "Which options: A or B?",
        "Is blood group A: common, or B: rare?",
    ],
)
def test_a_text_without_a_list_is_all_question(text: str) -> None:
    assert split_question(text) == (text, ())


def test_an_instruction_alone_is_kept() -> None:
    assert strip_instructions(LETTER) == LETTER
    assert strip_instructions(f"Which? {LETTER} {LETTER}") == "Which?"
    assert strip_instructions("Who? Answer the question using a single word or phrase.") == "Who?"
    assert strip_instructions("Give the number on the sign.") == "Give the number on the sign."


LETTERED = [
    (["(A) A. Smith", "B. (B)", "C) 3", "D: x"], ["A. Smith", "(B)", "3", "x"]),
    (["A. red", "B. blue"], ["red", "blue"]),
    (["A.red", "B.blue", "C.4"], ["red", "blue", "4"]),
    (["（A） 红", "（B）蓝（深）"], ["红", "蓝（深）"]),
    (["A、红", "B、蓝"], ["红", "蓝"]),
    (["A：红", "B．蓝"], ["红", "蓝"]),
    (["a) red", "b) blue"], ["red", "blue"]),
    (["A.) red", "B.) blue"], ["red", "blue"]),
    (["[A] red", "**B.** blue"], ["red", "blue"]),
    (["Option A: red", "选项B：blue"], ["red", "blue"]),
    (["A - red", "B – blue"], ["red", "blue"]),
    (["A. A.M.", "B. P.M."], ["A.M.", "P.M."]),
]
UNLETTERED = [
    ["A.M.", "P.M."],
    ["A.M.", "B.M."],
    ["A.B.", "B. C."],
    ["A. red", "C. blue"],
    ["A. red", "blue"],
    ["B. red", "A. blue"],
    ["A. red", "b. blue"],
    ["A", "B"],
    ["A.", "B."],
    ["(A)", "(B)"],
    ["A red", "B blue"],
    ["A-1", "B-1"],
    ["A+", "B+"],
    ["Apple", "Banana"],
    ["A. Smith"],
]


@pytest.mark.parametrize(("choices", "texts"), LETTERED, ids=lambda choices: choices[0])
def test_letters_before_choices_are_taken_off_once(choices: list[str], texts: list[str]) -> None:
    assert without_letters(choices) == tuple(texts)


@pytest.mark.parametrize("choices", UNLETTERED, ids=lambda choices: choices[0])
def test_choices_without_a_letter_each_are_left_alone(choices: list[str]) -> None:
    assert without_letters(choices) == tuple(choices)


def test_numbers_and_more_choices_than_letters_are_left_alone() -> None:
    assert without_letters(["B blue", 7, 0.5]) == ("B blue", "7", "0.5")
    assert without_letters(["A. x"] * 30) == ("A. x",) * 30


COLOURS = ("red", "green", "blue")
WITHIN_A_LINE = [
    "Options: A: red, B: green, C: blue",
    "Options: A. red B. green C. blue",
    "Choices: A) red; B) green; C) blue.",
    "Options: (A) red, (B) green, or (C) blue",
    "The options are: [A] red | [B] green | [C] blue",
    "(Options: A: red, B: green, C: blue)",
    "Answer choices: a) red, b) green, c) blue",
    "选项：A. red B. green C. blue",
    "选项如下：A：red，B：green，C：blue。",
    "A. red B. green C. blue",
    "A: red, B: green, C: blue",
    "(A) red, (B) green, (C) blue",
    "（A）red（B）green（C）blue",
]
IN_LINES = [
    "A. red\nB. green\nC. blue",
    "A.red\nB.green\nC.blue",
    "A、red\nB、green\nC、blue",
    "（A）red\n（B）green\n（C）blue",
    "- A. red\n- B. green\n- C. blue",
    "a) red\nb) green\nc) blue",
    "Options: A. red\nB. green\nC. blue",
    "Choices:\nA: red\n\nB: green\n\nC: blue",
    "选项：\nA：red\nB：green\nC：blue",
]
UNKNOWN_INSTRUCTIONS = [
    "Think step by step.",
    "Answer with the letter.",
    "Please reason, and put your answer in <answer> tags",
    "Your answer should be in <answer> </answer>.",
    "Mode: thorough",
    "请一步一步思考。",
]


@pytest.mark.parametrize("gap", [" ", "\n"])
@pytest.mark.parametrize("listed_", WITHIN_A_LINE + IN_LINES)
def test_choices_are_found_in_the_ways_people_list_them(listed_: str, gap: str) -> None:
    if gap == " " and listed_ in IN_LINES and not listed_.startswith(("Options", "Choices", "选项")):
        gap = "\n"  # lines begin in a line of their own
    assert split_question(f"What colour is it?{gap}{listed_}") == ("What colour is it?", COLOURS)


@pytest.mark.parametrize("instruction", UNKNOWN_INSTRUCTIONS)
@pytest.mark.parametrize("listed_", WITHIN_A_LINE[:3] + IN_LINES[:3])
def test_an_unknown_instruction_is_kept_out_of_the_last_choice(listed_: str, instruction: str) -> None:
    for gap in ("\n", "\n\n"):
        assert split_question(f"What colour is it?\n{listed_}{gap}{instruction}") == ("What colour is it?", COLOURS)
    if "\n" not in listed_ and instruction[0].isascii():
        asked = f"What colour is it? {listed_.removesuffix('.')}. {instruction}"
        assert split_question(asked) == ("What colour is it?", COLOURS)


def test_what_follows_the_choices_and_asks_or_tells_something_is_not_lost() -> None:
    text = "Here is a sign.\nA. red\nB. green\nWhich colour is it?"
    assert split_question(text) == ("Here is a sign. Which colour is it?", ("red", "green"))
    assert split_question("Which?\nA. red\nB. green\nHint: it is lit.") == ("Which? Hint: it is lit.", ("red", "green"))


@pytest.mark.parametrize(
    ("listed_", "choices"),
    [
        (
            "A. a long one\n  that is wrapped\nB. one\n  more\n\nThink.",
            ("a long one\n  that is wrapped", "one\n  more"),
        ),
        ("A. one\nB. a long one that\nis wrapped", ("one", "a long one that\nis wrapped")),
        ("Options: A: red, B: Dr. Smith's", ("red", "Dr. Smith's")),
        ("Options: A: Yes. It is so; B: No. It is not", ("Yes. It is so", "No. It is not")),
        ("Options: A: black and white, B: red, green", ("black and white", "red, green")),
        ("A. A.M.\nB. P.M.", ("A.M.", "P.M.")),
        ("A. yes (B is left)\nB. no", ("yes (B is left)", "no")),
    ],
)
def test_a_choice_is_not_split(listed_: str, choices: tuple[str, ...]) -> None:
    assert split_question(f"When?\n{listed_}") == ("When?", choices)


@pytest.mark.parametrize(
    "unit",
    [
        "A. ",
        "(A) ",
        "A. x\n",
        "Options: A: ",
        "? A. ",
        "Answer with the letter. ",
        "the ",
        " ",
        "答",
        "A",
        "?",
        "Options:\n",
        ". X",
        "please answer ",
        "(A) (B) ",
    ],
)
def test_a_long_text_is_split_in_linear_time(unit: str) -> None:
    def seconds(length: int) -> float:
        text = "Q?" + unit * (length // len(unit))
        started = time.process_time()
        split_question(text), without_letters([text, text])
        return time.process_time() - started

    few, many = min(seconds(4_000) for _ in range(3)), seconds(48_000)
    assert many < 12 * few * 4 + 0.1  # quadratic would be 144 times


words = st.text(st.sampled_from("abcdefg ()ABC.,'?"), min_size=1, max_size=24).map(str.strip)
plain = words.filter(lambda text: text and not text[0].isspace())


@given(question=plain.map(lambda text: f"What is {text}?"), choices=st.lists(plain, min_size=2, max_size=6))
def test_whatever_is_listed_in_lines_comes_back(question: str, choices: list[str]) -> None:
    choices = [f"x {choice}" for choice in choices]  # a choice that looks like a marker is one
    assert split_question(f"{question}\n{listed(choices, '({}) {}')}\n{LETTER}") == (question, tuple(choices))
