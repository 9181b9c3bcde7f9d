"""Make the README's results: run every recipe with every seed, then write the table and the curves.

uv run tools/results.py                 run what is missing (an interrupted run goes on), then write
uv run tools/results.py --table-only    write from the runs that are there
uv run tools/results.py --jobs 2        two runs at a time, one thread each
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from between_marks import write_between_marks

ROOT = Path(__file__).resolve().parent.parent
RECIPES = {
    "haystack-mgpo": "**MGPO**, two turns",
    "haystack-grpo": "GRPO, single turn",
    "haystack-sft": "SFT on answers, single turn",
    "haystack-mgpo-shuffled": "MGPO, rewards shuffled",
}
SEEDS = (0, 1, 2)
WALL_FILE = "wall-seconds.txt"
COLUMNS = {"accuracy": "accuracy", "hit_rate": "hit rate", "valid_box_rate": "valid boxes", "mean_iou": "mean IoU"}


def run_all(runs: Path, jobs: int) -> None:
    """Run every recipe and seed that has no summary yet; raises CalledProcessError when one fails."""

    def one(recipe: str, seed: int) -> None:
        train(runs / f"{recipe}-seed{seed}", [recipe, "--seed", str(seed)], jobs)

    with ThreadPoolExecutor(jobs) as executor:
        list(executor.map(lambda pair: one(*pair), [(recipe, seed) for seed in SEEDS for recipe in RECIPES]))


def train(folder: Path, arguments: list[str], jobs: int) -> None:
    """Run `mgpo-train` with these arguments into a folder, one of `jobs` at a time; resumes what is there."""
    command = [sys.executable, "-m", "mgpo_train", *arguments, "--output_dir", str(folder), "--resume"]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    folder.mkdir(parents=True, exist_ok=True)
    fresh, started = not any(folder.glob("checkpoint-*")), time.monotonic()
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env={**os.environ, **threads})
    if fresh:
        (folder / WALL_FILE).write_text(f"{time.monotonic() - started:.0f}\n", encoding="utf-8")


def wall_seconds(folder: Path) -> float | None:
    """Seconds that the command of a run took, set-up and evaluations included; None where that was not recorded."""
    path = folder / WALL_FILE
    return float(path.read_text(encoding="utf-8")) if path.exists() else None


def load(runs: Path) -> dict[str, list[dict]]:
    """Summaries of the runs that are there, by recipe."""
    found: dict[str, list[dict]] = {}
    for recipe in RECIPES:
        for seed in SEEDS:
            path = runs / f"{recipe}-seed{seed}" / "summary.json"
            if path.exists():
                found.setdefault(recipe, []).append(json.loads(path.read_text(encoding="utf-8")))
    return found


def cell(summaries: list[dict], key: str, metric: str) -> str:
    """Mean over the seeds with the range behind it; a dash where the method has no such figure."""
    values = [summary[key][metric] for summary in summaries if metric in summary.get(key, {})]
    if not values:
        return "–"
    mean = sum(values) / len(values)
    return f"{mean:.2f}" if len(values) == 1 else f"{mean:.2f} ({min(values):.2f}–{max(values):.2f})"


def table(found: dict[str, list[dict]], keys: dict[str, str]) -> str:
    """A Markdown table: a row per evaluation of every recipe."""
    lines = [f"| run | model and decoding | {' | '.join(COLUMNS.values())} |", "|---|---|" + "---|" * len(COLUMNS)]
    for recipe, summaries in found.items():
        for key, label in keys.items():
            if not any(key in summary for summary in summaries):
                continue
            cells = " | ".join(cell(summaries, key, metric) for metric in COLUMNS)
            lines.append(f"| {RECIPES[recipe]} (`{recipe}`) | {label} | {cells} |")
    return "\n".join(lines)


def results_text(found: dict[str, list[dict]]) -> str:
    """The README's section: in-distribution and OOD tables, what was run, and the commands."""
    first = next(iter(found.values()))[0]
    seeds = max(len(summaries) for summaries in found.values())
    main = {
        "before": "base, T=1",
        "after": "trained, T=1",
        "before_greedy": "base, greedy",
        "after_greedy": "trained, greedy",
    }
    ood = {f"ood_{key}": label for key, label in main.items()}
    runs = found.get("haystack-mgpo", [])
    spent = sum(run["seconds"] for run in runs) / max(1, len(runs))
    mgpo_only = {recipe: rows for recipe, rows in found.items() if recipe == "haystack-mgpo"}
    commands = "\n".join(
        f"uv run mgpo-train {recipe} --seed 0 --output_dir outputs/{recipe}-seed0   # and 1, 2" for recipe in found
    )
    held_out = (
        f"Held-out split, {first['before']['n']} samples; mean and range over {seeds} seeds of the training; chance is "
        "0.25. A hit is a box that holds the centre of the true one; an invalid box counts as a miss. "
        f"{first['steps']} steps of {first['prompts_per_step']} samples. The base had been taught right boxes first, "
        "and then noise, a quarter of it refused boxes ([how](docs/haystack.md#what-the-base-has-been-taught)): "
        "reinforcement learning brings a latent skill out, from the answer's reward alone."
    )
    shifted = (
        "Out of distribution (larger canvas, more distractors, smaller targets), "
        f"{first.get('ood_before', first['before'])['n']} samples:"
    )
    script = f"```bash\n{commands}\nuv run tools/results.py   # all of the above, this table and the curves\n```"
    curves = "![Accuracy, hits and valid boxes while training](docs/images/emergence.png)"
    parts = [held_out, table(found, main), shifted, table(mgpo_only, ood), curves, script]
    return "\n\n".join([*parts, f"A run of `haystack-mgpo` trained for {spent:.0f} s, evaluations aside."])


