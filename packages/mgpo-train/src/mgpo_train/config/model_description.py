"""A model's configuration, from its folder, the hub or the copies that ship, without loading weights."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from mgpo_core.engines.loading import base_model
from mgpo_core.errors import EngineError

FOLDER = Path(str(resources.files("mgpo_train"))) / "shapes"
"""Configurations of the recipes' models, cut down to what decides shapes."""


def model_config(model: str, *, trust_remote_code: bool = False) -> tuple[Any, str | None]:
    """(the transformers configuration of a model, a note when it is the shipped one); raises EngineError."""
    from transformers import AutoConfig

    place = base_model(model)
    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code), None
    except (OSError, ValueError) as error:
        shipped = FOLDER / f"{place.split('/')[-1]}.json"
        if Path(place).is_dir() or not place.startswith("Qwen/") or not shipped.is_file():
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            known = ", ".join(f"Qwen/{path.stem}" for path in sorted(FOLDER.glob("*.json")))
            raise EngineError(
                f"could not read the configuration of model={model!r} ({reason}): check the name and the "
                f"network; without a network, the shapes of {known} are known"
            ) from error
    described = AutoConfig.for_model(**json.loads(shipped.read_text("utf-8")))
    return described, f"the hub was not reached: shapes of {place} as shipped with mgpo-train"
