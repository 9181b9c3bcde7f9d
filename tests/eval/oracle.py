"""An engine that knows the answers: it finds the right choice's text in what it is asked, and says its letter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

from mgpo_core.episode import Episode
from mgpo_core.templates import message_text
from mgpo_core.trajectory import Trajectory

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
        truth = self.answers[episode.sample.question]
        named = [letter for letter, text in letters.items() if (text == truth) is self.right]
        return rf"Based on the image, A or B or {truth} could be it. \boxed{{{named[0]}}}"