def plot(runs: Path, target: Path) -> None:
    """Valid boxes, hits and accuracy during training, as the paper plots its ratio of valid coordinates."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), sharex=True, layout="constrained")
    styles = {
        "haystack-mgpo": ("C0", "MGPO"),
        "haystack-mgpo-shuffled": ("C3", "rewards shuffled"),
        "haystack-grpo": ("C7", "GRPO, single turn"),
    }
    for axis, (name, label) in zip(axes, list(COLUMNS.items())[:3], strict=True):
        for recipe, (colour, legend) in styles.items():
            curves = []
            for seed in SEEDS:
                path = runs / f"{recipe}-seed{seed}" / "metrics.jsonl"
                if path.exists():
                    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
                    curves.append([row[name] for row in rows if row.get(name) is not None])
            curves = [curve for curve in curves if curve]
            if not curves:
                continue
            steps = min(map(len, curves))
            values = np.array([smooth(curve[:steps]) for curve in curves])
            axis.plot(range(1, steps + 1), values.mean(axis=0), color=colour, label=legend)
            axis.fill_between(
                range(1, steps + 1), values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, lw=0
            )
        axis.set(title=f"{label} of the rollouts (T=1)", xlabel="step", ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower right")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)


def smooth(values: list[float], width: int = 5) -> list[float]:
    """Mean of the last `width` values at every step."""
    return [
        sum(values[max(0, i + 1 - width) : i + 1]) / len(values[max(0, i + 1 - width) : i + 1])
        for i in range(len(values))
    ]


def read_options(
    arguments: list[str] | None, description: str | None, runs: str, **switches: str
) -> argparse.Namespace:
    """The options `runs`, `jobs` and `table_only`, and further `switches` with their help.

    By default, runs are kept in the folder `runs` of `outputs`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / runs, help="where the runs are kept")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table-only", action="store_true")
    for name, text in switches.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run, then rewrite the section of the README and docs/images/emergence.png."""
    options = read_options(arguments, __doc__, "results")
    if not options.table_only:
        run_all(options.runs, options.jobs)
    found = load(options.runs)
    if not found:
        print(f"no summary.json under {options.runs}: run without --table-only first", file=sys.stderr)
        return 1
    readme = ROOT / "README.md"
    write_between_marks(readme, "results", results_text(found))
    plot(options.runs, ROOT / "docs" / "images" / "emergence.png")
    print(f"wrote the results of {sum(map(len, found.values()))} runs to {readme.name} and docs/images/emergence.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
