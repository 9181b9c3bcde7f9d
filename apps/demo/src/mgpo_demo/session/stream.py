"""A run in a thread of its own, read as a stream of what each episode says so far; it can be stopped at every token."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mgpo_core import Episode
from mgpo_core.errors import Stopped
from mgpo_demo.session.model import DemoModel

__all__ = ["Progress", "StopSignal", "stream"]

_PAUSE = 0.05
"""Seconds between two looks at a run: about 20 updates of the page a second."""

_PATIENCE = 2.0
"""Seconds that a run which was stopped has to end; a silent server's is left behind after them."""


class StopSignal:
    """Ends a run: by the visitor's wish, when they leave, or when it took too long."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._wish = threading.Event()
        self._deadline: float | None = None

    def set(self) -> None:
        """Ask the run to end at its next token."""
        self._wish.set()

    def start_clock(self) -> None:
        """Let the time count from now, once."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self.seconds

    @property
    def due(self) -> bool:
        """Whether the run is to end."""
        return self._wish.is_set() or self._late

    def check_wish(self) -> None:
        """Raise Stopped if somebody asked the run to end."""
        if self._wish.is_set():
            raise Stopped("stopped")

    def check(self) -> None:
        """Raise Stopped, with the sentence for the page, if the run is to end."""
        self.check_wish()
        if self._late:
            raise Stopped(f"stopped after {self.seconds:g} s, the most that one run may take")

    @property
    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline


@dataclass
class Progress:
    """What a run has come to: the response under way of every episode, by its name."""

    episodes: Mapping[str, Episode]
    texts: dict[str, tuple[int, str]] = field(default_factory=dict)
    "(turn, text so far), by the episode's name."

    def saying(self, name: str, turn: int) -> str:
        """The text of an episode's turn, finished or as far as it is; empty before it began."""
        turns = self.episodes[name].trajectory.turns
        if turn < len(turns):
            return turns[turn].text
        at, text = self.texts.get(name, (-1, ""))
        return text if at == turn else ""


def stream(model: DemoModel, episodes: Mapping[str, Episode], stop: StopSignal) -> Iterator[Progress]:
    """Play the episodes together and give the progress whenever there is some, the finished run last.

    Raises what the engine raises, and Stopped; closing the iterator stops the run and waits for it to end.
    """
    progress = Progress(episodes)
    names = {id(episode): name for name, episode in episodes.items()}
    news, failure = threading.Event(), list[BaseException]()

    def on_text(episode: Episode, text: str) -> None:
        stop.check()
        if text:
            progress.texts[names[id(episode)]] = (episode.turn, text)
            news.set()

    def work() -> None:
        try:
            model.generate([episode for episode in episodes.values() if not episode.done], on_text, stop.start_clock)
        except BaseException as error:  # handed to whoever reads the stream
            failure.append(error)

    thread = threading.Thread(target=work, name="mgpo-demo-run", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_PAUSE)
            if stop.due:
                thread.join(_PATIENCE)
                if thread.is_alive():
                    stop.check()
            if news.is_set():
                news.clear()
                yield progress
    finally:
        if thread.is_alive():
            stop.set()
            thread.join(_PATIENCE)
    if failure:
        raise failure[0]
    yield progress
