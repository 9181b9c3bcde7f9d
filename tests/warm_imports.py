"""What the fork server of `warm_start.py` imports before it forks; nothing here may start a thread.

With WARM_VLLM in its environment that is vLLM too: `test_vllm.py` sets it for the server of its pytest process.
"""

from __future__ import annotations

import contextlib
import os

if os.environ.get("WARM_VLLM"):
    import vllm  # noqa: F401

with contextlib.suppress(ImportError):
    import deepspeed.ops

    # DeepSpeed would build its shared-memory reduction for CPUs first, which takes minutes; gloo does without
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
