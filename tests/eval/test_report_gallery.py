"""What of the trajectories a report shows: filters count it, the scorer judges it, nothing missing goes unsaid."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from report_fixture import Logged, kept_image_names, ours, payload_text, played, scene
from report_reader import FIRST, Page, one_task, report

from mgpo_eval.report.gallery import KINDS, choose_samples
from mgpo_eval.report.page import write_results_report


def test_the_filters_count_what_the_cards_are(single):
    counts = {kind: sum(item[f"data-{kind}"] == "1" for item in single.shown) for kind in KINDS[1:]}
    assert single.buttons == {"all": 13} | counts
    assert counts == {"wrong": 4, "refused": 2, "missed": 2, "right": 9}
    assert (
        "13 of 13 samples are shown: wrong 4 of 4, invalid box 2 of 2, box missed 2 of 2, right 9 of 9." in single.words
    )


def test_the_filters_of_two_runs_count_samples_and_know_which_changed(double):
    assert len(double.shown) == 12
    rows = {re.search(r"mgpo_haystack/(\d+)", item["words"])[1]: item for item in double.shown}
    assert {number for number, item in rows.items() if item["data-changed"] == "1"} == {"1", "3", "6"}
    counts = {kind: sum(item[f"data-{kind}"] == "1" for item in double.shown) for kind in KINDS}
    assert double.buttons == {"all": 12} | counts
    assert counts == {"changed": 3, "wrong": 4, "refused": 2, "missed": 2, "right": 11}
    cards = [item for item in double.items if item["inside"]]
    assert [card["data-run"] for card in cards] == ["A", "B"] * 12
    assert sum(card["data-wrong"] == "1" for card in cards if card["data-run"] == "B") == 2
    assert [option["value"] for option in double.all("option")] == ["", "A", "B"]


def test_one_run_has_no_filter_for_what_changed(single):
    assert "changed" not in single.buttons
    assert not single.all("select")


def test_boxes_crops_and_skipped_samples_are_on_the_cards(single):
    assert len([a for a in single.all("g") if a["class"] == "model"]) == 10
    assert len([a for a in single.all("g") if a["class"] == "refused"]) == 1
    images = [a["src"] for a in single.all("img")]
    assert len(images) == 12 * 2 + 10  # originals, as seen, crops of the valid boxes
    assert all(source.startswith("data:image/") for source in images)
    [card] = [item for item in single.shown if "image 0 is truncated" in item["words"]]
    assert card["data-wrong"] == "1"
    assert "What colour is mark 12?" in card["words"]
    assert "1 of 13 samples were skipped and are scored as logged: 12: image 0 is truncated" in single.words


def test_sizes_are_those_that_the_model_saw_though_the_kept_images_are_small(tmp_path):
    trajectory = played(0, "A", image=scene(1, (2016, 1512)))
    sample = ours(0, True, run_id=FIRST, image=scene(1, (2016, 1512)))
    page = report(one_task(tmp_path, [sample]), tmp_path)
    width, height = trajectory.turns[0].shown_size
    assert f"The crop, seen at {width}×{height}, really " in page.words
    assert "seen at 168×140, really 2016×1512" in page.words


def test_images_that_were_not_kept_or_are_gone_are_named_on_the_card(tmp_path):
    folder = one_task(
        tmp_path, [ours(0, True, run_id=FIRST, images=False), *(ours(i, True, run_id=FIRST) for i in (1, 2))]
    )
    gone, broken = sorted((folder / "mgpo" / FIRST / "images").glob("*original*"))
    gone.unlink()
    broken.write_bytes(b"no image")
    page = report(folder, tmp_path)
    words = [" ".join(item["words"].split()) for item in page.shown]
    assert sum("images not kept" in text for text in words) == 1
    assert sum("1 of 3 not found" in text for text in words) == 1
    assert sum("cannot be read as an image" in text for text in words) == 1


def test_a_log_cannot_pull_in_images_from_outside_its_folder(tmp_path):
    secret = tmp_path / "secret.png"
    scene(3).save(secret)
    trajectory = played(0, "A")
    for place in (str(secret), "../secret.png"):
        kept = dict.fromkeys(kept_image_names(FIRST, 0, trajectory), place)
        folder = one_task(tmp_path / "out", [Logged(0, "A", payload_text(trajectory, FIRST, kept), {"accuracy": 1.0})])
        [card] = report(folder, tmp_path).shown
        assert "images 3 of 3 not found" in " ".join(card["words"].split())


flags = st.fixed_dictionaries({kind: st.booleans() for kind in KINDS})


class Shown:
    """A sample of nothing but flags."""

    def __init__(self, number, flags, has_images):
        self.number, self.flags, self.has_images = number, flags, has_images
        self.kind = next((place for place, kind in enumerate(KINDS) if flags[kind]), len(KINDS))


@settings(max_examples=60)
@given(st.lists(st.tuples(flags, st.booleans()), max_size=60), st.integers(0, 30))
def test_a_choice_of_samples_is_full_the_same_every_time_and_has_every_kind(samples, most):
    found = [Shown(i, of_sample, has_images) for i, (of_sample, has_images) in enumerate(samples)]
    chosen = choose_samples(found, most)
    assert len(chosen) == len({sample.number for sample in chosen}) == min(most, len(found))
    assert [e.number for e in choose_samples(found, most)] == [e.number for e in chosen]
    assert [e.kind for e in chosen] == sorted(e.kind for e in chosen)
    if most >= 2 * len(KINDS):
        for kind in KINDS:
            assert any(e.flags[kind] for e in chosen) == any(e.flags[kind] for e in found)


def test_the_gallery_samples_evenly_and_gives_the_counts(tmp_path):
    samples = [ours(i, i >= 30, run_id=FIRST, images=i % 2 == 0) for i in range(60)]
    folder = one_task(tmp_path, samples)
    page = report(folder, tmp_path, samples=20)
    assert len(page.shown) == page.buttons["all"] == 20
    assert "20 of 60 samples are shown" in page.words
    assert "wrong 15 of 30, right 5 of 30" in page.words
    numbers = sorted(int(re.search(r"mgpo_haystack/(\d+)", item["words"])[1]) for item in page.shown)
    assert all(number % 2 == 0 for number in numbers)
    assert max(numbers) > 50 and min(numbers) < 10
    assert page.table("scores")[1][1] == "60"
    assert report(folder, tmp_path, samples=0).shown == []


def test_right_and_wrong_are_what_the_scorer_said_whatever_the_trajectory_says(tmp_path):
    text = payload_text(played(0, "A"), FIRST)
    task = [
        Logged(0, "A", text, {"accuracy": 0.0}),
        Logged(1, "B", text.replace("task/0", "task/1"), {"accuracy": 1.0}),
    ]
    page = report(one_task(tmp_path, task), tmp_path)
    assert [(item["data-wrong"], item["data-right"]) for item in page.shown] == [("1", "0"), ("0", "1")]
    assert "ground truth B" in " ".join(page.shown[1]["words"].split())


@pytest.mark.slow
def test_a_page_of_200_trajectories_is_light(tmp_path):
    samples = [ours(i, i % 2 == 0, run_id=FIRST, image=scene(i, (1280, 960))) for i in range(220)]
    path = write_results_report([one_task(tmp_path, samples)], tmp_path / "page.html")
    assert len(Page(path).shown) == 200
    assert path.stat().st_size < 30e6
