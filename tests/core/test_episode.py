"""The episode: what goes out, what is read from the response, what is returned."""

import threading
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from mgpo_core.boxes.parse import Box, CoordinateSpace
from mgpo_core.episodes.episode import Episode
from mgpo_core.errors import EngineError, ImageError
from mgpo_core.images.budget import PixelBudget
from mgpo_core.images.crop import CropRules
from mgpo_core.samples.sample import Sample
from mgpo_core.templates.base import message_images, message_text
from mgpo_core.templates.single_image import SingleTurn

BUDGET = PixelBudget(min_pixels=28 * 28 * 4, max_pixels=168 * 168)
SUB_IMAGE = "Based on the provided coordinates, return the sub-image:\n"
REFUSAL = "Not providing correct coordinates or invalid coordinate values, return the original image:\n"


def noise(width=672, height=672, seed=0):
    """Every original pixel differs, so that a crop of the downsized image cannot pass for one of the original."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def box_text(*numbers, extra=""):
    return f'I look.\n```json\n[\n    {{"bbox_2d": {list(numbers)}, "label": "key image area"{extra}}}\n]\n```'


def episode(image=None, **options):
    options = {"budget": BUDGET} | options
    return Episode(Sample.of("Which?", noise() if image is None else image, choices=("x", "y"), answer="B"), **options)


def same(a, b):
    return a.size == b.size and ImageChops.difference(a, b).getbbox() is None


def test_the_opening_shows_the_resized_original():
    play = episode()
    assert play.images[0].size == (168, 168)
    assert message_images(play.messages) == play.images
    assert play.pending == play.messages
    assert [message["role"] for message in play.pending] == ["system", "user"]
    assert (play.turn, play.wants_box, play.done) == (0, True, False)


def test_two_threads_that_look_at_an_episode_open_it_once():
    both = threading.Event()
    image = noise()

    def slow():
        both.wait(0.2)  # time for the other thread to come
        return image

    play = Episode(Sample.of("Which?", slow, choices=("x", "y"), answer="B"), budget=BUDGET)
    threads = [threading.Thread(target=lambda: play.messages) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [message["role"] for message in play.messages] == ["system", "user"]


def test_the_crop_is_cut_from_the_original_and_not_from_what_the_model_saw():
    original = noise()
    play = episode(original)
    play.observe(box_text(10, 20, 52, 97))
    expected = BUDGET.resize(original.crop((40, 80, 208, 388)))  # 672 / 168 = 4 original pixels to one
    [crop] = message_images(play.pending)
    assert same(crop, expected)
    assert play.trajectory.turns[0].box == Box(10, 20, 52, 97)
    assert play.trajectory.turns[0].box_original == Box(40, 80, 208, 388)
    assert play.trajectory.turns[0].shown_size == crop.size
    assert play.trajectory.turns[0].label == "key image area"
    assert message_text(play.pending[0]).startswith(SUB_IMAGE)


def test_relative_coordinates_are_thousandths_of_the_image():
    original = noise()
    play = episode(original, space=CoordinateSpace.RELATIVE_1000)
    play.observe(box_text(0, 250, 500, 750))
    assert play.trajectory.turns[0].box_original == Box(0, 168, 336, 504)
    assert same(message_images(play.pending)[0], BUDGET.resize(original.crop((0, 168, 336, 504))))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I cannot tell.", "no_json"),
        ("", "no_json"),
        ('```json\n[{"bbox_2d": [1, 2', "bad_json"),
        (r"The sign is red, so \boxed{A}.", "answered"),
        ("<think>" + box_text(10, 10, 80, 80), "no_json"),
        ('{"bbox_norm": [0.1, 0.1, 0.9, 0.9]}', "other_layout"),
        ('```json\n[{"bbox_2d": [1, 2, 3], "label": "x"}]\n```', "not_four_numbers"),
        (box_text(90, 20, 10, 80), "reversed"),
        (box_text(100, 100, 180, 160), "outside"),
        (box_text(10, 10, 38, 80), "too_small"),
        (box_text(10, 10, 80, 80, extra=', "image": 2'), "outside"),
    ],
)
@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_an_invalid_box_returns_the_original_and_the_reason(text, reason, finish_reason):
    play = episode()
    play.observe(text, finish_reason=finish_reason)
    [turn] = play.trajectory.turns
    assert (turn.rejection, turn.box_original, turn.finish_reason) == (reason, None, finish_reason)
    assert message_images(play.pending) == play.images
    assert message_text(play.pending[0]).startswith(REFUSAL)
    assert turn.shown_size == (168, 168)


def test_the_box_behind_the_reasoning_is_cropped_and_the_reasoning_is_kept():
    play = episode()
    said = f"<think>Perhaps {box_text(1, 1, 90, 90)}? No.</think>\n{box_text(10, 20, 52, 97)}"
    play.observe(f"{said} and more")
    [turn] = play.trajectory.turns
    assert (turn.box, turn.text, turn.finish_reason) == (Box(10, 20, 52, 97), said, "cut")


def test_an_elongated_box_is_refused():
    play = episode(noise(1344, 1344), budget=PixelBudget(), rules=CropRules(min_side=0, max_aspect=5))
    play.observe(box_text(0, 0, 500, 90))
    assert play.trajectory.turns[0].rejection == "too_elongated"


def test_a_length_limit_after_the_box_does_not_refuse_it():
    play = episode()
    play.observe(box_text(10, 20, 52, 97) + "\nand then I rambl", finish_reason="length")
    assert play.trajectory.turns[0].rejection is None


def test_text_after_the_fence_is_cut_and_said_to_be():
    text = box_text(10, 20, 52, 97)
    play = episode()
    play.observe(text + "\nThe answer is \\boxed{A}")
    assert play.trajectory.turns[0].text == text
    assert play.trajectory.turns[0].finish_reason == "cut"
    assert message_text(play.messages[2]) == text


def test_text_that_ends_with_the_fence_is_left_alone():
    play = episode()
    play.observe(box_text(10, 20, 52, 97), finish_reason="stop")
    assert play.trajectory.turns[0].finish_reason == "stop"


def test_a_refused_box_is_cut_behind_its_fence_too():
    play = episode()
    play.observe(box_text(90, 20, 10, 80) + " sorry")
    assert play.trajectory.turns[0].text == box_text(90, 20, 10, 80)


def test_the_second_response_ends_the_episode_and_is_not_read_for_a_box():
    play = episode()
    play.observe(box_text(10, 20, 52, 97), seconds=1.5, tokens=7)
    assert (play.turn, play.wants_box, play.done) == (1, False, False)
    final = f"{box_text(1, 2, 3, 4)} trailing \\boxed{{B}}"
    play.observe(final, finish_reason="length")
    assert (play.turn, play.wants_box, play.done, play.pending) == (2, False, True, [])
    first, last = play.trajectory.turns
    assert (first.seconds, first.tokens) == (1.5, 7)
    assert (last.text, last.box, last.rejection, last.finish_reason) == (final, None, None, "length")
    assert [message["role"] for message in play.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert play.trajectory.correct


def test_strict_reading_refuses_what_the_paper_would_not_read():
    bare = '[{"bbox_2d": [10, 20, 52, 97], "label": "x"}]'
    loose, strict = episode(), episode(strict=True)
    loose.observe(bare)
    strict.observe(bare)
    assert loose.trajectory.turns[0].rejection is None
    assert strict.trajectory.turns[0].rejection == "no_json"


def test_single_turn_ends_at_once_and_reads_no_box():
    play = episode(template=SingleTurn())
    assert not play.wants_box
    text = box_text(10, 20, 52, 97) + " so \\boxed{B}"
    play.observe(text)
    assert play.done
    assert play.trajectory.turns[0].text == text
    assert "valid_box_rate" not in play.trajectory.metrics()


def test_a_done_episode_takes_no_more_responses():
    play = episode(template=SingleTurn())
    play.observe("x")
    with pytest.raises(EngineError, match="start a new one"):
        play.observe("y")


def test_an_unknown_finish_reason_is_refused():
    with pytest.raises(EngineError, match="stop, length, cut"):
        episode().observe("x", finish_reason="eos")


def test_copies_share_images_and_nothing_else():
    play = episode()
    play.observe("no box")
    a, b = play.copies(2)
    assert (a.turn, b.turn) == (0, 0)
    assert a.images[0] is b.images[0] is play.images[0]
    a.observe(box_text(10, 20, 52, 97))
    assert (a.turn, b.turn) == (1, 0)
    assert len(b.messages) == 2
    assert b.trajectory is not a.trajectory


def test_changing_the_lists_handed_out_does_not_change_the_episode():
    play = episode()
    play.messages.clear()
    play.pending.clear()
    assert len(play.messages) == len(play.pending) == 2


class CountingSource:
    """An image on demand that counts how often it was demanded."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return noise()


