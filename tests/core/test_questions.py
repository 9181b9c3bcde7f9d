"""A benchmark's prompt comes apart into question and choices, whatever stands inside them."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgpo_core.samples.questions import lettered_otherwise, split_question, strip_instructions, without_letters

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
        "Look at (A) the dog and (B) the cat. Which is bigger?",
        "Look at (A) the dog, (B) the cat and (C) the bird. Which is bigger?",
        "In the picture, (A) is a dog and (B) is a cat. Which is bigger?",
        "In the picture, (A) is a dog, (B) is a cat. Which is bigger?",
        "There are two: (A) the dog & (B) the cat. Which is bigger?",
        "There are two animals. (A) the dog and (B) the cat. Which is bigger?",
        "Compare (A) the dog and (B) the cat.",
        "图中 (A) 是狗和 (B) 是猫。哪个更大？",
        "The edges are:\nA - B\nB - C\nHow many are there?",
        "Which is longer, A - B or B - C?",
        "By whom?\nA. Smith and B. Jones",
        "The authors are\nA. Smith, B. Jones. Who is older?",
        "Which one of the options: A or B, is red?",
    ],
)
def test_a_text_without_a_list_is_all_question(text: str) -> None:
    assert split_question(text) == (text, ())


def test_an_instruction_alone_is_kept() -> None:
    assert strip_instructions(LETTER) == LETTER
    assert strip_instructions(f"Which? {LETTER} {LETTER}") == "Which?"
    assert strip_instructions("Who? Answer the question using a single word or phrase.") == "Who?"
    assert strip_instructions("Give the number on the sign.") == "Give the number on the sign."


@pytest.mark.parametrize(
    "text",
    [
        "Find the red door. Give the letter on it.",
        "Find the red door. Give only the letter.",
        "Look at the table. Provide the number of options listed.",
        "Read the menu. Write down the choices that contain meat.",
        "A car is shown. Answer its colour in a single word.",
        "A car is shown. Answer with a single word what its colour is.",
        "A door is shown. Answer with the letter on the door.",
        "A door is shown. Answer with the letters in the image.",
        "Read the menu. Choose the best option for a vegetarian.",
        "Read the sign. Reply with the name of the city in one word.",
        "There are letters on the wall. Output the first letter directly above the door.",
        "Read the screen. Select the options that are ticked.",
        "What is the answer:",
        "What is the final Answer:",
        "图中有一块招牌。请读出招牌上的字母",
        "图中有一辆车。请回答车的颜色",
        "图中有一份菜单。请写出含肉的选项",
        "图中有一张试卷。请选出图片中打勾的选项。",
        "根据图片，请选择正确的选项",
        "看图，请选择正确的选项",
        "Vitamin A. Provide the option.",
    ],
)
def test_a_sentence_that_says_what_to_look_for_is_kept(text: str) -> None:
    assert strip_instructions(text) == text
    assert split_question(text) == (text, ())


HOW_TO_ANSWER = [
    "Your answer:",
    "Answer:",
    "**Answer:**",
    "The correct answer is:",
    "答案：",
    "<|im_end|>",
    "<|im_end|>\n<|im_start|>assistant",
    "Let's think step by step.",
    "Please answer.",
    "Please answer the question.",
    "Answer the following multiple choice question.",
    "Answer the question with A, B, C, or D.",
    "Answer with the option's letter (A, B, C, D or E) from the given choices directly.",
    "Answer with the option letter only.",
    "Please answer directly with only the letter of the correct option and nothing else.",
    "Please select the correct answer and respond with only one option letter.",
    "Answer with only the letter of the correct answer (A, B, C, or D), do not output anything else.",
    "Only give the best option.",
    "Answer the question using a single word or phrase.",
    "Answer the question with a single word.",
    "Please answer the question with a short answer.",
    "Answer with a single number.",
    "Answer yes or no.",
    "Answer with the option's number from the given choices directly.",
    "Give me the answer letter directly. The best answer is:",
    "Output exactly one capital letter: A, B, C, or D.",
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.",
    "Think step by step and give your final answer in \\boxed{}.",
    "Put your answer in <answer> </answer> tags. Answer with the option's letter directly.",
    "Please choose the correct option from the choices below.",
    "请选出正确答案。",
    "请直接使用所提供的选项字母作为答案回答。",
    "根据图像选择上述多项选择题的最佳答案。只需回答正确选项的字母（A, B, C, D 或 E）。",
    "根据图片，请选择正确的选项。",
    "请用一个词或短语回答问题。",
    "请一步一步思考。",
]


@pytest.mark.parametrize("gap", ["\n", "\n\n", " "])
@pytest.mark.parametrize("instruction", HOW_TO_ANSWER)
def test_a_sentence_that_says_how_to_answer_is_taken_off(instruction: str, gap: str) -> None:
    for question in ("What colour is it?", "Name the colour of the car.", "这是什么颜色？", "图中有一块招牌。"):
        assert strip_instructions(f"{question}{gap}{instruction}") == question
    listed_ = "Q?\n(A) red\n(B) blue" if "\n" in gap else "Q? (A) red (B) blue"
    assert split_question(f"{listed_}{gap}{instruction}") == ("Q?", ("red", "blue"))


def test_a_choice_may_read_like_an_instruction() -> None:
    listed_ = "What does the sign say?\n(A) Give up.\n(B) Select the correct answer."
    assert split_question(listed_) == ("What does the sign say?", ("Give up.", "Select the correct answer."))


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
    (["Ａ．红", "Ｂ．蓝"], ["红", "蓝"]),
    (["Ａ、红", "Ｂ、蓝"], ["红", "蓝"]),
    (["（Ａ）红", "（Ｂ）蓝"], ["红", "蓝"]),
    (["A，红", "B，蓝"], ["红", "蓝"]),
    (["**A**. red", "**B**. blue"], ["red", "blue"]),
    (["A. B. King", "B. C. Low"], ["B. King", "C. Low"]),
]
OTHERWISE = [
    ["B、红", "A、蓝"],
    ["B.red", "A.blue"],
    ["B：红", "A：蓝"],
    ["（B）红", "（A）蓝"],
    ["Ｂ．红", "Ａ．蓝"],
    ["[B] red", "[A] blue"],
    ["**B.** red", "**A.** blue"],
    ["B - red", "A - blue"],
    ["Option B: red", "Option A: blue"],
    ["A. red", "C. blue", "D. green"],
    ["B. red", "C. blue", "D. green"],
    ["A. red", "b. blue"],
    ["A. red", "A. blue"],
    ["A. red", "B. blue", "C. "],
    ["A. red", "B."],
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


@pytest.mark.parametrize("choices", OTHERWISE, ids=lambda choices: choices[0])
def test_choices_with_other_letters_than_their_own_are_told(choices: list[str]) -> None:
    assert lettered_otherwise(choices)
    assert without_letters(choices) == tuple(choice.strip() for choice in choices)


@pytest.mark.parametrize(
    "choices",
    [
        *(given for given, _ in LETTERED),
        ["A.M.", "P.M."],
        ["St. Ives", "B. Jones"],
        ["A.", "B."],
        ["(B)", "(A)"],
        ["B", "A"],
        ["A. red", "blue"],
        ["B.B. King", "A.A. Milne"],
        ["B-1", "A-1"],
        [2, 1],
        [],
    ],
    ids=str,
)
def test_choices_that_are_lettered_in_order_or_not_at_all_are_no_such(choices: list[str]) -> None:
    assert not lettered_otherwise(choices)


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
    "Options: A - red, B - green, C - blue",
    "Choose from: A. red B. green C. blue",
    "Please choose from the following options: A. red B. green C. blue",
    "Select from the options: A) red B) green C) blue",
    "Candidates: A. red B. green C. blue",
    "Possible answers: A. red; B. green; C. blue",
    "**Options:** A. red B. green C. blue",
    "**Options**: A. red B. green C. blue",
    "### Options: (A) red (B) green (C) blue",
    "<options> A. red B. green C. blue </options>",
    "备选答案：A. red B. green C. blue",
    "请选择：A. red B. green C. blue",
    "请选出正确答案。A.red B.green C.blue",
    "请从下列选项中选择正确答案：A. red B. green C. blue",
    "以下选项：A. red B. green C. blue",
    "Ａ．red Ｂ．green Ｃ．blue",
    "Please select the correct answer. A. red B. green C. blue",
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
    "Options:\nA - red\nB - green\nC - blue",
    "A - red\nB - green\nC - blue",
    "Ａ．red\nＢ．green\nＣ．blue",
    "A，red\nB，green\nC，blue",
    "**Options:**\nA. red\nB. green\nC. blue",
    "### Options:\nA. red\nB. green\nC. blue",
    "<options>\nA. red\nB. green\nC. blue\n</options>",
    "以下选项：\nA. red\nB. green\nC. blue",
    "Select from the options:\nA. red\nB. green\nC. blue",
    "Please choose from the following options:\nA. red\nB. green\nC. blue",
    "Choose one:\n- A. red\n- B. green\n- C. blue",
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


CHINESE = ("红色", "绿色", "蓝色")


@pytest.mark.parametrize(
    ("text", "question", "choices"),
    [
        ("这是什么颜色？请选出正确答案。A.红色 B.绿色 C.蓝色", "这是什么颜色？", CHINESE),
        ("这是什么颜色？A.红色B.绿色C.蓝色", "这是什么颜色？", CHINESE),
        ("这是什么颜色？请选择：A、红色；B、绿色；C、蓝色", "这是什么颜色？", CHINESE),
        ("请从以下选项中选择：A. 红色 B. 绿色 C. 蓝色", "请从以下选项中选择：", CHINESE),
        ("What colour is it? 请从下列选项中选择正确答案：A. red B. green", "What colour is it?", ("red", "green")),
        ("车的颜色是（ ）\nA. 红色 B. 绿色 C. 蓝色", "车的颜色是（ ）", CHINESE),
        ("车的颜色是（　）。A. 红色 B. 绿色 C. 蓝色", "车的颜色是（　）。", CHINESE),
        ("The car is ____. A. red B. green", "The car is ____.", ("red", "green")),
        ("这是什么颜色\n（A）红色 （B）绿色 （C）蓝色", "这是什么颜色", CHINESE),
        ("The colour of the car\nA. red B. green", "The colour of the car", ("red", "green")),
        ("这是什么颜色选项：A. 红色 B. 绿色 C. 蓝色", "这是什么颜色", CHINESE),
        ("这是什么颜色 选项：\nA. 红色\nB. 绿色\nC. 蓝色", "这是什么颜色", CHINESE),
        ("有哪些选项：A. 红色 B. 绿色 C. 蓝色", "有哪些选项：", CHINESE),
        ("What colour is it Options: A. red B. green", "What colour is it", ("red", "green")),
        ("Question: What is it?\nA. red\nB. green", "What is it?", ("red", "green")),
        ("**Question:** What is it? Options: A. red B. green", "What is it?", ("red", "green")),
        ("问题：这是什么颜色？\n选项：A. 红色 B. 绿色 C. 蓝色\n答案：", "这是什么颜色？", CHINESE),
        ("Question: What is it?", "What is it?", ()),
        ("Q? (A) red (B) green (C) blue Let's think step by step", "Q?", ("red", "green", "blue")),
        ("Q?\n(A) red\n(B) green Let's think step by step.", "Q?", ("red", "green")),
        ("Q? (A) red (B) green Please answer.", "Q?", ("red", "green")),
        ("Q? (A) red (B) w<|im_end|>", "Q?", ("red", "w")),
        ("Q?\nA. red B. green\nC. blue D. white", "Q?", ("red", "green", "blue", "white")),
        ("Is the car (A) red, (B) green, or (C) blue", "Is the car", ("red", "green", "blue")),
        ("What is it? A. red\nB. green", "What is it?", ("red", "green")),
    ],
)
def test_headers_and_instructions_before_a_list_are_no_part_of_the_question(
    text: str, question: str, choices: tuple[str, ...]
) -> None:
    assert split_question(text) == (question, choices)


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
        "Please answer ",
        "Answer with the option's letter ",
        "Answer with the option's letter. ",
        "请选择 ",
        "请选出正确答案。",
        "A - B - ",
        "<|im_end|>",
        "选项：A.",
        "请从选项 A. 红 B. ",
        "Options: A. x B. y\n",
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
