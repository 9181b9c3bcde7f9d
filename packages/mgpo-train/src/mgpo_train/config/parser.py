"""Options of a YAML file and of the command line -> `MGPOConfig`, every one checked by the same parser."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser

from mgpo_core.messages.suggest import nearest
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.episode_options import leave_to_model
from mgpo_train.config.option_names import unknown_key, unknown_word
from mgpo_train.config.options import ConfigError, RunOptions, check_weights
from mgpo_train.config.recipes import METADATA, left_alone


class _OptionParser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        choice = re.fullmatch(r"argument --(\w+).*: invalid choice: (.*) \(choose from (.*)\)", message)
        if choice:
            name, value, known = choice.groups()
            hint = nearest(value.strip("'"), re.findall(r"[^', ]+", known)).replace("see --help", "see --help-all")
            raise ConfigError(f"{name}={value}: {hint}")
        raise ConfigError(message.removeprefix("argument "))


def option_parser() -> argparse.ArgumentParser:
    """argparse parser of every option, TRL's and transformers' included; both --learning_rate and --learning-rate."""
    made = _OptionParser(
        MGPOConfig,
        prog="mgpo-train",
        usage="mgpo-train RECIPE_OR_YAML [--option value ...]",
        allow_abbrev=False,
        add_help=False,
    )
    # argparse takes -1e-5 for an option
    made._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
    return made


def make_config(path: Path, options: Mapping[str, Any], arguments: Sequence[str]) -> tuple[MGPOConfig, dict[str, Any]]:
    """(configuration, options as given but for the hub's token): the YAML file's with the command line's on top.

    Raises ConfigError for an unknown option, naming the nearest one, and for a value of the wrong type.
    """
    options = {name.replace("-", "_"): value for name, value in options.items() if name not in METADATA}
    known = {field.name: field for field in dataclasses.fields(MGPOConfig) if field.init}
    for name in options:
        if name not in known:
            raise ConfigError(unknown_key(path, name, known))
    parser = option_parser()
    # only what was given is wanted back; the dataclass has the defaults (and no word on a command line parses to None)
    parser.set_defaults(**dict.fromkeys(known))
    for name, value in options.items():
        if isinstance(value, list) and not _takes_list(name):
            raise ConfigError(f"{path}: {name}={value!r:.60}: give one value, not a list")
    plain = {name: value for name, value in options.items() if _is_plain(known[name], value)}
    try:
        given = _not_none(parser.parse_args(_as_arguments(plain)))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    given |= {name: value for name, value in options.items() if name not in plain}
    parsed, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        raise ConfigError(unknown_word(unknown[0], known))
    words = _not_none(parsed)
    left = _left_to_model(path, given, words)
    given = {name: value for name, value in given.items() if name not in left} | words
    if given.get("resume_from_checkpoint"):
        raise ConfigError("resume_from_checkpoint: use --resume, which finds the last whole checkpoint in output_dir")
    config = MGPOConfig(**{"output_dir": f"outputs/{path.stem}", **given, **left})
    config.left_to_model = tuple(left)
    if config.method != "sft":
        check_weights(config.reward_weights, config.rewards or ())
    return config, {name: value for name, value in given.items() if name != "hub_token"}  # printed, and written down


def _left_to_model(path: Path, given: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """What a shipped recipe says about its own model, and nobody else about the run's, with its value."""
    recipe = left_alone(path) if path.is_file() else {}  # options from Python have no file
    options = {name: value for name, value in given.items() if name in recipe and name not in words}
    return leave_to_model(recipe, options, str(words.get("model", given.get("model", RunOptions.model))))


def _not_none(parsed: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(parsed).items() if value is not None}


def _is_plain(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether the parser can take the value; null, and a list for an option that is no list, go straight in."""
    return value is not None and not (isinstance(value, list) and not _is_list(field))


def _takes_list(name: str) -> bool:
    found = (vars(kind).get("__annotations__", {}).get(name) for kind in MGPOConfig.__mro__)
    return "list" in str(next((annotation for annotation in found if annotation is not None), ""))


def _is_list(field: dataclasses.Field[Any]) -> bool:
    # HfArgumentParser has replaced the annotation by the type by now, "list | None" by "list"
    return getattr(field.type, "__origin__", None) is list


def _as_arguments(options: Mapping[str, Any]) -> list[str]:
    """YAML values as command-line words, so that both go through one set of type checks."""
    words = []
    for name, value in options.items():
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)] if value else []
        elif isinstance(value, dict):
            words.append(f"--{name}={json.dumps(value)}")
        else:
            words.append(f"--{name}={value}")
    return words