def test_an_image_is_decoded_once_for_a_group_and_let_go_when_the_group_is_done():
    source = CountingSource()
    group = episode(source).copies(4)
    assert source.calls == 0
    for play in group:
        play.observe(box_text(10, 20, 52, 97))
    assert source.calls == 1
    for play in group:
        play.observe("\\boxed{A}")
    assert group[0]._shared._originals is None
    assert same(group[0].trajectory.originals[0], noise())


def test_decoded_originals_can_be_handed_in():
    source, original = CountingSource(), noise()
    play = episode(source, originals=[original])
    play.observe(box_text(10, 20, 52, 97))
    assert source.calls == 0
    assert play.trajectory.originals == [original]


def test_a_missing_file_is_named():
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        _ = Episode(Sample.of("Which?", "nowhere.png", id="s7")).messages


@dataclass(frozen=True)
class LookAgain:
    """A template with a free number of looks, as an autonomous one would be."""

    name: str = "look_again"
    max_turns: int = 3
    answers_with_box: bool = False

    def wants_box(self, turn):
        return True

    def opening(self, sample, images):
        images = [{"type": "image", "image": image} for image in images]
        return [{"role": "user", "content": [*images, {"type": "text", "text": sample.question}]}]

    def follow_up(self, sample, images, outcome, turn):
        if outcome.image is None:
            return None
        return {"role": "user", "content": [{"type": "image", "image": outcome.image}]}


