"""A visitor's looks as one JSON file with its images inside, which opens again; and as one HTML page.

A file that is opened may come from anywhere: every value's type is checked (by pydantic), it holds its images as data
and names no file, and what it says of their sizes must be true of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from mgpo_core import Box
from mgpo_core.episodes.trajectory import Tokens, Trajectory, Turn
from mgpo_core.errors import MGPOError
from mgpo_core.images.budget import PixelBudget
from mgpo_core.images.load import ImageSource
from mgpo_core.render import write_report
from mgpo_core.templates.base import message_images
from mgpo_demo.session.image import DemoImage, decode, keep_upload
from mgpo_demo.session.limits import DemoError, Limits
from mgpo_demo.session.steps import Question, Step
from mgpo_demo.session.visitors import Visitor

__all__ = ["open_saved", "write_html", "write_json"]

_FORMAT = "mgpo-demo looks"
_VERSION = 1
_ORIGINAL = "original-0.png"
_FARTHEST = 1e7
"""No number may be larger: the boxes that a model wrote are drawn, if only to show that they were refused."""


def write_json(visitor: Visitor, folder: Path) -> Path:
    """Write everything that the visitor has into `looks.json` of `folder`; each image is in it once."""
    if visitor.image is None or visitor.question is None or not visitor.steps:
        raise DemoError("there is nothing to save yet: press Run first")
    images: dict[str, Image.Image] = {}
    looks = [_step_data(step, images) for step in visitor.steps]
    if sum(image.width * image.height for image in images.values()) > visitor.limits.pixels:
        raise DemoError(
            f"the model was shown more than {visitor.limits.megapixels:,} million pixels in these steps, the most that "
            "can be opened again; undo some, or save them as HTML"
        )
    data = {
        "format": _FORMAT,
        "version": _VERSION,
        "image": {
            "name": visitor.image.name,
            "suffix": visitor.image.path.suffix,
            "data": base64.b64encode(visitor.image.path.read_bytes()).decode("ascii"),
        },
        "ask": _question_data(visitor.question),
        "looks": looks,
        "images": {key: base64.b64encode(_png(image)).decode("ascii") for key, image in images.items()},
    }
    text = json.dumps(data, allow_nan=False)
    if len(text) > visitor.limits.saved_bytes:
        raise DemoError(
            f"these looks take {len(text) / 1e6:.0f} MB, more than the {visitor.limits.saved_bytes / 1e6:.0f} MB that "
            "can be opened again; undo some steps, or save them as HTML"
        )
    path = folder / "looks.json"
    path.write_text(text, encoding="utf-8")
    return path


def write_html(visitor: Visitor, folder: Path) -> Path:
    """Write the looks, and what was compared, into `looks.html` of `folder`: one self-contained page."""
    if not visitor.steps:
        raise DemoError("there is nothing to save yet: press Run first")
    shown = [
        replace(trajectory, sample_id=f"step {number}, {name}")
        for number, step in enumerate(visitor.steps, start=1)
        for name, trajectory in step.trajectories
    ]
    return write_report(folder / "looks.html", shown, "Looks", tiles=False)


def open_saved(path: Path, visitor: Visitor, limits: Limits) -> None:
    """Show a visitor what `write_json` wrote, in place of what they had.

    DemoError for any other file, and then they keep what they had.
    """
    opened: list[tuple[Question, list[Step]]] = []

    def take(folder: Path) -> DemoImage:
        saved = _read(path, limits)
        image = _image(saved.image, folder, limits)
        images = _images(saved.images, limits)
        opened.append((saved.ask.question_within(limits), [_step(step, image, images, folder) for step in saved.looks]))
        return image

    try:
        visitor.show(take)
    except (MGPOError, ValueError) as error:
        if isinstance(error, DemoError) and not isinstance(error, _UnreadableError):
            raise
        raise DemoError(
            f"the file cannot be opened ({_reason(error)}); open a looks.json that this page saved"
        ) from error
    [(question, steps)] = opened
    visitor.example, visitor.question, visitor.steps = question, question, steps


class _UnreadableError(DemoError):
    """What is wrong with a file, to be put into a sentence."""


class _Strict(BaseModel):
    """A part of the file; the second name of an alias is that of older versions."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


