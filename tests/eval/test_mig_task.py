"""The task mig_bench inside lmms-eval: on a local copy of its layout, its scores are those of an own computation."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import mig_fixture
from oracle import CONFIG, THOUSANDTHS, Pointer, pointing
from requests_fixture import generate, table

from mgpo_core import Box
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_eval import mig_bench

pytestmark = pytest.mark.slow

KINDS = ("right", "near", "wrong image", "unparseable")
TRAINED = EpisodeSettings(template="multi_image")
WAYS: dict[str, tuple[dict[str, Any], str]] = {
    "pixels": ({"config": CONFIG}, "multi_image_two_turn"),
    "pixels, single turn": ({"config": CONFIG, "mode": "single_turn"}, "multi_image"),
    "trained on it": ({"config": THOUSANDTHS, "settings": TRAINED}, "multi_image"),
    "as published": ({"config": THOUSANDTHS}, "plain"),
    "as published, though in pixels": ({"config": CONFIG, "mig_format": "published"}, "plain"),
}
"""How a model may be asked: what it is made with, and the template that follows from it."""


class Speaker(Pointer):
    """Answers each record in one of four ways, in the format that it is asked for."""

    def __init__(self, place: Path, shift: int) -> None:
        super().__init__(self._ground_truth, self._said)
        self.records = mig_bench.load_records(place)
        self.shift = shift
        self.templates: set[str] = set()
        self.shown: dict[int, tuple[int, int]] = {}
        "By row, the size at which the first image was shown."

    def _ground_truth(self, episode: Episode, row: int) -> Box:
        return mig_bench.true_box(self.records[row], [image.size for image in episode.originals])

    def _said(self, episode: Episode, row: int, true: Box) -> str:
        self.templates.add(episode.template.name)
        self.shown[row] = episode.images[0].size
        kind = kind_of(self.records[row], self.shift)
        if kind == "unparseable":
            return "I cannot see it (anywhere)."
        box = box_said(true, kind)
        if episode.template.name != "plain":
            wrong = (true.image + 1) % len(episode.images)
            return f"<think>Not image 1.</think>{pointing(episode, box, wrong if kind == 'wrong image' else None)}"
        width, height = episode.originals[true.image].size
        x1, y1, x2, y2 = (1000 * value for value in box.scaled(1 / width, 1 / height).as_tuple())
        return f"<|box_start|>({x1:.3f},{y1:.3f}),({x2:.3f},{y2:.3f})<|box_end|>"


def kind_of(record: Any, shift: int) -> str:
    return KINDS[(record.index + shift) % len(KINDS)]


def box_said(true: Box, kind: str) -> Box:
    """The box that the speaker means: moved by a tenth of its width when it is only near."""
    shift = 0.1 * true.width if kind == "near" else 0.0
    return Box(true.x1 + shift, true.y1, true.x2 + shift, true.y2, true.image)


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union, written once more."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def expected_scores(shift: int, template: str) -> dict[str, dict[str, list[float]]]:
    """Values per metric and task, from the JSON as the hub has it."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record, (raw, target) in zip(mig_fixture.RECORDS, mig_fixture.CASES, strict=True):
        x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in raw["answer"])
        ground_truth = [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
        assert record.target == target
        kind = kind_of(record, shift)
        moved = 0.1 * (ground_truth[2] - ground_truth[0]) * (kind == "near")
        iou = overlap(
            [ground_truth[0] + moved, ground_truth[1], ground_truth[2] + moved, ground_truth[3]], ground_truth
        )
        if kind == "unparseable" or (kind == "wrong image" and template != "plain"):
            iou = 0.0
        for name, value in (
            ("mean_iou", iou), ("iou_03", iou >= 0.3), ("iou_05", iou >= 0.5), ("iou_07", iou >= 0.7),
        ):  # fmt: skip
            found[name][record.task].append(float(value))
        if template != "plain":
            found["image_accuracy"][record.task].append(float(kind in ("right", "near")))
    return found


@pytest.mark.parametrize("shift", range(2))
@pytest.mark.parametrize("way", WAYS)
def test_scores_are_those_of_an_independent_computation(
    way: str, shift: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from mgpo_eval.models import MGPO

    given, template = WAYS[way]
    place = mig_fixture.write_mig_bench(tmp_path / "copy")
    monkeypatch.setenv("MIG_BENCH", str(place))
    speaker = Speaker(place, shift)
    results = simple_evaluate(
        model=MGPO(engine=speaker, pretrained="speaker", batch_size=4, min_pixels=784, max_pixels=4_000, **given),
        tasks=["mig_bench"],
        task_manager=TaskManager(model_name="mgpo"),
        batch_size=4,
        cli_args=argparse.Namespace(reasoning_tags="none", process_with_media=False, output_path=None),
    )
    found = results["results"]["mig_bench"]
    assert speaker.templates == {template}
    expected = expected_scores(shift, template)
    assert set(expected["mean_iou"]) == set(mig_bench.TASKS)
    for name, tasks in expected.items():
        means = {task: sum(values) / len(values) for task, values in tasks.items()}
        for task, mean in means.items():
            assert found[f"{name}/{task},none"] == pytest.approx(mean, abs=1e-3), (name, task)
        macro = sum(means.values()) / len(means)
        assert found[f"{name},none"] == pytest.approx(macro, abs=1e-3), name
        assert found[f"{name}_low,none"] <= found[f"{name},none"] <= found[f"{name}_high,none"]
    assert found["inverted,none"] == mig_fixture.INVERTED and found["clipped,none"] == mig_fixture.CLIPPED
    assert ("image_accuracy,none" in found) == (template != "plain")
    unread = sum(kind_of(record, shift) == "unparseable" for record in speaker.records) / len(speaker.records)
    assert found["answered_rate,none"] == pytest.approx(1 - unread)
    assert len({kind_of(record, shift) for record in speaker.records}) == len(KINDS)


@pytest.mark.parametrize("way", WAYS)
def test_prompts_ask_for_the_format_once_and_convert_boxes(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mgpo_eval.models import MGPO
    from mgpo_eval.tasks.classes import MIGBenchTask

    given, template = WAYS[way]
    place = mig_fixture.write_mig_bench(tmp_path / "copy")
    monkeypatch.setenv("MIG_BENCH", str(place))
    speaker = Speaker(place, 0)
    task = object.__new__(MIGBenchTask)
    rows = table(task.rows({"repo": "Michael4933/MIG-Bench"}))
    generate(MGPO(engine=speaker, pretrained="speaker", batch_size=1, min_pixels=784, max_pixels=4_000, **given), rows)
    assert len(speaker.asked) == len(rows) * (2 if template == "multi_image_two_turn" else 1)
    [question, *again] = [text for text in speaker.asked if "Locate it in the sixth frame" in text]
    if template == "plain":
        assert "starts at (93, 222), (750, 663)." in question and not again
        assert not any("JSON" in text for text in speaker.asked)
        return
    assert all(text.count("JSON") == 1 for text in speaker.asked)
    assert not any(mark in text for text in speaker.asked for mark in ("<|box_start|>", "<region>"))
    width, height = speaker.shown[5] if given["config"] is CONFIG else (1000, 1000)
    numbers = [round(v * side / 1000) for v, side in zip((93, 222, 750, 663), (width, height) * 2, strict=True)]
    assert all(f"starts at {numbers}." in text for text in (question, *again))


def test_without_a_copy_and_without_a_hub_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mgpo_core.errors import SampleError
    from mgpo_eval.tasks.classes import _mig_bench_copy

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MIG_BENCH", raising=False)
    with pytest.raises(SampleError, match="set MIG_BENCH to a folder"):
        _mig_bench_copy("Michael4933/MIG-Bench")
    (tmp_path / "Michael4933/MIG-Bench").mkdir(parents=True)
    assert _mig_bench_copy("Michael4933/MIG-Bench").is_dir()
