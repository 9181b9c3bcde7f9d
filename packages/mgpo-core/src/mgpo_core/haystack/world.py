"""A synthetic high-resolution world in which looking closer is the only way to know.

A scene is a large square canvas with a few coloured shapes. Each shape carries a disc of fine stripes, its *mark*, at
its centre; the question names one shape and asks how its stripes run. The stripes have the period of one pixel of the
image that the model is shown, so they cancel there (the disc fades out smoothly, so that no edge gives them away:
what is left is about a tenth of a grey level, under the grain and the rounding), while a crop around the shape shows
them plainly. The mark is brightest at the centre: a box that only grazes the shape does not show it. Colour alone does
not always name the target: in a share of the scenes another shape wears its colour (`twins`).

Several scenes make a sample of several images: then only one of them holds a shape of the colour and kind that is
asked for, and which one it is must be found out too.

Everything is a pure function of `(split, seed, index, difficulty)`, and of the number of images where there are more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from mgpo_core.boxes.parse import Box

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (192, 64, 64),
    "green": (64, 155, 68),
    "blue": (64, 84, 192),
    "yellow": (192, 172, 64),
    "purple": (140, 64, 166),
    "black": (64, 64, 64),
}
"""All channels leave room for the stripes: clipping would bend them, and bent stripes do not cancel."""
SHAPES: tuple[str, ...] = ("square", "circle", "diamond", "cross")
"""Each holds a disc of 0.7 times its diameter around its centre, so that no outline cuts through the mark."""
MARKS: tuple[str, ...] = ("horizontal", "vertical", "rising", "falling")
SPLITS: tuple[str, ...] = ("train", "val", "ood")


@dataclass(frozen=True)
class Difficulty:
    """How hard a scene is. Lengths are pixels of the original canvas."""

    canvas: int = 1344
    """Side of the original image; a multiple of `seen`, so that the stripes cancel exactly."""
    seen: int = 168
    """Side of the image that the model is shown: the square root of its pixel budget."""
    objects: tuple[int, int] = (4, 4)
    """Fewest and most shapes in a scene, the target included."""
    size: tuple[int, int] = (160, 224)
    """Smallest and largest diameter of a shape."""
    mark: int = 112
    """Diameter of the striped disc at a shape's centre."""
    amplitude: int = 60
    """Half the contrast of the stripes, in grey levels."""
    twins: float = 0.15
    """Share of scenes in which one other shape has the target's colour."""
    noise: float = 4.0
    """Standard deviation of the grain on the shapes, in grey levels."""
    grid: int = 0
    """Centres of shapes are multiples of this number of pixels; 0: anywhere."""
    shapes: tuple[str, ...] = SHAPES
    """Which shapes there are."""

    def __post_init__(self) -> None:
        unknown = [shape for shape in self.shapes if shape not in SHAPES]
        if unknown or len(set(self.shapes)) < 2:
            raise ValueError(f"shapes={self.shapes}: give at least two of {', '.join(SHAPES)}")
        if self.canvas % self.seen or self.canvas // self.seen < 4:
            raise ValueError(f"canvas={self.canvas}: give a multiple of seen={self.seen}, at least four times it")
        if not 2 <= self.objects[0] <= self.objects[1] <= len(COLOURS):
            raise ValueError(f"objects={self.objects}: give (fewest, most) between 2 and {len(COLOURS)}")
        if not self.mark <= 0.7 * self.size[0] <= 0.7 * self.size[1] <= 0.25 * self.canvas:
            raise ValueError(
                f"size={self.size}: the mark ({self.mark}) must be at most 0.7 times the smallest shape, and the "
                f"largest at most a third of the canvas ({self.canvas})"
            )
        if not 0.0 <= self.twins <= 1.0:
            raise ValueError(f"twins={self.twins} is a share of scenes: give a number between 0 and 1")

    @property
    def period(self) -> int:
        """Period of the stripes: one pixel of the downsized image, in pixels of the original."""
        return self.canvas // self.seen


