"""A model as the demo has it: how its episodes are run, and who may use it now."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mgpo_core import Episode, Sample
from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.engines import Engine, StreamCallback, load_engine
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.images.budget import PixelBudget
from mgpo_core.templates.base import Template
from mgpo_demo.session.limits import DemoError

__all__ = ["DemoModel", "load_local", "load_served"]


@dataclass
class DemoModel:
    """An engine with the settings of its episodes."""

    name: str
    engine: Engine
    settings: EpisodeSettings
    budget: PixelBudget
    space: CoordinateSpace
    at_once: int = 1
    "How many runs the engine takes at a time: one in this process, several on a server."
    _places: threading.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._places = threading.Semaphore(self.at_once)

    @property
    def explains(self) -> bool:
        """Whether the model's confidence in each choice can be asked for."""
        return hasattr(self.engine, "choice_probabilities")

    def episode(self, sample: Sample, template: Template) -> Episode:
        """An episode of this model; SampleError or ImageError for a sample that cannot be run."""
        settings = self.settings
        return Episode(
            sample,
            template=template,
            budget=self.budget,
            space=self.space,
            rules=settings.rules,
            strict=settings.strict_boxes,
        )

    def generate(self, episodes: Sequence[Episode], on_text: StreamCallback, on_start: Callable[[], None]) -> None:
        """Run the episodes to their end; `on_text` sees the texts grow and ends the run by raising.

        While the caller waits for the model, `on_text` is called with an empty text; `on_start` is called when
        the wait is over.
        """
        with self._place(lambda: on_text(episodes[0], "")):
            on_start()
            self.engine.run(episodes, on_text=on_text)

    def confidence(self, trajectory: Trajectory) -> dict[str, float] | None:
        """The probability of each choice's letter; None where the engine cannot tell or there are no choices."""
        if not self.explains or len(trajectory.choices) < 2 or trajectory.tokens is None:
            return None
        with self._place(lambda: None):
            return self.engine.choice_probabilities(trajectory)  # type: ignore[attr-defined]

    @contextmanager
    def _place(self, waiting: Callable[[], None]) -> Iterator[None]:
        while not self._places.acquire(timeout=0.1):
            waiting()
        try:
            yield
        finally:
            self._places.release()


def load_local(name: str, *, device: str | None = None, dtype: str | None = None) -> DemoModel:
    """A checkpoint folder, hub id or "haystack:mgpo" on the transformers engine; raises EngineError."""
    from mgpo_core.engines.families import find_family, visual_factor
    from mgpo_core.engines.loading import load_settings

    settings = load_settings(name) or EpisodeSettings()
    engine: Any = load_engine(
        "transformers", model=name, max_new_tokens=settings.max_new_tokens, device=device, dtype=dtype
    )
    config = engine.model.config
    declared = settings.coordinate_space
    space = CoordinateSpace.parse(declared) if declared else find_family(config).space
    return DemoModel(name, engine, settings, settings.budget(visual_factor(config)), space)


def load_served(
    url: str, *, model: str | None, settings: EpisodeSettings, patch_factor: int, concurrency: int, timeout: float
) -> DemoModel:
    """A model on an OpenAI-compatible server; raises EngineError, and DemoError where its coordinates are not known."""
    if settings.coordinate_space is None:
        raise DemoError(
            "--server needs --coordinate-space: absolute for Qwen2.5-VL, 0-1000 for Qwen3-VL and Qwen2-VL; a server "
            "does not tell how its model counts"
        )
    engine: Any = load_engine(
        "openai", model=model, url=url, max_new_tokens=settings.max_new_tokens, retries=1, timeout=timeout
    )
    space = CoordinateSpace.parse(settings.coordinate_space)
    return DemoModel(engine.served, engine, settings, settings.budget(patch_factor), space, at_once=concurrency)
