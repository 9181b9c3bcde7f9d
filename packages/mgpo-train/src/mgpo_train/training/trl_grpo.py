"""TRL's `GRPOTrainer` without vLLM, which TRL (1.16) imports wherever it is installed: ten seconds of every start.

Relies on `trl.import_utils.is_vllm_available` being asked while `trl.generation.vllm_client` and `vllm_generation` are
imported; tests/train/test_vllm_contract.py fails when that moves.
"""

from __future__ import annotations

import importlib
from typing import Any
from unittest import mock

_available = importlib.import_module("trl.import_utils")

with mock.patch.object(_available, "is_vllm_available", return_value=False):
    from trl import GRPOTrainer

__all__ = ["GRPOTrainer", "generation_with_vllm"]


def generation_with_vllm() -> Any:
    """The module `trl.generation.vllm_generation`, imported once more where it was imported without vLLM."""
    client = importlib.import_module("trl.generation.vllm_client")
    generation = importlib.import_module("trl.generation.vllm_generation")
    if not hasattr(generation, "LLM"):
        importlib.reload(client)
        generation = importlib.reload(generation)
    return generation
