"""A follow-up turn is asked only where the context has room for it and an answer; else the episode is too long."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parent))
from chat_server import BOX, Reply, chatting, pieces, usual

from mgpo_core import Episode, PixelBudget, SingleTurn, haystack
from mgpo_core.engines import load_engine
from mgpo_core.engines.tokenized_episode import LEAST_ANSWER, TokenizedEpisode
from mgpo_core.engines.transformers.engine import TransformersEngine
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.errors import EngineError
from mgpo_core.templates.base import message_images
from mgpo_core.templates.multi_image import MultiImageTwoTurn

BUDGET = PixelBudget(min_pixels=28 * 28 * 4, max_pixels=168 * 168)


def said(tokenized, text, *, ended=True):
    response = tokenized.response(200)
    end = tokenized.tokenizer.end_id
    for token in [*tokenized.tokenizer.tokenizer.encode(text, add_special_tokens=False), *[end] * ended]:
        if response.push(token, -0.5, end):
            break
    tokenized.commit(response)


@functools.cache
def turns_of(processor):
    return TurnTokenizer(processor)


def tokenized_episode(tiny, room=None, habit="Alpha", template=None):
    episode = Episode(tiny.lesson(habit, (168, 168), 2), budget=BUDGET, template=template)
    return TokenizedEpisode(episode, turns_of(tiny.processor), room=room)


def lengths(tiny, habit, template=None):
    """Tokens of the prompt, of the prompt and the first response, and of those with the follow-up turn."""
    tokenized = tokenized_episode(tiny, habit=habit, template=template)
    said(tokenized, tiny.habits[habit][0])
    return tokenized.prompt_length, tokenized.spans[0][1], len(tokenized.ids)


@pytest.mark.parametrize("template", [None, MultiImageTwoTurn()], ids=["two_turn", "multi_image_two_turn"])
@pytest.mark.parametrize("habit", ["Alpha", "Beta", "Gamma", "Epsilon"])  # a crop; the original again; a cut response
@pytest.mark.parametrize(
    ("left", "asked"),
    [(None, True), (1000, True), (LEAST_ANSWER, True), (LEAST_ANSWER - 1, False), (1, False), (0, False), (-20, False)],
)
def test_a_follow_up_is_appended_only_with_room_for_an_answer(tiny, habit, left, asked, template):
    prompt, responded, asked_again = lengths(tiny, habit, template)
    tokenized = tokenized_episode(tiny, None if left is None else asked_again + left, habit, template)
    said(tokenized, tiny.habits[habit][0])
    episode, trajectory = tokenized.episode, tokenized.episode.trajectory
    assert episode.done is not asked
    assert len(tokenized.ids) == (asked_again if asked else responded)
    assert len(trajectory.turns) == 1 and bool(episode.pending) is asked
    turn = trajectory.turns[0]
    assert turn.tokens == responded - prompt
    # the conversation, the images and the tokens tell the same, and the record is whole
    assert message_images(trajectory.messages) == tokenized.images
    assert trajectory.messages[-1]["role"] == ("user" if asked else "assistant")
    tokenized.tokenizer.check(tokenized.ids, tokenized.images)
    assert len(tokenized.tokens().mask) == len(tokenized.ids) and sum(tokenized.tokens().mask) == turn.tokens
    if asked:
        assert tokenized.response(200).limit == (200 if left is None else min(200, left))
        return
    assert (turn.finish_reason, turn.shown_size) == ("length", None)
    assert trajectory.answer is None and not trajectory.correct
    # what became of the box is still told
    assert (turn.rejection is None) is (habit in ("Alpha", "Epsilon"))


def test_images_are_let_go_of_and_the_end_is_told_when_an_episode_is_too_long(tiny):
    ended = []
    episode = Episode(tiny.lesson("Alpha", (168, 168), 2), budget=BUDGET, on_done=ended.append)
    tokenized = TokenizedEpisode(episode, TurnTokenizer(tiny.processor), room=lengths(tiny, "Alpha")[2])
    said(tokenized, tiny.habits["Alpha"][0])
    assert ended == [episode] and episode._shared._originals is None
    with pytest.raises(EngineError, match="no follow-up is pending"):
        episode.end_too_long()


def test_an_episode_without_a_response_cannot_end_too_long(tiny):
    with pytest.raises(EngineError, match="no follow-up is pending"):
        Episode(tiny.lesson("Alpha", (168, 168), 2), budget=BUDGET).end_too_long()


@pytest.mark.parametrize("reuse_cache", [True, False])
@pytest.mark.parametrize("option", [True, False], ids=["max_model_len", "the model's own context"])
def test_the_transformers_engine_ends_what_has_no_room_and_plays_the_rest(tiny, option, reuse_cache, monkeypatch):
    """Gamma, who says little, has room for a second turn where Alpha has not."""
    habits, (fits, too_long) = ("Gamma", "Alpha"), (lengths(tiny, "Gamma")[2], lengths(tiny, "Alpha")[2])
    assert fits < too_long
    room = too_long + LEAST_ANSWER - 1
    engine = TransformersEngine(tiny.model, tiny.processor, reuse_cache=reuse_cache)
    free = engine.run([Episode(tiny.lesson(habit, (168, 168), 2), budget=BUDGET) for habit in habits])
    if option:
        engine.max_model_len = room
    else:
        monkeypatch.setattr(tiny.model.config.text_config, "max_position_embeddings", room)
    played = engine.run([Episode(tiny.lesson(habit, (168, 168), 2), budget=BUDGET) for habit in habits])
    for one, other in zip(free, played, strict=True):
        assert len(other.tokens) <= room
        assert other.turns[0].text == one.turns[0].text
        assert other.tokens.ids == one.tokens.ids[: len(other.tokens)]
    assert [len(trajectory.turns) for trajectory in free] == [2, 2]
    assert [len(trajectory.turns) for trajectory in played] == [2, 1]
    assert played[1].turns[0].finish_reason == "length"


@pytest.mark.parametrize("template", [None, SingleTurn()], ids=["two_turn", "single_turn"])
@pytest.mark.parametrize(("left", "tokens"), [(0, 0), (-30, 0), (1, 1), (3, 3)])
def test_a_prompt_that_fills_the_context_gets_what_is_left_and_is_counted(tiny, left, tokens, template):
    prompt = tokenized_episode(tiny, template=template).prompt_length
    engine = TransformersEngine(tiny.model, tiny.processor, max_model_len=prompt + left)
    sample, short = tiny.lesson("Alpha", (168, 168), 2), tiny.lesson("Alpha", (56, 56), 2)
    played = engine.run([Episode(one, budget=BUDGET, template=template) for one in (sample, short)])
    (turn,) = played[0].turns
    assert (turn.finish_reason, turn.tokens, turn.prompt_tokens) == ("length", tokens, prompt)
    assert len(played[0].tokens) == prompt + tokens and played[1].turns[0].tokens > tokens


def test_a_chat_server_whose_context_is_full_ends_the_episode_and_not_the_run(monkeypatch):
    refused = Reply(status=400, message="This model's maximum context length is 1024 tokens; your request has 1100")

    def script(body, number):
        full = "number 1?" in json.dumps(body["messages"])
        if len(body["messages"]) == 2:
            return Reply(pieces(BOX))
        if full:
            return refused
        # a server that refuses max_tokens behind the prompt, though a shorter answer has room
        return refused if "max_tokens" in body and "number 2?" in json.dumps(body["messages"]) else usual(body, number)

    with chatting(monkeypatch) as server:
        server.script = script
        (sample,) = haystack.make("val", 1, seed=7)
        samples = [replace(sample, question=f"Which is number {index}?") for index in range(3)]
        engine = load_engine("openai", model="tiny", url=server.url)
        played = engine.run([Episode(sample, budget=haystack.BUDGET) for sample in samples])
        server.script = lambda body, number: refused
        with pytest.raises(EngineError, match="did not answer turn 1 .*lower max_new_tokens .*--max-model-len"):
            engine.run([Episode(sample, budget=haystack.BUDGET)])
    assert [len(trajectory.turns) for trajectory in played] == [2, 1, 2]
    assert [trajectory.answer for trajectory in played] == ["0", None, "2"]
    assert played[1].turns[0].finish_reason == "length"
