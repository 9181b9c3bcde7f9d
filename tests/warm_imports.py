"""What the fork server of `warm_start.py` imports before it forks; nothing here may start a thread."""

from __future__ import annotations

import contextlib

with contextlib.suppress(ImportError):
    import deepspeed.ops

    # DeepSpeed would build its shared-memory reduction for CPUs first, which takes minutes; gloo does without
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
