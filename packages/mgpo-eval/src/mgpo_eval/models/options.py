"""The `--model_args` of our models, checked when they are read, with the episode settings that they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from mgpo_core import CoordinateSpace, PixelBudget
from mgpo_core.engines.families import find_family, visual_factor
from mgpo_core.engines.sampling_options import SamplingOptions
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.errors import EngineError, MGPOError, RegistryError
from mgpo_core.messages.renamed import with_current_names, with_current_values
from mgpo_core.messages.suggest import check_words, literal_words, nearest
from mgpo_core.registry import import_plugins, is_spec
from mgpo_core.templates.base import Template
from mgpo_core.templates.registry import TEMPLATES, load_template
from mgpo_eval.models.templates import MigFormat, Mode, Templates, choose_mode, choose_templates

__all__ = ["GenerationSettings", "ModelOptions", "OptionError"]

ENGINES = {"mgpo": "transformers", "mgpo_vllm": "vllm", "mgpo_openai": "openai"}
"""Model names in lmms-eval with the engines of mgpo_core that run them."""

RENAMED = {"pictures": "keep_images"}
"""Old names of options, which are read with a warning."""

RENAMED_VALUES = {"mode": {"direct": "single_turn"}}
"""Old values of options, likewise."""


class OptionError(MGPOError, ValueError):
    """An option that does not exist or has a value that cannot be; the message says what to write instead."""


def _option(default: Any, text: str, engines: str = "") -> Any:
    """A field with its help text, and the engines it is for (none named: all)."""
    return field(default=default, metadata={"help": text, "engines": tuple(engines.split())})


@dataclass(frozen=True)
class ModelOptions:
    """Everything that `--model_args` may hold, for the engine at hand."""

    engine: str
    pretrained: str | None = _option(
        None, "checkpoint folder, hub id, haystack:base or haystack:mgpo (openai: the checkpoint that is served)"
    )
    template: str | None = _option(
        None,
        "your own template, PYTHON_FILE:Name, package.module:Name or registered by a plugin; default: as the mode and "
        "task say",
    )
    plugins: str | None = _option(
        None, "modules or Python files to import first, separated by ';', which register templates or model families"
    )
    mode: Mode | None = _option(
        None, "two_turn (look closer) or single_turn; default: two_turn, of a multi_image checkpoint single_turn"
    )
    min_pixels: int | None = _option(None, "minimum pixels of an image as the model sees it; default: see max_pixels")
    max_pixels: int | None = _option(
        None, "maximum pixels; default: those in the checkpoint's mgpo.json, else the paper's"
    )
    coordinate_space: Literal["absolute", "0-1000"] | None = _option(
        None, "absolute or 0-1000; default: mgpo.json's, else the family's own"
    )
    patch_factor: int | None = _option(None, "side in pixels of one visual token, where no checkpoint tells", "openai")
    strict_boxes: bool | None = _option(None, "read boxes by the paper's rule only")
    max_new_tokens: int | None = _option(None, "bound on one response, whatever a task says; default 1024")
    temperature: float = _option(0.0, "0 is greedy")
    top_p: float = _option(1.0, "nucleus sampling")
    top_k: int = _option(0, "0 is off")
    seed: int = _option(0, "of sampling")
    batch_size: int | str = _option(1, "most conversations at a time, or auto (transformers alone)")
    batch_tokens: int = _option(32_768, "most prompt tokens of a batch, padding counted", "transformers")
    batch_pixels: int = _option(400_000_000, "most pixels of decoded originals in a batch", "transformers")
    dtype: str | None = _option(None, "float32, bfloat16, ...; default: the checkpoint's", "transformers vllm")
    device: str | None = _option(None, "cuda, cuda:0, cpu", "transformers")
    tensor_parallel_size: int = _option(1, "GPUs that share one copy of the model", "vllm")
    data_parallel_size: int = _option(1, "copies of the model, one per process of the launcher", "vllm")
    gpu_memory_utilization: float | None = _option(None, "share of the GPU's memory that vLLM takes", "vllm")
    max_model_len: int | None = _option(None, "longest conversation in tokens", "vllm")
    vllm_options: Any = _option(None, "further arguments of vllm.LLM as JSON", "vllm")
    url: str | None = _option(None, "address of the server, http://HOST:PORT/v1", "openai")
    model: str | None = _option(None, "served name; default: the first that the server lists", "openai")
    api_key: str | None = _option(None, "default: the environment's OPENAI_API_KEY", "openai")
    concurrency: int = _option(32, "requests at a time", "openai")
    retries: int = _option(4, "attempts after a failed request", "openai")
    timeout: float = _option(600.0, "seconds for one request", "openai")
    weights_name: str | None = _option(None, "names the served weights, so that a run can go on later", "openai")
    prompts: Literal["auto", "task"] = _option(
        "auto", "auto: known benchmarks from their columns; task: always from the task's own text"
    )
    mig_format: MigFormat = _option(
        "auto", "MIG-Bench: published (box tokens), json, or auto: json for boxes in pixels and multi_image checkpoints"
    )
    response: Literal["full", "answer"] = _option("full", "full: answer and trajectory; answer: the bare answer")
    on_bad_sample: Literal["error", "skip"] = _option("error", "error: stop; skip: count it as wrong and report it")
    journal: str = _option("auto", "folder of finished samples; auto: OUTPUT_PATH/mgpo; off")
    keep_images: int = _option(1000, "samples per task whose images are kept for the report; -1: all")

    @classmethod
    def read(cls, given: Mapping[str, Any], engine: str) -> ModelOptions:
        """Options from lmms-eval's parsed arguments; OptionError, naming the nearest option, for unknown ones."""
        known = {option.name: option for option in options_of(engine)}
        values = {}
        try:
            given = with_current_values(with_current_names(given, RENAMED), RENAMED_VALUES)
        except ValueError as error:
            raise OptionError(str(error)) from error
        for name, value in given.items():
            if value is None:
                continue
            if name not in known:
                raise OptionError(_unknown(name, known, engine))
            values[name] = _typed(name, value, str(known[name].type))
        return cls(engine=engine, **values)

    def __post_init__(self) -> None:
        try:
            import_plugins(self.plugins.split(";") if self.plugins else ())
        except RegistryError as error:
            raise OptionError(str(error)) from error
        if self.template is not None:
            self._own_template(self.template)
        check_words(vars(self), literal_words(ModelOptions), OptionError)
        if self.engine == "openai":
            if self.url is None:
                raise OptionError("mgpo_openai needs url=http://HOST:PORT/v1, the address of the server")
        elif self.pretrained is None:
            raise OptionError("pretrained is missing: name a checkpoint folder, a hub id or haystack:mgpo")
        if self.batch_size != "auto" and not (isinstance(self.batch_size, int) and self.batch_size >= 1):
            raise OptionError(f"batch_size={self.batch_size!r}: give a positive whole number or auto")
        for name in ("batch_tokens", "batch_pixels", "tensor_parallel_size", "data_parallel_size", "concurrency"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}={getattr(self, name)}: give a positive whole number")

    @property
    def limit(self) -> int:
        """Most conversations of a batch; `auto` leaves it to tokens and pixels."""
        return 256 if self.batch_size == "auto" else int(self.batch_size)

    def settings(self, checkpoint: EpisodeSettings | None, config: Any) -> GenerationSettings:
        """How episodes are run: as given, else as the checkpoint says (`mgpo.json`), else as the paper does.

        `config` is transformers' configuration of the model, None where there is none. Raises OptionError where a
        setting cannot be known.
        """
        chosen: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("template", "min_pixels", "max_pixels", "coordinate_space", "strict_boxes", "max_new_tokens")
            if getattr(self, name) is not None
        }
        try:
            merged = replace(checkpoint or EpisodeSettings(), **chosen)
            sampling = SamplingOptions(merged.max_new_tokens, self.temperature, self.top_p, self.top_k, self.seed)
            budget = merged.budget(self._factor(config))
        except ValueError as error:
            hint = "; set min_pixels and max_pixels both when you set one" if "budget" in str(error) else ""
            raise OptionError(f"model_args: {error}{hint}") from error
        own = self._own_template(merged.template)
        mode = choose_mode(self.mode, own, asked=self.template is not None)
        space = self._space(merged.coordinate_space, config)
        templates = choose_templates(mode, own, space, self.mig_format)
        return GenerationSettings(mode, templates, budget, space, merged, sampling)

    def _own_template(self, name: str) -> Template:
        """The template that was asked for or that the checkpoint was trained with.

        A checkpoint may come from somebody else, so code that it alone names is not imported. Raises OptionError.
        """
        if self.template is None and is_spec(name) and not TEMPLATES.is_available(name):
            raise OptionError(
                f"template={name!r}: the checkpoint was trained with it, and nothing here has imported it; "
                f"give template={name}, or where it is now"
            )
        try:
            return load_template(name)
        except RegistryError as error:
            hint = "" if is_spec(name) else "; if a plugin registers it, name its file in plugins"
            raise OptionError(f"{error}{hint}") from error

    def _factor(self, config: Any) -> int:
        if self.patch_factor is not None:
            return self.patch_factor
        if config is None:
            raise OptionError(
                "patch_factor is not known: set pretrained to the checkpoint that is served, or patch_factor (28 for "
                "Qwen2.5-VL, 32 for Qwen3-VL) and coordinate_space"
            )
        return visual_factor(config)

    def _space(self, declared: str | None, config: Any) -> CoordinateSpace:
        if declared is not None:
            return CoordinateSpace.parse(declared)
        if config is None:
            raise OptionError(
                "coordinate_space is not known: set it to absolute or 0-1000, or set pretrained to the checkpoint that "
                "is served"
            )
        try:
            return find_family(config).space
        except EngineError as error:
            raise OptionError(f"coordinate_space: set it to absolute or 0-1000 ({error})") from error


