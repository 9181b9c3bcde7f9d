"""The words of the templates, compared with the paper's, which are written out here once more on purpose."""

import string

import pytest
from PIL import Image

from mgpo_core.images.crop import CropOutcome
from mgpo_core.samples.sample import Sample
from mgpo_core.templates.base import Template, message_images, message_text
from mgpo_core.templates.registry import load_template
from mgpo_core.templates.single_image import SingleTurn, TwoTurn

IMAGE = Image.new("RGB", (56, 56))
CROP = Image.new("RGB", (28, 84))
REFUSED = CropOutcome(image=None, box_original=None, reason="reversed")
CROPPED = CropOutcome(image=CROP, box_original=None, reason=None)

SYSTEM = (
    r"You are a helpful assistant. Given an image and one question. First, identify the coordinates of the key image "
    r"area relevant to solving the problem. Append the coordinates in JSON format at the end of your response and "
    r"stop. This will trigger cropping of the corresponding area in the original image and enlarge it for improved "
    r"clarity. Once the enlarged image is available, provide the final answer (A, B, C, D, or E) enclosed within "
    r"\boxed{}."
)
TURN_1 = "Question: What is it? Out the coordinates of the key image area relevant to the problem in JSON format."
CHOICES = "The choices are listed below:\n(A) a cat\n(B) a dog\n"
ANSWER_CROP = (
    r"Carefully analyze both the original image and the enlarged sub-image to solve the question step by step. If the "
    r"sub-image does not provide sufficient information, refer to the original image to find the solution. Present "
    r"your reasoning clearly, and provide the final answer (A, B, C, D, or E) enclosed within \boxed{}."
)
ANSWER_ORIGINAL = (
    r"Carefully analyze the original image to solve the question step by step. Present your reasoning clearly, and "
    r"provide the final answer (A, B, C, D, or E) enclosed within \boxed{}."
)


def sample(question="What is it?", choices=("a cat", "a dog")):
    return Sample.of(question, IMAGE, choices=choices)


def text(value):
    return {"type": "text", "text": value}


def image(value):
    return {"type": "image", "image": value}


def test_two_turn_opens_with_the_papers_words_and_no_choices():
    assert TwoTurn().opening(sample(), [IMAGE]) == [
        {"role": "system", "content": [text(SYSTEM)]},
        {"role": "user", "content": [image(IMAGE), text(TURN_1)]},
    ]


def test_two_turn_returns_the_crop_with_the_papers_words():
    assert TwoTurn().follow_up(sample(), [IMAGE], CROPPED, 0) == {
        "role": "user",
        "content": [
            text("Based on the provided coordinates, return the sub-image:\n"),
            image(CROP),
            text(f"\nQuestion: What is it? {CHOICES}{ANSWER_CROP}"),
        ],
    }


def test_two_turn_answers_an_invalid_box_with_the_papers_words():
    assert TwoTurn().follow_up(sample(), [IMAGE], REFUSED, 0) == {
        "role": "user",
        "content": [
            text("Not providing correct coordinates or invalid coordinate values, return the original image:\n"),
            image(IMAGE),
            text(f"\nQuestion: What is it? {CHOICES}{ANSWER_ORIGINAL}"),
        ],
    }


PAPERS_REQUEST = "provide the final answer (A, B, C, D, or E) enclosed"
REQUESTS = {
    0: "provide the final answer enclosed",
    **dict.fromkeys(range(2, 6), PAPERS_REQUEST),
    6: "provide the final answer (A, B, C, D, E, or F) enclosed",
    8: "provide the final answer (A, B, C, D, E, F, G, or H) enclosed",
    26: f"provide the final answer ({', '.join('ABCDEFGHIJKLMNOPQRSTUVWXY')}, or Z) enclosed",
}


