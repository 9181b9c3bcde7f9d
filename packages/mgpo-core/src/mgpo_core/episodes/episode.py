"""The state machine between a sample and its trajectory: messages go out, the model's text comes in.

An episode is pure: it never sees a token or a tensor, so the trainer, every engine and the demo drive the same one.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL import Image

from mgpo_core.boxes.parse import Box, CoordinateSpace, ParseResult, Rejection, parse_boxes
from mgpo_core.boxes.regions import View
from mgpo_core.episodes.trajectory import FINISH_REASONS, Trajectory, Turn, load_originals
from mgpo_core.errors import EngineError
from mgpo_core.images.budget import PixelBudget
from mgpo_core.images.crop import CropOutcome, CropRules, check_box, crop
from mgpo_core.samples.sample import Sample
from mgpo_core.templates.base import Message, Template, assistant_message, message_images
from mgpo_core.templates.multi_image import after_reasoning
from mgpo_core.templates.single_image import TwoTurn


class Episode:
    """One rollout of one sample under a template: read `messages`, call `observe` with the response, until `done`.

    `budget` resizes the originals for the model and every crop; `space` is the coordinate space the model speaks;
    `strict` reads boxes by the paper's rule only. The images are decoded at the first need and let go of when the
    episode (and every copy of it) is done; `originals` are decoded images to use instead of the sample's. `on_done` is
    called with the episode as soon as its last response has been observed, whatever engine runs it and in its thread.
    """

    def __init__(
        self,
        sample: Sample,
        *,
        template: Template | None = None,
        budget: PixelBudget | None = None,
        space: CoordinateSpace = CoordinateSpace.ABSOLUTE,
        rules: CropRules | None = None,
        strict: bool = False,
        originals: Sequence[Image.Image] | None = None,
        on_done: Callable[[Episode], None] | None = None,
    ) -> None:
        self.sample = sample
        self.template: Template = TwoTurn() if template is None else template
        self.budget = PixelBudget() if budget is None else budget
        self.space = space
        self.rules = CropRules() if rules is None else rules
        self.strict = strict
        self.on_done = on_done
        self._start(_SharedImages(sample, self.budget, originals))

    def _start(self, shared: _SharedImages) -> None:
        self._shared = shared
        shared.unfinished.add(self)
        self._opened = False
        self._opening = threading.Lock()  # a viewer may look at an episode while an engine begins to run it
        self._pending: list[Message] = []
        self._trajectory = Trajectory(
            sample_id=self.sample.id,
            question=self.sample.question,
            choices=tuple(self.sample.choices),
            ground_truth=self.sample.answer,
            sources=shared.sources,
            true_boxes=tuple(self.sample.boxes),
            template=self.template.name,
            space=self.space,
            budget=self.budget,
            metadata=dict(self.sample.metadata),
            answers_with_box=self.template.answers_with_box,
            done=False,
        )
        self._asked = self.sample

    def copies(self, n: int) -> list[Episode]:
        """n fresh episodes of the same sample and settings (a GRPO group) that share the decoded images."""
        return [self._fresh() for _ in range(n)]

    def _fresh(self) -> Episode:
        fresh = object.__new__(type(self))
        fresh.__dict__.update(self.__dict__)
        fresh._start(self._shared)
        return fresh

    @property
    def images(self) -> list[Image.Image]:
        """The originals resized into the budget, as the model sees them; the same objects in every copy."""
        return self._shared.resized()

    @property
    def originals(self) -> list[Image.Image]:
        """The originals at full size, RGB, EXIF orientation applied; decoded again if they had been let go of."""
        return self._shared.originals()

    @property
    def messages(self) -> list[Message]:
        """The whole conversation so far, the model's responses included."""
        self._open()
        return list(self._trajectory.messages)

    @property
    def pending(self) -> list[Message]:
        """The messages that wait for a response: the opening, then each follow-up; empty when done."""
        self._open()
        return list(self._pending)

    @property
    def turn(self) -> int:
        """0-based index of the response that is awaited (the number of responses, when done)."""
        return len(self._trajectory.turns)

    @property
    def wants_box(self) -> bool:
        """Whether the awaited response is read for a box, so that an engine may stop where its fence closes."""
        return not self.done and self.template.wants_box(self.turn)

    @property
    def done(self) -> bool:
        """Whether the last response has been observed."""
        return self._trajectory.done

    @property
    def trajectory(self) -> Trajectory:
        """What has happened so far; the same live object throughout."""
        self._open()
        return self._trajectory

    def observe(
        self, text: str, *, finish_reason: str = "stop", seconds: float = 0.0, tokens: int = 0, prompt_tokens: int = 0
    ) -> None:
        """Take the awaited response and prepare what follows it.

        Text after the box that is read is cut away and the turn's finish reason becomes "cut". `finish_reason` is
        "stop", "length" or "cut"; a response that ran out of length before its box is refused for the box it has not.
        `tokens` were sampled, after `prompt_tokens` of conversation (0: not known). Raises EngineError when the
        episode is done.
        """
        if self.done:
            raise EngineError(f"episode of sample {self.sample.id!r} ended with turn {self.turn}; start a new one")
        if finish_reason not in FINISH_REASONS:
            raise EngineError(f"finish_reason={finish_reason!r}: known are {', '.join(FINISH_REASONS)}")
        self._open()
        turn = Turn(text, finish_reason, seconds=seconds, tokens=tokens, prompt_tokens=prompt_tokens)
        outcome = CropOutcome(image=None, box_original=None, reason=None)
        if self.wants_box:
            outcome = self._read_box(turn)
        follow_up = None
        if self.turn + 1 < self.template.max_turns:
            follow_up = self.template.follow_up(self._asked, self.images, outcome, self.turn)
        if follow_up is None and turn.box is None:
            turn.rejection = None  # a template that ends here took a response without a box for the answer
        if follow_up is None and self.template.answers_with_box:
            self._read_answer(turn)
        self._advance(turn, follow_up)

    def end_too_long(self) -> None:
        """End here, because the model's context has no room for an answer to the pending follow-up, which is withdrawn.

        The last turn's finish reason becomes "length". Raises EngineError where no follow-up is pending.
        """
        if self.done or not self.turn:
            raise EngineError(f"episode of sample {self.sample.id!r}: no follow-up is pending; end it by a response")
        turn = self._trajectory.turns[-1]
        self._trajectory.messages.pop()
        turn.finish_reason, turn.shown_size = "length", None
        self._finish()

    def _open(self) -> None:
        if self._opened:
            return
        with self._opening:
            if not self._opened:
                self._begin()
                self._opened = True

    def _begin(self) -> None:
        self._trajectory.input_sizes = tuple(image.size for image in self.images)
        self._trajectory.original_sizes = self._shared.sizes
        if self.sample.regions:
            question = self.view.write_out(self.sample.question, self.sample.regions)
            self._asked = replace(self.sample, question=question, regions=())
            self._trajectory.question = question
        self._pending = self.template.opening(self._asked, self.images)
        self._trajectory.messages.extend(self._pending)

    @property
    def view(self) -> View:
        """How the images are seen: what turns boxes of original pixels into the model's numbers."""
        return View(self.space, tuple(image.size for image in self.images), self._shared.sizes)

    def _read_answer(self, turn: Turn) -> None:
        """The last response's box is its answer: nothing is cropped, so any size will do."""
        result = parse_boxes(after_reasoning(turn.text))
        sizes = self._trajectory.input_sizes
        turn.answers, turn.box_original = True, None
        turn.box, turn.label = (result.boxes[0], _first_label(result)) if result.boxes else (None, None)
        if turn.box is None:
            turn.rejection = result.error or Rejection.NO_JSON.value
        elif len(sizes) > 1 and not result.numbered[0]:
            turn.rejection = Rejection.NO_IMAGE.value
        elif not turn.box.image < len(sizes):
            turn.rejection = Rejection.OUTSIDE.value
        else:
            rules = CropRules(min_side=0, max_aspect=math.inf)
            turn.rejection = check_box(turn.box, sizes[turn.box.image], space=self.space, rules=rules)

    def _read_box(self, turn: Turn) -> CropOutcome:
        result = parse_boxes(turn.text, strict=self.strict)
        if not result.boxes:
            turn.rejection = result.error or Rejection.NO_JSON.value
            return CropOutcome(image=None, box_original=None, reason=turn.rejection)
        if result.end is not None and result.end < len(turn.text):
            turn.text = turn.text[: result.end]
            turn.finish_reason = "cut"
        turn.box = result.boxes[0]
        turn.label = _first_label(result)
        outcome = self._crop(turn.box)
        turn.rejection = outcome.reason
        turn.box_original = outcome.box_original
        return outcome

    def _crop(self, box: Box) -> CropOutcome:
        if not 0 <= box.image < len(self._trajectory.input_sizes):
            return CropOutcome(image=None, box_original=None, reason=Rejection.OUTSIDE.value)
        original = self.originals[box.image]
        return crop(original, box, budget=self.budget, space=self.space, rules=self.rules)

    def _advance(self, turn: Turn, follow_up: Message | None) -> None:
        trajectory = self._trajectory
        trajectory.messages.append(assistant_message(turn.text))
        trajectory.turns.append(turn)
        self._pending = [] if follow_up is None else [follow_up]
        if follow_up is None:
            self._finish()
            return
        trajectory.messages.append(follow_up)
        shown = message_images([follow_up])
        turn.shown_size = shown[-1].size if shown else None

    def _finish(self) -> None:
        self._pending = []
        self._trajectory.done = True
        if self.on_done is not None:
            self.on_done(self)
        self._shared.release(self)


