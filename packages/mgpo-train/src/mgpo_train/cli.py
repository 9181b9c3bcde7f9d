"""The command `mgpo-train`. Heavy imports wait until a run needs them, so that --help and --list answer at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mgpo_core.errors import MGPOError
from mgpo_core.messages.command_line import reader_may_leave
from mgpo_train.config import recipes
from mgpo_train.config.options import ConfigError, grouped_fields
from mgpo_train.config.user_errors import disk_failure
from mgpo_train.distributed.sharding_plan import PLANS
from mgpo_train.sizing.hardware import GPUS, read_hardware

FLAGS = ("--resume", "--dry-run", "--dry_run", "--list", "--help", "-h", "--help-all", "--help_all")

COMMANDS = {
    "build-reasoning-data": "mgpo_train.reasoning_data.build:main",
    "haystack-base": "mgpo_train.haystack.commands:base",
    "haystack-multi-base": "mgpo_train.haystack.commands:multi_base",
    "upload": "mgpo_train.output.publishing:main",
}
"""Commands beside runs, with the functions that they are."""
RENAMED = {"build-trajectories": "build-reasoning-data"}
"""Earlier names of commands, which still work."""

MACHINE = {
    "accelerate": "with --dry-run: size for this accelerate configuration (a shipped one by name, or a YAML file)",
    "devices": "with --dry-run: size for this number of devices",
    "gpu": f"with --dry-run: size for this device ({', '.join(GPUS)})",
    "response_tokens": "with --dry-run: tokens of a typical response, for the estimate of time [256]",
}

EXAMPLES = """\
examples:
  mgpo-train haystack-mgpo                                     the whole method in minutes on a CPU
  mgpo-train haystack-mgpo --seed 1 --output_dir outputs/seed1 --resume
                                                               resume an interrupted run
  mgpo-train photos --train_data my_photos/samples.jsonl --model Qwen/Qwen2.5-VL-3B-Instruct --dry-run
                                                               your own images: check and size the run first

  mgpo-train build-reasoning-data --help                       reasoning traces for several images
  mgpo-train haystack-base --help                              train haystack's base checkpoint again
  mgpo-train haystack-multi-base --help                        the same for the checkpoint of several images
  mgpo-train upload outputs/mine/model OWNER/NAME              a saved model to the Hugging Face hub
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 2 when something was refused (the reason goes to stderr)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except (ConfigError, MGPOError) as error:
        print(f"mgpo-train: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        told = str(error) or "interrupted before the run began: give the same command again"
        print(f"mgpo-train: {told}", file=sys.stderr)
        return 130
    except Exception as error:
        failure = disk_failure(error)
        if failure is None:
            raise
        print(f"mgpo-train: error: {failure}", file=sys.stderr)
        return 2


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in RENAMED:
        old, new = arguments[0], RENAMED[arguments[0]]
        print(f"mgpo-train: warning: {old} has been renamed: use {new}", file=sys.stderr)
        arguments = [new, *arguments[1:]]
    if arguments and arguments[0] in COMMANDS:
        module, _, function = COMMANDS[arguments[0]].partition(":")
        try:
            return int(getattr(import_module(module), function)(arguments[1:]))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted: give the same command again") from None
    flags = {flag.lstrip("-").replace("-", "_") for flag in arguments if flag in FLAGS}
    rest = [argument for argument in arguments if argument not in FLAGS]
    if not arguments or flags & {"help", "h"}:
        with reader_may_leave():
            help_parser().print_help()
    elif "help_all" in flags:
        from mgpo_train.config.parser import option_parser

        with reader_may_leave():
            option_parser().print_help()
    elif "list" in flags:
        with reader_may_leave():
            _print_list()
    elif not rest or rest[0].startswith("-"):
        raise ConfigError(f"name a recipe or a YAML file first: one of {', '.join(recipes.names())}")
    else:
        return _start(rest[0], rest[1:], resume="resume" in flags, dry_run="dry_run" in flags)
    return 0


def _start(recipe: str, arguments: list[str], *, resume: bool, dry_run: bool) -> int:
    path = recipes.find(recipe)
    options = recipes.read(path)  # before torch is imported: a typing error should not take seconds
    asked, arguments = _machine_words(arguments) if dry_run else ({}, arguments)
    from mgpo_train.output.folder import what_is_left
    from mgpo_train.quick_checks import check_quickly

    check_quickly(path, options, arguments, resume=resume, dry=dry_run)
    from mgpo_train.config.parser import make_config

    config, overrides = make_config(path, options, arguments)
    if dry_run:
        from mgpo_train.sizing.dry_run import print_dry_run

        print_dry_run(config, overrides, read_hardware(options.get("machine") or {}, asked))
        return 0
    from mgpo_train.distributed.rank_failure import fail_fast
    from mgpo_train.run import run

    def left() -> str:
        return what_is_left(Path(str(config.output_dir)))

    try:
        with fail_fast(left):
            run(config, resume=resume, overrides=overrides)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(left()) from None
    return 0


def _machine_words(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """(what --dry-run is to size for, the other arguments)."""
    parser = argparse.ArgumentParser(prog="mgpo-train", add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in MACHINE:
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest=name)
    try:
        asked, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from error
    return {name: value for name, value in vars(asked).items() if value is not None}, rest


def _print_list() -> None:
    width = max(len(name) for name in recipes.names())
    for name in recipes.names():
        print(f"{name.ljust(width)}  {recipes.description(recipes.find(name))}")
    print(f"\naccelerate configurations (accelerate launch --config_file FILE -m mgpo_train ...): {PLANS}")


def help_parser() -> argparse.ArgumentParser:
    """What --help prints: this project's options by group; the parser is for printing only."""
    parser = argparse.ArgumentParser(
        prog="mgpo-train",
        usage="mgpo-train RECIPE_OR_YAML [--option value ...] [--resume | --dry-run]",
        description="Train a model to look closer before it answers: MGPO, its GRPO and SFT baselines, and MIRG-RL.",
        epilog=EXAMPLES,
        formatter_class=_HelpFormatter,
        add_help=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("RECIPE_OR_YAML", help="a recipe by name (see --list) or a YAML file with the options below")
    general = parser.add_argument_group("Command")
    general.add_argument("--list", action="store_true", help="list the recipes")
    general.add_argument(
        "--dry-run", action="store_true", help="print the resolved options, check the data, size the run"
    )
    for name, text in MACHINE.items():
        general.add_argument(f"--{name}", metavar="", help=text)
    general.add_argument("--resume", action="store_true", help="continue from the last checkpoint in output_dir")
    general.add_argument("-h", "--help", action="store_true", help="print this")
    general.add_argument("--help-all", action="store_true", help="print TRL's and transformers' options too (some 200)")
    for title, options in grouped_fields().items():
        group = parser.add_argument_group(title)
        for option in options:
            group.add_argument(f"--{option.name}", metavar="", help=option.metadata["help"] + _default_text(option))
    return parser


def _default_text(option: Any) -> str:
    value = option.default_factory() if callable(option.default_factory) else option.default
    if value is None or "Default" in option.metadata["help"]:
        return ""
    return f" [{' '.join(map(str, value)) or 'none'}]" if isinstance(value, list) else f" [{value}]"


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=116)
