"""Seeded model outputs of every kind through all that reads them: parsing, episodes, grading, choices, prompts.

The suite takes 3,000. `MGPO_FUZZ=100000` makes it as many as you like, and so does
`python tests/core/test_output_fuzz.py 100000`, which prints what came of them.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

from PIL import Image

from mgpo_core import Episode, PixelBudget, Rejection, Sample, SampleError, extract_boxed, grade, parse_boxes
from mgpo_core.samples.grading import choice_letter, grade_answer, normalise, resolve_choice
from mgpo_core.samples.questions import split_question, strip_instructions, without_letters
from mgpo_core.templates.base import Template
from mgpo_core.templates.multi_image import MultiImage
from mgpo_core.templates.single_image import SingleTurn, TwoTurn

SEED = 20_261_128
BUDGET = PixelBudget(min_pixels=56 * 56, max_pixels=112 * 112)
IMAGE = Image.new("RGB", (224, 168), "teal")

COLOURS = [
    "red",
    "dark green",
    "light blue",
    "The yellow one",
    "红色",
    "1,000",
    "90°",
    "1/2",
    "Dr. Smith",
    "A.M.",
    "x (y)",
]
WORDS = [
    "the",
    "sign",
    "is",
    "at",
    "I",
    "see",
    "a",
    "所以",
    "答案是",
    "red",
    "it's",
    "no",
    "Options:",
    "选项：",
    "café",
    "🕮",
]
ODD = [
    *["\ud800", "\x00", "\u200b", "\u202e", "\ufeff", "\r\n", "\t", "½", "²", "。", "、", "（", "\\", "{", "}", "`"],
    *["'", '"', "$", "<", "ﬀ", "İ", "ŉ", "\u0345", "\u0301"],
]
TOKENS = [
    "<|im_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|image_pad|>",
    "<think>",
    "</think>",
    "<box>",
    "</box>",
    "<answer>",
]
NUMBERS = ["10", "20.5", "-3", "1e3", "NaN", "1e999", "9" * 50, "0", "true", "null", '"7"', "100", "110", "１０"]
KEYS = ["bbox_2d", "bbox", "box_2d", "bbox_xywh", "bbox_norm", "point_2d", "cxcywh", "label", "image", "format", "x1"]

Rng = random.Random


def numbers(rng: Rng) -> str:
    if rng.random() < 0.6:
        x, y = rng.randint(0, 80), rng.randint(0, 80)
        return f"{x}, {y}, {x + rng.randint(1, 90)}, {y + rng.randint(1, 90)}"
    return ", ".join(rng.choice(NUMBERS) for _ in range(rng.choice([2, 3, 4, 4, 4, 5, 8])))


def box(rng: Rng) -> str:
    key, quote = rng.choice(KEYS[:1] * 8 + KEYS), rng.choice(['"', '"', "'", ""])
    value = rng.choice(["[{}]", "[{}]", "[[{}]]", "({})", '"{}"', "[{},]"]).format(numbers(rng))
    more = rng.choice(
        ["", f', {quote}label{quote}: "{rng.choice(COLOURS)}"', ', "image": 1', ', "bbox_format": "xywh"']
    )
    return rng.choice(["[{}]", "{}", "[{}, {}]", '{{"objects": [{}]}}']).replace(
        "{}", f"{{{quote}{key}{quote}: {value}{more}}}"
    )


def fenced(rng: Rng) -> str:
    if rng.random() < 0.3:
        x, y = rng.randint(0, 60), rng.randint(0, 40)
        numbers_ = [x, y, x + rng.randint(1, 60), y + rng.randint(1, 60)]
        return f'```json\n[\n    {{"bbox_2d": {numbers_}, "label": "key image area"}}\n]\n```'
    return f"```{rng.choice(['json', 'json', '', 'py'])}\n{box(rng)}\n{rng.choice(['```', '```', '````', ''])}"


def token_box(rng: Rng) -> str:
    a, b, c, d = (rng.randint(0, 120) for _ in range(4))
    inner = rng.choice([f"({a},{b}),({c},{d})", f"[[{a}, {b}, {c}, {d}]]", f"{a},{b},{c}", numbers(rng)])
    opening, closing = rng.choice([("<|box_start|>", "<|box_end|>"), ("<box>", "</box>"), ("<bbox>", ""), ("", "")])
    return opening + inner + closing


def answer(rng: Rng) -> str:
    letter, text = rng.choice("ABCDEFZ"), rng.choice(COLOURS)
    said = rng.choice(
        [
            "{0}",
            "({0})",
            "{0}.",
            "{0}. {1}",
            "{0}, {1}",
            "{1}",
            "{1} ({0})",
            "答案：{0}",
            "选{0}",
            "{0} and B",
            "{0}/C",
            "Option {0}",
        ]
    ).format(letter, text)
    for _ in range(rng.choice([0, 0, 1, 2])):
        said = (
            rng.choice(
                [
                    r"\text{%s}",
                    r"\mathbf{(%s)}",
                    r"\underline{%s}",
                    "$%s$",
                    "%s。",
                    "“%s”",
                    r"\frac{%s}{2}",
                    "{\\bf %s}",
                ]
            )
            % said
        )
    return said


def boxed(rng: Rng) -> str:
    return rng.choice([r"\boxed{%s}", r"\boxed{%s}", r"$\boxed {%s}$", r"\boxed{%s", r"\fbox{\boxed{%s}}"]) % answer(
        rng
    )


def prose(rng: Rng) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(0, 8)))


def odd(rng: Rng) -> str:
    return "".join(rng.choice(ODD + TOKENS + [chr(rng.randint(0, 0x2FFFF))]) for _ in range(rng.randint(1, 5)))


def choices(rng: Rng) -> str:
    marks = rng.choice(["({}) {}", "{}. {}", "{}: {},", "{}、{}", "（{}）{}", "{}.{}"])
    lines = [marks.format(choice_letter(index), rng.choice(COLOURS)) for index in range(rng.randint(1, 6))]
    return rng.choice(["Options: ", "", "\n", "选项：", "? "]) + rng.choice(["\n", " ", "; "]).join(lines)


PIECES: list[Callable[[Rng], str]] = [prose, prose, box, fenced, fenced, token_box, boxed, boxed, odd, choices]


def output(rng: Rng) -> str:
    """One model output: pieces in a row, perhaps with a reasoning, cut off, or damaged."""
    text = rng.choice([" ", "\n", ""]).join(rng.choice(PIECES)(rng) for _ in range(rng.randint(0, 5)))
    if rng.random() < 0.25:
        thought = rng.choice(PIECES)(rng)
        text = f"<think>{thought}{rng.choice(['</think>', '</think>', ''])}{text}"
    if text and rng.random() < 0.2:
        text = text[: rng.randint(0, len(text))]
    for _ in range(rng.choice([0, 0, 0, 1, 4]) if text else 0):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(["", odd(rng), text[at : at + 9]]) + text[at + rng.randint(0, 2) :]
    return text


def check_parsing(text: str, counts: Counter[str]) -> None:
    for strict in (False, True):
        found = parse_boxes(text, strict=strict)
        counts[f"{'strict' if strict else 'loose'}: {found.error or 'box'}"] += 1
        assert (found.error is None) == bool(found.boxes) and found.error in {None, *Rejection}
        assert len(found.boxes) == len(found.labels) == len(found.numbered)
        for one in found.boxes:
            assert all(map(math.isfinite, one.as_tuple())) and one.image >= 0
        if found.boxes:
            assert found.end is not None and 0 < found.end <= len(text)
            assert parse_boxes(text[: found.end], strict=strict).boxes == found.boxes


def check_episode(text: str, counts: Counter[str], rng: Rng) -> None:
    template: Template = rng.choice([TwoTurn(), SingleTurn(), MultiImage()])
    asked = Sample("What?", (IMAGE,), answer="B", choices=tuple(COLOURS[:4]) if rng.random() < 0.7 else ())
    episode = Episode(asked, template=template, budget=BUDGET, originals=[IMAGE], strict=rng.random() < 0.3)
    while not episode.done:
        episode.observe(text, finish_reason=rng.choice(["stop", "length"]))
    turn = episode.trajectory.turns[0]
    assert text.startswith(turn.text) and turn.rejection in {None, *Rejection}
    assert (turn.box is None) <= (turn.box_original is None)
    counts[f"episode: {template.name}, {turn.rejection or ('box' if turn.box else 'no box asked for')}"] += 1
    episode.trajectory.metrics()


def check_grading(text: str, counts: Counter[str], rng: Rng) -> None:
    said = extract_boxed(text)
    assert said is None or said in text
    said = text if said is None else said
    plain = normalise(said)
    assert normalise(plain) == plain, (said, plain, normalise(plain))
    listed = tuple(rng.sample(COLOURS, rng.randint(2, 6)))
    named = resolve_choice(said, listed)
    counts[f"choice: {'none' if named is None else 'named'}"] += 1
    for index in range(len(listed)):
        right = grade_answer(said, choice_letter(index), listed)
        assert right == (named == index)
        if extract_boxed(text) is not None:
            assert grade(text, choice_letter(index), listed) == right
    for ground_truth in ("C", "5", "红色", "1/2"):
        counts[f"open: {grade_answer(said, ground_truth)}"] += 1


def check_order(counts: Counter[str], rng: Rng) -> None:
    """The verdict on a text that names letter and choice does not depend on the order of the choices."""
    listed = rng.sample(COLOURS[:5], rng.randint(2, 5))
    said, meant, ground_truth = (rng.randrange(len(listed)) for _ in range(3))
    form = rng.choice(
        ["{0}", "({0})", "{1}", "{0}. {1}", "{0}, {1}", "{1} ({0})", r"\text{{{0}}}", "答案：{0}", "{0}. not {1}"]
    )
    order = rng.sample(range(len(listed)), len(listed))
    shuffled = [listed[index] for index in order]
    letters = {index: choice_letter(order.index(index)) for index in order}
    before = grade_answer(form.format(choice_letter(said), listed[meant]), choice_letter(ground_truth), listed)
    after = grade_answer(form.format(letters[said], listed[meant]), letters[ground_truth], shuffled)
    assert before == after, (form, listed, said, meant, ground_truth, order)
    counts[f"shuffled choices: {before}"] += 1


def check_prompts(text: str, counts: Counter[str], rng: Rng) -> None:
    question, found = split_question(text)
    counts[f"question: {'choices' if found else 'no choices'}"] += 1
    assert len(found) != 1 and len(found) <= 26 and all(map(str.strip, found)) and strip_instructions(text) in text
    assert question.strip() or not found
    for choice in found:
        assert choice in text
    listed = [rng.choice([answer(rng), text[:20], 7]) for _ in range(rng.randint(0, 30))]
    bare = without_letters(listed)
    assert len(bare) == len(listed) and all(one in str(many) for one, many in zip(bare, listed, strict=True))
    if bare and all(bare):
        try:
            Sample(text or "?", (IMAGE,), answer=text, choices=bare[:26])
            counts["sample: built"] += 1
        except SampleError:
            counts["sample: SampleError, as documented"] += 1


def fuzz(count: int, seed: int = SEED) -> Counter[str]:
    """Check `count` outputs; what came of them. AssertionError names the number of the output."""
    counts: Counter[str] = Counter()
    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        text = output(rng)
        try:
            check_parsing(text, counts)
            check_grading(text, counts, rng)
            check_order(counts, rng)
            check_prompts(text, counts, rng)
            if number % 10 == 0:
                check_episode(text, counts, rng)
        except Exception as error:
            raise AssertionError(f"output {number} of seed {seed}: {text!r}") from error
    return counts


def test_model_outputs_of_every_kind_are_read_and_graded_without_an_exception() -> None:
    counts = fuzz(int(os.environ.get("MGPO_FUZZ", "3000")))
    # the outputs are of every kind: each reason and each verdict comes up
    reasons = {
        Rejection.NO_JSON,
        Rejection.ANSWERED,
        Rejection.BAD_JSON,
        Rejection.NOT_FOUR_NUMBERS,
        Rejection.OTHER_LAYOUT,
    }
    assert min(counts[f"loose: {reason}"] for reason in ("box", *reasons)) > 0
    verdicts = ("choice: none", "choice: named", "open: True", "open: False", "question: choices", "sample: built")
    assert min(counts[verdict] for verdict in verdicts) > 0


if __name__ == "__main__":
    started = time.process_time()
    for name, value in sorted(fuzz(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000).items()):
        print(f"{value:9,}  {name}")
    print(f"{time.process_time() - started:.0f} s of CPU time")