_Size = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]


class _Part(_Strict):
    type: Literal["text", "image"]
    text: str = ""
    image: str = ""


class _Message(_Strict):
    role: Literal["system", "user", "assistant"]
    content: list[_Part]


class _TrajectoryData(_Strict):
    """What `Trajectory.to_dict` gives of an episode over one image."""

    format: int
    sample_id: str
    question: str
    choices: Annotated[list[str], Field(max_length=26)]
    ground_truth: str | None = Field(validation_alias=AliasChoices("ground_truth", "truth"))
    template: str
    original_sizes: Annotated[list[_Size], Field(min_length=1, max_length=1)]
    input_sizes: Annotated[list[_Size], Field(min_length=1, max_length=1)]
    reward: float | None
    metadata: Annotated[dict[str, Any], Field(max_length=0)]
    done: Literal[True]
    answers_with_box: Literal[False]
    originals: tuple[Literal["original-0.png"]]
    true_boxes: list[Box]
    messages: Annotated[list[_Message], Field(min_length=1)]
    turns: Annotated[list[Turn], Field(min_length=1)]
    tokens: Tokens | None
    space: Literal["absolute", "0-1000"]
    budget: PixelBudget | None


class _SavedTrajectory(_Strict):
    trajectory: _TrajectoryData
    images: dict[str, str]
    "Name in the messages -> key of the file's images."


class _StepData(_Strict):
    by: Literal["model", "person", "closer"]
    area: Box | None
    confidence: dict[str, Annotated[float, Field(ge=0, le=1)]] | None
    trajectory: _SavedTrajectory
    single_turn: _SavedTrajectory | None = Field(validation_alias=AliasChoices("single_turn", "direct"))
    others: list[tuple[str, _SavedTrajectory]]


class _QuestionData(_Strict):
    question: str
    choices: list[str]
    answer: str | None
    boxes: list[Box]

    def question_within(self, limits: Limits) -> Question:
        """The same as the page has it; DemoError for more than may be asked."""
        choices = tuple(self.choices)
        if limits.choices_of("\n".join(choices)) != choices:
            raise _UnreadableError("its choices are not one a line")
        _check_boxes(self.boxes)
        return Question(limits.question_of(self.question), choices, self.answer, tuple(self.boxes))


class _ImageData(_Strict):
    name: str
    suffix: str
    data: str


class _Saved(_Strict):
    format: Literal["mgpo-demo looks"]
    version: Literal[1]
    image: _ImageData = Field(validation_alias=AliasChoices("image", "picture"))
    ask: _QuestionData
    looks: Annotated[list[_StepData], Field(min_length=1)]
    images: dict[str, str]


def _question_data(question: Question) -> dict[str, Any]:
    data = asdict(question)
    return {"question": data.pop("text")} | data


def _step_data(step: Step, images: dict[str, Image.Image]) -> dict[str, Any]:
    return {
        "by": step.by,
        "area": None if step.area is None else asdict(step.area),
        "confidence": step.confidence,
        "trajectory": _saved_trajectory(step.trajectory, images),
        "single_turn": None if step.single_turn is None else _saved_trajectory(step.single_turn, images),
        "others": [[name, _saved_trajectory(other, images)] for name, other in step.others],
    }


def _saved_trajectory(trajectory: Trajectory, images: dict[str, Image.Image]) -> dict[str, Any]:
    """The trajectory; the images it was shown go into `images`, its original is the image or a part of it."""
    keys = {}
    for name, image in trajectory.named_images(originals=()).items():
        keys[name] = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()[:16]
        images[keys[name]] = image
    return {"trajectory": trajectory.to_dict(), "images": keys}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _read(path: Path, limits: Limits) -> _Saved:
    size = path.stat().st_size
    if size > limits.saved_bytes:
        raise DemoError(f"the file has {size / 1e6:.0f} MB; saved looks have at most {limits.saved_bytes / 1e6:.0f}")
    saved = _Saved.model_validate_json(path.read_bytes())
    if len(saved.looks) > limits.looks:
        raise DemoError(f"the file holds {len(saved.looks):,} steps; at most {limits.looks} can be opened")
    return saved


