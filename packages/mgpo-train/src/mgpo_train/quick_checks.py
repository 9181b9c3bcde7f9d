"""What can be refused before torch is imported: the folder, names and numbers of a few options, missing files.

The options are read here only as far as these checks need it; `command_line.make_config` reads all of them, and what
cannot be read here is reported there.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mgpo_core.engines.loading import resolve_model
from mgpo_core.errors import RegistryError
from mgpo_core.files.output_folder import expanded
from mgpo_core.messages.suggest import check_words
from mgpo_core.templates.registry import load_template
from mgpo_train.config.data_spec import DataSpec
from mgpo_train.config.option_names import SWITCHES, option_names, option_of, unknown_key, unknown_word
from mgpo_train.config.options import (
    DEFAULT_REWARDS,
    WORDS,
    ConfigError,
    RunOptions,
    check_groups,
    check_output_dir,
    import_named_plugins,
)
from mgpo_train.config.recipes import METADATA
from mgpo_train.data.formats import LAYOUTS
from mgpo_train.data.tables import refuse_missing
from mgpo_train.output.folder import check_folder, check_resume_quickly
from mgpo_train.rewards import check_names

_LISTS = ("rewards", "freeze", "plugins")
_DATA = ("train_data", "eval_data", "eval_ood_data")
_NUMBERS = ("num_generations", "per_device_train_batch_size", "gradient_accumulation_steps")
_UPSTREAM = ("generation_batch_size", "steps_per_generation")
_READ = (*WORDS, "plugins", "template", "model", "output_dir", "overwrite", "rewards", *_DATA, *_NUMBERS, *_UPSTREAM)


def check_quickly(path: Path, options: Mapping[str, Any], arguments: Sequence[str], *, resume: bool, dry: bool) -> None:
    """Raise what `make_config` and `run` would raise much later, as far as it takes no torch to know.

    `options` are those of the recipe at `path`, `arguments` the words behind it. A dry run (`dry`) writes nothing, and
    may do without model and data.
    """
    asked, others = _read(options, arguments)
    _check_names(path, options, others)
    if asked is None:
        return  # a word that cannot be read, as the parser of all options tells
    check_words(asked, {name: words for name, words in WORDS.items() if name in asked}, ConfigError)
    if isinstance(asked["plugins"], list):
        import_named_plugins(asked["plugins"])
    _check_registered(asked)
    if all(asked[name] is None for name in _UPSTREAM):
        with _not_a_number():
            group, rows, accumulation = (int(asked[name]) for name in _NUMBERS)
            check_groups(asked["method"], group, rows, accumulation, _processes())
    if dry:
        return
    if isinstance(asked["model"], str) and asked["model"]:
        resolve_model(asked["model"])
    for spec in _data_specs(asked):
        refuse_missing(spec)
    check_output_dir(asked["output_dir"])
    out = expanded(str(asked["output_dir"] or f"outputs/{path.stem}"))  # as transformers does
    check_folder(out, resume=resume, overwrite=bool(asked["overwrite"]))
    if resume:
        lists = [asked[name] for name in ("rewards", "plugins") if isinstance(asked[name], list)]
        specs = [*itertools.chain(*lists), asked["template"]]
        check_resume_quickly(out, _words(arguments), [spec for spec in specs if isinstance(spec, str)])


def _check_registered(asked: Mapping[str, Any]) -> None:
    """Refuse rewards, templates and layouts that do not exist; files that define some are imported."""
    rewards = asked["rewards"] or DEFAULT_REWARDS.get(asked["method"], ["accuracy"])
    try:
        if isinstance(rewards, list):
            check_names(rewards)
        if isinstance(asked["template"], str) and asked["template"]:
            load_template(asked["template"])
        for spec in _data_specs(asked):
            if spec.schema is not None:
                LAYOUTS.get(spec.schema)
    except RegistryError as error:
        raise ConfigError(str(error)) from error


def _data_specs(asked: Mapping[str, Any]) -> list[DataSpec]:
    given = [asked[name] for name in _DATA]
    return [DataSpec.parse(one) for one in given if one and one != "none" and not str(one).lstrip().startswith("{")]


class _UnreadableError(Exception):
    """A command line that the parser of all options will refuse."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UnreadableError(message)


def _check_names(path: Path, options: Mapping[str, Any], words: Sequence[str]) -> None:
    """Refuse options that do not exist, in the recipe and on the command line."""
    known = option_names()
    if not known:
        return
    for name in options:
        plain = name.replace("-", "_")
        if plain not in known and plain not in METADATA:
            raise ConfigError(unknown_key(path, plain, sorted(known)))
    for word in words:
        name = option_of(word)
        if word.startswith("--") and name not in known and name.removeprefix("no_") not in known:
            raise ConfigError(unknown_word(word, sorted(known)))


def _read(options: Mapping[str, Any], arguments: Sequence[str]) -> tuple[dict[str, Any] | None, list[str]]:
    """(the options that the checks need, None where they cannot be read; the words that are none of these)."""
    parser = _Parser(add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS)
    for name in _READ:
        kind: dict[str, Any] = {"nargs": "+"} if name in _LISTS else {}
        if name == "overwrite":
            kind = {"nargs": "?", "const": "true", "type": _boolean}
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest=name, **kind)
    try:
        parsed, others = parser.parse_known_args(list(arguments))
    except (_UnreadableError, argparse.ArgumentError):
        return None, []
    defaults = {name: getattr(RunOptions(), name, None) for name in _READ}
    recipe = {name.replace("-", "_"): value for name, value in options.items()}
    return defaults | {name: value for name, value in recipe.items() if name in _READ} | vars(parsed), others


def _words(arguments: Sequence[str]) -> dict[str, str]:
    """The options on a command line that have one value each, with it; the last one of a name counts."""
    found: dict[str, list[str]] = {}
    values: list[str] = []
    for word in arguments:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            values = found[option_of(name)] = [value] if equals else []
        else:
            values.append(word)
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _boolean(text: str) -> bool:
    if text.lower() not in SWITCHES:
        raise _UnreadableError(text)
    return SWITCHES[text.lower()]


@contextlib.contextmanager
def _not_a_number() -> Iterator[None]:
    """Leave it to the parser of all options to say that a value is not a number."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
