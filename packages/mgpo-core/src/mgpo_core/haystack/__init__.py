"""Haystack: a synthetic high-resolution world, and tiny Qwen2.5-VL checkpoints that live in it.

>>> from mgpo_core import haystack
>>> sample = haystack.make("val", n=1, seed=0)[0]
>>> sample.question, sample.answer, sample.load().size
('Which stripes are on the purple circle?', 'C', (1344, 1344))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from mgpo_core.budget import PixelBudget
from mgpo_core.errors import SampleError
from mgpo_core.haystack.world import DIFFICULTY, MARKS, SPLITS, Difficulty, Scene, make_scene
from mgpo_core.sample import Sample

BUDGET = PixelBudget(min_pixels=4 * 28 * 28, max_pixels=168 * 168)
"""What the tiny checkpoints are shown: 36 image tokens of 28x28 pixels."""

CHECKPOINTS: tuple[str, ...] = ("base", "mgpo")


def make(split: str = "val", n: int = 512, seed: int = 0, **difficulty: Any) -> list[Sample]:
    """Make `n` samples of a split (`train`, `val`, `ood`), a pure function of the arguments.

    Pictures are drawn when they are loaded, so a long list costs no memory. `difficulty` overrides fields of
    `mgpo_core.haystack.world.Difficulty`. Splits never share a scene, whatever their seeds. The true box of each
    sample is in pixels of the original. Raises `SampleError` for an unknown split or option.
    """
    if split not in SPLITS:
        raise SampleError(f"haystack has no split {split!r}; use one of {', '.join(SPLITS)}")
    known = [f.name for f in fields(Difficulty)]
    for option in difficulty:
        if option not in known:
            nearest = get_close_matches(option, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; known: {', '.join(known)}"
            raise SampleError(f"haystack has no difficulty option {option!r}{hint}")
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in difficulty.items()}
    try:
        chosen = replace(DIFFICULTY[split], **settings)
    except ValueError as problem:
        raise SampleError(f"haystack difficulty: {problem}") from problem
    return [_sample(f"haystack-{split}-{seed}-{i}", make_scene(split, seed, i, chosen)) for i in range(n)]


def sample_of(scene: Scene, id: str = "") -> Sample:
    """The question about a scene's target, with its true box."""
    return _sample(id, scene)


def checkpoint(name: str = "base") -> Path:
    """Folder of a shipped tiny checkpoint: `base` (before RL) or `mgpo` (after); loads with AutoModel/AutoProcessor.

    Raises `SampleError` when the name is unknown or the files are not installed.
    """
    if name not in CHECKPOINTS:
        raise SampleError(f"haystack has no checkpoint {name!r}; use one of {', '.join(CHECKPOINTS)}")
    folder = Path(str(resources.files("mgpo_core.haystack"))) / "checkpoints" / name
    if not (folder / "config.json").is_file():
        raise SampleError(f"haystack checkpoint {name!r} is not installed at {folder}; reinstall mgpo-core")
    return folder


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
