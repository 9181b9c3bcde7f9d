"""A pool of rendered scenes with crops: what the base checkpoint is taught from."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from mgpo_core.boxes.parse import Box, CoordinateSpace
from mgpo_core.haystack import BUDGET
from mgpo_core.haystack.world import DIFFICULTY, Scene, make_scene
from mgpo_core.images.crop import crop

LESSONS = replace(DIFFICULTY["train"], twins=0.3)
"""The scenes to learn from: those of the train split, with twins twice as often, because they are what is hard."""
SEEN = LESSONS.seen
"""Side of the image the model is shown, in pixels; boxes below are in these pixels."""
BOX_SIZES = (32, 40, 48)
"""Sides of the boxes the base is taught to write; their corners are multiples of `BOX_STEP`."""
BOX_STEP = 8
CROPS = 4
"""Crops kept per scene, each around one of its shapes: three near it, one anywhere."""


@dataclass(frozen=True)
class Crop:
    """A crop of a scene: which shape it was meant for, its box (seen pixels), and whether the mark shows in it."""

    aim: int
    box: Box
    readable: bool


@dataclass(frozen=True)
class Pool:
    """`n` scenes: `seen` (n, S, S, 3) and `crops` (n, CROPS, S, S, 3), uint8 with S = `SEEN`."""

    scenes: list[Scene]
    seen: Tensor
    crops: Tensor
    crop_facts: list[tuple[Crop, ...]]


def seen_box(scene: Scene, index: int) -> Box:
    """The true box of shape `index` in pixels of the downsized image."""
    period = scene.difficulty.period
    return scene.shapes[index].box.scaled(1 / period, 1 / period)


def snapped_box(centre: tuple[float, float], side: int) -> Box:
    """The square box of that side whose corners are multiples of `BOX_STEP`, nearest to the centre, inside."""

    def low(at: float) -> int:
        return int(min(max(round((at - side / 2) / BOX_STEP) * BOX_STEP, 0), SEEN - side))

    left, top = low(centre[0]), low(centre[1])
    return Box(left, top, left + side, top + side)


def make_pool(n: int, seed: int, *, workers: int = 2) -> Pool:
    """Render `n` scenes of the train split and their crops, on `workers` processes; a function of `n` and `seed`."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        rows = executor.map(partial(_render, seed), range(n), chunksize=50)
        done = list(tqdm(rows, total=n, desc="drawing scenes", mininterval=5))
    scenes, seen, crops, facts = zip(*done, strict=True)
    return Pool(list(scenes), torch.from_numpy(np.stack(seen)), torch.from_numpy(np.stack(crops)), list(facts))


def _render(seed: int, index: int) -> tuple[Scene, np.ndarray, np.ndarray, tuple[Crop, ...]]:
    scene = make_scene("train", seed, index, LESSONS)
    rng = np.random.default_rng((99, seed, index))
    original = scene.render()
    facts, images = [], []
    for kind in range(CROPS):
        aim = int(rng.integers(len(scene.shapes)))
        box = _crop_box(rng, scene, aim, anywhere=kind == CROPS - 1)
        outcome = crop(original, box, budget=BUDGET, space=CoordinateSpace.ABSOLUTE)
        if outcome.image is None:
            raise RuntimeError(f"scene {index}: the pool wrote a box that is refused ({outcome.reason}): {box}")
        centre = seen_box(scene, aim).center
        facts.append(Crop(aim, box, readable=Box(box.x1 + 2, box.y1 + 2, box.x2 - 2, box.y2 - 2).contains(*centre)))
        images.append(np.asarray(outcome.image))
    return scene, np.asarray(BUDGET.resize(original)), np.stack(images), tuple(facts)


def _crop_box(rng: np.random.Generator, scene: Scene, aim: int, *, anywhere: bool) -> Box:
    side = int(rng.choice(BOX_SIZES))
    if anywhere:
        return snapped_box((float(rng.uniform(0, SEEN)), float(rng.uniform(0, SEEN))), side)
    x, y = seen_box(scene, aim).center
    return snapped_box((x + float(rng.uniform(-12, 12)), y + float(rng.uniform(-12, 12))), side)
