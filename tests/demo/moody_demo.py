"""`mgpo-demo` with a model that dawdles, or breaks, where it is asked to: else it would be done at once."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mgpo_demo.session.model
from mgpo_core import Episode
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_demo.cli import main

SECONDS_A_TOKEN = 0.25
GO_ON = Path(os.environ["MOODY_GO_ON"])


class Moody:
    """An engine in front of the real one."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, episodes: Sequence[Episode], *, on_text: Any = None) -> list[Trajectory]:
        """Play; "slowly" among the choices keeps the first box from being finished, "break" in the question raises."""
        trajectory = episodes[0].trajectory
        if "break" in trajectory.question:
            raise RuntimeError("the model broke, as the test wished")

        def slow_on_text(episode: Episode, text: str) -> None:
            time.sleep(SECONDS_A_TOKEN)
            on_text(episode, text)
            # between two numbers it waits for the test, and one number later for nothing, until the watch raises
            while text.count(",") == 2 or (text.count(",") == 1 and not GO_ON.exists()):
                time.sleep(SECONDS_A_TOKEN)
                on_text(episode, text)

        return self._engine.run(episodes, on_text=slow_on_text if "slowly" in trajectory.choices else on_text)


def load_moody(name: str, **options: Any) -> Any:
    model = load_local(name, **options)
    model.engine = Moody(model.engine)
    return model


if __name__ == "__main__":
    load_local = mgpo_demo.session.model.load_local
    mgpo_demo.session.model.load_local = load_moody
    sys.exit(main())
