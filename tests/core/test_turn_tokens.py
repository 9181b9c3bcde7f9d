"""Turns become tokens once, as the processor would have it, and are cut where the fence closes."""

from __future__ import annotations

import copy
import itertools
import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from patience import cpu_seconds
from PIL import Image

from mgpo_core.boxes.parse import parse_boxes
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.episodes.episode import Episode
from mgpo_core.errors import EngineError, TokenAlignmentError
from mgpo_core.images.budget import PixelBudget
from mgpo_core.samples.sample import Sample
from mgpo_core.templates.base import message_images
from mgpo_core.templates.single_image import SingleTurn, TwoTurn

BUDGET = PixelBudget(min_pixels=28 * 28 * 4, max_pixels=168 * 168)
BOX = '[{"bbox_2d": [1, 2, 63, 64]}]'
BLOCK = '```json\n[{"bbox_2d": [1, 2, 63, 64], "label": "key image area"}]\n```'


@pytest.fixture(scope="module")
def tokenizer(tiny_processor):
    return TurnTokenizer(tiny_processor)


def sample(*sizes, question="Is the café open 🕮?"):
    return Sample.of(question, [Image.new("RGB", size, "teal") for size in sizes], choices=("yes", "no"), id="s-1")


def by_the_processor(processor, messages):
    """What the processor makes of a whole conversation: its own rendering, image expansion and tokens."""
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=messages[-1]["role"] == "user")
    return processor(text=[text], images=message_images(messages), do_resize=False)["input_ids"][0]


@pytest.mark.parametrize("template", [TwoTurn(), SingleTurn()], ids=lambda template: template.name)
@pytest.mark.parametrize("sizes", [[(300, 200)], [(60, 400)], [(500, 500), (90, 90)]], ids=str)
def test_the_opening_is_what_the_processor_makes_of_it(tokenizer, template, sizes):
    episode = Episode(sample(*sizes), template=template, budget=BUDGET)
    assert tokenizer.opening(episode.messages) == by_the_processor(tokenizer.processor, episode.messages)


@pytest.mark.parametrize("response", [BLOCK, "no box 🙈", ""], ids=["box", "no box", "nothing"])
def test_appended_turns_spell_the_conversation_that_the_processor_would_render(tokenizer, response):
    episode = Episode(sample((640, 400)), budget=BUDGET)
    ids = tokenizer.opening(episode.pending)
    for text in (response, "\\boxed{A}"):
        sampled = tokenizer.tokenizer.encode(text, add_special_tokens=False)
        episode.observe(text)
        if not episode.done:
            ended = tokenizer.follow_up(episode.pending, True)
            assert tokenizer.follow_up(episode.pending, False) == [tokenizer.end_id, *ended]
            ids += [*sampled, tokenizer.end_id, *ended]
    assert ids == by_the_processor(tokenizer.processor, episode.messages[:-1])


def test_equal_turns_with_different_images_are_expanded_for_each(tokenizer):
    counts = []
    for size in [(300, 200), (200, 600), (300, 200)]:
        episode = Episode(sample(size), budget=BUDGET)
        ids = tokenizer.opening(episode.pending)
        tokenizer.check(ids, episode.images)
        counts.append(ids.count(tokenizer.image_id))
    assert counts[0] == counts[2] != counts[1]


def test_a_template_that_rewrites_earlier_turns_is_refused(tiny_processor):
    processor = copy.copy(tiny_processor)
    processor.chat_template = tiny_processor.chat_template.replace(
        "{% for message in messages %}", "{{ messages | length }}{% for message in messages %}"
    )
    episode = Episode(sample((300, 200)), budget=BUDGET)
    episode.observe("no box")
    with pytest.raises(EngineError, match="rewrites|changes earlier turns"):
        TurnTokenizer(processor).follow_up(episode.pending, True)


def test_an_image_token_in_the_question_is_refused_by_name(tokenizer):
    episode = Episode(sample((300, 200), question="What is <|image_pad|>"), budget=BUDGET)
    with pytest.raises(TokenAlignmentError, match="s-1.*2 image tokens for 1 images"):
        tokenizer.opening(episode.pending, name=episode.sample.id)


def test_tokens_and_features_that_disagree_are_refused_by_name(tokenizer):
    episode = Episode(sample((300, 200)), budget=BUDGET)
    ids = tokenizer.opening(episode.pending)
    with pytest.raises(TokenAlignmentError, match="'s-1': .* image tokens but"):
        tokenizer.check([*ids, tokenizer.image_id], episode.images, name="s-1")


def test_an_image_off_the_grid_is_refused(tokenizer):
    with pytest.raises(TokenAlignmentError, match="100x56"):
        tokenizer.pixels([Image.new("RGB", (100, 56))])