DIFFICULTY: dict[str, Difficulty] = {
    "train": Difficulty(),
    "val": Difficulty(),
    # a larger canvas, more distractors, smaller targets (17 to 21 pixels in the image the model sees, not 20 to 28)
    "ood": Difficulty(canvas=1680, objects=(5, 6), size=(170, 210), mark=116),
}


@dataclass(frozen=True)
class Shape:
    """One object of a scene; lengths are pixels of the original canvas."""

    colour: str
    shape: str
    mark: str
    x: float
    y: float
    size: int
    phase: int

    @property
    def box(self) -> Box:
        half = self.size / 2
        return Box(self.x - half, self.y - half, self.x + half, self.y + half)

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """A canvas with shapes; the first of them is the target."""

    shapes: tuple[Shape, ...]
    difficulty: Difficulty
    grain: int
    """Seed of the pixel noise."""

    @property
    def target(self) -> Shape:
        return self.shapes[0]

    def aimed_at(self, index: int) -> Scene:
        """The same image with another of its shapes as the target (the grain stays with its shape)."""
        order = (index, *(i for i in range(len(self.shapes)) if i != index))
        return replace(self, shapes=tuple(self.shapes[i] for i in order))

    def render(self) -> Image.Image:
        """Draw the original: an RGB image of `(canvas, canvas)` pixels."""
        image = _background(self.difficulty.canvas).copy()
        for shape in sorted(self.shapes, key=lambda s: (s.x, s.y)):
            _draw(image, shape, self.difficulty, self.grain)
        return image


def make_scene(split: str, seed: int, index: int, difficulty: Difficulty) -> Scene:
    """Scene number `index` of a split: a pure function of its arguments."""
    return _scene(np.random.default_rng((SPLITS.index(split), seed, index)), difficulty)


def make_scenes(split: str, seed: int, index: int, images: int, difficulty: Difficulty) -> tuple[list[Scene], int]:
    """The scenes of sample number `index` with several images, and the 0-based place of the one with the target.

    The other scenes are drawn like it, again until no shape in them has the target's name. A pure function of its
    arguments; the spawn key keeps its random numbers apart from those of `make_scene`, whatever the seeds.
    """
    rng = np.random.default_rng(np.random.SeedSequence((SPLITS.index(split), seed, index), spawn_key=(images,)))
    place = int(rng.integers(images))
    asked = _scene(rng, difficulty)
    scenes: list[Scene] = []
    while len(scenes) < images - 1:
        other = _scene(rng, difficulty)
        if all(shape.name != asked.target.name for shape in other.shapes):
            scenes.append(other)
    return [*scenes[:place], asked, *scenes[place:]], place


def _scene(rng: np.random.Generator, difficulty: Difficulty) -> Scene:
    """The next scene of a stream of random numbers."""
    count = int(rng.integers(difficulty.objects[0], difficulty.objects[1] + 1))
    while True:
        names = _names(rng, count, difficulty.shapes, twin=rng.random() < difficulty.twins)
        placed = place_shapes(rng, names, difficulty)
        if placed is not None:
            return Scene(tuple(placed), difficulty, grain=int(rng.integers(2**31)))


def _names(rng: np.random.Generator, count: int, known: Sequence[str], *, twin: bool) -> list[tuple[str, str]]:
    """Colour and shape of every object; colours are distinct but for the target's twin, which differs in shape."""
    colours = [str(c) for c in rng.permutation(list(COLOURS))[:count]]
    shapes = [str(s) for s in rng.choice(known, size=count)]
    if twin:
        colours[1] = colours[0]
        shapes[1] = str(rng.choice([s for s in known if s != shapes[0]]))
    return list(zip(colours, shapes, strict=True))


