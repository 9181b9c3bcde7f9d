"""Plays the samples of an evaluation with any engine: packed batches, each finished sample written at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mgpo_core import Sample
from mgpo_core.engines import Engine
from mgpo_core.engines.packing import packed
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.images.load import load_image
from mgpo_core.runs.evaluation_runs import FOLDER
from mgpo_core.runs.response_payload import ResponsePayload, encode_payload
from mgpo_core.samples.grading import choice_letter, lone_letter, resolve_choice
from mgpo_core.templates.base import message_text
from mgpo_core.templates.single_image import PlainTurn, SingleTurn
from mgpo_eval.models.journal import CompletedSample, Journal
from mgpo_eval.models.options import GenerationSettings, ModelOptions
from mgpo_eval.models.requests import EvalRequest, reading_error
from mgpo_eval.models.saved_images import save_images

__all__ = ["NO_ANSWER", "EpisodeRunner"]

NO_ANSWER = "Z"
"""What stands for a missing or impossible choice: no stock scorer of lmms-eval 0.7.3 takes it for a letter of A to E,
nor for a part of a choice's text (an empty answer is read as A by MME-RealWorld's; "none" contains "one")."""

_CHUNK = 512
"""Samples handed to an engine that keeps its own queue, so that their rows are read while others are run."""


class EpisodeRunner:
    """Runs evaluation requests and writes each sample into the journal as soon as it is over."""

    def __init__(
        self,
        engine: Engine,
        settings: GenerationSettings,
        options: ModelOptions,
        journal: Journal,
        *,
        run_id: str,
        output: Path | None,
        progress: bool,
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.options = options
        self.journal = journal
        self.run_id = run_id
        self.output = output
        self.progress = progress
        self._with_images: Counter[str] = Counter()

    def run(self, eval_requests: Sequence[EvalRequest]) -> None:
        """Run every request; raises what a broken sample raises (`on_bad_sample=skip`: counts it as wrong)."""
        from tqdm.auto import tqdm

        with tqdm(
            total=len(eval_requests), unit="sample", desc=self.settings.mode, disable=not self.progress
        ) as self._bar:
            for batch in self._batches(eval_requests):
                self.engine.run(batch)

    def _batches(self, eval_requests: Sequence[EvalRequest]) -> Iterable[list[Episode]]:
        if self.options.engine != "transformers":
            for start in range(0, len(eval_requests), _CHUNK):
                yield list(self._episodes(eval_requests[start : start + _CHUNK]))
            return
        yield from packed(
            self._episodes(eval_requests, opened=True),
            tokens=self._tokens,
            pixels=lambda episode: sum(width * height for width, height in episode.trajectory.original_sizes),
            most=self.options.limit,
            most_tokens=self.options.batch_tokens,
            most_pixels=self.options.batch_pixels,
        )

    def _tokens(self, episode: Episode) -> int:
        """About how many tokens the conversation will have: images, their crops, four characters of text a token."""
        budget = self.settings.budget
        images = sum(budget.tokens(*image.size) for image in episode.images)
        text = sum(len(message_text(message)) for message in episode.messages) // 4
        return 2 * (images + text) if episode.template.max_turns > 1 else images + text

    def _episodes(self, eval_requests: Iterable[EvalRequest], *, opened: bool = False) -> Iterator[Episode]:
        """The requests' episodes, images decoded if `opened`; samples that cannot be read are reported."""
        for request in eval_requests:
            try:
                sample = request.sample()
                episode = self._episode(request, sample)
                if opened:
                    _ = episode.messages
                elif self.options.on_bad_sample == "skip":
                    for source in sample.images:
                        load_image(source, name=f"an image of {request.name}")
            except Exception as error:
                self._skip(request, reading_error(request.name, error), error)
                continue
            yield episode

    def _episode(self, request: EvalRequest, sample: Sample) -> Episode:
        settings = self.settings
        return Episode(
            sample,
            template=request.template if sample.images else SingleTurn(),
            budget=settings.budget,
            space=settings.space,
            rules=settings.episode.rules,
            strict=settings.episode.strict_boxes,
            on_done=lambda episode: self._finish(request, episode),
        )

    def _skip(self, request: EvalRequest, reason: Exception, cause: Exception) -> None:
        if self.options.on_bad_sample == "error":
            raise reason from cause
        record: dict[str, Any] = {"run": self.run_id, "trajectory": None, "images": {}, "skipped": str(reason)}
        self.journal.add(CompletedSample(request.key, encode_payload(ResponsePayload(NO_ANSWER, record)), skipped=True))
        self._bar.update()

    def _finish(self, request: EvalRequest, episode: Episode) -> None:
        trajectory = episode.trajectory
        record = {"run": self.run_id, "trajectory": trajectory.to_dict(), "images": self._images(request, episode)}
        turns = trajectory.turns
        self.journal.add(
            CompletedSample(
                request.key,
                encode_payload(ResponsePayload(answer_of(trajectory), record)),
                input_tokens=sum(turn.prompt_tokens for turn in turns),
                output_tokens=sum(turn.tokens for turn in turns),
                seconds=sum(turn.seconds for turn in turns),
            )
        )
        trajectory.messages = []  # with its images: those of thousands of samples would not fit in memory
        self._bar.update()

    def _images(self, request: EvalRequest, episode: Episode) -> dict[str, str]:
        limit = self.options.keep_images
        if self.output is None or 0 <= limit <= self._with_images[request.task]:
            return {}
        self._with_images[request.task] += 1
        return save_images(episode, self.output, Path(FOLDER) / self.run_id / "images", request.name)


def answer_of(trajectory: Trajectory) -> str:
    r"""What is scored: the letter of the boxed choice, else the content of the last \boxed{}, else the last response.

    A question with choices gets `NO_ANSWER` where no choice is named; what is asked plainly is answered plainly. An
    answer that is a box is named with its image, in pixels of the original.
    """
    text = trajectory.turns[-1].text
    if trajectory.answers_with_box:
        return trajectory.answer or NO_ANSWER
    if trajectory.template == PlainTurn.name:
        return text.strip()
    boxed = trajectory.answer
    if not trajectory.choices:
        letter = None if boxed is None else lone_letter(boxed)
        if boxed is not None and letter is not None and letter in boxed:
            return letter  # the choices are in the question: scorers know "C", not "\\text{(C)}"
        return text.strip() if boxed is None else boxed
    index = None if boxed is None else resolve_choice(boxed, trajectory.choices)
    return NO_ANSWER if index is None else choice_letter(index)
