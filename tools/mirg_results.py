"""Make the results of docs/mirg.md: both stages of MIRG-RL on haystack_multi, with each reward alone, three seeds.

uv run tools/mirg_results.py                 run what is missing (an interrupted run goes on), then write
uv run tools/mirg_results.py --table-only    write from the runs that are there
uv run tools/mirg_results.py --jobs 2        two runs at a time, one thread each
uv run tools/mirg_results.py --verified      also what both stages give when no trajectory of the first goes wrong
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from between_marks import write_between_marks
from results import ROOT, SEEDS, cell, read_options, train, wall_seconds

VARIANTS = {
    "both": ("both rewards", ["object", "image", "format"], [1.0, 0.5, 0.1]),
    "object": ("object reward only", ["object", "format"], [1.0, 0.1]),
    "image": ("image reward only", ["image", "format"], [0.5, 0.1]),
}
"""Runs of the second stage: what the table calls them, rewards and weights. The format's belongs to all."""
VERIFIED = "haystack_multi:train?n=14400&seed=1&images=3&solutions=true"
"""The first stage's data without noisy solutions: what the verifier would have kept, as many."""

COLUMNS = {"image_accuracy": "right image", "accuracy": "IoU >= 0.5", "mean_iou": "mean IoU"}
DECODING = {"": "T=1", "_greedy": "greedy"}

Runs = dict[str, list[dict]]


def run_all(runs: Path, jobs: int, *, verified: bool) -> None:
    """Every first stage that is missing, then every second one; raises CalledProcessError when one fails."""
    stages = ("sft", "verified") if verified else ("sft",)

    def first(seed: int, name: str) -> None:
        data = ["--train_data", VERIFIED] if name == "verified" else []
        train(runs / f"{name}-seed{seed}", ["haystack-mirg-sft", "--seed", str(seed), *data], jobs)

    def second(seed: int, name: str, start: str = "sft") -> None:
        _, rewards, weights = VARIANTS[name]
        model = runs / f"{start}-seed{seed}" / "model"
        arguments = ["haystack-mirg-rl", "--seed", str(seed), "--model", str(model)]
        arguments += ["--rewards", *rewards, "--reward_weights", *map(str, weights)]
        train(runs / f"{name if start == 'sft' else 'verified-' + name}-seed{seed}", arguments, jobs)

    with ThreadPoolExecutor(jobs) as executor:
        list(executor.map(lambda pair: first(*pair), [(seed, name) for seed in SEEDS for name in stages]))
        todo = [(seed, name, "sft") for seed in SEEDS for name in VARIANTS]
        todo += [(seed, "both", "verified") for seed in SEEDS if verified]
        list(executor.map(lambda run: second(*run), todo))


def load(runs: Path) -> Runs:
    """Summaries of the runs that are there, by stage and variant."""
    found: Runs = {}
    for name in ("sft", *VARIANTS, "verified", "verified-both"):
        paths = [runs / f"{name}-seed{seed}" / "summary.json" for seed in SEEDS]
        found[name] = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    return {name: summaries for name, summaries in found.items() if summaries}


def table(found: Runs) -> str:
    """A row for each model and decoding; mean over the seeds with their range."""
    rows = [("base (`haystack:multi`)", "sft", "before"), ("after SFT", "sft", "after")]
    rows += [(f"after SFT and RL, {label}", name, "after") for name, (label, *_) in VARIANTS.items()]
    rows += [("after SFT on verified trajectories", "verified", "after")]
    rows += [("the same and RL, both rewards", "verified-both", "after")]
    most = max(map(len, found.values()))
    lines = [f"| model | decoding | {' | '.join(COLUMNS.values())} |", "|---|---|" + "---|" * len(COLUMNS)]
    for suffix, decoding in DECODING.items():
        for label, name, key in (row for row in rows if row[1] in found):
            cells = " | ".join(cell(found[name], key + suffix, metric) for metric in COLUMNS)
            seeds = len(found[name])
            fewer = "" if seeds == most else f" ({seeds} of {most} seeds)"
            lines.append(f"| {label}{fewer} | {decoding} | {cells} |")
    return "\n".join(lines)