def place_shapes(
    rng: np.random.Generator, names: Sequence[tuple[str, str]], difficulty: Difficulty, *, placed: Sequence[Shape] = ()
) -> list[Shape] | None:
    """Put the objects where they do not touch, behind those `placed`; None without room (the caller rolls again)."""
    placed = list(placed)
    for colour, shape in names:
        for _ in range(60):
            size = int(rng.integers(difficulty.size[0], difficulty.size[1] + 1))
            low, high = size / 2 + 16, difficulty.canvas - size / 2 - 16
            x, y = rng.uniform(low, high, size=2)
            if difficulty.grid:
                x, y = (difficulty.grid * round(value / difficulty.grid) for value in (x, y))
            if all(math.hypot(x - o.x, y - o.y) > 0.625 * (size + o.size) for o in placed):
                mark = str(rng.choice(MARKS))
                placed.append(
                    Shape(colour, shape, mark, float(x), float(y), size, int(rng.integers(difficulty.period)))
                )
                break
        else:
            return None
    return placed


@lru_cache(maxsize=4)
def _background(canvas: int) -> Image.Image:
    """A fixed colour gradient: where a pixel is can be read from it."""
    y, x = np.mgrid[0:canvas, 0:canvas].astype(np.float32) / canvas
    return Image.fromarray(np.stack([170 + 80 * x, np.full_like(x, 225), 170 + 80 * y], axis=-1).astype(np.uint8))


def _draw(image: Image.Image, shape: Shape, difficulty: Difficulty, grain: int) -> None:
    """Paint one shape with its mark and grain onto the image, in place."""
    left, top = int(shape.x - shape.size / 2) - 2, int(shape.y - shape.size / 2) - 2
    side = shape.size + 5
    rng = np.random.default_rng((grain, left, top))
    paint = difficulty.noise * rng.standard_normal((side, side), dtype=np.float32)
    centre_x, centre_y = round(shape.x), round(shape.y)
    half = difficulty.mark // 2
    row, column = centre_y - top - half, centre_x - left - half
    paint[row : row + 2 * half, column : column + 2 * half] += difficulty.amplitude * _stripes(
        shape.mark, half, difficulty.period, (centre_x - half + shape.phase, centre_y - half + shape.phase)
    )
    colour = np.asarray(COLOURS[shape.colour], dtype=np.float32)
    patch = Image.fromarray(np.clip(colour + paint[..., None] + 0.5, 0, 255).astype(np.uint8))
    image.paste(patch, (left, top), _silhouette(shape, left, top, side))


def _stripes(mark: str, half: int, period: int, origin: tuple[int, int]) -> np.ndarray:
    """Sine stripes under a Hann window of radius `half`; `(2 half, 2 half)` in [-1, 1]."""
    y, x = np.mgrid[0 : 2 * half, 0 : 2 * half].astype(np.float32)
    radius = np.minimum(np.hypot(x - half + 0.5, y - half + 0.5) / half, 1.0)
    window = 0.5 + 0.5 * np.cos(math.pi * radius)
    x, y = x + origin[0], y + origin[1]
    across = {"horizontal": y, "vertical": x, "rising": x + y, "falling": x - y}[mark]
    return window * np.sin(across * (2 * math.pi / period))


def _silhouette(shape: Shape, left: int, top: int, side: int) -> Image.Image:
    """The shape's outline as a mask of `(side, side)` pixels."""
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    x, y, half = shape.x - left, shape.y - top, shape.size / 2
    if shape.shape == "square":
        draw.rectangle([x - half * 0.88, y - half * 0.88, x + half * 0.88, y + half * 0.88], fill=255)
    elif shape.shape == "circle":
        draw.ellipse([x - half, y - half, x + half, y + half], fill=255)
    elif shape.shape == "diamond":
        draw.polygon([(x, y - half), (x + half, y), (x, y + half), (x - half, y)], fill=255)
    else:
        arm = half * 0.5
        draw.rectangle([x - half, y - arm, x + half, y + arm], fill=255)
        draw.rectangle([x - arm, y - half, x + arm, y + half], fill=255)
    return mask
