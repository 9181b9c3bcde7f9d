"""Command lines: an unknown option gets a suggestion, and a reader that leaves early is no error."""

from __future__ import annotations

import subprocess
import sys

import pytest
from patience import HANG

from mgpo_core.messages.command_line import SuggestingParser


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vision-step", "3", "--sed=4"], "made: error: unknown option --sed: did you mean 'seed'?"),
        (["--lr", "1e-4"], "unknown option --lr: known are seed, vision_steps\n"),
        (["more"], "unexpected 'more'"),
    ],
)
def test_an_unknown_option_gets_a_suggestion(words: list[str], message: str, capsys) -> None:
    parser = SuggestingParser("made")
    parser.add_argument("--vision_steps", "--vision-steps", type=int)
    parser.add_argument("--seed", type=int)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(words)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error() -> None:
    code = (
        "from mgpo_core.messages.command_line import reader_may_leave\n"
        "with reader_may_leave():\n"
        "    print('first', flush=True)\n"
        "    for _ in range(100_000): print('more')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"first\n"
        process.stdout.close()
        assert process.wait(HANG) == 0 and process.stderr.read() == b""
