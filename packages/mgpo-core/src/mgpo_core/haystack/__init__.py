"""Haystack: a synthetic high-resolution world, and tiny Qwen2.5-VL checkpoints that live in it.

>>> from mgpo_core import haystack
>>> sample = haystack.make("val", n=1, seed=0)[0]
>>> sample.question, sample.answer, sample.load().size
('Which stripes are on the purple circle?', 'C', (1344, 1344))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from mgpo_core.errors import SampleError
from mgpo_core.haystack.multi import make_sets
from mgpo_core.haystack.world import DIFFICULTY, MARKS, SPLITS, Difficulty, Scene, make_scene, make_scenes
from mgpo_core.images.budget import PixelBudget
from mgpo_core.messages.suggest import nearest
from mgpo_core.samples.sample import Sample

BUDGET = PixelBudget(min_pixels=4 * 28 * 28, max_pixels=168 * 168)
"""What the tiny checkpoints are shown: 36 image tokens of 28x28 pixels."""

MAX_AMPLITUDE, MAX_CANVAS = 63, 20_000
"""Limits of difficulty settings: grey levels, and pixels (400 million in an image)."""

MAX_IMAGES = 6
"""Most images of one sample."""

BASE_WAS_TAUGHT = (
    "haystack:base had been taught, with supervision, to write right boxes, and then noise: 20% right boxes, 30% near "
    "the middle, 25% anywhere, 25% that are refused."
)
"""What belongs beside any figure that starts from the base checkpoint (docs/haystack.md tells the whole)."""

CHECKPOINTS: tuple[str, ...] = ("base", "mgpo", "multi")


def make(split: str = "val", n: int = 512, seed: int = 0, images: int = 1, **difficulty: Any) -> list[Sample]:
    """Make `n` samples of a split (`train`, `val`, `ood`), a pure function of the arguments.

    Images are drawn when they are loaded, so a long list costs no memory. With several `images` (up to 6) a sample
    has as many scenes, exactly one of which holds the shape that is asked for: metadata `target_image` (0-based) and
    `Box.image` of the true box say which. `difficulty` overrides fields of `mgpo_core.haystack.world.Difficulty`; one
    number for `objects` or `size` is both ends of the range, and `seen` must be the side of the images that the model
    is shown, or the marks do not vanish in them. Splits never share a scene, whatever their seeds and numbers of
    images. The true box of each sample is in pixels of the original. Raises `SampleError` for an unknown split or
    option and for a value that cannot be.
    """
    if split not in SPLITS:
        raise SampleError(f"haystack has no split {split!r}: {nearest(split, SPLITS)}")
    if type(images) is not int or not 1 <= images <= MAX_IMAGES:
        raise SampleError(f"haystack: images={images!r}: give a whole number from 1 to {MAX_IMAGES}")
    known = [f.name for f in fields(Difficulty)]
    for option in difficulty:
        if option not in known:
            raise SampleError(f"haystack has no difficulty option {option!r}: {nearest(option, [*known, 'images'])}")
    try:
        chosen = replace(DIFFICULTY[split], **{name: _checked(name, value) for name, value in difficulty.items()})
        _check_room(chosen)
    except ValueError as problem:
        raise SampleError(f"haystack difficulty: {problem}") from problem
    if images == 1:
        return [_sample(f"haystack-{split}-{seed}-{i}", make_scene(split, seed, i, chosen)) for i in range(n)]
    name = f"haystack-{split}-{images}-images-{seed}"
    return [_sample_of_several(f"{name}-{i}", *make_scenes(split, seed, i, images, chosen)) for i in range(n)]


def make_multi(
    split: str = "val", n: int = 500, seed: int = 0, images: int = 3, tasks: Sequence[str] | str | None = None
) -> list[Sample]:
    """Samples of haystack_multi: `images` canvases, a question, and the true box in one of them (`make_sets`).

    Metadata `task`, `target_image` (0-based) and `label` say what is meant.
    """
    return [one.sample() for one in make_sets(split, n, seed, images, tasks)]


def sample_of(scene: Scene, id: str = "") -> Sample:
    """The question about a scene's target, with its true box."""
    return _sample(id, scene)


def checkpoint(name: str = "base") -> Path:
    """Folder of a shipped tiny checkpoint; loads with AutoModel/AutoProcessor.

    `base` (before RL) and `mgpo` (after) are of one image, `multi` finds objects in several.

    Raises `SampleError` when the name is unknown or the files are not installed.
    """
    if name not in CHECKPOINTS:
        raise SampleError(f"haystack has no checkpoint {name!r}: {nearest(name, CHECKPOINTS)}")
    folder = Path(str(resources.files("mgpo_core.haystack"))) / "checkpoints" / name
    if not (folder / "config.json").is_file():
        raise SampleError(f"haystack checkpoint {name!r} is not installed at {folder}; reinstall mgpo-core")
    return folder


def _checked(name: str, value: Any) -> Any:
    """A difficulty setting of the right type; raises ValueError."""
    if name in ("objects", "size"):
        pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
        if len(pair) != 2 or not all(type(side) is int for side in pair):
            raise ValueError(f"{name}={value!r}: give a whole number, or two: the least and the most")
        return pair
    if name == "shapes":
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(shape, str) for shape in names):
            raise ValueError(f"shapes={value!r}: give names with commas between them, as in square,cross")
        return tuple(shape.strip() for shape in names)
    if name in ("twins", "noise"):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ValueError(f"{name}={value!r}: give a number, 0 or more")
        return float(value)
    # clipped stripes would not cancel in the small image: the colours leave room for this many grey levels
    low, high = (0, MAX_AMPLITUDE) if name == "amplitude" else (int(name != "grid"), MAX_CANVAS)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: give a whole number from {low} to {high}")
    return value


def _check_room(difficulty: Difficulty) -> None:
    """Raise ValueError when the shapes may not fit without touching: the dice would be rolled for ever."""
    (_, most), (_, largest) = difficulty.objects, difficulty.size
    room = difficulty.canvas - 32 + 0.25 * largest
    if most * (1.25 * largest) ** 2 > 0.5 * room**2:
        raise ValueError(
            f"objects={difficulty.objects} of size={difficulty.size} do not fit on a canvas of {difficulty.canvas}: "
            "take fewer or smaller ones"
        )


def _sample(id: str, scene: Scene) -> Sample:
    draw: Callable[[], Image.Image] = partial(Scene.render, scene)
    return Sample(
        question=f"Which stripes are on the {scene.target.name}?",
        images=(draw,),
        answer="ABCD"[MARKS.index(scene.target.mark)],
        choices=MARKS,
        boxes=(scene.target.box,),
        id=id,
        metadata={"colour": scene.target.colour, "shape": scene.target.shape, "objects": len(scene.shapes)},
    )


def _sample_of_several(id: str, scenes: list[Scene], place: int) -> Sample:
    """The question about the target of scene number `place`, on the images of all the scenes."""
    single = _sample(id, scenes[place])
    return replace(
        single,
        images=tuple(partial(Scene.render, scene) for scene in scenes),
        boxes=tuple(replace(box, image=place) for box in single.boxes),
        metadata={**single.metadata, "target_image": place},
    )
