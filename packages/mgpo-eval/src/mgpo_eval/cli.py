"""`mgpo-eval`: lmms-eval's command line with our tasks, a report, and an exit status that tells whether it worked.

Relies on lmms-eval 0.7.3: `cli.dispatch.main`, which reads `sys.argv`, and `evaluator.simple_evaluate`, whose errors it
swallows (it exits 0 after a failure and without results).
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgpo_core.errors import MGPOError
from mgpo_core.files.output_folder import expanded
from mgpo_core.messages.command_line import reader_may_leave
from mgpo_eval.failures import data_sets_told, in_one_line
from mgpo_eval.models.options import ENGINES, help_text
from mgpo_eval.output_path import check_output_path
from mgpo_eval.plugin import TASKS

OUTPUT = "outputs/eval"

HELP = """\
mgpo-eval: evaluate models that look closer, inside lmms-eval.

  mgpo-eval --model mgpo --model_args pretrained=haystack:mgpo --tasks haystack
  mgpo-eval --model mgpo --model_args pretrained=haystack:mgpo,mode=single_turn --tasks haystack --limit 64
  mgpo-eval --model mgpo --model_args pretrained=outputs/haystack-mirg-rl/model --tasks haystack_multi
  mgpo-eval --model mgpo --model_args pretrained=Qwen/Qwen2.5-VL-7B-Instruct --tasks vstar_bench,mgpo_vstar
  mgpo-eval --model mgpo_vllm --model_args pretrained=FOLDER,tensor_parallel_size=2 --tasks mgpo_hrbench4k
  mgpo-eval --model mgpo_openai --model_args pretrained=FOLDER,url=http://HOST:8000/v1 --tasks mig_bench
  mgpo-eval report outputs/eval [ANOTHER_FOLDER]     scores and trajectories as one page (--help tells more)
  mgpo-eval tasks                                    names of all tasks; those in mgpo-eval: {tasks}
  mgpo-eval eval --help                              every option of lmms-eval

Unlike lmms-eval's own command, by default this one writes to {output} and logs samples, takes
--batch_size auto as the default, and exits with a status other than 0 when anything failed or no result was written.
A run that was killed goes on where it stopped when the same command is given again.

--model_args of mgpo (transformers):
{mgpo}

--model_args of mgpo_vllm are those of mgpo but for batch_size, batch_tokens, batch_pixels and device, and:
{vllm}

--model_args of mgpo_openai, likewise:
{openai}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given in (["-h"], ["--help"]):
        with reader_may_leave():
            print(_help())
        return 0
    if given[0] == "report":
        from mgpo_eval.report.command import main as report

        return report(given[1:])
    if given[0] == "tasks":
        with reader_may_leave():
            return _dispatch([*given, *([] if "--include-path" in given else ["--include-path", str(TASKS)])])
    if given[0] == "eval" or given[0].startswith("-"):
        return _evaluate(given[1:] if given[0] == "eval" else given)
    return _dispatch(given)


def _help() -> str:
    common = set(help_text("transformers").splitlines())

    def own(engine: str) -> str:
        return "\n".join(line for line in help_text(engine).splitlines() if line not in common)

    tasks = ", ".join(sorted(path.stem for path in TASKS.glob("*.yaml")))
    return HELP.format(
        tasks=tasks, output=OUTPUT, mgpo=help_text("transformers"), vllm=own("vllm"), openai=own("openai")
    )


def _dispatch(arguments: Sequence[str]) -> int:
    from lmms_eval.cli.dispatch import main as lmms_eval

    sys.argv = ["lmms-eval", *arguments]
    lmms_eval()
    return 0


def _evaluate(arguments: Sequence[str]) -> int:
    """Run lmms-eval and say whether every evaluation came to its end and was written."""
    if "--help" in arguments or "-h" in arguments:
        return _dispatch(["eval", *arguments])
    given = with_defaults([_expanded(argument) for argument in arguments])
    if place := next(reversed(_given(given, "--output_path")), ""):
        try:
            check_output_path(Path(place))
        except MGPOError as error:
            print(f"mgpo-eval: error: {error}", file=sys.stderr)
            return 2
    from lmms_eval import evaluator

    failures: list[str] = []
    finished: list[Path | None] = []
    original = evaluator.simple_evaluate

    def watched(*args: Any, **options: Any) -> Any:
        try:
            results = original(*args, **options)
        except SystemExit:
            raise
        except BaseException as error:
            line = in_one_line(error)
            failures.append(f"{type(error).__name__}: {error}" if line is None else line)
            if line is not None and os.environ.get("VERBOSITY") != "DEBUG":
                raise SystemExit from error  # lmms-eval's command prints a traceback of everything else
            raise
        if results is not None:
            finished.append(_results_file(options.get("evaluation_tracker"), options.get("datetime_str", "")))
            failures.extend(_missing_scores(results))
        return results

    evaluator.simple_evaluate = watched
    try:
        with data_sets_told(failures):
            _dispatch(["eval", *given])
    except SystemExit as stop:  # lmms-eval leaves with None, that is 0, after a listing and after an error alike
        if stop.code not in (None, 0):
            raise
        if any(argument.startswith("list") for argument in _given(arguments, "--tasks")):
            return 0
    finally:
        evaluator.simple_evaluate = original
    return _verdict(failures, finished)


def with_defaults(arguments: Sequence[str]) -> list[str]:
    """The command line with what `mgpo-eval` adds to it where it says nothing."""
    named = {argument.partition("=")[0] for argument in arguments}
    added = [] if "--include_path" in named else ["--include_path", str(TASKS)]
    if named.isdisjoint({"--config", "--output_path"}):
        added += ["--output_path", OUTPUT]
    if named.isdisjoint({"--config", "--log_samples"}):
        added += ["--log_samples"]
    models = _given(arguments, "--model")
    if named.isdisjoint({"--batch_size", "-b"}) and models and models[-1] in ENGINES:
        added += ["--batch_size", "auto"]
    return [*arguments, *added]


def _expanded(argument: str) -> str:
    """`--output_path=~/folder` with the home folder that shells leave unread behind an equals sign."""
    option, equals, value = argument.partition("=")
    return f"{option}={expanded(value)}" if equals and option == "--output_path" else argument


def _given(arguments: Sequence[str], option: str) -> list[str]:
    """The values that an option is given, `--option value` or `--option=value`."""
    values = [right for left, right in itertools.pairwise(arguments) if left == option]
    return values + [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{option}=")]


def _results_file(tracker: Any, date: str) -> Path | None:
    """Where lmms-eval was to write the results; None where it was not to."""
    if tracker is None or not tracker.output_path:
        return None
    folder = Path(tracker.output_path) / tracker.general_config_tracker.model_name_sanitized
    return folder / f"{date.replace(':', '-')}_results.json"


def _missing_scores(results: Any) -> list[str]:
    """Tasks that came to their end without a single number."""
    return [
        f"{task}: no score"
        for task, scores in results.get("results", {}).items()
        if not any(isinstance(value, int | float) for name, value in scores.items() if name != "alias")
    ]


def _verdict(failures: Sequence[str], finished: Sequence[Path | None]) -> int:
    problems = list(failures)
    if int(os.environ.get("RANK", "0")) == 0:
        problems += [f"{path} was not written" for path in finished if path is not None and not path.is_file()]
        if not finished and not failures:
            problems.append("no result")
        for path in finished:
            if path is not None and path.is_file():
                print(f"\n{path}\nmgpo-eval report {path.parent.parent}    makes a page of it")
    for problem in problems:
        print(f"mgpo-eval: failed: {problem}", file=sys.stderr)
    return 1 if problems else 0
