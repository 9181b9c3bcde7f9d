"""`mgpo-train build-reasoning-data`: traces for MIRG's supervised stage, written, verified, kept or dropped."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.errors import SampleError
from mgpo_core.files.output_folder import expanded
from mgpo_core.images.budget import PixelBudget
from mgpo_core.messages.command_line import SuggestingParser
from mgpo_train.config.options import ConfigError
from mgpo_train.reasoning_data.outcomes import Outcome, rule_outcomes, teacher_outcomes
from mgpo_train.reasoning_data.output import DROPPED, JOURNAL, TRACES, OutputFolder
from mgpo_train.reasoning_data.readers import Annotations, AnnotationSource, read_annotations
from mgpo_train.reasoning_data.readers.source import ON_BAD_RECORD
from mgpo_train.reasoning_data.teacher.client import Teacher, TeacherOptions
from mgpo_train.reasoning_data.teacher.journal import ReplyJournal
from mgpo_train.reasoning_data.verifier import Verifier
from mgpo_train.reasoning_data.writers import WORDING_STYLES

__all__ = ["main"]

WRITERS = ("rules", "teacher")
_MIN_IOU = {"rules": 0.9, "teacher": 0.7}

_EXAMPLES = """\
examples:
  mgpo-train build-reasoning-data "haystack_multi:train?n=200&images=3" --output outputs/reasoning --wording varied
                                         synthetic images, nothing to download
  mgpo-train build-reasoning-data sets.jsonl --output outputs/reasoning
                                         your own annotated sets (the schema: docs/reasoning-data.md)
  mgpo-train build-reasoning-data instances_val2017.json --images val2017 --n 5000 --output outputs/reasoning
                                         sets of three images, with questions that COCO's boxes answer
  mgpo-train build-reasoning-data sets.jsonl --output outputs/taught --writer teacher \\
      --teacher-url http://localhost:8000 --teacher-model Qwen/Qwen2.5-VL-72B-Instruct --attempts 3
                                         the reasoning of a model behind an OpenAI-compatible server

Run the same command again to resume after a stop: a teacher is asked nothing twice.
The result is training data: train_data: outputs/reasoning/sft_traces.jsonl"""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `mgpo-train build-reasoning-data`; raises SampleError, ConfigError and EngineError."""
    options = _parser().parse_args(argv)
    _check(options)
    source = AnnotationSource(
        input=options.input,
        images=options.images,
        n=options.n,
        seed=options.seed,
        set_images=options.set_images,
        tasks=options.tasks,
        on_bad_record=options.on_bad_record,
    )
    settings = {name: value for name, value in vars(options).items() if name not in ("output", "overwrite")}
    folder = OutputFolder(options.output, settings, overwrite=options.overwrite)
    read = read_annotations(source)
    folder.start()
    with folder.recording():
        outcomes = _outcomes(options, read, folder.path)
        report = folder.write(tqdm(outcomes, "traces", len(read.sets), mininterval=1, disable=None), read)
    print(_summary(report, folder.path))
    if not report["kept"]:
        reasons = ", ".join(report["dropped_by_reason"])
        told = f"none of the {report['sets']} traces passed the verifier ({reasons})"
        raise SampleError(f"{told}: look at {folder.path / DROPPED}")
    return 0


def _outcomes(options: argparse.Namespace, read: Annotations, folder: Path) -> Iterable[Outcome]:
    space = CoordinateSpace.parse(options.coordinate_space)
    budget = PixelBudget(min_pixels=options.min_pixels, max_pixels=options.max_pixels)
    verifier = Verifier(budget, space, options.min_iou)
    if options.writer == "rules":
        return rule_outcomes(read.sets, verifier, wording=options.wording, seed=options.seed)
    asked = TeacherOptions(
        options.teacher_url,
        options.teacher_model,
        shows_images=options.teacher_images,
        concurrency=options.concurrency,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
    )
    journal = ReplyJournal(folder / JOURNAL)
    if journal.broken:
        print(f"{journal.path}: {journal.broken} lines were cut short; those replies are asked for again")
    teacher = Teacher(asked, journal, budget=budget, space=space)
    return teacher_outcomes(read.sets, verifier, teacher, attempts=options.attempts, progress=True)


