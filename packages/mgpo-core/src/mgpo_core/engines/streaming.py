"""Streaming of responses while an engine samples them, and stopping a run from outside. No torch here."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from mgpo_core.episodes.episode import Episode

__all__ = ["StreamCallback", "StreamedText", "TextStream", "run_streaming"]

StreamCallback = Callable[[Episode, str], None]
"""`on_text(episode, text)`: the awaited response of `episode` (number `episode.turn`) reads `text` so far.

Called as the text grows, each time with all of it, which begins with what the call before had. A character whose bytes
have not all come is left out until they have, and the end-of-turn token always. The last call before the episode moves
on holds all that was sampled. That is the turn's text, except where the episode reads less of it (it stops behind its
box): then the turn's text is how it begins. Where an engine has to ask for a response again (a connection that broke, a
batch that did not fit into memory) the text starts over.

It may be called from another thread than the one that called `run`, but never twice at a time, and the engine waits for
it. What it raises ends the run at once and comes out of `run` as it is; the episodes stay where they are, and the
engine can be used again.
"""


class TextStream:
    """One run's callback. What it raises is kept in `raised`, and passes through the engine as `StreamCallbackError`.

    Wrapped, because the engines catch and retry errors that a callback may raise as well (a RuntimeError about memory,
    one of a connection), and because asyncio takes some for its own.
    """

    def __init__(self, on_text: StreamCallback) -> None:
        self._watch = on_text
        self.raised: BaseException | None = None

    def tell(self, episode: Episode, text: str) -> None:
        """Call the callback, unless it has ended the run: responses that are still under way end here then."""
        if self.raised is None:
            try:
                self._watch(episode, text)
            except BaseException as error:
                self.raised = error
        if self.raised is not None:
            raise StreamCallbackError from self.raised


class StreamCallbackError(Exception):
    """The callback has raised; never leaves `run_streaming`."""


def run_streaming(generate: Callable[[TextStream | None], None], on_text: StreamCallback | None) -> None:
    """Call `generate` with the run's stream (None without a callback); raises what the callback raised, if it did."""
    text_stream = None if on_text is None else TextStream(on_text)
    try:
        generate(text_stream)
    except Exception:  # also what was raised while the rest of the run was called off
        if text_stream is None or text_stream.raised is None:
            raise
    # outside the except block, which would set itself as the error's context
    if text_stream is not None and text_stream.raised is not None:
        raise text_stream.raised


class StreamedText:
    """The text of one response, passed to the stream with every piece; each byte is decoded once."""

    def __init__(self, text_stream: TextStream, episode: Episode) -> None:
        self._watcher = text_stream
        self._episode = episode
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""

    def add(self, piece: bytes, *, last: bool = False) -> None:
        """Take the next bytes; after the `last` ones nothing is held back any more."""
        self._text += self._decoder.decode(piece, final=last)
        self._watcher.tell(self._episode, self._text)
