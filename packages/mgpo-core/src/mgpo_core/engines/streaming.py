"""Watching responses grow while an engine samples them, and stopping a run from outside. No torch here."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from mgpo_core.episodes.episode import Episode

__all__ = ["GrowingText", "Watch", "Watcher", "run_watched"]

Watch = Callable[[Episode, str], None]
"""`watch(episode, text)`: the awaited response of `episode` (number `episode.turn`) reads `text` so far.

Called as the text grows, each time with all of it, which begins with what the call before had. A character whose bytes
have not all come is left out until they have, and the end-of-turn token always. The last call before the episode moves
on holds all that was sampled. That is the turn's text, except where the episode reads less of it (it stops behind its
box): then the turn's text is how it begins. Where an engine has to ask for a response again (a connection that broke, a
batch that did not fit into memory) the text begins anew.

It may be called from another thread than the one that called `run`, but never twice at a time, and the engine waits for
it. What it raises ends the run at once and comes out of `run` as it is; the episodes stay where they are, and the
engine can be used again.
"""


class Watcher:
    """One run's watch. What the watch raises is kept in `raised`, and goes through the engine as a `WatchError`.

    Wrapped, because the engines catch and retry errors that a watch may raise as well (a RuntimeError about memory, one
    of a connection), and because asyncio takes some for its own.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.raised: BaseException | None = None

    def tell(self, episode: Episode, text: str) -> None:
        """Call the watch, unless it has ended the run: responses that are still under way end here then."""
        if self.raised is None:
            try:
                self._watch(episode, text)
            except BaseException as error:
                self.raised = error
        if self.raised is not None:
            raise WatchError from self.raised


class WatchError(Exception):
    """The watch has raised; never leaves `run_watched`."""


def run_watched(play: Callable[[Watcher | None], None], watch: Watch | None) -> None:
    """Call `play` with the run's watcher (None without a watch); raises what the watch raised, if it did."""
    watcher = None if watch is None else Watcher(watch)
    try:
        play(watcher)
    except Exception:  # also what was raised while the rest of the run was called off
        if watcher is None or watcher.raised is None:
            raise
    # outside the except block, which would set itself as the error's context
    if watcher is not None and watcher.raised is not None:
        raise watcher.raised


class GrowingText:
    """The text of one response, told to the watcher with every piece; each byte is decoded once."""

    def __init__(self, watcher: Watcher, episode: Episode) -> None:
        self._watcher = watcher
        self._episode = episode
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""

    def add(self, piece: bytes, *, last: bool = False) -> None:
        """Take the next bytes; after the `last` ones nothing is held back any more."""
        self._text += self._decoder.decode(piece, final=last)
        self._watcher.tell(self._episode, self._text)
