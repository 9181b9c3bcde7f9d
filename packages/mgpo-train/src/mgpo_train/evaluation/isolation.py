"""What an evaluation in the middle of training must leave as it was, so that the steps after it stay the same.

lmms-eval (0.7.3) seeds the random generators of Python, numpy and torch; the `Accelerator` that it makes for itself
sets the gradient accumulation that all accelerators of a process share (accelerate 1.15) to one step.

Relies on `accelerate.state.GradientState` for that.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from accelerate.state import GradientState


@contextlib.contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Put back the random generators (of this process's GPU too) and the gradient accumulation afterwards."""
    accumulation = GradientState()
    kept, python, numpy = accumulation.plugin_kwargs, random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        accumulation.plugin_kwargs = kept
