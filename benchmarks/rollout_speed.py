"""Two-turn rollouts a second: our engine against `generate` called twice, as written with transformers alone.

uv run benchmarks/rollout_speed.py [--model haystack:mgpo] [--samples 4] [--copies 8] [--rounds 5]

Both run the same groups (copies of the same samples, as in GRPO) at temperature 1 in one batch, side by side in one
process. `generate` encodes the whole conversation again for the second turn; ours computes a group's prompt once and
goes on from the first turn's key/value cache. Printed: medians over the rounds and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mgpo_core import Episode, haystack
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_core.engines.transformers.engine import TransformersEngine
from mgpo_core.templates.base import message_images

MAX_NEW_TOKENS = 48


def make_groups(samples: int, copies: int) -> list[Episode]:
    """Fresh episodes: `copies` of each of the held-out samples."""
    found = haystack.make("val", n=samples, seed=3)
    return [e for sample in found for e in Episode(sample, budget=haystack.BUDGET).copies(copies)]


@torch.no_grad()
def play_with_generate(model: Any, processor: Any, episodes: Sequence[Episode]) -> None:
    """Both turns with `model.generate` on the whole conversation, left padded."""
    forbidden = [i for i in processor.tokenizer.all_special_ids if i != processor.tokenizer.eos_token_id]
    running = list(episodes)
    while running:
        texts = [processor.apply_chat_template(e.messages, add_generation_prompt=True, tokenize=False) for e in running]
        images = [message_images(e.messages) for e in running]
        inputs = processor(text=texts, images=images, padding=True, padding_side="left", return_tensors="pt")
        output = model.generate(
            **inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=True, temperature=1.0, suppress_tokens=forbidden
        )
        responses = output[:, inputs["input_ids"].shape[1] :]
        for episode, text in zip(running, processor.batch_decode(responses, skip_special_tokens=True), strict=True):
            episode.observe(text)
        running = [e for e in running if not e.done]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="haystack:mgpo")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model, processor = load_model(options.model), load_processor(options.model)
    engine = TransformersEngine(model, processor, max_new_tokens=MAX_NEW_TOKENS, temperature=1.0, batch_size=10_000)
    rivals: dict[str, Callable[[list[Episode]], Any]] = {
        "generate, twice": lambda e: play_with_generate(model, processor, e),
        "our engine": engine.run,
    }
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(options.rounds + 1):
        for name, generate in rivals.items():
            episodes = make_groups(options.samples, options.copies)
            for episode in episodes:
                _ = episode.messages  # images are drawn and resized outside the measurement
            started = time.perf_counter()
            generate(episodes)
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    count = options.samples * options.copies
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"{name:16} {count / middle:8.1f} rollouts/s   ({min(values):.2f} to {max(values):.2f} s for {count})")
    medians = [statistics.median(values) for values in seconds.values()]
    print(f"ratio            {medians[0] / medians[1]:8.2f}")


if __name__ == "__main__":
    main()
