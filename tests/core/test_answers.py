"""The boxed answer, found and judged."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from patience import cpu_seconds

from mgpo_core import extract_boxed, grade
from mgpo_core.samples.grading import choice_letter, grade_answer, lone_letter, normalise, resolve_choice

COLOURS = ("red", "dark green", "blue", "The yellow one")

# ---------------------------------------------------------------- the box


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"So \boxed{C}.", "C"),
        (r"\boxed{A}, no: \boxed{B}", "B"),
        (r"\boxed{\text{C}}", r"\text{C}"),
        (r"\boxed{\frac{1}{2}} is {it}", r"\frac{1}{2}"),
        (r"\boxed{a{b{c}d}e}", "a{b{c}d}e"),
        (r"\boxed {C}", "C"),
        ("\\boxed\n{C}", "C"),
        (r"$\boxed{ C }$", "C"),
        (r"\boxed{A} and \boxed{B", "A"),  # the last *complete* one
        (r"\boxed{A and \boxed{B}", "B"),
        (r"\boxed{\boxed{B}}", "B"),
        (r"} } { \boxed{B} {", "B"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\}}", r"\}"),
        (r"\boxed{}", ""),
        (r"\\boxed{C}", "C"),
        (r"boxed{C}", None),
        (r"\boxed C", None),
        (r"\boxed{C", None),
        ("", None),
    ],
)
def test_the_last_complete_box_is_read(text: str, content: str | None) -> None:
    assert extract_boxed(text) == content


def plain_reading(text: str) -> str | None:
    """The last box whose braces balance, found by trying every start from the right."""
    for start in range(len(text), -1, -1):
        if text.startswith("\\boxed{", start):
            depth = 0
            for end in range(start + 6, len(text)):
                depth += (text[end] == "{") - (text[end] == "}")
                if depth == 0:
                    return text[start + 7 : end].strip()
    return None


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "a", " ", "\\text{"]), max_size=25).map("".join))
def test_braces_are_matched_as_by_trying_every_start(text: str) -> None:
    assert extract_boxed(text) == plain_reading(text)


# ---------------------------------------------------------------- choices


DISGUISED = [
    *["B", "b", "(B)", "B.", "B)", "(b).", " B ", "[B]", "**B**", "`B`", "$B$", "{B}", "Ｂ"],
    *[r"\text{B}", r"\textbf{(B)}", r"\mathrm{B}", r"\text{\textbf{B}}", r"\left(B\right)"],
    *["Option B", "answer: B", "The answer is (B)", "The correct choice is B."],
    *["dark green", "Dark  Green.", '"dark green"', r"\text{dark green}", "The dark green"],
    *["B. dark green", "(B) dark green", "B: Dark Green", "B - dark green", "B dark green", "B) the dark green"],
    "(B) since it is not red",
    # Markdown, and characters that nobody sees
    *["__B__", "_B_", "***B***", "__B. dark green__", "B\u200b", "\ufeffB", "\u200bB\u200b", "B\u200d", "\u2060(B)"],
    *["B\ufe0f", "\u2066B\u2069", "B\u00ad", "dark\u200b green", r"B\\"],
    *[
        "B.)",
        "(B.)",
        "B.) dark green",
        "B. dark green, as the sign shows",
        "B: the dark green one (left)",
        "It's B",
        "I choose (B)",
        "Answer = B",
    ],
    # letter and text, whatever is between them
    *["B, dark green", "B – dark green", "B—dark green", "B; dark green", "B (dark green)", "dark green (B)"],
    *["(B), dark green", "B / dark green", "B | dark green", "**B**: dark green", "B = Dark Green"],
    # LaTeX
    *[r"\underline{B}", r"\mathbf{(B)}", r"\textbf{B}. dark green", r"{\bf B}", r"\(B\)", r"\textcolor{red}{B}"],
    *[r"\fbox{\boldsymbol{B}}", r"B.\ \text{dark green}", r"\text{B}\text{. dark green}", r"\Large{B}"],
    # Chinese
    *[
        "B。",
        "答案：B",
        "选B",
        "答案是B",
        "选项B",
        "正确答案为（B）",
        "正确答案是：（B）",
        "故选B。",
        "B选项",
        "（B）",
        "【B】",
    ],
    *[
        "“B”",
        "「B」",
        "B、dark green",
        "B，dark green",
        "Ｂ：dark green",
        "答案：（B）dark green",
        "最终答案：B！",
        "应选Ｂ",
    ],
    # what comes before, after and between
    *["dark green (option B)", "dark green, B", "dark green: B", "dark green - (B)", "dark green; option B"],
    *["B, which is dark green", "B, because it is dark green", "B, as it is dark green, not red", "B; it's dark green"],
    *["B is correct", "B is the correct answer", "Option B is correct", "(B) is the right choice", "B is dark green"],
    *[
        "I think B",
        "I believe the answer is B",
        "Thus, B",
        "So the correct option is (B) dark green.",
        "It should be B",
    ],
    *[
        "<answer>B</answer>",
        "B<|im_end|>",
        "B</s>",
        "<answer>B. dark green</answer>",
        "B, a green car",
        "B\ndark green",
    ],
]
DISGUISED_IN_CHINESE = [
    *["【答案】A", "答：A", "本题选A", "综上，选A", "综上所述，正确答案为A选项", "所以应该选A", "答案：【A】"],
    *["A选项：红色", "A选项正确", "A项正确", "A是正确的", "A对", "A，因为车是红色的", "A，图中的车是红色", "A：红色的"],
    *["正确的是A", "我认为是A", "正确答案是A", "答案為A", "選A", "選項A", "A是红色"],
    *["A红色", "红色（A选项）", "红色，A"],
]
NO_CHOICE_IN_CHINESE = [
    *[
        "不选A",
        "A不对",
        "A不正确",
        "A选项错误",
        "A，不对",
        "不是A",
        "除了A",
        "排除A",
        "A是错误的",
        "我不认为是A",
        "正确的不是A",
    ],
    *["A和B", "A或B", "选A、B", "A还是B", "A，不选B", "A、B都对"],
    *["A绿色", "A，绿色", "A，因为车是绿色的", "A是绿色", "红色（B）", "红色，B"],
]
NO_CHOICE = [
    *["", " ", "()", "$$", "1", "E", "Z", "green", "purple", "BC", "not B"],
    *["B__C", "B\u200bC", "_B_ or _C_", "\u200b", "___"],
    *["B or C", "B, C", "B/C", "A) B) C)", "(B) (C)", "B. red"],
    *[
        "B and C",
        "BC",
        "B & C",
        "B、C",
        "B，C",
        "B和C",
        "B或C",
        "选B、C",
        "答案：B或C",
        "B C",
        "B|C",
        r"B \text{ and } C",
    ],
    *["B. A and C", "(B), (C)", "B; C", "B. C", "Both B and C"],
    # letter and text that contradict each other, or two of both
    *["B, red", "B – red", "B (red)", "red (B)", "B: red", "B. dark green, C. blue", "(B) dark green (C) blue"],
    *["B. dark green or A. red", "B. dark green and red", "B: dark green / blue", "答案：B 红"],
    *["B, red car", "B, which is red", "B, because it is red", "B. it's red", "B is red", "B is C", "red (option B)"],
    *["red, B", "red: B", "dark green, C", "dark green, red"],
    *["I think B or C", "B, then C", "B, or maybe C", "B, C is wrong", "B and C are correct", "So B, C"],
    *["B is not correct", "B is wrong", "B, wrong", "B. incorrect", "I don't think B", "Neither A nor B is correct"],
]


@pytest.mark.parametrize("said", DISGUISED)
def test_a_choice_is_known_in_its_usual_disguises(said: str) -> None:
    assert resolve_choice(said, COLOURS) == 1
    for letter in "ABCD":
        assert grade(f"I think so. \\boxed{{{said}}}", letter, COLOURS) == (letter == "B")


@pytest.mark.parametrize("said", NO_CHOICE)
def test_what_names_no_choice_or_two_is_wrong(said: str) -> None:
    assert resolve_choice(said, COLOURS) is None
    assert not any(grade_answer(said, letter, COLOURS) for letter in "ABCD")


@pytest.mark.parametrize("said", DISGUISED_IN_CHINESE)
def test_a_choice_is_known_in_chinese(said: str) -> None:
    assert resolve_choice(said, ("红色", "绿色", "蓝色", "白色")) == 0


@pytest.mark.parametrize("said", NO_CHOICE_IN_CHINESE)
def test_what_names_no_choice_or_two_in_chinese_is_wrong(said: str) -> None:
    assert resolve_choice(said, ("红色", "绿色", "蓝色", "白色")) is None


def test_a_lone_letter_is_the_letter_of_a_choice_before_its_text() -> None:
    signs = ("B", "A", "X", "D")
    assert [resolve_choice(said, signs) for said in ("A", "B", "(c)", "D", "X", "x.")] == [0, 1, 2, 3, 2, 2]
    assert resolve_choice("C. X", signs) == 2


def test_choices_that_are_numbers_compare_as_numbers() -> None:
    assert resolve_choice("1000", ("10", "1,000", "100")) == 1
    assert resolve_choice("C. 100.0", ("10", "1,000", "100")) == 2


def test_a_text_that_two_choices_share_names_neither() -> None:
    assert resolve_choice("red", ("red", "Red", "blue")) is None
    assert resolve_choice("B", ("red", "Red", "blue")) == 1


def test_a_choice_that_starts_like_a_letter_or_a_prefix_is_still_found() -> None:
    assert resolve_choice("A. Smith", ("J. Doe", "A. Smith")) == 1
    assert resolve_choice("a dog", ("a cat", "a dog")) == 1
    assert resolve_choice("optional", ("al", "optional")) == 1
    assert resolve_choice("answer key", ("key", "answer key")) == 1


@given(
    st.lists(
        st.text(string.ascii_lowercase + " ", min_size=3).filter(str.strip),
        min_size=2,
        max_size=26,
        unique_by=lambda text: " ".join(text.split()),
    )
)
def test_every_letter_names_its_own_choice(choices: list[str]) -> None:
    for index in range(len(choices)):
        assert resolve_choice(choice_letter(index), choices) == index


def test_letters_end_at_z() -> None:
    assert [choice_letter(0), choice_letter(25)] == ["A", "Z"]
    for index in (-1, 26):
        with pytest.raises(ValueError, match="A to Z"):
            choice_letter(index)


# ---------------------------------------------------------------- open answers


@pytest.mark.parametrize(
    ("said", "ground_truth"),
    [
        ("1000", "1,000"),
        ("1000.0", "1,000"),
        ("1{,}000", "1000"),
        ("1e3", "1000"),
        ("+5", "5"),
        ("-0.50", "-.5"),
        (r"\frac{1}{2}", "0.5"),
        ("1/2", ".5"),
        ("50%", "50"),
        (r"50\%", "50%"),
        ("5.", "5"),
        ("Stop", "STOP"),
        ("a stop sign", "Stop  sign."),
        (r"\text{Exit only}", "exit only"),
        ("'OPEN'", "open"),
        ("ＫＦＣ", "KFC"),
        ("Straße", "STRASSE"),
        (r"90^\circ", "90"),
        (r"90^{\circ}", "90°"),
        ("90°", "90"),
        (r"\frac12", "1/2"),
        (r"\frac1{2}", "0.5"),
        (r"\dfrac34", "3/4"),
        (r"\dfrac{3}{4}", ".75"),
        (r"\tfrac{\text{1}}{2}", "1/2"),
        (r"1\frac12", "1.5"),
        ("-1½", "-3/2"),
        ("½", "1/2"),
        (r"1\,000", "1,000"),
        (r"10{,}\!000", "10000"),
        (r"5\%", "5"),
        (r"\$5", "5"),
        ("x²", "x^{2}"),
        (r"3 \times 4", "3 × 4"),
        (r"\sqrt{2}", r"\sqrt2"),
        ("红色。", "红色"),
        ("「红色」", "红色！"),
        ("“红色”？", "红色"),
        ("don’t", "don't"),
        ("１２：３０", "12:30"),
        (r"90^{o}", "90"),
        (r"90^o", "90°"),
        (r"30^{\text{o}}", "30"),
        ("60º", "60"),
        ("60˚", "60°"),
        ("60∘", r"60^\circ"),
        (r"2\pi", "2π"),
        ("red\u200b", "red"),
        ("\ufeffred", "__red__"),
        ("*", "*"),
        ("$", "$"),
        (r"12\text{cm}", "12 cm"),
        (r"25^\circ\text{C}", "25 °C"),
        (r"90^\circ C", "90°C"),
        ("℃", "°C"),
        (r"\sqrt{2}", "√2"),
        (r"2\sqrt{3}", "2√3"),
        (r"3\times10^3", "3000"),
        (r"3\times 10^{-2}", "0.03"),
        ("10³", "1000"),
        (r"\frac{a+b}{2}", "(a+b)/2"),
        (r"10^{23}", "10^23"),
        ("(1, 2)", "(1,2)"),
        ("1，2，3", "1, 2, 3"),
        (r"\{1, 2\}", "{1,2}"),
        ("x = 5", "x=5"),
        ("$5", r"\$5"),
        ("$5", "5"),
        ("US$5", "$5"),
        ("5 $", r"$\$5$"),
        ("$1,000", "$1000"),
        ("5'", "5′"),
        ("5''", '5"'),
        ("5' 10\"", "5'10″"),
        ("“5”", "5"),
        ("<answer>red</answer>", "red"),
    ],
)
def test_the_same_answer_in_another_dress_is_right(said: str, ground_truth: str) -> None:
    assert grade_answer(said, ground_truth) and grade_answer(ground_truth, said)
    assert grade(f"\\boxed{{{said}}}", ground_truth)


@pytest.mark.parametrize(
    ("said", "ground_truth"),
    [
        ("", ""),
        ("", "5"),
        (".", "..."),
        ("100", "1000"),
        ("1,00", "100"),
        ("0.5", "50%"),
        ("5 m", "5"),
        ("1/0", "1"),
        ("1.0000000000000000001", "1"),
        ("0.1", "0.10000000000000000001"),
        ("-5", "5"),
        ("stop", "stop sign"),
        ("nan", "inf"),
        ("a^o", "a"),
        ("a^o", "a°"),
        ("*", "$"),
        ("snake_case", "snakecase"),
        ("1e400000", "1e400001"),
        ("90 degrees", "90"),
        ("50%", "50°"),
        ("10²", "102"),
        ("1½", "11/2"),
        ("answer key", "key"),
        ("(a)", "a"),
        ("(c)", "c"),
        ("红", "红色"),
        ("5'", '5"'),
        ("5'10\"", "5'10"),
        ("$5", "5%"),
        ("5$", "5%"),
        (r"\frac123", "1/23"),
        (r"\frac{1}{2}3", "1/23"),
        (r"\sqrt{12}3", "√123"),
        (r"x^{2}3", "x^23"),
        (r"x^{2+1}", "x^2+1"),
        (r"\frac{a+b}{2}", "a+b/2"),
        ("1, 200", "1,200"),
        ("1 2", "12"),
        ("90°C", "90"),
    ],
)
def test_another_answer_is_wrong(said: str, ground_truth: str) -> None:
    assert not grade_answer(said, ground_truth) and not grade_answer(ground_truth, said)


@pytest.mark.parametrize(
    "said",
    [
        *["The answer is red", "Answer: red.", "答案：red", "答案是red。", "The final answer is: Red"],
        *["【答案】red", "答：red", "综上，答案为red", "So I think the answer is red", "正确的是red"],
    ],
)
def test_what_comes_before_a_short_answer_is_left_out(said: str) -> None:
    assert grade_answer(said, "red") and not grade_answer(said, "green")


LETTER_ALONE = [
    *["C", "c", "C.", "(C)", "C)", r"\text{(C)}", r"\mathbf{C}", "Option C", "The answer is C.", "**C**", "$C$", "Ｃ"],
    *["C. blue", "(C) blue", "C: a blue car", "C, blue", "C - blue", "答案：C", "选C", "C。", "（C）", "选项C"],
    *[
        "C、蓝色",
        "C，蓝色",
        "C (blue)",
        "C [blue]",
        "C = blue",
        "C; blue",
        "C | blue",
        r"C\ blue",
        "C\nblue",
        "C\\\\blue",
    ],
    *[
        r"\text{C}\ \text{blue}",
        "blue (C)",
        "The blue car (C)",
        "蓝色（C）",
        "【答案】C",
        "C is correct",
        "C选项",
        "I think C",
    ],
    *["C, a blue car", "The C", "<answer>C</answer>"],
]
ANOTHER_LETTER = [
    *["D", "(D)", "D. C", "C, D", "C and D", "C or D", "CD", "C/D", "C. D", "(C) and (D)", "C. blue, D. red", ""],
    *["blue", "Cat", "C3", "答案：D", "选C、D"],
    *["C; D", "C | D", "C = D", "C (D)", "D (C)", "C\nD", "A\nC", "A C", "C (not D)", "C, or D", "blue (D)"],
    *["C is wrong", "C, wrong", "C is not correct", "C. incorrect", "C，不对", "Vitamin C", "C sharp", "f(c)"],
]


@pytest.mark.parametrize("said", LETTER_ALONE)
@pytest.mark.parametrize("answer", ["C", "(C)", "C."])
def test_a_lone_capital_letter_is_a_choice_without_choices(said: str, answer: str) -> None:
    assert grade(f"So \\boxed{{{said}}}", answer)
    assert not grade(f"So \\boxed{{{said}}}", "B")


@pytest.mark.parametrize("said", ANOTHER_LETTER)
def test_another_letter_or_two_are_wrong_though_the_choices_are_not_known(said: str) -> None:
    assert not grade_answer(said, "C")


def test_a_text_is_not_taken_for_a_letter() -> None:
    assert grade_answer("a", "a") and grade_answer("I", "I") and grade_answer("5", "5")
    assert not any(grade_answer(said, answer) for said, answer in [("a cat", "a"), ("I see", "I"), ("A cat", "A")])
    assert lone_letter(r"\text{(C)}") == "C" and lone_letter("c.") == "C" and lone_letter("C. blue") is None


@given(st.integers(-(10**12), 10**12))
def test_an_integer_equals_itself_however_written(number: int) -> None:
    for form in (f"{number}", f"{number:,}", f"{number}.0", f"{number}.00", f"${number}$", f"\\mathbf{{{number}}}"):
        assert grade_answer(form, str(number))
        assert not grade_answer(form, str(number + 1))


@given(st.text(max_size=40), st.text(max_size=40), st.lists(st.text(max_size=8), max_size=26))
@example("\\boxed{\\frac{1}{0}}", "1/0", [])
@example("\\boxed{²}", "2", ["²", "½"])
def test_any_text_is_graded_without_raising(text: str, answer: str, choices: list[str]) -> None:
    assert grade(f"\\boxed{{{text}}}", answer, choices) in (True, False)
    assert grade_answer(text, answer, choices) in (True, False)
    assert normalise(normalise(text)) == normalise(text)


def test_without_a_box_nothing_is_right() -> None:
    assert not grade("The answer is C.", "C", COLOURS)
    assert not grade("red", "red")


@pytest.mark.parametrize(
    "unit",
    [
        "\\boxed{",
        "{",
        "\\text{",
        "\\frac{",
        ". ",
        "a. ",
        "the ",
        "1/",
        "1,",
        "answer ",
        "\\",
        " ",
        "½",
        "答案是",
        "{ {",
        "^{",
        "\\sqrt{",
        "1 '",
        "b, ",
        "b is ",
        "<|a",
        "应该",
        "是",
        "C\\ ",
        "C\n",
        "that is ",
    ],
)
def test_long_texts_are_graded_in_linear_time(unit: str) -> None:
    def read(size: int) -> None:
        text = unit * (size // len(unit))
        grade(text, "5")
        grade("\\boxed{" + text + "}" * (1 + text.count("{")), "C", COLOURS)

    few, many = (cpu_seconds(lambda size=size: read(size), rounds=2) for size in (2**14, 2**17))
    assert many < 8 * few * 3 + 0.05  # quadratic would be 64 times
