"""The same functions for programs: through Gradio's client, plain HTTP, and as MCP tools.

What comes in is deleted with Gradio's cache, like every upload: two callers may have sent the same file, which Gradio
then keeps once, so that neither call may delete it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from mgpo_core import Box, Episode
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.samples.grading import choice_letter, resolve_choice
from mgpo_core.templates.base import message_images
from mgpo_demo.page.actions import Actions, user_message
from mgpo_demo.session import steps as looks
from mgpo_demo.session.image import DemoImage, keep_upload
from mgpo_demo.session.limits import DemoError
from mgpo_demo.session.steps import Question, first_look
from mgpo_demo.session.stream import StopSignal, stream

__all__ = ["add_api"]

Outcome = tuple[dict[str, Any], Image.Image | None]


def add_api(actions: Actions, at_once: int) -> None:
    """Add `/look` and `/answer_from_box` to the Blocks that are being built; their parts are never shown."""
    queue: dict[str, Any] = {"concurrency_limit": at_once, "concurrency_id": "model"}
    with gr.Column(visible=False):
        image = gr.File(label="image")
        question, choices = gr.Textbox(label="question"), gr.Textbox(label="choices", value="")
        box = gr.Textbox(label="box")
        outcome, crop = gr.JSON(label="outcome"), gr.Image(label="crop", type="pil", format="png")
        asked = [image, question, choices]
        gr.Button().click(_look(actions), asked, [outcome, crop], api_name="look", **queue)
        gr.Button().click(
            _answer_from_box(actions), [*asked, box], [outcome, crop], api_name="answer_from_box", **queue
        )


def _look(actions: Actions) -> Callable[..., Outcome]:
    # the docstrings of these two are the descriptions that MCP clients and the page of the API show
    def look(image: str, question: str, choices: str = "") -> Outcome:
        """Let the model look closer at an image and answer a question about it.

        The model names the region that matters, gets it cut from the original and enlarged, and answers; beside it
        stands its single-turn answer, without the crop.

        Args:
            image: The image, PNG or JPEG.
            question: What is asked about it.
            choices: The choices, one a line; empty for a free answer.

        Returns:
            What was answered, said and looked at (JSON; the box in pixels of the image), and the crop as it was seen.
        """

        def make_episodes(demo_image: DemoImage, question: Question) -> dict[str, Episode]:
            return first_look(actions.model, demo_image, question)

        return _run(actions, image, question, choices, make_episodes)

    return look


def _answer_from_box(actions: Actions) -> Callable[..., Outcome]:
    def answer_from_box(image: str, question: str, choices: str, box: str) -> Outcome:
        """Let the model answer a question about an image from a region that you choose.

        Args:
            image: The image, PNG or JPEG.
            question: What is asked about it.
            choices: The choices, one a line; empty for a free answer.
            box: "x1, y1, x2, y2" in pixels of the image.

        Returns:
            As `look` does, without the single-turn answer.
        """

        def make_episodes(demo_image: DemoImage, question: Question) -> dict[str, Episode]:
            return {"look": looks.answer_from_box(actions.model, demo_image, question, _box(box, demo_image.size))}

        return _run(actions, image, question, choices, make_episodes)

    return answer_from_box


def _run(
    actions: Actions,
    image: str,
    question: str,
    choices: str,
    make_episodes: Callable[[DemoImage, Question], dict[str, Episode]],
) -> Outcome:
    """Run the episodes that `make_episodes` returns; gr.Error with the message for what cannot be run."""
    try:
        if not image:
            raise DemoError("the call has no image")
        asked = Question(*actions.limits.asked(question, choices))
        upload = Path(image)
        with tempfile.TemporaryDirectory(prefix="mgpo-demo-") as folder:
            episodes = make_episodes(keep_upload(upload, upload.name, Path(folder), actions.limits), asked)
            for _ in stream(actions.model, episodes, StopSignal(actions.limits.seconds)):
                pass
            return _outcome(actions, {name: episode.trajectory for name, episode in episodes.items()})
    except Exception as error:
        raise gr.Error(user_message(error), print_exception=False) from error


def _outcome(actions: Actions, played: dict[str, Trajectory]) -> Outcome:
    trajectory = played["look"]
    box, images = trajectory.box_original, message_images(trajectory.messages)
    turns = [
        {
            "text": turn.text,
            "finish_reason": turn.finish_reason,
            "rejection": turn.rejection,
            "tokens": turn.tokens,
            "seconds": round(turn.seconds, 3),
        }
        for turn in trajectory.turns
    ]
    outcome: dict[str, Any] = {
        **_answer(trajectory),
        "box": None if box is None else [round(value) for value in box.as_tuple()],
        "original_size": list(trajectory.original_sizes[0]),
        "input_size": list(trajectory.input_sizes[0]),
        "crop_size": None if box is None else list(images[-1].size),
        "turns": turns,
        "confidence": actions.model.confidence(trajectory),
    }
    if "single_turn" in played:
        outcome["single_turn"] = {**_answer(played["single_turn"]), "text": played["single_turn"].turns[-1].text}
    return outcome, None if box is None else images[-1]


def _answer(trajectory: Trajectory) -> dict[str, str | None]:
    """What was answered, in the model's words and as "B: the choice's text" where it names one."""
    answer, choices = trajectory.answer, trajectory.choices
    index = resolve_choice(answer, choices) if answer is not None and choices else None
    return {"answer": answer, "choice": None if index is None else f"{choice_letter(index)}: {choices[index]}"}


def _box(text: str, size: tuple[int, int]) -> Box:
    """The box that was given; DemoError for one that is not part of an image of this size."""
    try:
        x1, y1, x2, y2 = (float(part) for part in (text or "").strip(" []()").split(","))
    except ValueError as error:
        raise DemoError(f"box={text!r:.80}: give four numbers, x1, y1, x2, y2, in pixels of the image") from error
    box = Box(x1, y1, x2, y2)
    inside = all(map(math.isfinite, box.as_tuple())) and box.clipped(*size) == box
    if not inside or not (x1 < x2 and y1 < y2):
        raise DemoError(
            f"box={text!r:.80} is not part of the image of {size[0]}×{size[1]} pixels: it needs "
            f"0 <= x1 < x2 <= {size[0]} and 0 <= y1 < y2 <= {size[1]}"
        )
    return box
