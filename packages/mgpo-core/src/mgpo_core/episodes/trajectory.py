"""What happened in an episode: turns, boxes, crops, answer, tokens; saved as JSON with its images beside it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from mgpo_core.boxes.boxed_answer import extract_boxed
from mgpo_core.boxes.parse import Box, CoordinateSpace, Rejection, iou
from mgpo_core.errors import SampleError, TokenAlignmentError
from mgpo_core.files.output_folder import OutputFolderError, found_in
from mgpo_core.files.whole_file import whole_file
from mgpo_core.images.budget import PixelBudget
from mgpo_core.images.load import ImageSource, load_image
from mgpo_core.samples.grading import grade_answer
from mgpo_core.templates.base import Message, message_images

__all__ = [
    "FINISH_REASONS",
    "METRICS",
    "Tokens",
    "Trajectory",
    "Turn",
]

FINISH_REASONS = ("stop", "length", "cut")
"""Why a response ended: by itself, at the length limit, or cut where the box was complete."""

_FORMAT = 1

RIGHT_IOU = 0.5
"""From which overlap on a box that is the answer counts as right, as in MIG-Bench's IoU@0.5."""
_JSON_NAME = "trajectory.json"


def load_originals(sources: Sequence[ImageSource], sample_id: str = "") -> list[Image.Image]:
    """Decode the images of one sample; an ImageError names the image and the sample."""
    return [_load_original(sources, index, sample_id) for index in range(len(sources))]


def _load_original(sources: Sequence[ImageSource], index: int, sample_id: str) -> Image.Image:
    return load_image(sources[index], name=f"image {index} of sample {sample_id!r}" if sample_id else None)


METRICS = (
    "accuracy",
    "image_accuracy",
    "valid_box_rate",
    "hit_rate",
    "mean_iou",
    "crop_area_fraction",
    "answered_rate",
)
"""The metric names of a trajectory, the same in training, evaluation and reports.

Where the answer is a box in one of several images: `accuracy` is the share with an IoU of at least 0.5, and
`image_accuracy` the share that names the right image."""


@dataclass
class Turn:
    """One response of the model and what became of its box."""

    text: str
    finish_reason: str = "stop"
    box: Box | None = None
    "As the model gave it, in the trajectory's coordinate space; also set when the box was refused."
    box_original: Box | None = None
    "The crop that was cut, in pixels of the original; None when there was none."
    rejection: str | None = None
    "Why there was no crop (a `Rejection` value); None for a valid box and for a turn that is not read for one."
    label: str | None = None
    seconds: float = 0.0
    tokens: int = 0
    prompt_tokens: int = 0
    "How many tokens of conversation the model had read before it; 0 if not known."
    shown_size: tuple[int, int] | None = None
    "(width, height) of the image shown after this turn."
    answers: bool = False
    "Whether its box is the answer, not a wish to look."

    @property
    def read_for_box(self) -> bool:
        """Whether a box was looked for in this turn, found or not."""
        return self.box is not None or self.rejection is not None


