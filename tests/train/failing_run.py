"""`mgpo-train` of which one process fails at its third step: `failing_run.py raise|kill RECIPE ...`. Not a test."""

from __future__ import annotations

import os
import signal
import sys

from mgpo_train.cli import main
from mgpo_train.trainer import MGPOTrainer

HOW = sys.argv.pop(1)
generate = MGPOTrainer._generate


def broken(self, prompts):
    if self.state.global_step == 2 and self.accelerator.process_index == 1:
        if HOW == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError("no space left on the device")
    return generate(self, prompts)


MGPOTrainer._generate = broken
sys.exit(main())
