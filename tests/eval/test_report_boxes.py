"""The report on answers that are boxes: which box, on which image, and how much of it is right."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import mig_fixture
from oracle import pointing
from report_fixture import Evaluation, Logged, kept_image_names, payload_text, run_json
from report_reader import FIRST, report

from mgpo_core import Box, Episode, haystack
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.runs.evaluation_runs import read_runs
from mgpo_core.runs.response_payload import ResponsePayload, encode_payload
from mgpo_core.templates.base import Template
from mgpo_core.templates.multi_image import MultiImageTwoTurn
from mgpo_core.templates.single_image import PlainTurn
from mgpo_eval.models.episode_runner import answer_of
from mgpo_eval.tasks import haystack_multi_scoring, mig_scoring
from mgpo_eval.tasks.haystack_rows import haystack_multi_rows

SAMPLES = haystack.make_multi("val", 5, 7, 3)
ROWS = haystack_multi_rows("val", 5, 7, 3)
SAID = ("right", "wrong image", "beside it", "mute", "right")
TEMPLATES = {"words": "two_turn", "box": "multi_image", "mig_bench": "multi_image"}


def said(kind: str, episode: Episode, true: Box) -> str:
    if kind == "mute":
        return "I see nothing."
    wrong = (true.image + 1) % len(episode.images) if kind == "wrong image" else None
    shift = 0.4 * true.width if kind == "beside it" else 0.0
    return pointing(episode, Box(true.x1 + shift, true.y1, true.x2 + shift, true.y2, true.image), wrong)


def logged(row: int, kind: str, template: Template = mig_fixture.SINGLE_TURN) -> Logged:
    """A line of haystack_multi as its scorer and lmms-eval make it."""
    [true] = SAMPLES[row].boxes
    episode = Episode(replace(SAMPLES[row], boxes=(), metadata={}), template=template, budget=haystack.BUDGET)
    while not episode.done:
        whole = Box(0, 0, *ROWS[row]["sizes"][true.image], true.image)
        episode.observe(pointing(episode, whole) if episode.wants_box else said(kind, episode, true), tokens=9)
    played = episode.trajectory
    text = payload_text(played, FIRST, kept_image_names(FIRST, row, played))
    metrics = haystack_multi_scoring.score(ROWS[row], [text])
    return Logged(row, haystack_multi_scoring.target(ROWS[row]), text, metrics, images=played)


def written(folder: Path, task: str, samples: list[Logged], **changed: str) -> Path:
    provenance = run_json(FIRST, mode="single_turn", template=TEMPLATES | changed)
    return Evaluation(folder, {task: samples}, provenance, lower_is_better=("skipped",)).write()


def words(item: dict[str, str]) -> str:
    return " ".join(item["words"].split())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("boxes")
    written(folder / "out", "haystack_multi", [logged(row, kind) for row, kind in enumerate(SAID)])
    return report(folder / "out", folder)


def test_filters_know_right_and_wrong_invalid_and_missed_boxes(page) -> None:
    assert page.buttons == {"all": 5, "wrong": 3, "refused": 1, "missed": 1, "right": 2}
    assert "wrong 3 of 3, invalid box 1 of 1, box missed 1 of 1, right 2 of 2." in page.words


def test_cards_say_the_box_that_was_answered_its_image_and_its_overlap(page) -> None:
    cards = {kind: words(item) for kind in SAID for item in page.shown if card_kind(item) == kind}
    assert set(cards) == set(SAID)
    for text in cards.values():
        assert text.count(" IoU ") == text.count(" image right ") + text.count(" image wrong ") == 1
    assert "image right IoU 1.00" in cards["right"] and "answer image" in cards["right"]
    assert "image wrong IoU 0.00" in cards["wrong image"] and "box missed" in cards["wrong image"]
    assert f"image right IoU {0.6 / 1.4:.2f}" in cards["beside it"]
    assert "answer none" in cards["mute"] and "box refused no json" in cards["mute"]
    assert "scored Z" in cards["mute"] and all("scored" not in cards[kind] for kind in SAID if kind != "mute")
    [true] = SAMPLES[0].boxes
    numbers = [round(value) for value in true.as_tuple()]
    ground_truth = f"image {true.image + 1}: {numbers}"
    assert (
        sum(
            f"ground truth {ground_truth}" in words(item) and f"answer {ground_truth}" in words(item)
            for item in page.shown
        )
        == 1
    )


def card_kind(item: dict[str, str]) -> str:
    """What a card's model said, by the sample that it is of."""
    [row] = [row for row in range(5) if f"sample haystack_multi/{row}" in words(item)]
    return SAID[row]


def test_true_and_answered_boxes_are_drawn_on_their_images(page) -> None:
    kinds = [attributes["class"] for attributes in page.all("g")]
    assert kinds.count("true") == 5 and kinds.count("model") == 4
    assert len(page.all("img")) == 2 * sum(len(sample.images) for sample in SAMPLES)