def verdicts(found: Runs) -> str:
    """What the figures say, seed by seed, of the two claims: RL adds over SFT, and both rewards beat either alone."""
    lines = []
    for suffix, decoding in DECODING.items():
        for metric, heading in COLUMNS.items():
            values = {name: [run["after" + suffix][metric] for run in runs] for name, runs in found.items()}
            compared = [
                f"over {label} {_gains(values['both'], values[name])}"
                for name, label in (("sft", "SFT"), ("object", "the object reward alone"), ("image", "the image's"))
                if name in values and len(values[name]) == len(values["both"])
            ]
            lines.append(f"- {decoding}, {heading}: both rewards gain {', '.join(compared)}")
            if len(values.get("verified", ())) == len(values.get("verified-both", ())) > 0:
                gains = _gains(values["verified-both"], values["verified"])
                lines[-1] += f"; after verified trajectories {gains}"
    return "\n".join(lines)


def _gains(high: list[float], low: list[float]) -> str:
    gains = [a - b for a, b in zip(high, low, strict=True)]
    return f"{sum(gains) / len(gains):+.3f} ({', '.join(f'{gain:+.3f}' for gain in gains)})"


def text(found: Runs, walls: dict[str, float]) -> str:
    """The section of docs/mirg.md."""
    first = found["sft"][0]
    seeds = max(map(len, found.values()))
    held_out = (
        f"Held-out split, {first['before']['n']} samples of all five tasks, three images each (`diff` two); mean and "
        f"range over {seeds} seeds, each from its own first stage. {first['steps']} steps of "
        f"{first['prompts_per_step']} trajectories, of which 60% go wrong at the end, then "
        f"{found['both'][0]['steps']} steps of "
        f"{found['both'][0]['prompts_per_step']} samples with {found['both'][0]['num_generations']} rollouts each."
    )
    spent = ", ".join(
        f"{label} {min(run['seconds'] for run in found[name]):.0f} s"
        for name, label in (("sft", "SFT"), ("both", "RL"))
    )
    return "\n\n".join(
        [
            held_out,
            table(found),
            "The same, seed by seed (mean, then each seed):",
            verdicts(found),
            "Seconds of the fastest run (whatever else the machine does slows the others), evaluations aside: "
            f"{spent}.{_wall_text(walls)}",
        ]
    )


def read_walls(runs: Path) -> dict[str, float]:
    """Seconds of the fastest whole command of each stage, of those runs that recorded them."""
    found = {name: [wall_seconds(runs / f"{name}-seed{seed}") for seed in SEEDS] for name in ("sft", "both")}
    known = {name: [wall for wall in walls if wall is not None] for name, walls in found.items()}
    return {name: min(walls) for name, walls in known.items() if walls}


def _wall_text(walls: dict[str, float]) -> str:
    if set(walls) != {"sft", "both"}:
        return ""
    return (
        f" The two commands end to end, start-up and evaluations included: {walls['sft']:.0f} s and "
        f"{walls['both']:.0f} s, together {sum(walls.values()) / 60:.0f} minutes, two runs sharing the two cores."
    )


def main(arguments: list[str] | None = None) -> int:
    """Run, then rewrite the section of docs/mirg.md."""
    also = "also both stages from trajectories of which none goes wrong"
    options = read_options(arguments, __doc__, "mirg-results", verified=also)
    if not options.table_only:
        run_all(options.runs, options.jobs, verified=options.verified)
    found = load(options.runs)
    if not {"sft", "both"} <= set(found):
        print(f"no finished runs under {options.runs}: run without --table-only first", file=sys.stderr)
        return 1
    page = ROOT / "docs" / "mirg.md"
    write_between_marks(page, "mirg", text(found, read_walls(options.runs)))
    print(f"wrote the results of {sum(map(len, found.values()))} runs to {page.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