@dataclass(frozen=True)
class GenerationSettings:
    """What every episode of an evaluation has in common."""

    mode: str
    templates: Templates
    budget: PixelBudget
    space: CoordinateSpace
    episode: EpisodeSettings
    sampling: SamplingOptions


def options_of(engine: str) -> list[Any]:
    """The dataclass fields that are options of an engine."""
    declared = [option for option in fields(ModelOptions) if option.name != "engine"]
    return [option for option in declared if engine in (option.metadata["engines"] or (engine,))]


def help_text(engine: str) -> str:
    """The options of an engine, a line each."""
    lines = []
    for option in options_of(engine):
        default = "" if option.default is None else f" [{option.default}]"
        lines.append(f"  {option.name:24}{option.metadata['help']}{default}")
    return "\n".join(lines)


def _unknown(name: str, known: Mapping[str, Any], engine: str) -> str:
    model = next(model for model, its in ENGINES.items() if its == engine)
    return f"{model} has no option {name!r}: {nearest(name, known)}"


def _typed(name: str, value: Any, kind: str) -> Any:
    """A value as lmms-eval parses it (1e6 is a float, 16 may be a text) in the option's own type."""
    try:
        if "Any" in kind:
            return json.loads(value) if isinstance(value, str) else dict(value)
        if "bool" in kind:
            if isinstance(value, bool):
                return value
            raise ValueError("true or false")
        if "int" in kind and not (kind.startswith("int | str") and value == "auto"):
            number = float(value)
            if isinstance(value, bool) or not number.is_integer():
                raise ValueError("a whole number")
            return int(number)
        if kind.startswith("float"):
            return float(value)
    except (ValueError, TypeError) as error:
        expected = "JSON" if "Any" in kind else "true or false" if "bool" in kind else f"an {kind.partition(' ')[0]}"
        expected = "a number" if kind.startswith("float") else expected
        raise OptionError(f"{name}={value!r}: give {expected} ({error})") from error
    return str(value) if kind.startswith("str") else value


def local_folder(name: str | None) -> Path | None:
    """The folder of a checkpoint that lies on this machine; None for a hub id."""
    if name is None:
        return None
    from mgpo_core.engines.loading import resolve_model

    folder = Path(resolve_model(name))
    return folder if folder.is_dir() else None
