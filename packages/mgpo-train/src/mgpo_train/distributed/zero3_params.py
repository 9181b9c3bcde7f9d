"""A model's parameters, whole on every process for a while, where ZeRO-3 has split them over the processes.

The rollout engine decodes until its own batch is done: processes take different numbers of forward passes, so none of
these may wait for the others' parts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def gather_zero3_params(model: Any) -> Iterator[None]:
    """Within it every process holds all of the model's parameters; nothing happens to a model that is not split.

    To be entered by all processes, and to read only. For a model that DeepSpeed does not train yet: of one that it
    does, TRL's `unwrap_model_for_generation` takes the hooks off as well.
    """
    split = [parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")]
    if not split:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(split):
        yield
