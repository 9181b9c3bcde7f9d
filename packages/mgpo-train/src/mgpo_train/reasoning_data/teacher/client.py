"""Asks the teacher, through the engine "openai": its retries, its bounded concurrency, its errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.engines import load_engine
from mgpo_core.engines.sampling_options import SamplingOptions
from mgpo_core.episodes.episode import Episode
from mgpo_core.images.budget import PixelBudget
from mgpo_core.images.load import ImageSource, load_image
from mgpo_core.samples.annotations import AnnotatedSet
from mgpo_core.templates.base import message_text
from mgpo_train.reasoning_data.teacher.journal import Reply, ReplyJournal
from mgpo_train.reasoning_data.teacher.prompt import TeacherPrompt
from mgpo_train.reasoning_data.verifier.replay import replay

__all__ = ["Teacher", "TeacherOptions"]


@dataclass(frozen=True)
class TeacherOptions:
    """Which model is asked, where, and how."""

    url: str
    model: str
    shows_images: bool = False
    """Whether it sees the images, at the size of the budget, beside their annotations."""
    concurrency: int = 16
    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 1024
    seed: int = 0
    retries: int = 4
    timeout: float = 600.0

    def sampling(self, attempt: int) -> dict[str, Any]:
        """What decides a reply beside the prompt; every attempt has a seed of its own."""
        options = SamplingOptions(self.max_new_tokens, self.temperature, self.top_p, 0, self.seed)
        return asdict(options.seeded(self.seed, attempt))


class Teacher:
    """Asks each question once: what the journal holds is not asked for again."""

    def __init__(
        self, options: TeacherOptions, journal: ReplyJournal, *, budget: PixelBudget, space: CoordinateSpace
    ) -> None:
        self.options, self.journal, self.budget, self.space = options, journal, budget, space

    def ask(self, sets: Sequence[AnnotatedSet], attempt: int, *, progress: bool = False) -> list[Reply]:
        """The reply to each set, in order. Raises EngineError when the server fails; the replies so far are kept."""
        keys = [self.key(one, attempt) for one in sets]
        missing = {key: one for key, one in zip(keys, sets, strict=True) if key not in self.journal.replies}
        if missing:
            engine = load_engine(
                "openai",
                model=self.options.model,
                url=self.options.url,
                concurrency=self.options.concurrency,
                retries=self.options.retries,
                timeout=self.options.timeout,
                progress=progress,
                **self.options.sampling(attempt),
            )
            engine.run([self._episode(one, key, attempt) for key, one in missing.items()])
        return [self.journal.replies[key] for key in keys]

    def key(self, annotated: AnnotatedSet, attempt: int) -> str:
        """A hash of the model, the prompt with its images, and the sampling."""
        prompt = TeacherPrompt(annotated, self.space)
        words = [message_text(message) for message in self._replay(annotated, prompt).messages]
        images = [_fingerprint(source) for source in annotated.images] if self.options.shows_images else []
        size = asdict(self.budget) if self.options.shows_images else {}
        asked = [self.options.model, words, images, size, self.options.sampling(attempt)]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def _episode(self, annotated: AnnotatedSet, key: str, attempt: int) -> Episode:
        keep = partial(self._keep, key, attempt)
        shown = {"originals": None} if self.options.shows_images else {}
        prompt = TeacherPrompt(annotated, self.space, self.options.shows_images)
        return self._replay(annotated, prompt, on_done=keep, **shown)

    def _replay(self, annotated: AnnotatedSet, prompt: TeacherPrompt, **rest: Any) -> Episode:
        return replay(annotated, budget=self.budget, space=self.space, template=prompt, **rest)

    def _keep(self, key: str, attempt: int, episode: Episode) -> None:
        [turn] = episode.trajectory.turns
        self.journal.add(
            Reply(key, episode.sample.id, attempt, turn.text, turn.finish_reason, turn.tokens, round(turn.seconds, 3))
        )


def _fingerprint(source: ImageSource) -> str:
    """A hash of a file's bytes, or of a synthetic image's pixels."""
    data = Path(source).read_bytes() if isinstance(source, str | Path) else load_image(source).tobytes()
    return hashlib.sha256(data).hexdigest()
