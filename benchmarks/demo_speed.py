"""How fast the demo opens and answers with the tiny checkpoint; medians of several rounds.

uv run benchmarks/demo_speed.py --rounds 3 --runs 20
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mgpo_core import haystack

PATIENCE = 300.0
"""Seconds to wait for the server."""

_PAINTED = """() => new Promise(resolve => new PerformanceObserver(list => {
    const paint = list.getEntriesByName('first-contentful-paint')[0];
    if (paint) resolve(paint.startTime);
}).observe({type: 'paint', buffered: true}))"""


@contextlib.contextmanager
def demo() -> Iterator[tuple[str, dict[str, float]]]:
    """A server of its own: its address, and the seconds from the command to its lines "page" and "ready"."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mgpo_demo", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        seconds: dict[str, float] = {}
        url = ""
        assert process.stdout is not None
        for line in process.stdout:
            name, _, rest = line.partition(": ")
            seconds[name] = time.perf_counter() - started
            url = rest.split()[0] if name == "page" else url
            if name == "ready" or seconds[name] > PATIENCE:
                break
        if "ready" not in seconds:
            raise SystemExit("the demo did not start; run mgpo-demo to see why")
        yield url, seconds
    finally:
        process.terminate()
        process.wait()


def paints(url: str, rounds: int) -> list[float]:
    """Seconds from opening the page to its first contentful paint, in a new browser context each time."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        seconds = []
        for _ in range(rounds):
            page = browser.new_context().new_page()
            page.goto(url, wait_until="commit")
            seconds.append(page.evaluate(_PAINTED) / 1000)
            page.wait_for_selector("#run")
            page.context.close()
        browser.close()
    return seconds


def runs(url: str, n: int) -> list[float]:
    """Seconds of one call of /look, after one to warm up; each has an image of its own."""
    from gradio_client import Client, handle_file

    client, seconds = Client(url, verbose=False), []
    with tempfile.TemporaryDirectory() as folder:
        for number, sample in enumerate(haystack.make("val", n + 1, seed=1)):
            file = Path(folder, f"{number}.png")
            sample.load().save(file, compress_level=1)
            started = time.perf_counter()
            client.predict(handle_file(file), sample.question, "\n".join(sample.choices), api_name="/look")
            seconds.append(time.perf_counter() - started)
    return seconds[1:]


def row(name: str, seconds: Sequence[float]) -> str:
    """A line of the table."""
    spread = f"{min(seconds):.2f} to {max(seconds):.2f} s of {len(seconds)}"
    return f"| {name} | {statistics.median(seconds):.2f} s | {spread} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=re.sub(r"\n.*", "", __doc__ or "", flags=re.DOTALL))
    parser.add_argument("--rounds", type=int, default=3, help="starts, and paints after each (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=20, help="calls after each start (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.runs < 1:
        parser.error("--rounds and --runs must be at least 1")
    starts: list[dict[str, float]] = []
    painted, answered = [], []
    for _ in range(options.rounds):
        with demo() as (url, seconds):
            starts.append(seconds)
            painted += paints(url, options.rounds)
            answered += runs(url, options.runs)
    print("| From | Median | Range |\n|---|---|---|")
    print(row("the command to `page:`", [start["page"] for start in starts]))
    print(row("the command to `ready:`", [start["ready"] for start in starts]))
    print(row("opening the page to its first contentful paint", painted))
    print(row("a call of `/look` to its outcome", answered))


if __name__ == "__main__":
    main()