def test_pixels_have_one_feature_for_each_image_token_and_the_stated_grids(tokenizer):
    images = [Image.new("RGB", size, "teal") for size in [(56, 84), (140, 28), (56, 84)]]
    pixels = tokenizer.pixels(images)
    assert pixels["image_grid_thw"].tolist() == [list(tokenizer.grid(image)) for image in images]
    assert [int(grid.prod()) // 4 for grid in pixels["image_grid_thw"]] == [tokenizer.image_tokens(i) for i in images]
    assert len(pixels["pixel_values"]) == 4 * sum(tokenizer.image_tokens(image) for image in images)


def test_every_special_token_but_the_end_of_turn_is_forbidden(tokenizer):
    tokens = tokenizer.tokenizer
    forbidden = {tokens.convert_ids_to_tokens(i) for i in tokenizer.forbidden}
    assert forbidden == {
        "<|endoftext|>",
        "<|im_start|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    }
    mask = tokenizer.forbidden_mask(len(tokens) + 3)
    assert mask.sum() == len(forbidden) + 3 and mask[-3:].all() and not mask[tokenizer.end_id]


# --- cutting ---------------------------------------------------------------------------------------------------------

PIECES = [
    BLOCK,
    "```json\n",
    "```",
    "`",
    "``",
    "\n",
    BOX,
    "[1]",
    '{"bbox_2d": [1, 2, 3]}',
    "see 🕮 café ",
    "```python\n",
    "```\n\n",
    "<think>",
    "</think>",
]


def closes(text: str, *, strict: bool) -> bool:
    """Whether a json fence that holds boxes is closed in `text`; fences pair up, "```json" always opens.

    Unless `strict`, what is in a reasoning, or before the end of one that the prompt opened, is left out.
    """
    if not strict:
        hidden = re.compile(r"\A(?:(?!<think>).)*?</think>|<think>.*?(?:</think>|\Z)|</think>", re.DOTALL)
        text = hidden.sub(lambda found: "_" * len(found.group()), text)
    fences = list(re.finditer("`{3,}", text))
    is_open = False
    for fence, following in itertools.pairwise(fences):
        is_open = text.startswith("json", fence.end()) or not is_open
        block = text[fence.start() : following.start() + 3]
        result = parse_boxes(block, strict=strict)
        if is_open and result.boxes and result.end == len(block):
            return True
    return False


def retokenised(tokenizer, text, cuts):
    """Ids that spell `text`, with token borders at the (byte) places `cuts` too, as a model may sample them."""
    ids = []
    data = text.encode()
    places = sorted({place % (len(data) + 1) for place in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(places):
        piece = data[start:end]
        try:
            ids += tokenizer.tokenizer.encode(piece.decode(), add_special_tokens=False)
        except UnicodeDecodeError:  # inside a character: single bytes
            ids += [by_byte(tokenizer)[byte] for byte in piece]
    return ids


def by_byte(tokenizer):
    pieces = {tokenizer.token_bytes[i]: i for i in range(len(tokenizer.tokenizer))}
    return {piece[0]: i for piece, i in pieces.items() if len(piece) == 1}


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(["```\n", BOX, "```"], [], False)
@example(["```", "\n", "```", BOX, "```"], [], False)
@example(["<think>", BLOCK, "</think>", BLOCK, "\n"], [3, 9, 40], False)
@example(["```", "<think>", BLOCK, "</think>", "```json\n", BOX, "```"], [], False)
@example(["```json\n", "</think>", "[1]", BOX, "```", BLOCK], [], False)
@example(["<think>", BLOCK, "<think>", BLOCK], [7], False)
@example(["<think>", BLOCK], [], True)
@example(["```json\n", BOX, "<think>", "</think>", "</think>", BLOCK], [], False)
@example(["<think>", "</think>", "```json\n", BOX, "</think>", "```"], [], False)
@given(st.lists(st.sampled_from(PIECES), max_size=9), st.lists(st.integers(0, 10**6), max_size=12), st.booleans())
def test_the_cut_is_the_first_token_whose_decoded_prefix_closes_the_fence(tokenizer, pieces, cuts, strict):
    ids = retokenised(tokenizer, "".join(pieces), cuts)
    text = tokenizer.tokenizer.decode(ids)
    assert text == "".join(pieces) == tokenizer.decode(ids)
    prefixes = [tokenizer.tokenizer.decode(ids[:count]) for count in range(len(ids) + 1)]
    expected = next((count for count, prefix in enumerate(prefixes) if closes(prefix, strict=strict)), None)
    assert tokenizer.cut(ids, strict=strict) == expected


def test_the_cut_keeps_a_token_that_runs_past_the_fence_and_drops_what_follows(tokenizer):
    data = (BLOCK + "\n\nand more").encode()
    ids = tokenizer.tokenizer.encode(BLOCK + "\n\nand more", add_special_tokens=False)
    kept = tokenizer.decode(ids[: tokenizer.cut(ids)])
    assert kept.startswith(BLOCK) and len(kept) < len(data)
    assert parse_boxes(kept).boxes == parse_boxes(BLOCK).boxes
    assert tokenizer.cut(ids[: tokenizer.cut(ids) - 1]) is None


@pytest.mark.parametrize("piece", ["`", "```", "```json\n[", '```json\n{"bbox_2d": [1, 2, 3]}\n', "` ", "<think>```"])
def test_cutting_is_linear_in_the_number_of_tokens(tokenizer, piece):
    ids = tokenizer.tokenizer.encode(piece, add_special_tokens=False)

    assert tokenizer.cut(ids * 1_000) is None
    few, many = (cpu_seconds(lambda n=n: tokenizer.cut(ids * n), rounds=2) for n in (1_000, 8_000))
    assert many < 8 * few * 3 + 0.05  # quadratic would be 64 times


@given(st.lists(st.integers(0, 499), max_size=40))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_decoding_agrees_with_the_tokenizer_on_any_ids(tokenizer, ids):
    assert tokenizer.decode(ids) == tokenizer.tokenizer.decode(ids, skip_special_tokens=False)
    for characters in range(len(tokenizer.decode(ids)) + 1):
        count = tokenizer.covering(ids, characters)
        assert len(tokenizer.decode(ids[:count])) >= characters
        assert count == 0 or len(tokenizer.decode(ids[: count - 1])) < characters or characters == 0


def test_a_tokenizer_without_bytes_is_refused(tiny_processor):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<|im_end|>": 0, "[UNK]": 1, "box": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    processor = copy.copy(tiny_processor)
    processor.tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    with pytest.raises(EngineError, match="byte-level"):
        TurnTokenizer(processor)
