"""Models and processors from a folder, a hub id, or a haystack checkpoint by name; torch only to load them.

A folder or hub id may hold a LoRA adapter alone (`adapter_config.json`, as PEFT writes it): its base model is then
loaded, and the adapter merged into it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgpo_core.episodes.settings import SETTINGS_FILE, EpisodeSettings
from mgpo_core.errors import EngineError, MGPOError
from mgpo_core.messages.install import from_clone

if TYPE_CHECKING:
    import torch

__all__ = [
    "adapter_base",
    "base_model",
    "load_model",
    "load_processor",
    "load_settings",
    "load_weights",
    "resolve_model",
    "whole_model",
]

CONFIG_FILE, ADAPTER_FILE = "config.json", "adapter_config.json"
"""The file by which a folder is known to hold a whole model, and an adapter."""

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
_HUB_ID = re.compile(r"(?!\.{1,2}/)[\w.-]+/(?!\.{1,2}$)[\w.-]+")


def resolve_model(name: str | Path) -> str:
    """The folder or hub id of `name`; "haystack:base" and the like are checkpoints shipped with mgpo-core.

    It holds a whole model or an adapter; see `base_model` and `whole_model`. Raises EngineError for any other name.
    """
    text = str(name)
    if text.startswith("haystack:"):
        from mgpo_core import haystack

        return str(haystack.checkpoint(text.removeprefix("haystack:")))
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not _holds_model(folder):
            raise EngineError(f"the folder {text!r} holds no {CONFIG_FILE} and no {ADAPTER_FILE}; {_instead(folder)}")
        return str(folder)
    if isinstance(name, Path) or not _HUB_ID.fullmatch(text):
        raise EngineError(
            f"there is no model folder {text!r}; give an existing folder, a hub id such as "
            "'Qwen/Qwen2.5-VL-7B-Instruct', or 'haystack:base'"
        )
    return text


def adapter_base(name: str | Path) -> str | None:
    """The base model (folder or hub id) of an adapter, by its `adapter_config.json`; None for a whole model.

    Raises EngineError where the file cannot be read, or names a base that is not there.
    """
    place = resolve_model(name)
    file = _file_of(place, ADAPTER_FILE)
    if file is None:
        return None
    try:
        base = json.loads(file.read_text("utf-8"))["base_model_name_or_path"]
        if not isinstance(base, str) or not base:
            raise ValueError("base_model_name_or_path is empty")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise EngineError(f"{file} does not name a base model ({reason}); {_merged_instead(place)}") from error
    try:
        return resolve_model(base)
    except MGPOError as error:
        raise EngineError(
            f"the adapter {str(name)!r} was trained on the model {base!r}, which is not there; put it there, or "
            f"{_merged_instead(place)}"
        ) from error


def base_model(name: str | Path) -> str:
    """The folder or hub id of the whole model that `name` is, or of which it is an adapter; raises EngineError."""
    return list(_chain(name))[-1]


def whole_model(name: str | Path, reader: str) -> str:
    """The folder or hub id of a whole model, for a `reader` that cannot load adapters; EngineError for an adapter."""
    place = resolve_model(name)
    if adapter_base(place) is not None:
        raise EngineError(
            f"model={str(name)!r} is a LoRA adapter, and {reader} takes whole models; {_merged_instead(place)}"
        )
    return place


def load_processor(name: str | Path) -> Any:
    """The processor (tokenizer, image processor, chat template) of a model; raises EngineError.

    Of an adapter without one it is the base model's.
    """
    from transformers import AutoProcessor

    places = list(_chain(name))
    found = (place for place in places if any(_file_of(place, file) for file in _PROCESSOR_FILES))
    return _load(AutoProcessor, next(found, places[-1]))


def load_weights(name: str | Path, **options: Any) -> Any:
    """The whole model for transformers, an adapter merged into its base; `options` go to `from_pretrained`.

    Raises EngineError, also where an adapter is to be loaded and PEFT is not installed.
    """
    from transformers import AutoModelForImageTextToText

    *adapters, base = _chain(name)
    if adapters and find_spec("peft") is None:
        raise EngineError(
            f"model={str(name)!r} is a LoRA adapter, which needs the package peft: "
            f"{from_clone('mgpo-core', 'peft')}, or {_merged_instead(adapters[0])}"
        )
    model = _load(AutoModelForImageTextToText, base, **options)
    for adapter in reversed(adapters):
        model = _merged(model, adapter)
    return model


def load_model(
    name: str | Path, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> Any:
    """The model in evaluation mode on `device` (default: the GPU if there is one), with the fast vision rewrites."""
    import torch

    from mgpo_core.engines.transformers.vision import batched_vision_attention, patch_embed_as_matmul

    model = load_weights(name, dtype=dtype or "auto")
    model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    if model.device.type == "cpu":
        patch_embed_as_matmul(model)
    batched_vision_attention(model)
    return model


def load_settings(name: str | Path) -> EpisodeSettings | None:
    """How the episodes of a model are run, by the `mgpo.json` beside its weights, on the hub too; None without one.

    Of an adapter without the file it is the base model's. Raises EngineError for a name that is no model's and for a
    file that cannot be read.
    """
    for place in _chain(name):
        file = _file_of(place, SETTINGS_FILE)
        if file is not None:
            return EpisodeSettings.read(file.parent)
    return None


def _holds_model(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file() or (folder / ADAPTER_FILE).is_file()


def _chain(name: str | Path) -> Iterator[str]:
    """The place of a model; of an adapter, then its base's, which may be an adapter too, down to the whole model."""
    place: str | None = resolve_model(name)
    seen: list[str] = []
    while place is not None:
        if place in seen:
            raise EngineError(f"the adapter {str(name)!r} names itself as its base model; {_merged_instead(seen[0])}")
        seen.append(place)
        yield place
        place = adapter_base(place)


