"""What vLLM does on GPUs alone: sleep mode, bfloat16, weights over NCCL; skipped where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from patience import HANG

from mgpo_train.output.metrics import METRICS_FILE, read_metrics

sys.path.insert(0, str(Path(__file__).parent))
from launching import serving

pytestmark = pytest.mark.gpu

STEPS = ["--max_steps", "3", "--warmup_steps", "0", "--eval_samples", "0", "--progress", "false"]


def train(out: Path, *options: str, devices: str) -> list[dict[str, float]]:
    """Three steps of haystack-mgpo in a process of their own; the rows of its log."""
    finished = subprocess.run(
        [sys.executable, "-m", "mgpo_train", "haystack-mgpo", *STEPS, "--output_dir", str(out), *options],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": devices, "VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-6000:]
    return list(read_metrics(out / METRICS_FILE))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_colocated_vllm_sleeps_during_the_update_and_sees_the_same_policy(tmp_path, precision):
    bf16 = str(precision == "bfloat16").lower()
    rows = train(
        tmp_path / "run",
        *("--use_vllm", "true", "--vllm_enable_sleep_mode", "true", "--vllm_gpu_memory_utilization", "0.3"),
        *("--vllm_max_model_length", "1024", "--bf16", bf16),
        devices="0",
    )
    limit = 0.08 if precision == "bfloat16" else 1e-3
    assert len(rows) == 3
    assert all(0 < row[f"logprob_gap/turn{turn}"] < limit for row in rows for turn in (1, 2))
    assert all(row["prefix_cache_hit_rate/turn2"] > 0.3 for row in rows)


@pytest.fixture
def server(tmp_path):
    """The address of a vLLM server on the second GPU that takes weights over NCCL."""
    if torch.cuda.device_count() < 2:
        pytest.skip("NCCL wants a GPU for the server and another for the trainer")
    from mgpo_core import haystack

    flags = ["--enable-scale-out", "--logprobs-mode", "processed_logprobs", "--enable-prompt-tokens-details"]
    flags += ["--weight-transfer-config", '{"backend": "nccl"}', "--dtype", "float32", "--max-model-len", "1024"]
    command = ["vllm", "serve", str(haystack.checkpoint("base")), *flags]
    with serving(command, tmp_path / "serve.log", CUDA_VISIBLE_DEVICES="1") as (url, _):
        yield url


def test_weights_reach_the_server_over_nccl(tmp_path, server):
    rows = train(
        tmp_path / "run",
        *("--use_vllm", "true", "--vllm_mode", "server", "--vllm_server_base_url", server, "--bf16", "false"),
        *("--learning_rate", "1e-2"),  # weights that did not arrive would show
        devices="0",
    )
    assert len(rows) == 3 and all(row["grad_norm"] > 0 for row in rows)
    assert all(row[f"logprob_gap/turn{turn}"] < 1e-4 for row in rows for turn in (1, 2))
