"""The command `mgpo-eval report`: a page on what lmms-eval wrote."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mgpo_core.errors import MGPOError
from mgpo_core.messages.command_line import SuggestingParser

EXAMPLES = """\
examples:
  mgpo-eval report outputs/eval                 all that is in the folder, as one page: outputs/eval/report.html
  mgpo-eval report outputs/single_turn outputs/two_turn --output compare.html
                                                two turns against a single turn, sample by sample, in whatever
                                                order the folders are named
  mgpo-eval report outputs/eval --tasks vstar_bench --samples 500
                                                one task, more trajectories to browse
  mgpo-eval report outputs/eval --runs B,A      of several runs in a folder these two, by the letters that
                                                the page gives them: what A adds to B

The baseline, with which the others are compared: --baseline, else the first of --runs, else the weights that training
started from, else mode=single_turn, else the run that is named first. The page and the last line but one of the output
name it.

A folder is what lmms-eval had as --output_path, with --log_samples; mgpo-eval sets both by itself:
  mgpo-eval --model mgpo --model_args pretrained=haystack:mgpo --tasks haystack
"""


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = SuggestingParser(
        prog="mgpo-eval report",
        description=(
            "Write one HTML page on what lmms-eval wrote: every score with its 95% interval, the settings\n"
            "behind it, where the model looked; two runs sample by sample, with a paired test. The page\n"
            "needs no network."
        ),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="RESULTS_DIR",
        help="output folder of lmms-eval",
    )
    parser.add_argument("--output", type=Path, metavar="PAGE", help="where to write [RESULTS_DIR/report.html]")
    parser.add_argument("--tasks", default="", metavar="a,b", help="only these tasks [all]")
    parser.add_argument(
        "--samples", type=int, default=200, metavar="N", help="most samples to browse; scores are over all [200]"
    )
    parser.add_argument(
        "--runs",
        default="",
        metavar="A,B",
        help="only these runs, the first as the baseline: letter, name, id, date or folder [all]",
    )
    parser.add_argument(
        "--baseline", metavar="RUN", help="the run that the others are compared with, named as in --runs"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 2 when something was refused (the reason goes to stderr)."""
    arguments = make_parser().parse_args(argv)
    from mgpo_eval.report.page import write_results_report  # --help does without

    page = arguments.output or arguments.folders[0] / "report.html"
    try:
        write_results_report(
            arguments.folders,
            page,
            samples=arguments.samples,
            tasks=_words(arguments.tasks),
            runs=_words(arguments.runs),
            baseline=arguments.baseline,
            tell=print,
        )
    except (MGPOError, OSError) as error:
        print(f"mgpo-eval report: error: {error}", file=sys.stderr)
        return 2
    print(page)
    return 0


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]
