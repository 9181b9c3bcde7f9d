"""`mgpo-train` whose last process fails in a step: `failing_run.py raise|kill RECIPE ...`. Not a test.

FAIL_AFTER in the environment is the number of steps that it finishes, 2 without it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import warm_imports  # noqa: F401  (spares DeepSpeed's build)

from mgpo_train.cli import main
from mgpo_train.training.grpo import MGPOTrainer

HOW, AFTER = sys.argv.pop(1), int(os.environ.get("FAIL_AFTER", "2"))
generate = MGPOTrainer._generate


def broken(self, prompts):
    last = self.accelerator.process_index == self.accelerator.num_processes - 1
    if self.state.global_step == AFTER and last:
        if HOW == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError("no space left on the device")
    return generate(self, prompts)


MGPOTrainer._generate = broken
sys.exit(main())
