"""The task haystack_multi: a box in one of several images is asked for, run with the template for it and scored.

Every expected number is computed here from what an oracle was told to say, without the code under test.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from oracle import CONFIG, THOUSANDTHS, Pointer, pointing
from requests_fixture import generate, table

from mgpo_core import Box, haystack
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.intervals import interval
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.runs.response_payload import ResponsePayload, decode_payload, encode_payload
from mgpo_eval.models import MGPO, MGPOVLLM, MGPOOpenAI
from mgpo_eval.models.options import OptionError
from mgpo_eval.models.provenance import describe
from mgpo_eval.tasks import haystack_multi_scoring
from mgpo_eval.tasks.haystack_rows import haystack_multi_rows

pytestmark = pytest.mark.slow

N = 30
SAMPLES = haystack.make_multi("val", N, 7, 3)
CANVAS = SAMPLES[0].load().width
KINDS = ("right", "near", "half", "wrong image", "no image", "reversed", "mute")
WAYS = {f"{mode} {name}": (mode, config) for mode in ("single_turn", "two_turn") for name, config in
        (("pixels", CONFIG), ("thousandths", THOUSANDTHS))}  # fmt: skip


def rows(n: int = 10) -> Any:
    return table(haystack_multi_rows("val", N, 7, 3)[:n])


def pointer(said: Any = lambda episode, row, true: f"<think>Seen.</think>{pointing(episode, true)}") -> Pointer:
    return Pointer(lambda episode, row: SAMPLES[row].boxes[0], said)


def model(engine: Any, mode: str | None = None, config: Any = CONFIG, **given: Any) -> MGPO:
    budget = {"min_pixels": haystack.BUDGET.min_pixels, "max_pixels": haystack.BUDGET.max_pixels}
    return MGPO(engine=engine, config=config, pretrained="o", batch_size=4, mode=mode, **(budget | given))


def scored(texts: list[str], asked: Any) -> list[dict[str, Any]]:
    return [haystack_multi_scoring.score(row, [text]) for row, text in zip(asked, texts, strict=True)]


def trajectories(texts: list[str]) -> list[Trajectory]:
    return [decode_payload(text).trajectory() for text in texts]  # type: ignore[misc]


def mixed(episode: Episode, row: int, true: Box) -> str:
    """Answers good and bad, in turn."""
    kind, wide = KINDS[row % len(KINDS)], true.width
    if kind == "mute":
        return "I see nothing."
    shift = {"near": 0.2 * wide, "half": 0.4 * wide}.get(kind, 0.0)
    box = Box(true.x1 + shift, true.y1, true.x2 + shift, true.y2, true.image)
    if kind == "reversed":
        box = Box(true.x2, true.y1, true.x1, true.y2, true.image)
    wrong = (true.image + 1) % len(episode.images) if kind == "wrong image" else None
    text = pointing(episode, box, wrong)
    return text.replace('"image"', '"picture"') if kind == "no image" else text


def expected(row: int) -> dict[str, float]:
    """What the scores of `mixed` have to be: of boxes of one size, side by side, by hand."""
    kind = KINDS[row % len(KINDS)]
    iou = {"right": 1.0, "near": 0.8 / 1.2, "half": 0.6 / 1.4}.get(kind, 0.0)
    named = kind in ("right", "near", "half", "reversed")
    found = {"accuracy": iou >= 0.5, "image_accuracy": named, "iou_03": iou >= 0.3, "iou_07": iou >= 0.7}
    return {name: float(value) for name, value in found.items()} | {
        "mean_iou": iou,
        "answered_rate": float(kind in ("right", "near", "half", "wrong image")),
    }


def test_the_task_has_500_held_out_questions_of_five_kinds() -> None:
    from lmms_eval.tasks import TaskManager

    found = list(TaskManager("ERROR").load_task_or_group("haystack_multi")["haystack_multi"].dataset["test"])
    samples = haystack.make_multi("val", 500, 7, 3)
    assert len(found) == 500 and {row["category"] for row in found} == set(haystack.multi.TASKS)
    for row, sample in zip(found, samples, strict=True):
        [box] = sample.boxes
        assert row["boxes"] == [[*box.as_tuple(), box.image]]
        assert (row["question"], row["target_image"]) == (sample.question, sample.metadata["target_image"])
        assert (row["category"], row["label"]) == (sample.metadata["task"], sample.metadata["label"])
        assert len(row["sizes"]) == len(sample.images)
    drawn = haystack_multi_scoring.images(found[2])
    assert [image.tobytes() for image in drawn] == [samples[2].load(i).tobytes() for i in range(3)]
    assert [list(image.size) for image in drawn] == found[2]["sizes"]


@pytest.mark.parametrize("way", WAYS)
def test_true_boxes_score_one_however_the_model_looks_and_writes(way: str) -> None:
    mode, config = WAYS[way]
    engine, asked = pointer(), rows()
    texts = generate(model(engine, mode, config), asked)
    for metrics in scored(texts, asked):
        names = ("accuracy", "image_accuracy", "mean_iou", "iou_03", "iou_07", "answered_rate", "valid_box_rate")
        assert all(metrics[name] == pytest.approx(1.0, abs=1e-6) for name in names)
    template = {"single_turn": "multi_image", "two_turn": "multi_image_two_turn"}[mode]
    for played, sample in zip(trajectories(texts), SAMPLES, strict=False):
        assert (played.template, len(played.turns)) == (template, 1 if mode == "single_turn" else 2)
        assert not played.true_boxes, "the model's trajectory must not know them"
        if mode == "two_turn":
            assert played.box_original is not None and played.box_original.image == sample.boxes[0].image
    assert {played.space.value for played in trajectories(texts)} == {"absolute" if config is CONFIG else "0-1000"}


@pytest.mark.parametrize("way", WAYS)
def test_a_perfect_box_on_the_wrong_image_scores_nothing(way: str) -> None:
    def elsewhere(episode: Episode, row: int, true: Box) -> str:
        return pointing(episode, true, (true.image + 1) % len(episode.images))

    asked = rows()
    for metrics in scored(generate(model(pointer(elsewhere), *WAYS[way]), asked), asked):
        assert [metrics[name] for name in ("accuracy", "image_accuracy", "mean_iou", "iou_03")] == [0.0] * 4
        assert metrics["answered_rate"] == 1.0


@pytest.mark.parametrize("mode", ["single_turn", "two_turn"])
def test_a_mute_model_scores_nothing(mode: str) -> None:
    asked = rows()
    texts = generate(model(pointer(lambda *_: "I see nothing."), mode), asked)
    for metrics in scored(texts, asked):
        assert [metrics[name] for name in ("accuracy", "image_accuracy", "mean_iou", "answered_rate")] == [0.0] * 4
        assert metrics["valid_box_rate"] == (0.5 if mode == "two_turn" else 0.0)  # its look was valid
    assert {decode_payload(text).answer for text in texts} == {"Z"}


@pytest.mark.parametrize("way", WAYS)
def test_the_tasks_scores_are_those_of_an_independent_computation(way: str) -> None:
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    results = simple_evaluate(
        model=model(pointer(mixed), *WAYS[way]),
        tasks=["haystack_multi"],
        task_manager=TaskManager(model_name="mgpo"),
        limit=N,
        bootstrap_iters=0,
        cli_args=argparse.Namespace(reasoning_tags="none", process_with_media=False, output_path=None),
    )
    found = results["results"]["haystack_multi"]
    columns: dict[str, list[float]] = defaultdict(list)
    for row, sample in enumerate(SAMPLES):
        for name, value in expected(row).items():
            columns[name].append(value)
            if name != "answered_rate":
                columns[f"{name}/{sample.metadata['task']}"].append(value)
    assert len(columns) == 6 + 5 * 5
    for name, values in columns.items():
        assert found[f"{name},none"] == pytest.approx(sum(values) / len(values), abs=1e-6), name
        if "/" not in name and name != "answered_rate":
            ends = [found[f"{name}_low,none"], found[f"{name}_high,none"]]
            assert ends == pytest.approx(interval([round(value, 9) for value in values]), abs=1e-6), name
    assert 0 < found["accuracy,none"] < found["iou_03,none"] < found["image_accuracy,none"] < 1
    assert ("crop_area_fraction,none" in found) == (WAYS[way][0] == "two_turn")


@pytest.mark.parametrize("config", [CONFIG, THOUSANDTHS], ids=["pixels", "thousandths"])
def test_a_region_of_the_question_is_written_in_the_models_numbers(config: Any) -> None:
    asked = rows()
    engine = pointer()
    played = trajectories(generate(model(engine, "single_turn", config), asked))
    [true] = SAMPLES[2].regions
    side = 1000 if config is THOUSANDTHS else played[2].input_sizes[0][0]
    numbers = [round(value * side / CANVAS) for value in true.as_tuple()]
    assert f"at {numbers} of image 1" in played[2].question and str(numbers) in engine.asked[2]
    assert not any("<region>" in text for text in engine.asked)


def test_a_multi_image_checkpoint_answers_boxes_in_a_single_turn() -> None:
    trained = EpisodeSettings(template="multi_image")
    runner = model(pointer(), settings=trained)
    asked = rows(2)
    assert {played.template for played in trajectories(generate(runner, asked))} == {"multi_image"}
    looking = model(pointer(), "two_turn", settings=trained)
    assert {played.template for played in trajectories(generate(looking, asked))} == {"multi_image_two_turn"}
    words = table([{"prompt": "Is it?\n(A) yes\n(B) no", "size": (300, 300)}])

    class Boxer(Pointer):
        def run(self, episodes: Any) -> Any:
            return [self.answer(episode) for episode in episodes]

        def answer(self, episode: Episode) -> Trajectory:
            while not episode.done:
                episode.observe(r"\boxed{B}")
            return episode.trajectory

    for mode, template in ((None, "single_turn"), ("single_turn", "single_turn"), ("two_turn", "two_turn")):
        [text] = generate(model(Boxer(pointer().ground_truth, mixed), mode, settings=trained), words)
        assert decode_payload(text).answer == "B" and trajectories([text])[0].template == template


def test_the_run_that_a_journal_is_kept_by_names_the_template_that_played(tmp_path: Path) -> None:
    class Kept(MGPO):
        """Plays on an oracle, but keeps a journal as a model of its own weights does."""

        def __init__(self, engine: Pointer, mode: str | None) -> None:
            super().__init__(pretrained="haystack:mgpo", mode=mode)
            self._engine = engine

    asked, first = rows(4), pointer()
    texts = generate(Kept(first, "single_turn"), asked, tmp_path)
    again, other = pointer(), pointer()
    assert generate(Kept(again, "single_turn"), asked, tmp_path) == texts and not again.asked
    generate(Kept(other, None), asked, tmp_path)
    assert len(other.asked) == 2 * len(first.asked) == 8
    runs = [json.loads(path.read_text()) for path in tmp_path.glob("mgpo/*/run.json")]
    assert sorted(run["template"]["box"] for run in runs) == ["multi_image", "multi_image_two_turn"]
    [single] = [run["id"] for run in runs if run["template"]["box"] == "multi_image"]
    assert {decode_payload(text).record["run"] for text in texts} == {single}  # type: ignore[index]
    assert {played.template for played in trajectories(texts)} == {"multi_image"}
    images = list(tmp_path.glob("mgpo/*/images/t-0-original-*"))
    assert len(images) == 2 * 3


def test_engines_with_a_queue_of_their_own_play_it_too() -> None:
    asked = rows()
    for runner in (
        MGPOOpenAI(engine=pointer(), config=CONFIG, url="http://127.0.0.1:9", mode="single_turn"),
        MGPOVLLM(engine=pointer(), config=CONFIG, pretrained="o"),
    ):
        assert all(metrics["accuracy"] == 1.0 for metrics in scored(generate(runner, asked), asked))


def test_bare_answers_are_refused_as_the_boxes_would_be_missing() -> None:
    with pytest.raises(OptionError, match="response=answer leaves out the boxes that t scores"):
        generate(model(pointer(), response="answer"), rows(1))


def test_its_columns_are_read_whatever_is_asked_of_prompts() -> None:
    asked = rows(3)
    texts = generate(model(pointer(), "single_turn", prompts="task"), asked)
    assert all(metrics["accuracy"] == 1.0 for metrics in scored(texts, asked))


def test_a_sample_that_could_not_be_played_is_wrong_and_counted() -> None:
    encoded = encode_payload(ResponsePayload("Z", {"run": "r", "trajectory": None, "images": {}, "skipped": "gone"}))
    [metrics] = scored([encoded], rows(1))
    assert metrics["skipped"] == 1.0
    assert {metrics[name] for name in (*haystack_multi_scoring.SCORES, "answered_rate")} == {0.0}


def test_other_models_are_asked_and_read_in_thousandths() -> None:
    asked = list(rows())
    prompt = haystack_multi_scoring.prompt(asked[2])
    numbers = [round(1000 * value / CANVAS) for value in SAMPLES[2].regions[0].as_tuple()]
    assert f"at {numbers} of image 1" in prompt and "thousandths" in prompt and prompt.count("JSON") == 1
    texts = []
    for sample in SAMPLES[:10]:
        [box] = sample.boxes
        entry = {"image": box.image + 1, "bbox_2d": [1000 * value / CANVAS for value in box.as_tuple()]}
        texts.append(f"It is there: {json.dumps([entry])}")
    assert all(metrics["mean_iou"] == pytest.approx(1.0) for metrics in scored(texts, asked))
    [wrong, mute, *_] = scored([texts[1], "Nowhere.", *texts[2:]], asked)
    assert (wrong["accuracy"], mute["accuracy"], mute["answered_rate"]) == (0.0, 0.0, 0.0)
    [box] = SAMPLES[0].boxes
    told = f"image {box.image + 1}: {[round(value) for value in box.as_tuple()]}"
    assert haystack_multi_scoring.target(asked[0]) == told


def test_training_with_the_template_evaluates_the_task_with_it() -> None:
    from mgpo_core.engines.loading import load_model, load_processor
    from mgpo_train.config.config import MGPOConfig
    from mgpo_train.evaluation.lmms_tasks import LMMSTasks

    data = {"train_data": "haystack_multi:train?n=64&seed=1", "eval_data": "none"}
    for template, mode in (("multi_image", "single_turn"), ("multi_image_two_turn", "two_turn")):
        config = MGPOConfig(
            method="mirg", template=template, **data, eval_every=1, eval_tasks=["haystack_multi"], eval_limit=4,
            per_device_eval_batch_size=4, max_completion_length=16,
        )  # fmt: skip
        tasks, policy = LMMSTasks(config), load_model("haystack:base")
        runner = tasks._runner(pointer(), policy)
        assert (runner.settings.mode, runner.settings.templates.box.name) == (mode, template)
        assert runner.settings.budget == config.budget and runner.settings.sampling.max_new_tokens == 16
        about = describe(runner.options, runner.settings, None, "cpu")
        assert about.settings["template"]["box"] == template
    values = tasks.scores(policy, load_processor("haystack:base")).values
    names = ("accuracy", "accuracy_low", "image_accuracy", "mean_iou", "answered_rate", "accuracy/region")
    assert all(f"haystack_multi/{name}" in values for name in names)
