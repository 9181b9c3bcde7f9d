"""Watching responses grow, and stopping a run from its watch, in every engine that needs no GPU."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import HANG

pytest.importorskip("openai")
pytest.importorskip("torch")

import openai
import torch

sys.path.insert(0, str(Path(__file__).parent))
from chat_server import BOX, BREAK, ChatServer, Reply, chatting, listening, pieces, usual

from mgpo_core import Episode, MGPOError, PixelBudget, Sample, SingleTurn, Stopped, haystack
from mgpo_core.engines import load_engine
from mgpo_core.engines.streaming import StreamedText, TextStream
from mgpo_core.engines.transformers.engine import TransformersEngine
from mgpo_core.engines.turn_tokens import TurnTokenizer

BUDGET = PixelBudget(min_pixels=28 * 28 * 4, max_pixels=168 * 168)
LIMIT = 40


class Recorder:
    """A watch that notes what it is told by sample and turn, and raises `error` at its call number `after`."""

    def __init__(self, error: BaseException | None = None, after: int = 0) -> None:
        self.error, self.after = error, after
        self.calls = 0
        self.told: dict[tuple[str, int], list[str]] = {}

    def __call__(self, episode: Episode, text: str) -> None:
        self.calls += 1
        self.told.setdefault((episode.sample.id, episode.turn), []).append(text)
        if self.error is not None and self.calls == self.after:
            raise self.error

    def turns(self, trajectories: list[Any]) -> list[tuple[Any, list[str]]]:
        """Every turn with what was told of it."""
        return [(turn, self.told[t.sample_id, at]) for t in trajectories for at, turn in enumerate(t.turns)]


def assert_grows(texts: list[str]) -> None:
    assert all(after.startswith(before) for before, after in itertools.pairwise(texts))


def lessons(tiny: Any) -> list[Episode]:
    return [Episode(tiny.lesson(word, tiny.sizes[0], 0), budget=BUDGET) for word in tiny.habits]


def rollouts(engine: Any, episodes: list[Episode], **options: Any) -> list[Any]:
    return [(t.tokens.ids, t.tokens.logprobs) for t in engine.run(episodes, **options)]


@pytest.mark.parametrize("reuse_cache", [True, False])
def test_texts_grow_token_by_token_and_end_as_the_turn_s_text(tiny, reuse_cache):
    engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=LIMIT, reuse_cache=reuse_cache)
    recorder = Recorder()
    trajectories = engine.run(lessons(tiny), on_text=recorder)
    assert {turn.finish_reason for turn, _ in recorder.turns(trajectories)} == {"stop", "cut", "length"}
    for trajectory in trajectories:
        for turn, texts in recorder.turns([trajectory]):
            assert_grows(texts)
            if trajectory.sample_id.startswith("Epsilon") and turn is trajectory.turns[0]:
                # a box without a fence: the model went on, the episode reads no further
                assert texts[-1].startswith(f"{turn.text} is where") and turn.tokens < len(texts)
            else:
                assert texts[-1] == turn.text and len(texts) == turn.tokens
    assert not any("<|" in text for texts in recorder.told.values() for text in texts)


def test_a_watch_changes_nothing_and_without_one_nothing_is_decoded(tiny, monkeypatch):
    def hot() -> TransformersEngine:
        return TransformersEngine(tiny.model, tiny.processor, max_new_tokens=12, temperature=2.0, seed=1)

    watched = rollouts(hot(), lessons(tiny), on_text=Recorder())
    monkeypatch.setattr(StreamedText, "add", lambda *args, **options: pytest.fail("decoded for nobody"))
    assert rollouts(hot(), lessons(tiny)) == watched


@pytest.mark.parametrize("reuse_cache", [True, False])
def test_raising_stops_generation_and_leaves_the_engine_as_it_was(tiny, reuse_cache):
    options: dict[str, Any] = {"max_new_tokens": LIMIT, "reuse_cache": reuse_cache, "batch_size": 2}
    engine = TransformersEngine(tiny.model, tiny.processor, **options)
    untouched = rollouts(TransformersEngine(tiny.model, tiny.processor, **options), lessons(tiny))
    steps = []
    hook = tiny.model.model.language_model.register_forward_pre_hook(lambda *_: steps.append(1))
    episodes, recorder = lessons(tiny), Recorder(Stopped("enough"), after=7)
    tiny.model.train()
    try:
        with pytest.raises(Stopped, match="enough") as stopped:
            engine.run(episodes, on_text=recorder)
        assert tiny.model.training
    finally:
        hook.remove()
        tiny.model.eval()
    assert stopped.value is recorder.error and isinstance(stopped.value, MGPOError)
    assert recorder.calls == 7
    # two rows in a batch: a step brings both a token; without cache, row after row
    assert len(steps) == (4 if reuse_cache else 7)
    assert not any(episode.done for episode in episodes)
    assert rollouts(engine, lessons(tiny)) == untouched
    # the stopped episodes can be continued
    assert rollouts(engine, episodes) == untouched


AWKWARD = [
    torch.OutOfMemoryError("no memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    openai.APIConnectionError(request=None),  # type: ignore[arg-type]
    asyncio.CancelledError(),
    StopIteration(),
    KeyboardInterrupt(),
    ExceptionGroup("two", [ValueError("one"), ValueError("other")]),
]


@pytest.mark.parametrize("error", AWKWARD, ids=lambda error: type(error).__name__)
def test_what_an_engine_would_handle_itself_comes_out_of_run_as_it_is(tiny, server, error):
    engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=LIMIT)
    for run, episodes in ((engine.run, lessons(tiny)), (load(server).run, questions(3))):
        recorder = Recorder(error, after=3)
        with pytest.raises(type(error)) as raised:
            run(episodes, on_text=recorder)
        assert raised.value is error and recorder.calls == 3
        assert error.__cause__ is None and error.__context__ is None
    assert engine.memory_splits == 0


@given(st.text(), st.data())
def test_characters_are_withheld_until_they_are_whole(text, data):
    whole = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    told: list[str] = []
    growing = StreamedText(TextStream(lambda episode, part: told.append(part)), Episode(SAMPLE))
    for start, end in itertools.pairwise([0, *cuts]):
        growing.add(whole[start:end])
        assert text.startswith(told[-1]) and len(whole[:end]) - len(told[-1].encode()) < 4
    growing.add(whole[cuts[-1] if cuts else 0 :], last=True)
    assert told[-1] == text


def test_an_incomplete_character_is_shown_at_the_end():
    told: list[str] = []
    growing = StreamedText(TextStream(lambda episode, part: told.append(part)), Episode(SAMPLE))
    euro = "€".encode()
    growing.add(b"5 " + euro[:1])
    growing.add(euro[1:2], last=True)
    assert told == ["5 ", (b"5 " + euro[:2]).decode(errors="replace")]


SAMPLE = Sample.of("Which is number 0?", haystack.make("val", 1, 0)[0].images[0], id="s0")


@pytest.fixture
def server(monkeypatch) -> Iterator[ChatServer]:
    with chatting(monkeypatch) as chat:
        yield chat


def load(server: ChatServer, **options: Any) -> Any:
    return load_engine("openai", model="tiny", url=server.url, **options)


def questions(n: int, **options: Any) -> list[Episode]:
    image = SAMPLE.images[0]
    samples = [Sample.of(f"Which is number {index}?", image, id=f"s{index}") for index in range(n)]
    return [Episode(sample, budget=haystack.BUDGET, **options) for sample in samples]


def test_a_chat_server_s_pieces_are_told_as_they_come(server):
    recorder = Recorder()
    trajectories = load(server).run(questions(3), on_text=recorder)
    assert len(recorder.told) == 6
    for turn, texts in recorder.turns(trajectories):
        assert_grows(texts)
        assert texts[-1] == turn.text and len(texts) == turn.tokens
    assert recorder.told["s2", 0] == list(itertools.accumulate(pieces(BOX)))
    assert recorder.told["s2", 1] == ["So \\boxed{", "So \\boxed{2", "So \\boxed{2}"]


def test_the_last_call_holds_what_came_behind_the_fence_in_the_same_piece(server):
    server.script = lambda body, number: Reply([f"{BOX} And"]) if number == 0 else usual(body, number)
    recorder = Recorder()
    [trajectory] = load(server).run(questions(1), on_text=recorder)
    assert recorder.told["s0", 0] == [f"{BOX} And"] and trajectory.turns[0].text == BOX


def test_the_text_begins_anew_where_a_broken_stream_is_asked_for_again(server):
    server.script = lambda body, number: (
        Reply(pieces(BOX)[:2], end=BREAK) if number == 0 else Reply(["So \\boxed{", "B}"])
    )
    recorder = Recorder()
    load(server).run(questions(1, template=SingleTurn()), on_text=recorder)
    # how much of a reset connection arrives is not ours to say
    assert recorder.told["s0", 0][-2:] == ["So \\boxed{", "So \\boxed{B}"]
    assert recorder.told["s0", 0][:-2] == list(itertools.accumulate(pieces(BOX)))[: len(recorder.told["s0", 0]) - 2]


def test_raising_closes_the_stream_and_cancels_the_other_episodes(server):
    # longer than what fits between server and client, so that the server is still sending
    server.script = lambda body, number: Reply(itertools.chain(["So"], itertools.repeat(" and so on" * 100, 30_000)))
    episodes, recorder = questions(4), Recorder(Stopped("enough"), after=5)
    engine = load(server, concurrency=2)
    with pytest.raises(Stopped) as stopped:
        engine.run(episodes, on_text=recorder)
    assert stopped.value is recorder.error and recorder.calls == 5
    assert server.closed_by_client.wait(HANG)
    assert len(server.bodies) <= 2 and not any(episode.turn for episode in episodes)
    server.script = usual
    assert [trajectory.answer for trajectory in engine.run(episodes)] == ["0", "1", "2", "3"]


def token_server(tokenizer: TurnTokenizer) -> type[BaseHTTPRequestHandler]:
    """`vllm serve` as its engine knows it: a box, then an answer, two tokens in a piece."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.say({"data": [{"id": "tiny", "max_model_len": 1024}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not body.get("stream"):
                return self.say({"choices": [self.choice([tokenizer.pad_id])]})
            text = BOX if len(body["content_parts"]) == 1 else "Ça: 5 € \\boxed{A}"
            ids = [*tokenizer.tokenizer.encode(text, add_special_tokens=False), tokenizer.end_id]
            self.send_response(200)
            self.end_headers()
            for start in range(0, len(ids), 2):
                self.event({"choices": [self.choice(ids[start : start + 2])]})
            return None

        def choice(self, ids: list[int]) -> dict[str, Any]:
            return {"token_ids": ids, "logprobs": {"content": [{"logprob": 0.0} for _ in ids]}}

        def event(self, data: dict[str, Any]) -> None:
            self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
            self.wfile.flush()

        def say(self, data: dict[str, Any]) -> None:
            text = json.dumps(data).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def test_a_vllm_server_is_watched_token_by_token_and_can_be_stopped():
    pytest.importorskip("httpx")
    from mgpo_core.engines.loading import load_processor

    tokenizer = TurnTokenizer(load_processor("haystack:base"))
    with listening(token_server(tokenizer)) as url:
        engine: Any = load_engine("vllm-server", model="haystack:base", url=url)
        recorder, threads = Recorder(), set()
        unwatched = rollouts(engine, questions(2))

        def on_text(episode: Episode, text: str) -> None:
            threads.add(threading.get_ident())
            recorder(episode, text)

        trajectories = engine.run(questions(2), on_text=on_text)
        assert threading.get_ident() not in threads
        assert [(t.tokens.ids, t.tokens.logprobs) for t in trajectories] == unwatched
        for turn, texts in recorder.turns(trajectories):
            assert_grows(texts)
            assert texts[-1] == turn.text and len(texts) == turn.tokens
        assert trajectories[0].turns[1].text == "Ça: 5 € \\boxed{A}"
        assert "Ça: 5 " in recorder.told["s0", 1] and not any("\ufffd" in text for text in recorder.told["s0", 1])
        episodes, stopping = questions(2), Recorder(Stopped("enough"), after=3)
        with pytest.raises(Stopped) as stopped:
            engine.run(episodes, on_text=stopping)
        assert stopped.value is stopping.error and stopping.calls == 3 and engine.retried == 0
        assert rollouts(engine, episodes) == unwatched
