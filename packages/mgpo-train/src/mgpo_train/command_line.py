"""Options of a YAML file and of the command line -> `MGPOConfig`, every one checked by the same parser."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser

from mgpo_core.suggest import SYNONYMS
from mgpo_train.config import MGPOConfig
from mgpo_train.options import ConfigError, nearest
from mgpo_train.recipe_files import METADATA

COMMANDS = ("resume", "dry_run", "list", "help", "help_all")
"""Names that are commands of `mgpo-train`, not options; here to be suggested when one is misspelt."""


class _OptionParser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message.removeprefix("argument "))


def option_parser() -> argparse.ArgumentParser:
    """argparse parser of every option, TRL's and transformers' included; both --learning_rate and --learning-rate."""
    return _OptionParser(
        MGPOConfig,
        prog="mgpo-train",
        usage="mgpo-train RECIPE_OR_YAML [--option value ...]",
        allow_abbrev=False,
        add_help=False,
    )


def make_config(path: Path, options: Mapping[str, Any], arguments: Sequence[str]) -> tuple[MGPOConfig, dict[str, Any]]:
    """(configuration, options as given but for the hub's token): the YAML file's with the command line's on top.

    Raises ConfigError for an unknown option, naming the nearest one, and for a value of the wrong type.
    """
    options = {name.replace("-", "_"): value for name, value in options.items() if name not in METADATA}
    known = {field.name: field for field in dataclasses.fields(MGPOConfig) if field.init}
    for name in options:
        if name not in known:
            raise ConfigError(f"{path}: unknown option {name!r}: {nearest(name, known)}")
    parser = option_parser()
    # only what was given is wanted back; the dataclass has the defaults (and no word on a command line parses to None)
    parser.set_defaults(**dict.fromkeys(known))
    plain = {name: value for name, value in options.items() if _is_plain(known[name], value)}
    try:
        given = _not_none(parser.parse_args(_as_arguments(plain)))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    given |= {name: value for name, value in options.items() if name not in plain}
    parsed, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        raise ConfigError(_unknown(unknown[0], known))
    given |= _not_none(parsed)
    if given.get("resume_from_checkpoint"):
        raise ConfigError("resume_from_checkpoint: use --resume, which finds the last whole checkpoint in output_dir")
    config = MGPOConfig(**{"output_dir": f"outputs/{path.stem}", **given})
    return config, {name: value for name, value in given.items() if name != "hub_token"}  # printed, and written down


def _not_none(parsed: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(parsed).items() if value is not None}


def _unknown(argument: str, known: Mapping[str, Any]) -> str:
    if not argument.startswith("-"):
        return f"unexpected argument {argument!r}: options are written --option value"
    name = argument.split("=")[0].lstrip("-").replace("-", "_")
    if name in ("devices", *SYNONYMS["devices"].split()):
        hint = (
            "accelerate launch --num_processes N -m mgpo_train starts a process for each; --dry-run takes --devices N"
        )
        return f"unknown option --{name}: {hint}"
    return f"unknown option --{name}: {nearest(name, [*known, *COMMANDS])} (see --help and --help-all)"


def _is_plain(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether the parser can take the value; null, and a list for an option that is no list, go straight in."""
    return value is not None and not (isinstance(value, list) and not _is_list(field))


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