def test_the_page_has_each_score_once_with_its_tasks_and_the_templates(page) -> None:
    head, *rows = page.table("scores")
    scores = ["accuracy ◆", "iou_03", "iou_07", "image_accuracy"]
    assert head[2:6] == scores and not any(name.endswith(("_low", "_high")) or "/" in name for name in head)
    assert [row[0] for row in rows] == ["all", *(f"category {task}" for task in sorted({r["category"] for r in ROWS}))]
    assert rows[0][2].startswith("0.400") and rows[0][3].startswith("0.600") and rows[0][5].startswith("0.600")
    settings = {row[0]: row[1] for row in page.table("settings")}
    assert settings["template"] == "words two_turn box multi_image mig_bench multi_image"


def test_a_look_before_the_answer_is_shown_with_its_crop(tmp_path: Path) -> None:
    sample = logged(0, "right", MultiImageTwoTurn())
    page = report(written(tmp_path / "out", "haystack_multi", [sample]), tmp_path)
    [card] = page.shown
    width, height = ROWS[0]["sizes"][0]
    assert f"The crop, seen at 168×168, really {width}×{height}" in words(card) and "Model, turn 2" in words(card)
    assert (card["data-right"], card["data-refused"], card["data-missed"]) == ("1", "0", "0")


def test_a_sample_that_was_skipped_has_a_card_that_says_so(tmp_path: Path) -> None:
    text = encode_payload(
        ResponsePayload("Z", {"run": FIRST, "trajectory": None, "images": {}, "skipped": "image 1 is truncated"})
    )
    metrics = haystack_multi_scoring.score(ROWS[0], [text])
    page = report(written(tmp_path / "out", "haystack_multi", [Logged(0, "image 3", text, metrics)]), tmp_path)
    [card] = page.shown
    assert "skipped image 1 is truncated" in words(card) and "IoU" not in words(card)
    assert card["data-wrong"] == "1"


def mig(index: int, text: str, template: Template = mig_fixture.SINGLE_TURN) -> Logged:
    """A line of mig_bench: a response to one of the fixture's records."""
    record, (row, _) = mig_fixture.RECORDS[index], mig_fixture.CASES[index]
    played: Trajectory = mig_fixture.generate(record, text, template=template)
    kept = {"run": FIRST, "trajectory": played.to_dict(), "images": kept_image_names(FIRST, index, played)}
    encoded = encode_payload(ResponsePayload(answer_of(played), kept))
    row = row | {"index": index, "place": "."}
    return Logged(index, mig_scoring.target(row), encoded, mig_scoring.score(row, [encoded]), images=played)


def test_mig_benchs_answers_are_judged_at_half_an_overlap_in_either_format(tmp_path: Path) -> None:
    record = mig_fixture.RECORDS[10]  # the second of two images
    x1, y1, x2, y2 = record.ground_truth.as_tuple()
    sizes = mig_fixture.generate(record, "").input_sizes[1] * 2
    pixels = [value * side for value, side in zip((x1, y1, x2, y2), sizes, strict=True)]
    thousandths = "({:.0f},{:.0f}),({:.0f},{:.0f})".format(*(1000 * value for value in (x1, y1, x2, y2)))
    samples = [
        mig(10, f'[{{"image": 2, "bbox_2d": {pixels}}}]'),
        mig(11, f'[{{"image": 1, "bbox_2d": {pixels}}}]'),
        mig(12, "Nowhere."),
        mig(13, f"In the first image. {thousandths}", PlainTurn()),
    ]
    [run] = read_runs([written(tmp_path / "out", "mig_bench", samples)])
    task = run.tasks["mig_bench"]
    assert task.main == "iou_05" and [task.right(task.samples[i]) for i in (10, 11, 12)] == [True, False, False]
    page = report(tmp_path / "out", tmp_path)
    cards = {int(words(item).split("sample mig_bench/")[1][:2]): words(item) for item in page.shown}
    assert "image right IoU 1.00" in cards[10] and "image wrong IoU 0.00" in cards[11]
    assert "box refused no json" in cards[12] and "image wrong IoU 0.00" in cards[12]
    assert "image wrong" in cards[13] and "IoU 0." in cards[13]
    kinds = [attributes["class"] for attributes in page.all("g")]
    assert kinds.count("true") == 4 and kinds.count("model") == 2


def test_runs_that_differ_in_the_template_of_some_task_are_named_by_it(tmp_path: Path) -> None:
    sample = logged(0, "right")
    formats = ("multi_image", "plain")
    folders = [written(tmp_path / name, "haystack_multi", [sample], mig_bench=name) for name in formats]
    names = [run.name for run in read_runs(folders)]
    assert [name.removeprefix("haystack:mgpo ") for name in names] == [
        "two_turn and multi_image",
        "two_turn and multi_image and plain",
    ]
