"""`mgpo-eval`, killed by SIGKILL in the middle: python dying_evaluation.py SAMPLES ARGUMENTS...

It dies when so many samples have been written, the next one half: no clock decides where.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from mgpo_eval.cli import main
from mgpo_eval.models import journal

append = journal.append_record
samples, arguments = int(sys.argv[1]), sys.argv[2:]
written = 0


def dying(path: Path, entry: journal.CompletedSample) -> None:
    global written
    before = path.stat().st_size if path.exists() else 0
    append(path, entry)
    if written == samples:
        os.truncate(path, (before + path.stat().st_size) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    written += 1


journal.append_record = dying  # type: ignore[assignment]
sys.exit(main(arguments))
