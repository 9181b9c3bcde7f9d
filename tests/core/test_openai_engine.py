"""The engine for chat servers, against a small one on loopback that says what the test wants it to say."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import io
import itertools
import json
import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from patience import HANG
from PIL import Image, ImageChops

pytest.importorskip("openai")

import openai

sys.path.insert(0, str(Path(__file__).parent))
from chat_server import BOX, BREAK, RESET, ChatServer, Reply, chatting, pieces, usual

from mgpo_core import Episode, Sample, SingleTurn, haystack
from mgpo_core.engines import Engine, load_engine
from mgpo_core.engines.chat import data_urls
from mgpo_core.engines.chat import engine as engine_module
from mgpo_core.errors import EngineError, TokenAlignmentError
from mgpo_core.templates.base import message_images


@pytest.fixture
def server(monkeypatch) -> Iterator[ChatServer]:
    with chatting(monkeypatch) as chat:
        yield chat


def samples(n: int) -> list[Sample]:
    return [Sample.of(f"Which is number {index}?", noise(), id=f"s{index}") for index in range(n)]


def noise() -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise((400, 300), 90) for _ in range(3)])


def episodes(n: int, **options: Any) -> list[Episode]:
    return [Episode(sample, **({"budget": haystack.BUDGET} | options)) for sample in samples(n)]


def load(server: ChatServer, **options: Any) -> Any:
    return load_engine("openai", **({"model": "tiny", "url": server.url} | options))


def image(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def sent_images(body: dict[str, Any]) -> list[Image.Image]:
    parts = [
        part for message in body["messages"] if isinstance(message["content"], list) for part in message["content"]
    ]
    return [image(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]


def assert_same(sent: list[Image.Image], shown: list[Image.Image]) -> None:
    assert [image.size for image in sent] == [image.size for image in shown]
    for ours, theirs in zip(sent, shown, strict=True):
        assert ours.mode == theirs.mode == "RGB" and ImageChops.difference(ours, theirs).getbbox() is None


def test_both_turns_are_played_and_what_was_said_is_sent_back(server):
    engine = load(server)
    assert isinstance(engine, Engine)
    [trajectory] = engine.run(episodes(1))
    assert trajectory.done and trajectory.answer == "0" and trajectory.tokens is None
    assert [turn.finish_reason for turn in trajectory.turns] == ["cut", "stop"]
    assert trajectory.box_original is not None and trajectory.turns[0].text == BOX
    first, second = server.bodies
    assert [message["role"] for message in second["messages"]] == ["system", "user", "assistant", "user"]
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][0]["content"].startswith("You are a helpful assistant. Given an image")
    assert second["messages"][2]["content"] == BOX
    assert [part["type"] for part in second["messages"][3]["content"]] == ["text", "image_url", "text"]
    assert first["stream"] and first["stream_options"] == {"include_usage": True}
    assert (first["model"], first["max_tokens"], first["temperature"], first["top_p"]) == ("tiny", 1024, 0.0, 1.0)
    assert not {"top_k", "seed"} & (first.keys() | second.keys())


def test_images_arrive_lossless_at_the_size_of_the_budget_and_are_encoded_once(server, monkeypatch):
    encoded = []
    png = data_urls._png
    monkeypatch.setattr(data_urls, "_png", lambda image: encoded.append(image.size) or png(image))
    [episode] = episodes(1)
    budget, shown = episode.budget, episode.images
    played = load(server, concurrency=2).run(episode.copies(3))
    for trajectory in played:
        turns = [body for body in server.bodies if len(body["messages"]) == 4]
        crops = message_images(trajectory.messages)[1:]
        assert_same(sent_images(turns[0])[1:], crops)
        assert crops[0].size == budget.smart_resize(*crops[0].size)
    assert shown[0].size == budget.smart_resize(400, 300)
    assert_same(sent_images(server.bodies[0]), shown)
    # one image that all three share, and a crop each
    assert len(encoded) == 4 and len(server.bodies) == 6


def test_images_that_a_caller_lets_go_of_are_not_kept_with_their_urls(server, monkeypatch):
    alive: list[weakref.ref[Image.Image]] = []
    kept: list[data_urls.DataUrls] = []
    monkeypatch.setattr(engine_module, "DataUrls", lambda: kept.append(data_urls.DataUrls()) or kept[-1])

    def let_go(episode: Episode) -> None:
        gc.collect()
        assert not any(reference() for reference in alive)
        assert len(kept[0]._known) == 2
        alive.extend(weakref.ref(image) for image in message_images(episode.trajectory.messages))
        episode.trajectory.messages = []

    load(server, concurrency=1).run(episodes(3, on_done=let_go))
    assert len(alive) == 6


def test_results_stand_in_the_order_of_the_episodes_whoever_is_answered_first(server):
    others = threading.Semaphore(0)

    def first_one_last(body: dict[str, Any], number: int) -> Reply:
        reply = usual(body, number)
        is_first = "number 0" in json.dumps(body["messages"])
        if is_first and len(body["messages"]) == 2:
            assert all(others.acquire(timeout=HANG) for _ in range(5))
        elif not is_first and len(body["messages"]) == 4:
            others.release()
        return reply

    server.script = first_one_last
    played = load(server).run(episodes(6))
    assert [trajectory.answer for trajectory in played] == list("012345")
    assert [trajectory.sample_id for trajectory in played] == [f"s{index}" for index in range(6)]


def test_concurrency_bounds_episodes_and_open_images(server):
    under_way, most = set(), []
    together = threading.Barrier(3)  # three requests have to be there at once before any is answered
    server.script = lambda body, number: together.wait(HANG) >= 0 and Reply(["So \\boxed{A}"])

    def played(index: int) -> Episode:
        def draw() -> Image.Image:
            under_way.add(index)
            most.append(len(under_way))
            return Image.new("RGB", (300, 300))

        sample = Sample.of("Which?", draw, id=str(index))
        done = lambda episode: under_way.discard(index)  # noqa: E731
        return Episode(sample, template=SingleTurn(), budget=haystack.BUDGET, on_done=done)

    trajectories = load(server, concurrency=3, progress=True).run([played(index) for index in range(9)])
    assert [trajectory.answer for trajectory in trajectories] == ["A"] * 9
    assert max(most) == 3 and len(most) == 9


def test_the_stream_is_closed_where_the_fence_closes(server):
    # longer than what fits between server and client, so that the server is still sending
    def endless(body: dict[str, Any], number: int) -> Reply:
        if len(body["messages"]) == 4:
            return usual(body, number)
        return Reply(itertools.chain(["Here", ".", "\n"], pieces(BOX), itertools.repeat(" and so on" * 100, 30_000)))

    server.script = endless
    [trajectory] = load(server).run(episodes(1))
    assert server.closed_by_client.wait(HANG)
    turn = trajectory.turns[0]
    assert (turn.text, turn.finish_reason) == (f"Here.\n{BOX}", "cut")
    # no usage came: as many tokens as pieces
    assert (turn.tokens, turn.prompt_tokens) == (3 + len(pieces(BOX)), 0)


@pytest.mark.parametrize("template", [None, SingleTurn()], ids=["no box in it", "no box wanted"])
def test_a_response_is_read_to_its_end_otherwise(server, template):
    text = "```json\n[]\n``` and on" if template is None else f"{BOX} and on"
    server.script = lambda body, number: Reply(pieces(text), usage={"prompt_tokens": 900, "completion_tokens": 77})
    [trajectory] = load(server).run(episodes(1, template=template))
    assert all((turn.text, turn.finish_reason) == (text, "stop") for turn in trajectory.turns)
    assert all((turn.tokens, turn.prompt_tokens) == (77, 900) for turn in trajectory.turns)


def test_text_behind_the_fence_in_the_same_piece_is_left_out(server):
    server.script = lambda body, number: Reply([f"{BOX} And"]) if number == 0 else usual(body, number)
    [trajectory] = load(server).run(episodes(1))
    assert (trajectory.turns[0].text, trajectory.turns[0].finish_reason) == (BOX, "cut")
    assert server.bodies[1]["messages"][2]["content"] == BOX


def test_the_paper_s_strict_rule_decides_where_a_strict_episode_is_cut(server):
    loose = BOX.replace(', "label": "key image area"', "")
    server.script = lambda body, number: Reply([*pieces(loose), " or ", *pieces(BOX), " so"])
    lax, strict = load(server).run([*episodes(1, strict=False), *episodes(1, strict=True)])
    assert lax.turns[0].text == loose
    assert strict.turns[0].text == f"{loose} or {BOX}"


def test_a_response_that_meets_the_limit_says_so(server):
    server.script = lambda body, number: Reply(["```json\n", '[{"bbox'], end="length")
    [trajectory] = load(server, max_new_tokens=2).run(episodes(1))
    assert [turn.finish_reason for turn in trajectory.turns] == ["length", "length"]
    assert trajectory.turns[0].rejection == "bad_json"
    assert [body["max_tokens"] for body in server.bodies] == [2, 2]


def test_vllm_is_asked_for_counts_with_every_piece(server):
    server.models = [{"id": "tiny", "owned_by": "vllm"}]
    load(server).run(episodes(1))
    assert all(body["stream_options"]["continuous_usage_stats"] is True for body in server.bodies)


def test_seeds_are_sent_only_when_sampling_and_every_response_has_its_own(server):
    def seeds(**options: Any) -> list[int]:
        server.bodies.clear()
        load(server, **options).run(episodes(3))
        return sorted(body.get("seed", -1) for body in server.bodies)

    assert seeds(seed=1) == [-1] * 6
    assert seeds(temperature=1.0, seed=None) == [-1] * 6
    hot = seeds(temperature=1.0, seed=1)
    assert len(set(hot)) == 6 and -1 not in hot
    assert hot == seeds(temperature=1.0, seed=1, concurrency=1)
    assert not set(hot) & set(seeds(temperature=1.0, seed=2))


def test_sampling_options_reach_the_server(server):
    load(server, temperature=0.7, top_p=0.9, top_k=20).run(episodes(1))
    body = server.bodies[0]
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.7, 0.9, 20)


@pytest.mark.parametrize(
    "failure",
    [
        Reply(status=500, message="CUDA error"),
        Reply(status=429, message="slow down"),
        RESET,
        Reply(pieces(BOX)[:5], end=BREAK),
        Reply(pieces(BOX)[:5], end=None),
        Reply(pieces(BOX)[:5], fault="engine is dead"),
    ],
    ids=["500", "429", "reset", "reset in the stream", "stream without end", "error in the stream"],
)
def test_what_may_pass_is_asked_again_and_then_named(server, failure):
    server.script = lambda body, number: failure if number < 2 else usual(body, number)
    [trajectory] = load(server, retries=2).run(episodes(1))
    assert trajectory.turns[0].text == BOX and trajectory.answer == "0"
    assert len(server.bodies) == 4 and server.bodies[0] == server.bodies[2]

    server.bodies.clear()
    with pytest.raises(
        EngineError, match=rf"sample 's0': the server at {server.url}/v1 did not answer turn 1 \("
    ) as told:
        load(server, retries=1).run(episodes(1))
    assert len(server.bodies) == 2
    assert ("lower concurrency" if getattr(failure, "status", 0) == 429 else "server's log") in str(told.value)
    assert isinstance(told.value.__cause__, openai.OpenAIError)


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        (401, "wrong key", "api_key.*OPENAI_API_KEY"),
        (403, "not yours", "api_key.*OPENAI_API_KEY"),
        (404, "The model `tiny` does not exist", "still serves the model"),
        (400, "At most 1 image(s) may be provided in one prompt.", r'--limit-mm-per-prompt \'{"image":2}\''),
        (422, "no such thing", "reads images"),
    ],
)
def test_a_rejected_request_quotes_the_server_and_is_not_retried(server, status, message, remedy):
    server.script = lambda body, number: Reply(status=status, message=message) if number else usual(body, number)
    with pytest.raises(
        EngineError, match=rf"sample 's0': the server at \S+ did not answer turn 2 \(.*; .*{remedy}"
    ) as told:
        load(server).run(episodes(1))
    assert f"status {status}: {message}" in str(told.value)
    assert len(server.bodies) == 2


def test_the_first_failure_cancels_the_rest(server):
    held = threading.Event()

    def second_fails(body: dict[str, Any], number: int) -> Reply:
        if "number 1" in json.dumps(body["messages"]):
            return Reply(status=400, message="no")
        held.wait(HANG)  # the others would not answer before the test lets them
        return usual(body, number)

    server.script = second_fails
    played = episodes(4)
    with pytest.raises(EngineError, match="sample 's1'"):
        load(server, concurrency=2).run(played)
    assert not any(episode.done for episode in played) and len(server.bodies) <= 3
    held.set()


def test_an_interrupted_run_stops_at_once(server):
    held = threading.Event()

    def interrupting(body: dict[str, Any], number: int) -> Reply:
        if len(body["messages"]) == 4:
            os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does
            held.wait(HANG)
        return usual(body, number)

    server.script = interrupting
    [episode] = episodes(1)
    with pytest.raises(KeyboardInterrupt):
        load(server).run([episode])
    assert episode.turn == 1 and not episode.done
    held.set()


def test_images_that_the_server_has_shrunk_are_refused(server):
    needed = sum(image.width * image.height for image in episodes(1)[0].images) // 28**2
    for prompt_tokens, fits in ((needed, True), (needed - 1, False)):
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 3}
        server.script = lambda body, number, usage=usage: Reply(["So \\boxed{A}"], usage=usage)
        refused = pytest.raises(TokenAlignmentError, match=rf"'s0'.*read {needed - 1} tokens.*take {needed}.*--mm-proc")
        with contextlib.nullcontext() if fits else refused:
            load(server).run(episodes(1, template=SingleTurn()))


def test_the_key_is_sent_from_the_argument_else_from_the_environment(server, monkeypatch):
    load(server).run(episodes(1))
    assert set(server.keys) == {"Bearer none"}
    monkeypatch.setenv("OPENAI_API_KEY", "from-outside")
    load(server)
    assert server.keys[-1] == "Bearer from-outside"
    load(server, api_key="secret").run(episodes(1))
    assert server.keys[-3:] == ["Bearer secret"] * 3


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_the_url_may_end_in_its_version(server, end):
    assert load(server, url=server.url + end).run(episodes(1))[0].answer == "0"


def test_the_served_model_is_the_first_or_a_known_name(server):
    server.models = [{"id": "first", "owned_by": "x"}, {"id": "second", "owned_by": "x"}]
    load(server, model=None).run(episodes(1))
    assert server.bodies[0]["model"] == "first"
    with pytest.raises(EngineError, match=r"does not serve 'secnd': did you mean 'second'"):
        load(server, model="secnd")
    server.models = []
    with pytest.raises(EngineError, match="lists no models"):
        load(server)


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "api_key"), (404, "leads to an OpenAI chat API"), (500, "server's log")]
)
def test_a_server_that_cannot_list_its_models_is_named(server, status, remedy):
    server.refuse_models = Reply(status=status, message="because")
    with pytest.raises(EngineError, match=f"{server.url}/v1 cannot be used .status {status}: because.; .*{remedy}"):
        load(server, retries=0)


def test_a_server_that_is_down_is_named():
    with socket.socket() as bound:  # bound, so that nobody else takes the port, and not listening
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"{url}/v1 cannot be used .Connection error.*see that url is right"):
            load_engine("openai", model="tiny", url=url, retries=0)


def test_a_server_that_stays_silent_is_given_up(server):
    held = threading.Event()
    server.script = lambda body, number: held.wait(HANG) and RESET
    engine = load(server, retries=0, timeout=HANG)
    engine._client["timeout"] = 0.1  # not from the start: listing the models may take longer than that
    with pytest.raises(EngineError, match="turn 1 .Request timed out.*raise timeout"):
        engine.run(episodes(1))
    held.set()


def test_it_runs_inside_an_event_loop(server):
    async def notebook() -> list[Any]:
        return load(server).run(episodes(2))

    # in a thread, so that the loop of a test that runs before or after does not matter
    with ThreadPoolExecutor(1) as executor:
        assert [trajectory.answer for trajectory in executor.submit(asyncio.run, notebook()).result()] == ["0", "1"]


def test_episodes_that_somebody_began_or_ended_are_taken_as_they_are(server):
    begun, ended = episodes(2)
    begun.observe(BOX)
    ended.observe("no box")
    ended.observe(r"\boxed{B}")
    assert [trajectory.answer for trajectory in load(server).run([begun, ended])] == ["0", "B"]
    assert len(server.bodies) == 1
    assert load(server).run([]) == []


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"retries": -1}, {"temperature": -1.0}, {"max_new_tokens": 0}])
def test_options_that_cannot_be_are_refused(server, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        load(server, **wrong)
