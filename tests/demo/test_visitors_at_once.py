"""Twenty visitors at the tiny model at once: everyone gets their own answer, and memory stays where it is."""

from __future__ import annotations

import base64
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("gradio")
pytest.importorskip("torch")

from gradio_client import Client, handle_file

from mgpo_core import Episode, Sample, SingleTurn, haystack
from mgpo_core.engines import load_engine

sys.path.insert(0, str(Path(__file__).parent))
from demo_process import Demo, demo
from page_visitor import PageVisitor

pytestmark = pytest.mark.slow

VISITORS = 20
WARM_UP, RUNS, EVERY = 30, 100, 10
GROWTH = 6.0
"""MB a hundred runs: an image that is kept of every run (5 MB decoded) would be 500."""


@pytest.fixture(scope="module")
def server() -> Iterator[Demo]:
    with demo("--max-queue", "64") as started:
        assert started.ready_url
        yield started


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return haystack.make("val", VISITORS, seed=2024)


@pytest.fixture(scope="module")
def files(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.png" for number in range(len(samples))]
    for sample, path in zip(samples, paths, strict=True):
        sample.load().save(path, compress_level=1)
    return paths


def played_by_page(url: str, file: Path, sample: Sample) -> dict[str, Any]:
    """What one visitor's page has after a run: they upload, ask, wait and save."""
    visitor = PageVisitor(url)
    visitor.upload(file)
    visitor.press("run", sample.question, "\n".join(sample.choices))
    assert "Done in" in visitor.status, visitor.status
    return visitor.save_json()


def test_everyone_gets_the_answer_to_their_own_question(server: Demo, samples: list[Sample], files: list[Path]) -> None:
    engine = load_engine("transformers", model="haystack:mgpo", device="cpu")
    plain = [Episode(sample, budget=haystack.BUDGET) for sample in samples]
    single_turn = [Episode(sample, budget=haystack.BUDGET, template=SingleTurn()) for sample in samples]
    engine.run([*plain, *single_turn])
    with ThreadPoolExecutor(VISITORS) as threads:
        saved = list(threads.map(played_by_page, [server.url] * VISITORS, files, samples))
    seen = set()
    for data, file, episode, once in zip(saved, files, plain, single_turn, strict=True):
        [look] = data["looks"]
        for played, expected in (("trajectory", episode.trajectory), ("single_turn", once.trajectory)):
            turns = look[played]["trajectory"]["turns"]
            assert [turn["text"] for turn in turns] == [turn.text for turn in expected.turns]
            assert turns[0]["box_original"] == (
                None if expected.turns[0].box_original is None else asdict(expected.turns[0].box_original)
            )
        assert base64.b64decode(data["image"]["data"]) == file.read_bytes()
        seen.add(look["trajectory"]["trajectory"]["turns"][0]["text"])
    assert len(seen) > VISITORS // 2  # else answers that were mixed up would not be told from one another


def test_memory_does_not_grow_over_a_hundred_runs(server: Demo, samples: list[Sample], files: list[Path]) -> None:
    process, sizes = psutil.Process(server.process.pid), []
    client = Client(server.url, verbose=False, download_files=False)
    visitor = PageVisitor(server.url)
    for run in range(WARM_UP + RUNS):
        if run >= WARM_UP and (run - WARM_UP) % EVERY == 0:
            sizes.append(process.memory_info().rss / 1e6)
        sample = samples[run % VISITORS]
        if run % 2:
            visitor.upload(files[run % VISITORS])
            visitor.press("run", sample.question, "\n".join(sample.choices))
            continue
        client.predict(handle_file(files[run % VISITORS]), sample.question, "\n".join(sample.choices), api_name="/look")
    sizes.append(process.memory_info().rss / 1e6)
    growth = (statistics.median(sizes[-3:]) - statistics.median(sizes[:3])) / (RUNS - 2 * EVERY) * 100
    assert growth < GROWTH, f"{growth:.1f} MB a hundred runs: {[round(size) for size in sizes]}"
    print(f"{growth:.1f} MB a hundred runs: {[round(size) for size in sizes]}")
