"""Engines that know the answers: one finds the right choice's text in what it is asked, one points at boxes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

from mgpo_core import Box
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.templates.base import message_text

CONFIG = SimpleNamespace(model_type="qwen2_5_vl", vision_config=SimpleNamespace(patch_size=14, spatial_merge_size=2))
"""What a model's configuration has to tell."""


class Oracle:
    """Answers by the text of the right choice, in words that mislead extractors of letters."""

    def __init__(self, answers: Mapping[str, str], *, right: bool = True) -> None:
        self.answers = answers
        self.right = right
        self.asked: list[str] = []

    def run(self, episodes: Sequence[Episode]) -> list[Trajectory]:
        """Look at the middle, then answer."""
        for episode in episodes:
            while not episode.done:
                if episode.wants_box:
                    box = [28, 28, 168, 112]
                    episode.observe(f'```json\n[{{"bbox_2d": {box}, "label": "key image area"}}]\n```', tokens=20)
                else:
                    episode.observe(self._answer(episode), tokens=12, prompt_tokens=100)
        return [episode.trajectory for episode in episodes]

    def _answer(self, episode: Episode) -> str:
        asked = message_text(episode.messages[-1])
        self.asked.append(asked)
        letters = dict(re.findall(r"^\(([A-Z])\) (.*)$", asked, flags=re.MULTILINE))
        ground_truth = self.answers[episode.sample.question]
        named = [letter for letter, text in letters.items() if (text == ground_truth) is self.right]
        return rf"Based on the image, A or B or {ground_truth} could be it. \boxed{{{named[0]}}}"


THOUSANDTHS = SimpleNamespace(**vars(CONFIG) | {"model_type": "qwen3_vl"})
"""The configuration of a family whose boxes are in thousandths."""


class Pointer:
    """Looks around a sample's true box, and answers with what `said` makes of the episode, its row and that box."""

    def __init__(self, ground_truth: Callable[[Episode, int], Box], said: Callable[[Episode, int, Box], str]) -> None:
        self.ground_truth = ground_truth
        self.said = said
        self.asked: list[str] = []

    def run(self, episodes: Sequence[Episode]) -> list[Trajectory]:
        """Look as often as the template says, then answer."""
        for episode in episodes:
            row = int(episode.sample.id.split("/")[1])
            box = self.ground_truth(episode, row)
            while not episode.done:
                self.asked.append(message_text(episode.messages[-1]))
                text = pointing(episode, around(episode, box)) if episode.wants_box else self.said(episode, row, box)
                episode.observe(text, tokens=20, prompt_tokens=100)
        return [episode.trajectory for episode in episodes]


def around(episode: Episode, box: Box) -> Box:
    """A box three times as wide and high, as far as its image goes: the thing alone may be too small to be cropped."""
    wider = Box(box.x1 - box.width, box.y1 - box.height, box.x2 + box.width, box.y2 + box.height, box.image)
    return wider.clipped(*episode.view.original_sizes[box.image])


def pointing(episode: Episode, box: Box, image: int | None = None) -> str:
    """A box of original pixels in the model's own numbers; on the image (0-based) that is claimed, if another."""
    view = episode.view
    numbers = view.space.from_original(box, view.input_sizes[box.image], view.original_sizes[box.image])
    entry = {"image": (box.image if image is None else image) + 1, "bbox_2d": list(numbers.as_tuple()), "label": "it"}
    return f"```json\n{json.dumps([entry])}\n```"
