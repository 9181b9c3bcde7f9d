"""Settings and fixtures that every test shares."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

# Before torch, transformers or matplotlib are imported; the processes that tests start inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
# No test may depend on a network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"

# DeepSpeed's operators: not in the home folder, where a run killed in the middle of a build may have left a lock.
os.environ["TORCH_EXTENSIONS_DIR"] = str(Path(sys.prefix) / "torch-extensions")

import hypothesis
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for patience.py

# Timings vary too much on shared machines for a deadline per example; in CI the same examples run every time.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed every global random generator, torch's too where a test module has imported it."""
    random.seed(0)
    np.random.seed(0)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of its own for the test, always with the same seed."""
    return np.random.default_rng(0)


def pytest_configure(config: pytest.Config) -> None:
    """Start one fork server for all processes of pytest-xdist, where slow tests are to run, while they collect."""
    everything = not config.option.markexpr and "PYTEST_XDIST_WORKER" not in os.environ
    if everything and getattr(config.option, "numprocesses", None):
        import warm_start

        warm_start.start_server()


LONGEST_FIRST = (
    "test_vllm.py",
    "test_back_ends.py",
    "test_evaluation.py",
    "test_resume.py",
    "test_distributed.py",
    "test_resume_distributed.py",
    "test_stock_tasks.py",
    "test_haystack.py",
    "test_periodic_evaluation.py",
    "test_lora.py",
    "test_photographs.py",
    "test_visitors_at_once.py",
    "test_browser.py",
)
"""Files of minutes: begun first, so that no process of pytest-xdist ends alone on one of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; skip the tests marked `gpu` where there is no CUDA device."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    needing_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not needing_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
