"""What the server keeps of each visitor: an image, what was asked, the steps so far; apart from all others."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mgpo_demo.session.image import DemoImage
from mgpo_demo.session.limits import DemoError, Limits
from mgpo_demo.session.steps import Question, Step
from mgpo_demo.session.stream import StopSignal

__all__ = ["Visitor", "Visitors"]


@dataclass
class Visitor:
    """One page in one browser; its files are in a folder of its own that goes when it goes."""

    limits: Limits
    image: DemoImage | None = None
    example: Question | None = None
    "What the example says of its image, while that is the one shown."
    question: Question | None = None
    "What the steps answer."
    steps: list[Step] = field(default_factory=list)
    stop: StopSignal = field(init=False)
    _folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="mgpo-demo-")
    )

    def __post_init__(self) -> None:
        self.stop = StopSignal(self.limits.seconds)

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return Path(self._folder.name)

    @property
    def step(self) -> Step | None:
        """The latest step; None before the first."""
        return self.steps[-1] if self.steps else None

    def show(self, take: Callable[[Path], DemoImage], example: Question | None = None) -> DemoImage:
        """Have another image, which `take` puts into the folder it is given; the old one's files go.

        What `take` raises leaves everything as it was.
        """
        fresh = tempfile.TemporaryDirectory(prefix="mgpo-demo-")
        try:
            image = take(Path(fresh.name))
        except BaseException:
            fresh.cleanup()
            raise
        self.stop.set()
        self._folder.cleanup()
        self._folder, self.image, self.example, self.question, self.steps = fresh, image, example, None, []
        return image

    def asked(self, question: str, choices: tuple[str, ...]) -> Question:
        """The question about the image; an example's own one keeps its true answer and boxes."""
        example = self.example
        if example is not None and (question, choices) == (example.text, example.choices):
            return example
        return Question(question, choices)

    def start(self) -> StopSignal:
        """Stop what runs; gives the signal of the run that begins."""
        self.stop.set()
        self.stop = StopSignal(self.limits.seconds)
        return self.stop

    def add(self, step: Step, stop: StopSignal) -> None:
        """Append a step of the run that `stop` ends; Stopped if that was stopped: it may be of another image."""
        stop.check_wish()
        self.steps.append(step)

    def check_room(self) -> None:
        """Raise DemoError when the history is full."""
        if len(self.steps) >= self.limits.looks:
            raise DemoError(f"the history holds {len(self.steps)} steps, the most there may be; undo some")

    def undo(self) -> None:
        """Take the latest step away; DemoError when there is none to go back to."""
        if len(self.steps) < 2:
            raise DemoError("there is nothing to undo: this is the first step")
        self.steps.pop()

    def close(self) -> None:
        """Stop what runs and delete the files."""
        self.stop.set()
        self._folder.cleanup()


class Visitors:
    """All visitors by the name that Gradio gives each page; the longest idle gives way when there are too many."""

    def __init__(self, limits: Limits, *, idle_seconds: float = 3600.0) -> None:
        self._limits = limits
        self._idle = idle_seconds
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Visitor, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, name: str | None) -> Visitor:
        """The visitor of that name, new if it has none yet; DemoError for a call that comes from no page."""
        if not name:
            raise DemoError("this call belongs to no page: open the page, or use the documented API")
        with self._lock:
            visitor, _ = self._known.pop(name, (None, 0.0))  # before the idle ones go: this one is not idle
            self._forget()
            visitor = visitor or Visitor(self._limits)
            self._known[name] = visitor, time.monotonic()
            return visitor

    def leave(self, name: str | None) -> None:
        """Forget a visitor who closed the page."""
        with self._lock:
            visitor, _ = self._known.pop(name or "", (None, 0.0))
        if visitor is not None:
            visitor.close()

    def close(self) -> None:
        """Forget everybody."""
        for name in list(self._known):
            self.leave(name)

    def _forget(self) -> None:
        """Drop whoever has been idle too long, and the longest idle while there are too many."""
        oldest = time.monotonic() - self._idle
        while self._known:
            name, (visitor, seen) = next(iter(self._known.items()))
            if seen > oldest and len(self._known) < self._limits.visitors:
                return
            del self._known[name]
            visitor.close()