@dataclass
class Tokens:
    """The tokens of a whole episode, prompt included; `mask` is 1 exactly on those that the model sampled."""

    ids: list[int]
    mask: list[int]
    logprobs: list[float] | None = None
    "Same length as `ids`, 0.0 where the mask is 0; of the distribution that was sampled from."
    texts: list[str] | None = None
    spans: list[tuple[int, int]] = field(default_factory=list)
    "One (start, end) per response: the tokens that were sampled in it."
    prompt_length: int = 0

    def __post_init__(self) -> None:
        for name in ("mask", "logprobs", "texts"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.ids):
                raise TokenAlignmentError(f"{len(self.ids)} token ids but {len(values)} {name}: they must be as many")

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Trajectory:
    """A finished (or live) episode, with all that rewards, metrics and reports need."""

    sample_id: str = ""
    question: str = ""
    choices: tuple[str, ...] = ()
    ground_truth: str | None = None
    sources: tuple[ImageSource, ...] = ()
    "Where the originals come from; decoded at each use, so that many trajectories fit in memory."
    true_boxes: tuple[Box, ...] = ()
    messages: list[Message] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    tokens: Tokens | None = None
    template: str = ""
    space: CoordinateSpace = CoordinateSpace.ABSOLUTE
    budget: PixelBudget | None = None
    original_sizes: tuple[tuple[int, int], ...] = ()
    "(width, height) of each original."
    input_sizes: tuple[tuple[int, int], ...] = ()
    "(width, height) at which the model saw each original."
    reward: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    done: bool = True
    answers_with_box: bool = False
    "Whether the last response is to answer with a box in one of the images, judged by its overlap."

    @property
    def originals(self) -> list[Image.Image]:
        """The images at full size, decoded now."""
        return load_originals(self.sources, self.sample_id)

    def original(self, index: int) -> Image.Image:
        """One image at full size, decoded now; ImageError when its source is gone."""
        return _load_original(self.sources, index, self.sample_id)

    @property
    def answer(self) -> str | None:
        r"""Content of the last `\boxed{}` of the last response; None without one, or before the episode's end.

        A response that was to name a region is no answer, also where the episode had no room to go on.
        """
        if self.answers_with_box:
            box = self.answer_box
            return None if box is None else box.in_words()
        if not self.done or not self.turns or self.turns[-1].read_for_box:
            return None
        return extract_boxed(self.turns[-1].text)

    @property
    def answer_box(self) -> Box | None:
        """The box that was given as the answer, in pixels of its original, unclipped; None when there is none.

        Without a true area, or on an image that there is not, it is no answer; it may reach out of its image.
        """
        turn = self.answer_turn
        if turn is None or turn.box is None or turn.rejection not in (None, Rejection.OUTSIDE.value):
            return None
        return self.turn_box(turn)

    @property
    def answer_image(self) -> int | None:
        """The image (0-based) that the answer names, whatever its box is; None when it names none that there is."""
        turn = self.answer_turn
        if turn is None or turn.box is None or turn.rejection == Rejection.NO_IMAGE:
            return None
        return turn.box.image if turn.box.image < len(self.original_sizes) else None

    @property
    def answer_image_right(self) -> bool:
        """Whether the answer names an image that a true box lies on."""
        return self.answer_image in {true.image for true in self.true_boxes}

    @property
    def judged_turn(self) -> Turn | None:
        """The turn whose box a report shows the fate of: the answer's where the answer is a box, else `box_turn`."""
        return self.answer_turn or self.box_turn

    @property
    def answer_turn(self) -> Turn | None:
        """The turn whose box is the answer; None where answers are words, and before the episode's end."""
        return self.turns[-1] if self.done and self.turns and self.turns[-1].answers else None

    @property
    def answer_iou(self) -> float:
        """The best overlap of the answered box with a true one on its image, 0-1; 0 without an answer."""
        box = self.answer_box
        return 0.0 if box is None else max((iou(box, true) for true in self.true_boxes), default=0.0)

    @property
    def truth(self) -> str | None:
        """The old name of `ground_truth`, for rewards that were written with it."""
        warnings.warn("Trajectory.truth is now called ground_truth; read trajectory.ground_truth", FutureWarning, 2)
        return self.ground_truth

    @property
    def correct(self) -> bool | None:
        """Whether the answer is the true one; None when the sample has no answer.

        A box is right when it overlaps a true one by an IoU of at least `RIGHT_IOU`.
        """
        if self.answers_with_box:
            return self.answer_iou >= RIGHT_IOU if self.true_boxes else None
        if self.ground_truth is None:
            return None
        answer = self.answer
        return answer is not None and grade_answer(answer, self.ground_truth, self.choices)

    @property
    def box_turn(self) -> Turn | None:
        """The turn whose box counts: the last one with a valid box, else the last one read for a box."""
        read = [turn for turn in self.turns if turn.read_for_box and not turn.answers]
        valid = [turn for turn in read if turn.rejection is None]
        return valid[-1] if valid else read[-1] if read else None

    @property
    def box_original(self) -> Box | None:
        """Where the model looked, in pixels of the original; None when it never did."""
        return self.box_turn.box_original if self.box_turn else None

    def turn_box(self, turn: Turn) -> Box | None:
        """The turn's box in pixels of the original, a refused one too (unclipped); None if it gave no four numbers."""
        if turn.box is None or turn.box_original is not None:
            return turn.box_original
        index = turn.box.image
        if not 0 <= index < len(self.original_sizes):
            return None
        return self.space.to_original(turn.box, self.input_sizes[index], self.original_sizes[index])

    @property
    def hit(self) -> bool | None:
        """Whether the box contains the centre of a true box; None without a true box or a turn read for one.

        The box is the answer where the answer is one, else where the model looked.
        """
        if not self.true_boxes or self.judged_turn is None:
            return None
        box = self.answer_box if self.answer_turn is not None else self.box_original
        if box is None:
            return False
        return any(box.image == true.image and box.contains(*true.center) for true in self.true_boxes)

    @property
    def crop_area_fraction(self) -> float | None:
        """Area of the crop over the area of its original, 0-1; None without a valid box."""
        box = self.box_original
        if box is None or box.image >= len(self.original_sizes):
            return None
        width, height = self.original_sizes[box.image]
        return box.area / (width * height)

    def metrics(self) -> dict[str, float]:
        """The metrics defined for this trajectory; a refused box counts as no hit and no overlap."""
        found: dict[str, float | None] = {"answered_rate": float(self.answer is not None)}
        correct = self.correct
        if correct is not None:
            found["accuracy"] = float(correct)
        read = [turn for turn in self.turns if turn.read_for_box]
        if read:
            found["valid_box_rate"] = sum(turn.rejection is None for turn in read) / len(read)
            found["crop_area_fraction"] = self.crop_area_fraction
            if self.true_boxes:
                box = self.box_original
                found["hit_rate"] = float(bool(self.hit))
                found["mean_iou"] = max(iou(box, true) for true in self.true_boxes) if box else 0.0
        if self.answers_with_box and self.true_boxes:
            found["mean_iou"] = self.answer_iou
            if len(self.original_sizes) > 1:
                found["image_accuracy"] = float(self.answer_image_right)
        return {name: value for name in METRICS if (value := found.get(name)) is not None}

    def named_images(self, originals: Sequence[Image.Image] | None = None) -> dict[str, Image.Image]:
        """Every image once, under the file name that `to_dict` refers to it by; `originals` if they are decoded."""
        full = self.originals if originals is None else originals
        images = {f"original-{index}.png": image for index, image in enumerate(full)}
        names = _shown_names(self.messages)
        return images | {names[id(image)]: image for image in _shown(self.messages)}

    def to_dict(self) -> dict[str, Any]:
        """All but the pixels, ready for JSON; images appear by the names of `named_images`."""
        names = _shown_names(self.messages)
        data = {name: getattr(self, name) for name in _PLAIN}
        return data | {
            "format": _FORMAT,
            "originals": [f"original-{index}.png" for index in range(len(self.sources))],
            "true_boxes": [asdict(box) for box in self.true_boxes],
            "messages": _map_images(self.messages, lambda image: names[id(image)]),
            "turns": [asdict(turn) for turn in self.turns],
            "tokens": None if self.tokens is None else asdict(self.tokens),
            "space": self.space.value,
            "budget": None if self.budget is None else asdict(self.budget),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], images: Mapping[str, ImageSource]) -> Trajectory:
        """The trajectory that `to_dict` was called on, given its images by name (decoded, or paths)."""
        if data.get("format") != _FORMAT:
            raise SampleError(f"trajectory has format {data.get('format')!r}, this version reads {_FORMAT}")
        data = {_RENAMED.get(name, name): value for name, value in data.items()}
        plain: dict[str, Any] = {
            name: _tuples(data[name]) if name in _TUPLES else data[name] for name in _PLAIN if name in data
        }
        shown: dict[str, Image.Image] = {}

        def image_named(name: str) -> Image.Image:
            if name not in shown:
                shown[name] = load_image(_named(images, name), name=name)
            return shown[name]

        return cls(
            **plain,
            sources=tuple(_named(images, name) for name in data["originals"]),
            true_boxes=tuple(Box(**box) for box in data["true_boxes"]),
            messages=_map_images(data["messages"], image_named),
            turns=[_turn(turn) for turn in data["turns"]],
            tokens=None if data["tokens"] is None else _tokens(data["tokens"]),
            space=CoordinateSpace(data["space"]),
            budget=None if data["budget"] is None else PixelBudget(**data["budget"]),
        )

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `trajectory.json` and its images (lossless PNG) into the folder, made if need be; gives the folder.

        What an earlier `save` wrote there is replaced. OutputFolderError, and nothing is written, when any other file
        has one of the names.
        """
        folder = Path(folder)
        try:
            text = json.dumps(self.to_dict(), indent=1)
        except (TypeError, ValueError) as error:
            raise SampleError(
                f"trajectory of sample {self.sample_id!r} cannot be saved: {error}; keep its metadata to JSON values"
            ) from error
        images = self.named_images()
        _refuse_strangers(folder, [_JSON_NAME, *images])
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in images.items():
            with whole_file(folder / name, "wb") as file:
                image.save(file, format="PNG")
        with whole_file(folder / _JSON_NAME, encoding="utf-8") as file:
            file.write(text)
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Trajectory:
        """Read what `save` wrote; the originals stay on disk until they are asked for."""
        folder = Path(folder)
        data = json.loads((folder / _JSON_NAME).read_text(encoding="utf-8"))
        return cls.from_dict(data, {path.name: path for path in folder.glob("*.png")})


def _refuse_strangers(folder: Path, names: Sequence[str]) -> None:
    """Raise OutputFolderError when one of the names is taken by a file that no `save` has written."""
    try:
        data = json.loads((folder / _JSON_NAME).read_text(encoding="utf-8"))
        images = [part["image"] for message in data["messages"] for part in message["content"] if "image" in part]
        own = {_JSON_NAME, *data["originals"], *images} if data["format"] else set()
    except (OSError, ValueError, KeyError, TypeError):
        own = set()
    taken = [name for name in names if os.path.lexists(folder / name)]
    plain = [name for name in taken if (folder / name).is_file() and not (folder / name).is_symlink()]
    strange = [name for name in taken if name not in own or name not in plain]
    if strange:
        raise OutputFolderError(
            f"folder={str(folder)!r} holds files that no Trajectory.save wrote ({found_in(folder, strange)}): "
            "name a new or an empty folder"
        )


_PLAIN = (
    "sample_id",
    "question",
    "choices",
    "ground_truth",
    "template",
    "original_sizes",
    "input_sizes",
    "reward",
    "metadata",
    "done",
    "answers_with_box",
)
_TUPLES = ("choices", "original_sizes", "input_sizes")
_RENAMED = {"truth": "ground_truth"}
"""Keys of files that older versions wrote."""


def _tuples(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


def _named(images: Mapping[str, ImageSource], name: str) -> ImageSource:
    if name not in images:
        raise SampleError(f"image {name!r} of the trajectory is missing: keep the folder's PNG files with its JSON")
    return images[name]


def _shown(messages: Sequence[Message]) -> list[Image.Image]:
    """Every image object of the messages once, in order."""
    return list({id(image): image for image in message_images(messages)}.values())


def _shown_names(messages: Sequence[Message]) -> dict[int, str]:
    return {id(image): f"shown-{index}.png" for index, image in enumerate(_shown(messages))}


def _map_images(messages: Sequence[Message], change: Callable[[Any], Any]) -> list[Message]:
    """A copy of the messages with every image changed."""
    return [
        message
        | {
            "content": [
                part | {"image": change(part["image"])} if part["type"] == "image" else dict(part)
                for part in message["content"]
            ]
        }
        for message in messages
    ]


def _turn(data: Mapping[str, Any]) -> Turn:
    boxes = {name: Box(**data[name]) if data[name] else None for name in ("box", "box_original")}
    shown_size = tuple(data["shown_size"]) if data["shown_size"] else None
    return Turn(**{**data, **boxes, "shown_size": shown_size})


def _tokens(data: Mapping[str, Any]) -> Tokens:
    return Tokens(**{**data, "spans": [(start, end) for start, end in data["spans"]]})