@pytest.mark.parametrize(("count", "request_"), REQUESTS.items())
def test_the_answer_is_asked_for_by_the_letters_that_there_are(count, request_):
    """The paper's sentence for its two to five choices, to the byte; else the true letters, or none."""
    asked = sample(choices=tuple(f"thing {index}" for index in range(count)))
    listed = "".join(
        f"({letter}) {choice}\n" for letter, choice in zip(string.ascii_uppercase, asked.choices, strict=False)
    )
    head = f"Question: What is it? {'The choices are listed below:' + chr(10) if count else ''}{listed}"
    two, one = TwoTurn(), SingleTurn()
    shown = [*two.opening(asked, [IMAGE]), *one.opening(asked, [IMAGE])]
    shown += [two.follow_up(asked, [IMAGE], outcome, 0) for outcome in (CROPPED, REFUSED)]
    papers = [
        SYSTEM,
        TURN_1,
        "You are a helpful assistant.",
        f"{head}{ANSWER_ORIGINAL}",
        f"Based on the provided coordinates, return the sub-image:\n\n{head}{ANSWER_CROP}",
        "Not providing correct coordinates or invalid coordinate values, return the original image:\n"
        f"\n{head}{ANSWER_ORIGINAL}",
    ]
    assert [message_text(message) for message in shown] == [text.replace(PAPERS_REQUEST, request_) for text in papers]


def test_two_turn_ends_after_the_second_response():
    assert TwoTurn().follow_up(sample(), [IMAGE], CROPPED, 1) is None
    assert [TwoTurn().wants_box(turn) for turn in range(TwoTurn().max_turns)] == [True, False]


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        ("Name it", "Name it."),
        ("Name it.", "Name it."),
        ("Name it!", "Name it!"),
        ("What?", "What?"),
        ("  What? \n", "What?"),
        ("The one (left)", "The one (left)."),
        ("Name:", "Name:."),
        ("这是什么颜色？", "这是什么颜色？"),
        ("读出招牌。", "读出招牌。"),
        ("看！\n", "看！"),
        ("这是什么颜色", "这是什么颜色."),
    ],
)
def test_a_question_gets_a_period_unless_it_ends_a_sentence(question, shown):
    asked = sample(question)
    assert message_text(TwoTurn().opening(asked, [IMAGE])[1]).startswith(f"Question: {shown} Out the coordinates")
    follow_up = TwoTurn().follow_up(asked, [IMAGE], REFUSED, 0)
    assert f"\nQuestion: {shown} The choices" in message_text(follow_up)


def test_single_turn_asks_everything_at_once():
    assert SingleTurn().opening(sample(), [IMAGE]) == [
        {"role": "system", "content": [text("You are a helpful assistant.")]},
        {"role": "user", "content": [image(IMAGE), text(f"Question: What is it? {CHOICES}{ANSWER_ORIGINAL}")]},
    ]
    assert SingleTurn().follow_up(sample(), [IMAGE], REFUSED, 0) is None
    assert not SingleTurn().wants_box(0)


@pytest.mark.parametrize("template", [TwoTurn(), SingleTurn()])
def test_several_images_come_in_order_before_the_text(template):
    opening = template.opening(sample(), [IMAGE, CROP])
    assert [part["type"] for part in opening[1]["content"]] == ["image", "image", "text"]
    assert message_images(opening) == [IMAGE, CROP]


def test_after_a_refused_box_every_image_is_returned():
    assert message_images([TwoTurn().follow_up(sample(), [IMAGE, CROP], REFUSED, 0)]) == [IMAGE, CROP]


def test_choices_are_lettered_in_order():
    opening = SingleTurn().opening(sample(choices=tuple("vwxyz")), [IMAGE])
    assert "(A) v\n(B) w\n(C) x\n(D) y\n(E) z\nCarefully" in message_text(opening[1])


@pytest.mark.parametrize("template", [TwoTurn(), SingleTurn()])
def test_a_template_is_loaded_by_its_name(template):
    assert isinstance(template, Template)
    assert load_template(template.name) == template


def test_an_unknown_template_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'two_turn'"):
        load_template("twoturn")
    with pytest.raises(ValueError, match="known are .*single_turn, two_turn"):
        load_template("???")
