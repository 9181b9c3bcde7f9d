"""How a checkpoint's episodes are run, kept in a file beside its weights: `mgpo.json`.

A model that was trained with one pixel budget scores worse with another, and nothing in a checkpoint of transformers
tells which one it was. Training writes this file; evaluation and the demo take their defaults from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.errors import EngineError
from mgpo_core.images.budget import PixelBudget
from mgpo_core.images.crop import CropRules

__all__ = ["SETTINGS_FILE", "EpisodeSettings"]

SETTINGS_FILE = "mgpo.json"

_BUDGET, _RULES = PixelBudget(), CropRules()


@dataclass(frozen=True)
class EpisodeSettings:
    """What an episode depends on beside its sample and its model; the defaults are the paper's.

    Sizes are pixels of the resized image. Raises ValueError for a coordinate space that does not exist.
    """

    template: str = "two_turn"
    min_pixels: int = _BUDGET.min_pixels
    max_pixels: int = _BUDGET.max_pixels
    coordinate_space: str | None = None
    """`absolute` or `0-1000`; None: the model family's own."""
    crop_min_side: float = _RULES.min_side
    crop_max_aspect: float = _RULES.max_aspect
    strict_boxes: bool = False
    max_new_tokens: int = 1024
    """Bound on one response."""

    def __post_init__(self) -> None:
        if self.coordinate_space is not None:
            CoordinateSpace.parse(self.coordinate_space)

    def budget(self, factor: int) -> PixelBudget:
        """The pixel budget for a model whose visual tokens are `factor` pixels a side; ValueError if it is none."""
        return PixelBudget(self.min_pixels, self.max_pixels, factor)

    @property
    def rules(self) -> CropRules:
        """When a box is refused."""
        return CropRules(self.crop_min_side, self.crop_max_aspect)

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write the file into a checkpoint's folder; gives its path."""
        path = Path(folder) / SETTINGS_FILE
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> EpisodeSettings | None:
        """What `write` wrote; None where the folder holds no such file, EngineError for one that cannot be read."""
        path = Path(folder) / SETTINGS_FILE
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(**_known(data, path))
        except (ValueError, TypeError) as error:
            raise EngineError(
                f"{path} cannot be read ({error}); restore it, or delete it to use the defaults"
            ) from error


def _known(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError("it holds no JSON object")
    names = [field.name for field in fields(EpisodeSettings)]
    unknown = [name for name in data if name not in names]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(names)}: a newer version may have written it")
    return dict(data)
