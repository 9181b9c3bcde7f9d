"""`mgpo-train haystack-base` and `haystack-multi-base`: options and folder, before torch is imported."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from mgpo_core.files.output_folder import OutputFolderError, expanded, open_output
from mgpo_core.messages.command_line import SuggestingParser
from mgpo_train.haystack.checkpoint_folder import OWNER

__all__ = ["base", "multi_base"]


def base(argv: Sequence[str] | None = None) -> int:
    """Command line of `mgpo-train haystack-base`."""
    parser = _parser("haystack-base", "Make haystack's base checkpoint from a seed (16 minutes on two cores).")
    parser.add_argument("--scenes", type=int, default=6000, help="scenes drawn for both stages")
    parser.add_argument("--vision_steps", "--vision-steps", type=int, default=1100)
    parser.add_argument("--language_steps", "--language-steps", type=int, default=3000)
    options = _parsed(parser, argv)
    settings = {name: getattr(options, name) for name in ("seed", "scenes", "vision_steps", "language_steps")}
    started = time.perf_counter()
    from mgpo_train.haystack.base import SETTINGS, make_base, write_checkpoint

    model, processor, figures = make_base(**settings)
    write_checkpoint(options.output_dir, model, processor, SETTINGS, settings, figures, started)
    return 0


def multi_base(argv: Sequence[str] | None = None) -> int:
    """Command line of `mgpo-train haystack-multi-base`."""
    parser = _parser(
        "haystack-multi-base", "Make the haystack checkpoint for several images from haystack:mgpo and a seed."
    )
    parser.add_argument("--scenes", type=int, default=8000, help="scenes drawn")
    parser.add_argument("--steps", type=int, default=3000)
    options = _parsed(parser, argv)
    settings = {name: getattr(options, name) for name in ("seed", "scenes", "steps")}
    started = time.perf_counter()
    from mgpo_train.haystack.base import write_checkpoint
    from mgpo_train.haystack.multi_base import SETTINGS, make_multi_base

    model, processor, figures = make_multi_base(**settings)
    write_checkpoint(options.output_dir, model, processor, SETTINGS, settings, figures, started)
    return 0


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = SuggestingParser(
        prog=f"mgpo-train {name}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output_dir", "--output-dir", type=expanded, default=Path(f"outputs/{name}"))
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that the command made there")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; OutputFolderError when the checkpoint must not be written where they say."""
    options = parser.parse_args(argv)
    record = open_output(options.output_dir, OWNER)
    if record is not None and not options.overwrite and record.data["wrote"]:
        raise OutputFolderError(
            f"output_dir={str(options.output_dir)!r} holds a checkpoint that this command made: replace it "
            "(--overwrite), or name another folder (--output_dir)"
        )
    if record is not None:
        record.refuse_in_the_way()
    return options
