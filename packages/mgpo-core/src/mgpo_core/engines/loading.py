"""Models and processors from a folder, a hub id, or a haystack checkpoint by name; torch only to load them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgpo_core.episode_settings import SETTINGS_FILE, EpisodeSettings
from mgpo_core.errors import EngineError

if TYPE_CHECKING:
    import torch

__all__ = ["load_model", "load_processor", "load_settings", "resolve_model"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def resolve_model(name: str | Path) -> str:
    """The folder or hub id of `name`; "haystack:base" and the like are checkpoints shipped with mgpo-core."""
    text = str(name)
    if text.startswith("haystack:"):
        from mgpo_core import haystack

        return str(haystack.checkpoint(text.removeprefix("haystack:")))
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise EngineError(
                f"The folder {text!r} holds no config.json; name the folder that save_pretrained wrote "
                "(in a training output, usually a checkpoint-N below it)."
            )
        return str(folder)
    if isinstance(name, Path) or not _HUB_ID.fullmatch(text):
        raise EngineError(
            f"There is no model folder {text!r}; give an existing folder, a hub id such as "
            "'Qwen/Qwen2.5-VL-7B-Instruct', or 'haystack:base'."
        )
    return text


def load_processor(name: str | Path) -> Any:
    """The processor (tokenizer, image processor, chat template) of a model; raises EngineError."""
    from transformers import AutoProcessor

    return _load(AutoProcessor, name)


def load_model(
    name: str | Path, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> Any:
    """The model in evaluation mode on `device` (default: the GPU if there is one), with the fast vision rewrites."""
    import torch
    from transformers import AutoModelForImageTextToText

    from mgpo_core.engines.vision import batched_vision_attention, patch_embed_as_matmul

    model = _load(AutoModelForImageTextToText, name, dtype=dtype or "auto")
    model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    if model.device.type == "cpu":
        patch_embed_as_matmul(model)
    batched_vision_attention(model)
    return model


def load_settings(name: str | Path) -> EpisodeSettings | None:
    """How the episodes of a model are played, by the `mgpo.json` beside its weights, on the hub too; None without one.

    Raises EngineError for a name that is no model's and for a file that cannot be read.
    """
    place = resolve_model(name)
    if Path(place).is_dir():
        return EpisodeSettings.read(place)
    from transformers.utils import cached_file

    file = cached_file(
        place,
        SETTINGS_FILE,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if file is None else EpisodeSettings.read(Path(file).parent)


def _load(loader: Any, name: str | Path, **options: Any) -> Any:
    place = resolve_model(name)
    try:
        return loader.from_pretrained(place, **options)
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineError(
            f"Could not load {place!r} ({reason}); check the name, the network, and that it is an image-text-to-text "
            "checkpoint."
        ) from error
