"""What the fork server of `warm_start.py` imports before it forks; nothing here may start a thread."""

from __future__ import annotations

import contextlib
import importlib
import os

# jemalloc, which pyarrow would use, has a thread
os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

with contextlib.suppress(ImportError):
    import vllm.utils.system_utils
    from warm_start import SpawnContext

    # on CPUs vLLM spawns two processes for every engine, which would import it again; first, as others copy the name
    vllm.utils.system_utils.get_mp_context = SpawnContext

with contextlib.suppress(ImportError):
    import deepspeed.ops

    # DeepSpeed would build its shared-memory reduction for CPUs first, which takes minutes; gloo does without
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

for name in (
    "mgpo_train.training.grpo",
    "lmms_eval.evaluator",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.worker.cpu_worker",
    "gradio",
):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