def test_a_template_may_look_several_times_and_stop_when_it_likes():
    play = episode(template=LookAgain())
    play.observe(box_text(10, 20, 52, 97))
    play.observe(box_text(50, 50, 120, 120))
    assert (play.turn, play.wants_box, play.done) == (2, True, False)
    play.observe("\\boxed{B}")
    assert play.done
    assert play.trajectory.metrics()["valid_box_rate"] == 1.0
    assert play.trajectory.box_original == Box(200, 200, 480, 480)
    assert [turn.rejection for turn in play.trajectory.turns] == [None, None, None]


def test_no_template_gets_more_than_its_turns():
    play = episode(template=LookAgain(max_turns=2))
    play.observe(box_text(10, 20, 52, 97))
    play.observe(box_text(50, 50, 120, 120))
    assert play.done
    assert len(play.messages) == 4


def test_a_box_names_the_image_it_is_cut_from():
    first, second = noise(672, 672, 1), noise(1344, 672, 2)
    play = Episode(Sample.of("Which?", [first, second]), budget=BUDGET)
    width, height = play.images[1].size
    play.observe(box_text(0, 0, width // 2, height, extra=', "image": 2'))
    crop = play.trajectory.turns[0].box_original
    assert crop.image == 1
    assert same(message_images(play.pending)[0], BUDGET.resize(second.crop(tuple(map(int, crop.as_tuple())))))


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.text(max_size=80),
        st.builds(box_text, *[st.integers(-5, 175)] * 4),
        st.builds(lambda a, b: a + box_text(10, 20, 52, 97) + b, st.text(max_size=20), st.text(max_size=20)),
    )
)
def test_any_response_is_answered_by_a_crop_or_a_reason(text):
    play = episode(originals=[_NOISE])
    play.observe(text)
    [turn] = play.trajectory.turns
    assert text.startswith(turn.text)
    assert (turn.finish_reason == "cut") == (turn.text != text)
    assert (turn.rejection is None) == (turn.box_original is not None)
    intro = message_text(play.pending[0])
    assert intro.startswith(SUB_IMAGE if turn.rejection is None else REFUSAL)
    assert len(message_images(play.messages)) == 2


_NOISE = noise()


def test_a_response_that_was_to_name_a_region_is_no_answer():
    play = episode()
    play.observe("It is \\boxed{B}.")
    play.end_too_long()
    assert play.done and play.trajectory.answer is None
    assert play.trajectory.metrics()["accuracy"] == play.trajectory.metrics()["answered_rate"] == 0.0
