"""`mgpo-eval`, killed by SIGKILL in the middle: python dying_evaluation.py SAMPLES ARGUMENTS...

It dies when so many samples have been written, the next one half: no clock decides where.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from mgpo_eval.cli import main
from mgpo_eval.journal import Journal

append = Journal._append
samples, arguments = int(sys.argv[1]), sys.argv[2:]
written = 0


def dying(journal: Journal, line: bytes) -> Any:
    global written
    if written == samples:
        append(journal, line[: len(line) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    written += 1
    return append(journal, line)


Journal._append = dying  # type: ignore[method-assign]
sys.exit(main(arguments))