def _merged(model: Any, adapter: str) -> Any:
    """`model` with an adapter of PEFT's merged in, in place."""
    from peft import PeftModel

    try:
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise EngineError(
            f"the adapter {adapter!r} cannot be merged into its base model ({_first_line(error)}); "
            f"{_merged_instead(adapter)}"
        ) from error
    return merged.requires_grad_(True)  # PEFT freezes the base, which may be trained from here


def _instead(folder: Path) -> str:
    """What to name in place of a folder that holds no model: one below it that does."""
    named = [folder / name for name in ("model", "best", "adapter")]
    checkpoints = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    numbered = sorted(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    found = next((path for path in [*named, *numbered] if _holds_model(path)), None)
    if found is not None:
        return f"name {found}"
    return "name the folder that save_pretrained wrote (of a training: model/ or a checkpoint-N/ in its output folder)"


def _merged_instead(adapter: str) -> str:
    """What to name in place of an adapter: the merged model that its run wrote, where there is one."""
    above = Path(adapter).resolve().parent
    for folder in (above, above / "model"):  # best/adapter lies in the merged model, adapter/ and checkpoint-N beside
        if Path(adapter).is_dir() and (folder / CONFIG_FILE).is_file() and any(folder.glob("*.safetensors")):
            return f"name the merged model {folder}"
    return "name a model into which the adapter has been merged (a finished run writes one into OUT/model)"


def _file_of(place: str, name: str) -> Path | None:
    """A file of a model's folder or hub repository; None where it has none, or the hub is not reached."""
    if Path(place).is_dir():
        path = Path(place) / name
        return path if path.is_file() else None
    from transformers.utils import cached_file

    try:
        file = cached_file(
            place,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError as error:  # there is no such repository
        raise _not_loaded(place, error) from error
    return None if file is None else Path(file)


def _load(loader: Any, place: str, **options: Any) -> Any:
    try:
        return loader.from_pretrained(place, **options)
    except (OSError, ValueError, ImportError) as error:
        raise _not_loaded(place, error) from error


def _not_loaded(place: str, error: Exception) -> EngineError:
    return EngineError(
        f"could not load {place!r} ({_first_line(error)}); check the name, the network, and that it is an "
        "image-text-to-text checkpoint"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