def _first_label(result: ParseResult) -> str | None:
    return (result.labels[0] or None) if result.labels else None


class _SharedImages:
    """The decoded images of one sample, shared by a group and let go of when all of it is done.

    An evaluation keeps hundreds of trajectories; holding every decoded image would cost gigabytes.
    """

    def __init__(self, sample: Sample, budget: PixelBudget, originals: Sequence[Image.Image] | None) -> None:
        self.sources = tuple(sample.images if originals is None else originals)
        self.sizes: tuple[tuple[int, int], ...] = ()
        self.unfinished: weakref.WeakSet[Episode] = weakref.WeakSet()
        self._sample_id = sample.id
        self._budget = budget
        self._originals: list[Image.Image] | None = None
        self._resized: list[Image.Image] | None = None

    def originals(self) -> list[Image.Image]:
        if self._originals is None:
            self._originals = load_originals(self.sources, self._sample_id)
            self.sizes = tuple(image.size for image in self._originals)
        return self._originals

    def resized(self) -> list[Image.Image]:
        if self._resized is None:
            self._resized = [self._budget.resize(image) for image in self.originals()]
        return self._resized

    def release(self, episode: Episode) -> None:
        self.unfinished.discard(episode)
        if not self.unfinished:
            self._originals = self._resized = None
