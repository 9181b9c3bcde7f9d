"""What is said to vLLM: one image token an image, the sampler's mask, seeds of their own; and its replies checked."""

from __future__ import annotations

import numpy as np
import pytest

from mgpo_core.engines import load_engine
from mgpo_core.engines.sampling_options import FORBIDDEN_BIAS, SamplingOptions
from mgpo_core.engines.tokenized_episode import TokenizedEpisode
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.engines.vllm.requests import RolloutCounts, check_prompt, collapse_images
from mgpo_core.episodes.episode import Episode
from mgpo_core.errors import EngineError, TokenAlignmentError
from mgpo_core.images.budget import PixelBudget

BUDGET = PixelBudget(min_pixels=28 * 28 * 4, max_pixels=168 * 168)


@pytest.fixture
def tokenized(tiny):
    return TokenizedEpisode(Episode(tiny.lesson("Alpha", (168, 168), 2), budget=BUDGET), TurnTokenizer(tiny.processor))


def test_every_run_of_image_tokens_becomes_one_and_nothing_else_changes():
    assert collapse_images([1, 9, 9, 9, 2, 9, 3, 9, 9], 9) == [1, 9, 2, 9, 3, 9]
    assert collapse_images([9, 9], 9) == [9]
    assert collapse_images([1, 1, 2, 2], 9) == [1, 1, 2, 2]
    assert collapse_images([], 9) == []


def test_a_collapsed_dialogue_expands_to_itself(tokenized):
    tokenizer = tokenized.tokenizer
    collapsed = collapse_images(tokenized.ids, tokenizer.image_id)
    counts = iter([tokenizer.image_tokens(image) for image in tokenized.images])
    expanded = [i for token in collapsed for i in [token] * (next(counts) if token == tokenizer.image_id else 1)]
    assert expanded == tokenized.ids and len(collapsed) < len(expanded)


def test_the_requests_mask_is_the_samplers(tokenized):
    tokens, vocabulary = tokenized.tokenizer, len(tokenized.tokenizer.tokenizer) + 7
    request = SamplingOptions(temperature=1.0).request(tokenized, 0, vocabulary, 1024)
    assert set(request["logit_bias"]) == set(np.flatnonzero(tokens.forbidden_mask(vocabulary)))
    assert set(request["logit_bias"].values()) == {FORBIDDEN_BIAS}
    assert tokens.image_id in request["logit_bias"] and vocabulary - 1 in request["logit_bias"]
    assert request["stop_token_ids"] == [tokens.end_id] and tokens.end_id not in request["logit_bias"]


def test_seeds_differ_between_episodes_and_turns_and_follow_from_the_run_s(tokenized):
    second = TokenizedEpisode(Episode(tokenized.episode.sample, budget=BUDGET), tokenized.tokenizer)
    response = second.response(8)
    response.push(tokenized.tokenizer.end_id, 0.0, tokenized.tokenizer.end_id)
    second.commit(response)

    def seeds(options):
        return [options.request(d, index, 500, 1024)["seed"] for index in range(20) for d in (tokenized, second)]

    assert len(set(seeds(SamplingOptions(seed=1)))) == 40
    assert seeds(SamplingOptions(seed=1)) == seeds(SamplingOptions(seed=1))
    assert not set(seeds(SamplingOptions(seed=1))) & set(seeds(SamplingOptions(seed=2)))
    assert seeds(SamplingOptions(seed=None)) == [None] * 40
    assert SamplingOptions(seed=1).seeded(3, 4).seed == SamplingOptions(seed=9).seeded(3, 4).seed
    assert SamplingOptions().seeded(3, 4).seed != SamplingOptions().seeded(3, 5).seed


def test_a_response_gets_no_more_tokens_than_the_context_has_room_for(tokenized):
    def most(room):
        return SamplingOptions(max_new_tokens=8).request(tokenized, 0, 500, room)["max_tokens"]

    assert most(len(tokenized.ids) + 9) == 8
    assert most(len(tokenized.ids) + 3) == 3


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}])
def test_options_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingOptions(**wrong)


def test_a_prompt_that_vllm_read_differently_is_refused(tokenized):
    check_prompt(tokenized, tokenized.ids)
    check_prompt(tokenized, None)
    resized = [*tokenized.ids, tokenized.tokenizer.image_id]
    with pytest.raises(TokenAlignmentError, match=r"36 of images of 168x168 .*mm_processor_kwargs"):
        check_prompt(tokenized, resized)


def test_hit_rates_are_shares_of_each_turns_prompt_tokens():
    counts = RolloutCounts()
    counts.add(0, 100, 0)
    counts.add(0, 100, 50)
    counts.add(1, 200, 160)
    assert counts.hit_rates() == {"prefix_cache_hit_rate/turn1": 0.25, "prefix_cache_hit_rate/turn2": 0.8}
    assert RolloutCounts().hit_rates() == {}


def test_no_server_is_told_with_the_command_that_starts_one():
    with pytest.raises(EngineError, match="vllm serve MODEL --enable-scale-out"):
        load_engine("vllm-server", model="haystack:base", url="http://127.0.0.1:9")
