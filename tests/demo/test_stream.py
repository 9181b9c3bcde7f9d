"""A run read as a stream: it grows, it stops when asked, and its errors come out."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest
from patience import HANG

from mgpo_core import Episode
from mgpo_core.errors import EngineError, Stopped
from mgpo_demo.session import stream as module
from mgpo_demo.session.model import DemoModel
from mgpo_demo.session.steps import Question, first_look
from mgpo_demo.session.stream import StopSignal, stream

sys.path.insert(0, str(Path(__file__).parent))
from scripted_model import BOX, image_of, noise, scripted, usual


def looks(model: DemoModel, tmp_path: Path) -> dict[str, Episode]:
    return first_look(model, image_of(noise(400, 300), tmp_path), Question("Which?", ("red", "blue")))


def endless(episode: Episode) -> str:
    """More than can be said within any test."""
    return "I look. " * 100_000


def test_texts_grow_and_the_last_progress_is_the_finished_run(tmp_path: Path) -> None:
    model = scripted(pause=0.005)
    episodes = looks(model, tmp_path)
    first, second, single_turn = [], [], []
    for progress in stream(model, episodes, StopSignal(HANG)):
        first.append(progress.saying("look", 0))
        second.append(progress.saying("look", 1))
        single_turn.append(progress.saying("single_turn", 0))
    for texts, whole in ((first, BOX), (second, "It is \\boxed{B}."), (single_turn, "It is \\boxed{B}.")):
        assert texts[-1] == whole and all(whole.startswith(text) for text in texts)
    assert len(set(first)) > 3 and second[0] == ""
    assert all(episode.done for episode in episodes.values())


def test_stop_ends_a_run_at_the_next_token_and_the_model_can_be_used_again(tmp_path: Path) -> None:
    model = scripted(endless, pause=0.01)
    stop = StopSignal(HANG)
    run = stream(model, looks(model, tmp_path), stop)
    next(run)
    stop.set()
    with pytest.raises(Stopped, match="^stopped$"):
        list(run)
    said = model.engine.said
    time.sleep(0.1)
    assert model.engine.said == said
    model.engine.script = usual
    assert [progress.saying("look", 1) for progress in stream(model, looks(model, tmp_path), StopSignal(HANG))][-1]


def test_closing_the_stream_stops_the_run(tmp_path: Path) -> None:
    model = scripted(endless, pause=0.01)
    run = stream(model, looks(model, tmp_path), StopSignal(HANG))
    next(run)
    run.close()
    said = model.engine.said
    time.sleep(0.1)
    assert model.engine.said == said


def test_the_time_of_a_run_is_limited_and_waiting_for_the_model_is_not_counted(tmp_path: Path) -> None:
    model = scripted(endless, pause=0.01)
    hold = threading.Event()

    def busy() -> None:
        with model._place(lambda: None):
            hold.wait()

    other = threading.Thread(target=busy)
    other.start()
    timer = threading.Timer(1.2, hold.set)
    timer.start()
    texts = []

    def run() -> None:
        for progress in stream(model, looks(model, tmp_path), StopSignal(1.0)):
            texts.append(progress.saying("look", 0))

    with pytest.raises(Stopped, match=r"after 1 s, the most that one run may take"):
        run()
    assert texts and texts[-1]  # it began, after a wait that was longer than the limit
    other.join()


def test_whoever_waits_for_the_model_can_stop_waiting(tmp_path: Path) -> None:
    model = scripted()
    with model._place(lambda: None):
        stop = StopSignal(HANG)
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(Stopped):
            list(stream(model, looks(model, tmp_path), stop))
    assert model.engine.said == 0


def test_a_silent_engine_is_left_behind_after_the_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    silence = threading.Event()

    def silent(episode: Episode) -> str:
        silence.wait()
        return usual(episode)

    model = scripted(silent)
    with pytest.raises(Stopped, match="the most that one run may take"):
        list(stream(model, looks(model, tmp_path), StopSignal(0.2)))
    # it still has the model, so that the next one waits, until the engine speaks again
    stop = StopSignal(HANG)
    threading.Timer(0.3, silence.set).start()
    assert list(stream(model, looks(model, tmp_path), stop))


def test_what_the_engine_raises_comes_out_and_the_next_run_works(tmp_path: Path) -> None:
    broken = [True]

    def script(episode: Episode) -> str:
        if broken[0]:
            raise EngineError("the server is gone; start it again")
        return usual(episode)

    model = scripted(script)
    with pytest.raises(EngineError, match="start it again"):
        list(stream(model, looks(model, tmp_path), StopSignal(HANG)))
    broken[0] = False
    assert list(stream(model, looks(model, tmp_path), StopSignal(HANG)))


def test_several_places_are_taken_at_once(tmp_path: Path) -> None:
    model = scripted(pause=0.005, at_once=2)
    both = threading.Barrier(2, timeout=HANG)

    def script(episode: Episode) -> str:
        if episode.turn == 0 and episode.wants_box:
            both.wait()
        return usual(episode)

    model.engine.script = script
    runs = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        runs.append(looks(model, folder))
    threads = [threading.Thread(target=lambda run=run: list(stream(model, run, StopSignal(HANG)))) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(episode.done for run in runs for episode in run.values())