def _reason(error: Exception) -> str:
    """What is wrong with a file, in a few words."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}"[:200] if place else str(first["msg"])[:200]
    return f"{error}".rstrip(".")[:200]


def _image(data: _ImageData, folder: Path, limits: Limits) -> DemoImage:
    upload = folder / f"saved{Path(f'a{data.suffix}').suffix[:8]}"
    upload.write_bytes(_bytes(data.data))
    image = keep_upload(upload, data.name, folder, limits)
    upload.unlink()
    return image


def _images(data: dict[str, str], limits: Limits) -> dict[str, Image.Image]:
    """The images that were shown, which may have as many pixels together as one image may have."""
    images: dict[str, Image.Image] = {}
    taken = 0
    for key, text in data.items():
        images[key] = decode(_bytes(text), f"its image {key[:20]!r}", limits, taken=taken)
        taken += images[key].width * images[key].height
    return images


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _UnreadableError(f"an image is not base64: {error}") from error


def _step(data: _StepData, image: DemoImage, images: dict[str, Image.Image], folder: Path) -> Step:
    area, path, size = data.area, image.path, image.size
    if area is not None:
        _check_boxes([area], image.size)
        size = int(area.width), int(area.height)
        if min(size) < 1 or area != Box(*map(int, area.as_tuple())):
            raise _UnreadableError("a part is not in whole pixels")
        path = image.part(area, folder)
    return Step(
        by=data.by,
        area=area,
        trajectory=_trajectory(data.trajectory, path, size, images),
        single_turn=None if data.single_turn is None else _trajectory(data.single_turn, path, size, images),
        others=tuple((name[:200], _trajectory(other, path, size, images)) for name, other in data.others),
        confidence=data.confidence,
    )


def _trajectory(
    data: _SavedTrajectory, original: Path, size: tuple[int, int], images: dict[str, Image.Image]
) -> Trajectory:
    """The trajectory over the original at hand, of that size; what it says of images must be true."""
    if not images.keys() >= set(data.images.values()):
        raise _UnreadableError("an image is missing")
    sources: dict[str, ImageSource] = {name: images[key] for name, key in data.images.items()}
    plain = data.trajectory.model_dump()
    for message in plain["messages"]:
        message["content"] = [{"type": part["type"], part["type"]: part[part["type"]]} for part in message["content"]]
    trajectory = Trajectory.from_dict(plain, sources | {_ORIGINAL: original})
    shown = message_images(trajectory.messages)
    if trajectory.original_sizes != (size,) or not shown or trajectory.input_sizes != (shown[0].size,):
        raise _UnreadableError("the sizes of an image are not what it says")
    _check_boxes(trajectory.true_boxes)
    for turn in trajectory.turns:
        _check_boxes([turn.box] if turn.box is not None else [])
        _check_boxes([turn.box_original] if turn.box_original is not None else [], size)
        if turn.shown_size is not None and not 0 < min(turn.shown_size) <= max(turn.shown_size) < _FARTHEST:
            raise _UnreadableError("an image has no such size")
        if not (0 <= turn.tokens < _FARTHEST and 0 <= turn.prompt_tokens < _FARTHEST and 0 <= turn.seconds < _FARTHEST):
            raise _UnreadableError("a turn has no such length")
    _ = trajectory.metrics()
    return trajectory


def _check_boxes(boxes: list[Box] | tuple[Box, ...], size: tuple[int, int] | None = None) -> None:
    """Raise for boxes that could not be drawn; with `size`, of which an image is cut, for those not inside it."""
    for box in boxes:
        if box.image != 0 or max(map(abs, box.as_tuple())) > _FARTHEST:
            raise _UnreadableError("a box is on no image")
        if size is not None and (box.clipped(*size) != box or min(box.width, box.height) <= 0):
            raise _UnreadableError("a box reaches out of its image")
