"""The task mig_bench inside lmms-eval: on a local copy of its layout, its scores are those of an own computation."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import mig_fixture
from oracle import CONFIG

from mgpo_core.templates import message_text
from mgpo_eval import mig_bench

pytestmark = pytest.mark.slow

RELATIVE = SimpleNamespace(**vars(CONFIG) | {"model_type": "qwen3_vl"})
KINDS = ("right", "near", "wrong image", "unparseable")


class Speaker:
    """Answers each record in one of four ways, in the format that its model speaks."""

    def __init__(self, place: Path, shift: int) -> None:
        self.records = mig_bench.load_records(place)
        self.shift = shift
        self.asked: list[str] = []

    def run(self, episodes: Sequence[Any]) -> list[Any]:
        for episode in episodes:
            assert not episode.wants_box
            self.asked.append(message_text(episode.messages[-1]))
            record = self.records[int(episode.sample.id.split("/")[1])]
            sizes = [image.size for image in episode.images]
            episode.observe(said(record, kind_of(record, self.shift), episode.space.value, sizes))
        return [episode.trajectory for episode in episodes]


def kind_of(record: Any, shift: int) -> str:
    return KINDS[(record.index + shift) % len(KINDS)]


def box_said(record: Any, kind: str) -> list[float] | None:
    """The box in 0-1 that the speaker means: moved by a tenth of its width when it is only near."""
    if kind == "unparseable":
        return None
    truth = record.truth
    shift = 0.1 * (truth.x2 - truth.x1) if kind == "near" else 0.0
    return [truth.x1 + shift, truth.y1, truth.x2 + shift, truth.y2]


def said(record: Any, kind: str, space: str, sizes: list[tuple[int, int]]) -> str:
    box = box_said(record, kind)
    if box is None:
        return "I cannot see it (anywhere)."
    x1, y1, x2, y2 = box
    if space == "absolute":
        width, height = sizes[record.target]
        named = record.target if kind != "wrong image" else (record.target + 1) % len(sizes)
        numbers = [x1 * width, y1 * height, x2 * width, y2 * height]
        return f'It is there: ```json\n[{{"bbox_2d": {numbers}, "image": {named + 1}}}]\n```'
    return f"<|box_start|>({1000 * x1:.3f},{1000 * y1:.3f}),({1000 * x2:.3f},{1000 * y2:.3f})<|box_end|>"


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union, written once more."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


@pytest.mark.parametrize("shift", range(2))
@pytest.mark.parametrize("config", [CONFIG, RELATIVE], ids=["absolute", "relative"])
def test_scores_are_those_of_an_independent_computation(
    config: Any, shift: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from mgpo_eval.models import MGPO

    place = tmp_path / "copy"
    place.mkdir()
    mig_fixture.write_mig_bench(place)
    monkeypatch.setenv("MIG_BENCH", str(place))
    speaker = Speaker(place, shift)
    results = simple_evaluate(
        model=MGPO(engine=speaker, config=config, pretrained="speaker", batch_size=4),
        tasks=["mig_bench"],
        task_manager=TaskManager(model_name="mgpo"),
        batch_size=4,
        cli_args=argparse.Namespace(reasoning_tags="none", process_with_media=False, output_path=None),
    )
    found = results["results"]["mig_bench"]

    expected: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    kinds: dict[str, set[str]] = defaultdict(set)
    for record, (raw, target) in zip(speaker.records, mig_fixture.CASES, strict=True):
        x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in raw["answer"])
        truth = [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
        assert record.target == target
        kind = kind_of(record, shift)
        kinds[record.task].add(kind)
        box = box_said(record, kind)
        iou = 0.0 if box is None else overlap(box, truth)
        for name, value in (
            ("mean_iou", iou), ("iou_03", iou >= 0.3), ("iou_05", iou >= 0.5), ("iou_07", iou >= 0.7),
        ):  # fmt: skip
            expected[name][record.task].append(float(value))
        if config is CONFIG and len(record.images) > 1:
            expected["image_index_accuracy"][record.task].append(float(kind in ("right", "near")))
    assert set(expected["mean_iou"]) == set(mig_bench.TASKS)
    for name, tasks in expected.items():
        means = {task: sum(values) / len(values) for task, values in tasks.items()}
        for task, mean in means.items():
            assert found[f"{name}/{task},none"] == pytest.approx(mean, abs=1e-3), (name, task)
        macro = sum(means.values()) / len(means)
        assert found[f"{name},none"] == pytest.approx(macro, abs=1e-3), name
        assert found[f"{name}_low,none"] <= found[f"{name},none"] <= found[f"{name}_high,none"]
    assert found["inverted,none"] == mig_fixture.INVERTED and found["clipped,none"] == mig_fixture.CLIPPED
    assert ("image_index_accuracy,none" in found) == (config is CONFIG)
    assert len({kind for task in kinds.values() for kind in task}) == len(KINDS)


def test_without_a_copy_and_without_a_hub_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mgpo_core.errors import SampleError
    from mgpo_eval.made_tasks import _mig_bench_copy

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MIG_BENCH", raising=False)
    with pytest.raises(SampleError, match="set MIG_BENCH to a folder"):
        _mig_bench_copy("Michael4933/MIG-Bench")
    (tmp_path / "Michael4933/MIG-Bench").mkdir(parents=True)
    assert _mig_bench_copy("Michael4933/MIG-Bench").is_dir()
