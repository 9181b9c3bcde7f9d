"""Checkpoints of a run, recorded as they are written; only those that the run wrote are removed for newer ones.

transformers (5.17) removes every folder whose name begins with `checkpoint-` and a number, somebody's copy of one too.
Relies on `Trainer._save_checkpoint`, which reads `args.save_total_limit` for that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mgpo_core.files.output_folder import RUN_FILE
from mgpo_train.distributed.checkpoint_layout import checkpoint_step, is_whole
from mgpo_train.output.folder import checkpoints, own_record, writing


class OwnCheckpoints:
    """Mixin for a transformers `Trainer` that writes into the folder of a run; elsewhere it changes nothing."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        args, state = self.args, self.state  # type: ignore[attr-defined]
        out, main = Path(args.output_dir), args.process_index == 0
        in_run = (out / RUN_FILE).exists()
        limit = args.save_total_limit
        with writing(out, f"checkpoint-{state.global_step}", main=main, fresh=True):
            self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]
            args.save_total_limit = None if in_run else limit
            try:
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
            finally:
                args.save_total_limit = limit
        if main and in_run:
            rotate(out, state.global_step, limit)


def rotate(out: Path, step: int, limit: int | None) -> None:
    """Remove what the run wrote of older checkpoints than the newest `limit`, and of those that a kill cut short."""
    record = own_record(out)
    if record is None or limit is None or limit <= 0:
        return
    own = [path for path in checkpoints(out) if any(map(record.owns, record.files(path.name)))]
    stale = [path for path in own if checkpoint_step(path) > step and not is_whole(path)]
    older = [path for path in own if checkpoint_step(path) <= step][max(limit, 1) :]
    for path in (*stale, *older):
        record.remove(path.name)
