"""Engines answer the turns of episodes; each is imported only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from mgpo_core.engines.streaming import StreamCallback
from mgpo_core.errors import EngineError
from mgpo_core.messages.install import from_clone
from mgpo_core.messages.suggest import nearest

if TYPE_CHECKING:
    from mgpo_core.episodes.episode import Episode
    from mgpo_core.episodes.trajectory import Trajectory

__all__ = ["Engine", "StreamCallback", "load_engine"]

_ENGINES = {
    # name: (module, class, extra of mgpo-core that brings what it needs)
    "transformers": ("mgpo_core.engines.transformers.engine", "TransformersEngine", "transformers"),
    "vllm": ("mgpo_core.engines.vllm.engine", "VLLMEngine", "vllm"),
    "vllm-server": ("mgpo_core.engines.vllm.server", "VLLMServerEngine", "vllm-server"),
    "openai": ("mgpo_core.engines.chat.engine", "OpenAIEngine", "openai"),
}


@runtime_checkable
class Engine(Protocol):
    """Anything that runs episodes to their end."""

    def run(self, episodes: Sequence[Episode], *, on_text: StreamCallback | None = None) -> list[Trajectory]:
        """Answer every turn of every episode; one trajectory per episode, in the order given.

        `on_text` gets the text of every response as it grows, and ends the run by raising: see `StreamCallback`.
        """
        ...


def load_engine(name: str, *, model: Any, **options: Any) -> Engine:
    """The engine called `name` for `model` (folder, hub id, "haystack:base", or a loaded model); raises EngineError.

    For "openai", `model` is the name that the server at `url` knows it by.
    """
    if name not in _ENGINES:
        raise EngineError(f"there is no engine {name!r}: {nearest(name, _ENGINES)} (engines: {', '.join(_ENGINES)})")
    module_name, class_name, extra = _ENGINES[name]
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise EngineError(
            f"the {name} engine needs a package that is not installed ({error}); {from_clone('mgpo-core', extra)}"
        ) from error
    return cast(Engine, getattr(module, class_name)(model, **options))