def _check(options: argparse.Namespace) -> None:
    """Fill in the defaults that depend on the writer; raise ConfigError for invalid options."""
    options.min_iou = _MIN_IOU[options.writer] if options.min_iou is None else options.min_iou
    if not 0 < options.min_iou <= 1:
        raise ConfigError(f"--min-iou {options.min_iou}: give a number over 0 and up to 1")
    for name in ("attempts", "concurrency", "max_new_tokens"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(options, name)}: give a positive whole number")
    if options.temperature < 0:
        raise ConfigError(f"--temperature {options.temperature}: give 0 or more")
    if options.attempts > 1 and options.temperature == 0:
        raise ConfigError("--attempts over 1 with --temperature 0 asks the same again: give a temperature over 0")
    missing = [name for name in ("teacher_url", "teacher_model") if getattr(options, name) is None]
    if options.writer == "teacher" and missing:
        raise ConfigError(f"--writer teacher needs --{missing[0].replace('_', '-')}")
    try:
        PixelBudget(min_pixels=options.min_pixels, max_pixels=options.max_pixels)
    except ValueError as error:
        raise ConfigError(f"--min-pixels, --max-pixels: {error}") from error


def _summary(report: dict[str, Any], folder: Path) -> str:
    lines = [f"kept {report['kept']} of {report['sets']} traces: {folder / TRACES}"]
    parts = {"by task": "kept_by_task", "dropped": "dropped_by_reason", "left out while reading": "left_out_by_reason"}
    for title, name in parts.items():
        if report[name]:
            lines.append(f"  {title}: {', '.join(f'{key} {count}' for key, count in report[name].items())}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = SuggestingParser(
        prog="mgpo-train build-reasoning-data",
        usage="%(prog)s INPUT --output FOLDER [options]",
        description="Write reasoning traces from annotated sets of images, verify each against the annotations,\n"
        "and keep those without a problem, as training data for the supervised stage.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("input", metavar="INPUT", help="a .jsonl file of annotated sets, COCO's .json, or haystack_multi:SPLIT?n=..")
    add("--output", type=expanded, required=True, metavar="FOLDER", help="where traces, images and report go")
    add("--overwrite", action="store_true", help="replace a build with other settings in that folder")
    _add_reading(parser.add_argument_group("reading"))
    _add_writing(parser.add_argument_group("writing"))
    _add_teacher(parser.add_argument_group("teacher (needs the extra openai of mgpo-core)"))
    _add_verifying(parser.add_argument_group("verifying"))
    return parser


def _add_reading(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--images", metavar="FOLDER", help="what image paths are relative to [the file's folder]")
    group.add_argument("--n", type=int, metavar="N", help="at most N sets [all]")
    group.add_argument("--set-images", type=int, default=3, metavar="K", help="COCO: images of a set [3]")
    group.add_argument("--tasks", metavar="NAMES", help="COCO: group_grounding,common_object [both]")
    group.add_argument(
        "--on-bad-record", choices=ON_BAD_RECORD, default="error", help="stop at a bad line, or leave it out [error]"
    )


def _add_writing(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--writer", choices=WRITERS, default="rules", help="who writes the reasoning [rules]")
    group.add_argument("--wording", choices=WORDING_STYLES, default="terse", help="rules: how they say it [terse]")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of wordings, of COCO's sets, of sampling [0]")


def _add_teacher(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--teacher-url", metavar="URL", help="the server, as in http://localhost:8000")
    group.add_argument("--teacher-model", metavar="NAME", help="the name that the server knows the model by")
    group.add_argument("--teacher-images", action="store_true", help="show it the images, beside their annotations")
    group.add_argument("--concurrency", type=int, default=16, metavar="N", help="requests at a time [16]")
    group.add_argument("--attempts", type=int, default=1, metavar="N", help="replies per set until one passes [1]")
    group.add_argument("--temperature", type=float, default=0.7, metavar="T", help="of its sampling [0.7]")
    group.add_argument("--max-new-tokens", type=int, default=1024, metavar="N", help="of one reply [1024]")


def _add_verifying(group: argparse._ArgumentGroup) -> None:
    budget = PixelBudget()
    spaces = [space.value for space in CoordinateSpace]
    group.add_argument(
        "--min-iou", type=float, metavar="X", help="overlap from which a box is right [rules 0.9, teacher 0.7]"
    )
    for name, value in (("min", budget.min_pixels), ("max", budget.max_pixels)):
        group.add_argument(
            f"--{name}-pixels", type=int, default=value, metavar="N", help=f"of an image as the model sees it [{value}]"
        )
    group.add_argument("--coordinate-space", choices=spaces, default=spaces[0], help=f"of boxes in texts [{spaces[0]}]")


if __name__ == "__main__":
    raise SystemExit(main())
