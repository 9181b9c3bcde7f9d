"""A sample: a question, on one or more images as a rule, with what is known about its answer."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps

from mgpo_core.answers import choice_letter, resolve_choice
from mgpo_core.boxes import Box
from mgpo_core.budget import MAX_ASPECT
from mgpo_core.errors import ImageError, SampleError
from mgpo_core.image_source import from_uri, is_uri
from mgpo_core.pillow_limit import pillow_limit_lifted, truncated_refused
from mgpo_core.regions import WorkedSolution, check_regions
from mgpo_core.shown import one_line, show

MAX_PIXELS = 400_000_000
_ORIENTATION = 0x0112

# A picture, a file, its bytes, datasets' {"bytes": ..., "path": ...}, or a function that renders it on demand.
ImageSource: TypeAlias = Image.Image | str | os.PathLike[str] | bytes | Mapping[str, Any] | Callable[[], Image.Image]


@dataclass(frozen=True)
class Sample:
    """One question with its images (none for a question in text alone); SampleError when its parts contradict.

    `choices` are texts without letters, and then `answer` is a letter "A".."Z" (a choice's text is turned into its
    letter). `boxes` are true boxes in pixels of the original images: they serve metrics, and rewards only where the
    answer itself is a box. `answer` None: unknown. `regions` are the boxes that the question speaks of, one for each
    `<region>` in it, in pixels of the originals. `solution`: what supervised training teaches, where it is more than
    the answer.
    """

    question: str
    images: tuple[ImageSource, ...]
    answer: str | None = None
    choices: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    regions: tuple[Box, ...] = ()
    solution: WorkedSolution | None = None

    def __post_init__(self) -> None:
        for name in ("images", "choices", "boxes", "regions"):
            value = getattr(self, name)
            if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
                raise SampleError(f"{self._who}: {name} must be a tuple, not {show(value)}; or build it by Sample.of.")
            object.__setattr__(self, name, tuple(value))
        if not isinstance(self.question, str) or not self.question.strip():
            raise SampleError(f"{self._who}: the question is {show(self.question)}; give a text that is not empty.")
        self._check_answer()
        check_regions(f"{self._who}: the question", self.question, self.regions)
        taught = () if self.solution is None else (self.solution.box, *self.solution.regions)
        for box in (*self.boxes, *self.regions, *taught):
            if not 0 <= box.image < len(self.images) or not all(map(math.isfinite, box.as_tuple())):
                raise SampleError(
                    f"{self._who}: {box} lies on none of its {len(self.images)} images (Box.image counts from 0)."
                )

    def _check_answer(self) -> None:
        if any(not isinstance(choice, str) for choice in self.choices) or len(self.choices) > 26:
            raise SampleError(f"{self._who}: choices must be at most 26 texts, not {show(self.choices, 200)}.")
        if self.answer is None:
            return
        if not isinstance(self.answer, str) or not self.answer.strip():
            raise SampleError(f"{self._who}: the answer is {show(self.answer)}; give a text, or None if it is unknown.")
        if self.choices:
            index = resolve_choice(self.answer, self.choices)
            if index is None:
                last = choice_letter(len(self.choices) - 1)
                raise SampleError(
                    f"{self._who}: the answer {show(self.answer)} is none of the choices "
                    f"{show(list(self.choices), 200)}; give a letter from A to {last}."
                )
            object.__setattr__(self, "answer", choice_letter(index))

    @property
    def _who(self) -> str:
        return f"Sample {show(self.id)}" if self.id else f"The sample with the question {show(self.question, 60)}"

    @classmethod
    def of(cls, question: str, images: ImageSource | Sequence[ImageSource], **rest: Any) -> Sample:
        """A sample from one image source or several; `rest` are the other fields."""
        several = isinstance(images, Sequence) and not isinstance(images, (str, bytes))
        return cls(question, tuple(images) if several else (images,), **rest)  # type: ignore[arg-type]

    def load(self, index: int = 0) -> Image.Image:
        """The `index`-th image, RGB, upright; raises ImageError as load_image does, or when there is no such image."""
        if not -len(self.images) <= index < len(self.images):
            raise ImageError(f"{self._who} has {len(self.images)} images: there is no image {index} (counted from 0).")
        name = f"image {index} of sample {show(self.id)}" if self.id else None
        return load_image(self.images[index], name=name)

    @property
    def image(self) -> Image.Image:
        """The first image, loaded."""
        return self.load(0)


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Image.Image:
    """Any ImageSource as an RGB picture with its EXIF orientation applied once.

    Transparency is laid on white, 16-bit grey is scaled to 8 bits. Raises ImageError, naming the file (or `name`) and
    the remedy, for a picture that is missing, truncated, corrupt, animated, empty or over `max_pixels`; the size is
    checked on the header, before anything is decoded.
    """
    who = _describe(source, name)
    with ExitStack() as files:
        image = _open(source, who, files)
        _check(image, max_pixels, who)
        try:
            with pillow_limit_lifted(image.width * image.height), truncated_refused():
                image.load()
            if image.getexif().get(_ORIENTATION, 1) != 1:
                image = ImageOps.exif_transpose(image)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever the broken bytes lead them to
            raise ImageError(
                f"{who} is truncated or corrupt ({type(error).__name__}: {one_line(error)}); "
                "replace the file or drop the sample."
            ) from error
        rgb = _to_rgb(image, who)
        if isinstance(source, Image.Image) or callable(source):
            return rgb  # the very object handed in, if it was RGB and upright
        if isinstance(rgb, ImageFile.ImageFile):
            rgb = rgb.copy()  # lets go of the file
        rgb.info.clear()
        return rgb


def _describe(source: ImageSource, name: str | None) -> str:
    if isinstance(source, Mapping) and source.get("path"):
        source = str(source["path"])
    path = show(str(source), 200) if isinstance(source, (str, os.PathLike)) else ""
    return f"{name} ({path})" if name and path else name or path or f"The image given as {type(source).__name__}"


def _open(source: ImageSource, who: str, files: ExitStack) -> Image.Image:
    """The picture, of a file with no more than its header read yet; `files` closes what was opened."""
    if isinstance(source, Mapping):
        source = source["bytes"] if source.get("bytes") is not None else source.get("path") or b""
    if isinstance(source, Image.Image):
        return source
    if callable(source):
        image = source()
        if not isinstance(image, Image.Image):
            raise ImageError(f"{who}: the function returned {type(image).__name__}; return a PIL.Image.Image.")
        return image
    if not isinstance(source, (bytes, bytearray, memoryview, str, os.PathLike)):
        raise ImageError(f"{who} is no image; give a PIL image, a path, bytes or a function that returns an image.")
    if isinstance(source, str) and is_uri(source):
        source = _from_uri(source, who)
    try:
        file: IO[bytes]
        if isinstance(source, (str, os.PathLike)):
            file = files.enter_context(open(source, "rb"))  # noqa: SIM115 (it is closed by the stack)
        else:
            file = files.enter_context(io.BytesIO(source))
        with pillow_limit_lifted(None):  # reads the header only; _check holds our own limit
            return Image.open(file)
    except FileNotFoundError as error:
        raise ImageError(f"{who} does not exist; check the path and the folder it is relative to.") from error
    except Exception as error:
        raise ImageError(
            f"{who} cannot be read as a picture ({type(error).__name__}: {one_line(error)}); "
            "convert it to PNG or JPEG, or drop the sample."
        ) from error


def _from_uri(text: str, who: str) -> bytes | str:
    if not text[:5].lower().startswith(("data:", "file:")):
        raise ImageError(f"{who} is an address; download the picture and give its path.")
    try:
        return from_uri(text)
    except ImageError as error:
        raise ImageError(f"{who} {error}") from error


def _check(image: Image.Image, max_pixels: int, who: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{who} is empty ({width}x{height} pixels); replace it or drop the sample.")
    if width * height > max_pixels:
        raise ImageError(
            f"{who} has {width}x{height} = {width * height:,} pixels, over the limit of {max_pixels:,}; "
            "scale it down, cut it into tiles, or raise max_pixels."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{who} has {width}x{height} pixels: it is more than {MAX_ASPECT} times as long as it is wide; "
            "cut or pad it before use."
        )
    try:
        # an MPO file is a JPEG with previews or a depth map behind the picture: phones write them
        animated = getattr(image, "is_animated", False) and image.format != "MPO"
    except Exception as error:
        raise ImageError(
            f"{who} is truncated or corrupt ({one_line(error)}); replace the file or drop the sample."
        ) from error
    if animated:
        raise ImageError(
            f"{who} holds {getattr(image, 'n_frames', 'several')} frames (an animation or several pages); "
            "save the one you mean as a picture of its own."
        )


def _to_rgb(image: Image.Image, who: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _scaled_16_bit(image, who)
    try:
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            white = Image.new("RGB", image.size, "white")
            white.paste(rgba, mask=rgba.getchannel("A"))
            return white
        if image.mode != "F":
            return image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"{who} has the mode {image.mode}, which is not supported; save it as RGB.") from error
    raise ImageError(f"{who} holds floating-point numbers of unknown range; save it as an 8-bit or 16-bit picture.")


def _scaled_16_bit(image: Image.Image, who: str) -> Image.Image:
    """0..65535 to 0..255 (Pillow's own conversion clips instead)."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"{who} holds values beyond 16 bits; save it as an 8-bit or 16-bit picture.")
    grey = np.round(values / np.float32(257)).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
