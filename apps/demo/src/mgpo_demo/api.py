"""The same functions for programs: through Gradio's client, plain HTTP, and as MCP tools. Nothing is kept of a call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from mgpo_core import Box, Episode
from mgpo_core.errors import MGPOError
from mgpo_core.templates import message_images
from mgpo_core.trajectory import Trajectory
from mgpo_demo.actions import Actions
from mgpo_demo.limits import DemoError
from mgpo_demo.looks import Ask, answer_from_box, first_look
from mgpo_demo.picture import Picture, keep_upload
from mgpo_demo.stream import StopSignal, stream

__all__ = ["add_api"]


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


def _look(actions: Actions) -> Callable[..., tuple[dict[str, Any], Image.Image | None]]:
    def look(image: str, question: str, choices: str = "") -> tuple[dict[str, Any], Image.Image | None]:
        """Let the model look closer at a picture and answer a question about it.

        The model names the region that matters, gets it cut from the original and enlarged, and answers; beside it
        stands its answer after one look, without the crop.

        Args:
            image: The picture, PNG or JPEG.
            question: What is asked about it.
            choices: The choices, one a line; empty for a free answer.

        Returns:
            answer, letter of the choice, box in pixels of the original, sizes, turns, one look's answer, confidence
            per choice; and the crop as the model saw it (nothing where its box was refused).
        """

        def play(picture: Picture, ask: Ask) -> dict[str, Episode]:
            return first_look(actions.model, picture, ask)

        return _played(actions, image, question, choices, play)

    return look


def _answer_from_box(actions: Actions) -> Callable[..., tuple[dict[str, Any], Image.Image | None]]:
    def answer_from_box_(
        image: str, question: str, choices: str, box: str
    ) -> tuple[dict[str, Any], Image.Image | None]:
        """Let the model answer a question about a picture from a region that you choose.

        Args:
            image: The picture, PNG or JPEG.
            question: What is asked about it.
            choices: The choices, one a line; empty for a free answer.
            box: "x1, y1, x2, y2" in pixels of the picture.

        Returns:
            As `look` does, without the answer of one look.
        """

        def play(picture: Picture, ask: Ask) -> dict[str, Episode]:
            return {"look": answer_from_box(actions.model, picture, ask, _box(box))}

        return _played(actions, image, question, choices, play)

    return answer_from_box_


def _played(
    actions: Actions, image: str, question: str, choices: str, play: Callable[[Picture, Ask], dict[str, Episode]]
) -> tuple[dict[str, Any], Image.Image | None]:
    """Play the episodes that `play` makes of the call; gr.Error with the sentence for what cannot be played."""
    upload = Path(image) if image else None
    try:
        if upload is None:
            raise DemoError("The call has no image.")
        ask = Ask(actions.limits.question_of(question), actions.limits.choices_of(choices))
        with tempfile.TemporaryDirectory(prefix="mgpo-demo-") as folder:
            picture = keep_upload(upload, upload.name, Path(folder), actions.limits)
            episodes = play(picture, ask)
            for _ in stream(actions.model, episodes, StopSignal(actions.limits.seconds)):
                pass
        return _outcome(actions, {name: episode.trajectory for name, episode in episodes.items()})
    except MGPOError as error:
        raise gr.Error(str(error), print_exception=False) from error
    finally:
        if upload is not None:
            upload.unlink(missing_ok=True)


def _outcome(actions: Actions, played: dict[str, Trajectory]) -> tuple[dict[str, Any], Image.Image | None]:
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
        "answer": trajectory.answer,
        "box": None if box is None else [round(value) for value in box.as_tuple()],
        "original_size": list(trajectory.original_sizes[0]),
        "input_size": list(trajectory.input_sizes[0]),
        "crop_size": None if box is None else list(images[-1].size),
        "turns": turns,
        "confidence": actions.model.confidence(trajectory),
    }
    if "direct" in played:
        outcome["one_look"] = {"answer": played["direct"].answer, "text": played["direct"].turns[-1].text}
    return outcome, None if box is None else images[-1]


def _box(text: str) -> Box:
    try:
        x1, y1, x2, y2 = (float(part) for part in (text or "").strip(" []()").split(","))
    except ValueError as error:
        raise DemoError(f"box={text!r:.80}: give four numbers, x1, y1, x2, y2, in pixels of the picture.") from error
    return Box(x1, y1, x2, y2)
