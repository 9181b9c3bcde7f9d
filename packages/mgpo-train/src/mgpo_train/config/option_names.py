"""The names of all options before torch is imported: TRL's and transformers' are read from their source."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mgpo_core.messages.suggest import SYNONYMS, nearest
from mgpo_train.config.options import RunOptions

COMMANDS = ("resume", "dry_run", "list", "help", "help_all")
"""Names that are commands of `mgpo-train`, not options; here to be suggested when one is misspelt."""

SWITCHES = dict.fromkeys(("true", "yes", "t", "y", "1"), True) | dict.fromkeys(("false", "no", "f", "n", "0"), False)
"""The words for on and off, as transformers reads them."""

_UPSTREAM = (
    ("trl", "trainer/grpo_config.py", "GRPOConfig"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("transformers", "training_args.py", "TrainingArguments"),
)


@cache
def option_names() -> frozenset[str]:
    """The names of `MGPOConfig`'s options; empty where the source of TRL or transformers is not where it was."""
    try:
        upstream = {name for source in _UPSTREAM for name in _fields(*source)}
    except (OSError, SyntaxError, StopIteration):
        return frozenset()
    return frozenset(upstream | {option.name for option in fields(RunOptions) if option.init})


def unknown_word(argument: str, known: Collection[str]) -> str:
    """The error message for a command-line word that is an unknown option or an unexpected argument."""
    if not argument.startswith("-"):
        return f"unexpected argument {argument!r}: options are written --option value"
    name = option_of(argument)
    if name.rpartition(".")[2] in ("devices", *SYNONYMS["devices"]):
        hint = (
            "accelerate launch --num_processes N -m mgpo_train starts a process for each; --dry-run takes --devices N"
        )
        return f"unknown option --{name}: {hint}"
    hint = nearest(name, [*known, *COMMANDS])
    return f"unknown option --{name}: {hint if 'see --help' in hint else hint + ' (see --help and --help-all)'}"


def unknown_key(path: Path, name: str, known: Collection[str]) -> str:
    """The error message for an unknown option in a YAML file."""
    return f"{path}: unknown option {name!r}: {nearest(name, known)}"


def option_of(argument: str) -> str:
    """The name in `--learning-rate=1e-5`: `learning_rate`."""
    return argument.split("=")[0].lstrip("-").replace("-", "_")


def _fields(package: str, file: str, name: str) -> Iterator[str]:
    """The fields of a dataclass, by its source: annotated names, private and class variables aside."""
    found = find_spec(package)
    if found is None or found.origin is None:
        raise FileNotFoundError(package)
    tree = ast.parse((Path(found.origin).parent / file).read_text("utf-8"))
    made = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    for node in made.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id[0] != "_":
            yield node.target.id
