"""A model for the demo that says what a test wants, without torch; and images to show it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mgpo_core import Episode
from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.images.budget import PixelBudget
from mgpo_demo.session.image import DemoImage, keep_upload
from mgpo_demo.session.limits import Limits
from mgpo_demo.session.model import DemoModel

BOX = '```json\n[{"bbox_2d": [56, 28, 140, 112], "label": "key image area"}]\n```'
BUDGET = PixelBudget(min_pixels=4 * 28 * 28, max_pixels=224 * 224)


def usual(episode: Episode) -> str:
    """A box where one is wanted, else an answer."""
    return BOX if episode.wants_box else "It is \\boxed{B}."


class ScriptedEngine:
    """Says `script(episode)`, a character at a time, each after `pause` seconds."""

    def __init__(self, script: Callable[[Episode], str] = usual, pause: float = 0.0) -> None:
        self.script, self.pause = script, pause
        self.running = threading.Event()
        self.said = 0

    def run(self, episodes: Sequence[Episode], *, on_text: Any = None) -> list[Trajectory]:
        for episode in episodes:
            while not episode.done:
                text = self.script(episode)
                for end in range(1, len(text) + 1):
                    self.running.set()
                    time.sleep(self.pause)
                    self.said += 1
                    if on_text is not None:
                        on_text(episode, text[:end])
                episode.observe(text, tokens=len(text), seconds=0.5, prompt_tokens=10)
        return [episode.trajectory for episode in episodes]


def scripted(script: Callable[[Episode], str] = usual, *, pause: float = 0.0, at_once: int = 1) -> DemoModel:
    settings = EpisodeSettings(min_pixels=BUDGET.min_pixels, max_pixels=BUDGET.max_pixels)
    return DemoModel("scripted", ScriptedEngine(script, pause), settings, BUDGET, CoordinateSpace.ABSOLUTE, at_once)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image in which every place looks different."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def image_of(image: Image.Image, folder: Path, name: str = "boat.png") -> DemoImage:
    """The image as a visitor's upload."""
    file = folder / f"sent-{name}"
    image.save(file)
    kept = folder / "kept"
    kept.mkdir(exist_ok=True)
    return keep_upload(file, name, kept, Limits())
