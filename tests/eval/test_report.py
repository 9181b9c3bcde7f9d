"""The page on results of lmms-eval: its numbers are those of the logs, it needs no network, hostile text stays text."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import pytest
from hostile_text import HOSTILE, assert_shown_as_text, poisoned

sys.path.insert(0, str(Path(__file__).parent))
from report_fixture import (
    BAD_BOX,
    NO_BOX,
    Evaluation,
    Logged,
    hrbench,
    mme_realworld,
    ours,
    played,
    run_json,
    skipped,
    vstar,
)
from report_reader import FIRST, SECOND, mixed, one_task, report

from mgpo_core.episodes.intervals import mean_interval, wilson_interval
from mgpo_core.runs.evaluation_runs import read_runs
from mgpo_eval.report import page as page_module


def cell(values, n):
    """A score cell as the page is to show it, by the formulas themselves."""
    mean = math.fsum(values) / len(values)
    binary = all(value in (0, 1) for value in values)
    low, high = wilson_interval(sum(values), len(values)) if binary else mean_interval(values)
    of = "" if len(values) == n else f" n = {len(values)}"
    return f"{mean:.3f} {max(0, low):.3f} to {min(1, high):.3f}{of}"


def test_every_score_has_its_mean_interval_and_n_over_all_and_per_category(single):
    head, *rows = single.table("scores")
    assert [name.replace(" ◆", "") for name in head] == [
        "Samples", "n", "accuracy", "valid_box_rate", "hit_rate", "mean_iou", "crop_area_fraction", "answered_rate",
    ]  # fmt: skip
    assert head[2] == "accuracy ◆"
    lines = [sample.metrics for sample in [*mixed(), skipped(12, "")]]
    for category, row in zip((None, "colour", "count"), rows, strict=True):
        of_category = [line for line in lines if category in (None, line["category"])]
        assert row[:2] == ["all" if category is None else f"category {category}", str(len(of_category))]
        for name, shown in zip(("accuracy", "hit_rate", "crop_area_fraction"), (row[2], row[4], row[6]), strict=True):
            values = [line[name] for line in of_category if name in line]
            assert shown == cell(values, len(of_category)), name


def test_grounding_is_measured_on_the_trajectories_where_the_task_logs_none(tmp_path):
    boxes = [{}, {"box": BAD_BOX}, {}, {"box": NO_BOX}]
    folder = one_task(
        tmp_path, [vstar(i, True, run_id=FIRST, **box) for i, box in enumerate(boxes)], task="vstar_bench"
    )
    head, row, _ = report(folder, tmp_path).table("scores")
    assert row[head.index("valid_box_rate")] == cell([1, 0, 1, 0], 4)
    assert row[head.index("answered_rate")] == cell([1, 1, 1, 1], 4)
    fractions = [played(i, "A").metrics()["crop_area_fraction"] for i in (0, 2)]
    assert row[head.index("crop_area_fraction")] == cell(fractions, 4)
    assert "hit_rate" not in head


def test_differing_averages_of_lmms_eval_are_shown(tmp_path):
    samples = [vstar(i, i < 3, ("direct_attributes", "relative_position")[i % 2]) for i in range(4)]
    averages = {
        "vstar_overall_acc,none": 75.0,
        "vstar_direct_attributes_acc,none": 70.123,
        "valid_box_rate,none": "N/A",
    }
    page = report(one_task(tmp_path, samples, task="vstar_bench", averages={"vstar_bench": averages}), tmp_path)
    head, row, *_ = page.table("scores")
    assert "lmms-eval" not in row[head.index("vstar_overall_acc ◆")]
    assert row[head.index("vstar_direct_attributes_acc")].endswith("n = 2 lmms-eval: 70.123")
    assert "1 of 2 averages of lmms-eval differ" in page.words


def test_averages_of_our_tasks_are_compared_per_category_too(tmp_path):
    averages = {"accuracy,none": 0.75, "accuracy/colour,none": 0.9, "skipped,none": 0.0}
    page = report(one_task(tmp_path, mixed(), averages={"mgpo_haystack": averages}), tmp_path)
    assert page.table("scores")[2][0] == "category colour"
    assert page.table("scores")[2][2].endswith("lmms-eval: 0.900")
    assert "1 of 2 averages of lmms-eval differ" in page.words


def test_averages_of_lmms_eval_that_agree_are_said_to(single):
    assert "lmms-eval's own averages (8) agree in all digits shown" in single.words


def test_two_runs_are_compared_sample_by_sample(double):
    head, *rows = double.table("differences")
    assert head[3:6] == ["A", "B", "B − A"]
    accuracy = rows[0]
    assert accuracy[:3] == ["mgpo_haystack", "accuracy", "12"]
    assert accuracy[3:6] == ["0.750", "0.833", "+0.083"]
    # 1 and 6 are right in B alone, 3 in A alone: of 3 coins, all but the even splits are as far off: p = 1
    assert accuracy[7:] == ["1.000", "McNemar, exact"]
    assert double.table("fourfold")[1] == ["mgpo_haystack", "accuracy", "8", "1", "2", "1", "0", "0", "0"]
    names = [row[1] for row in rows]
    assert names[:3] == ["accuracy", "category colour", "category count"]
    assert dict(zip(names, [row[8] for row in rows], strict=True))["mean_iou"] == "sign permutation"


def test_samples_of_one_run_alone_and_those_of_other_data_are_counted(tmp_path):
    b = [ours(i, True, run_id=SECOND) for i in range(2, 9)]
    b[0].ground_truth = "C"
    folders = [one_task(tmp_path / "a", mixed()), one_task(tmp_path / "b", b, run_id=SECOND)]
    page = report(folders, tmp_path)
    # A has 0-11, B 2-8, of which 2 is another sample
    assert page.table("fourfold")[1][-3:] == ["5", "0", "1"]
    assert page.table("differences")[1][2] == "6"
    assert len(page.shown) == 13


def test_many_categories_are_folded_away(tmp_path):
    def task(run_id):
        return [ours(i, True, category=f"kind {i:02}", run_id=run_id) for i in range(14)]

    folders = [one_task(tmp_path / "a", task(FIRST)), one_task(tmp_path / "b", task(SECOND), run_id=SECOND)]
    page = report(folders, tmp_path)
    assert "mgpo_haystack: 14 categories" in page.words
    assert sum(row[1] == "category kind 07" for row in page.table("differences")) == 1
    assert sum(row[0] == "category kind 07" for row in page.table("scores")) == 1
    names = [row[1] for row in page.table("differences")]
    assert names.index("mean_iou") < names.index("category kind 00")


def test_what_makes_a_comparison_unfair_stands_beside_it(tmp_path):
    changed = {
        "budget": {"min_pixels": 3136, "max_pixels": 999999, "factor": 28},
        "decoding": run_json()["decoding"] | {"temperature": 1.0},
    }
    a = one_task(tmp_path / "a", mixed())
    b = one_task(tmp_path / "b", mixed(SECOND), provenance=run_json(SECOND, **changed))
    page = report([a, b], tmp_path)
    assert "see images at different resolutions (budget.max_pixels 28224 and 999999)" in page.words
    assert "decode differently (decoding.temperature 0.0 and 1.0)" in page.words
    assert "28224" in " ".join(" ".join(row) for row in page.table("settings"))


def test_a_fair_comparison_is_not_warned_of(double):
    assert "fair comparison" not in double.words


def test_runs_of_one_folder_are_compared_with_the_first(tmp_path):
    ids = [FIRST, SECOND, "c" * 16]
    for place, run_id in enumerate(ids):
        provenance = run_json(run_id, mode=("single_turn", "two_turn", "two_turn")[place])
        one_task(tmp_path, mixed(run_id, 8), provenance=provenance, date=f"2025010{place + 1}_120000")
    page = report(tmp_path, tmp_path)
    assert [row[-8] for row in page.table("scores")[1:4]] == ["A", "B", "C"]
    runs = read_runs([tmp_path])
    assert [run.name for run in runs] == [
        "haystack:mgpo single_turn", "haystack:mgpo two_turn 20250102_120000", "haystack:mgpo two_turn 20250103_120000",
    ]  # fmt: skip
    heads = [row for row in page.table("differences") if row[0] == "Task"]
    assert [row[5] for row in heads] == ["B − A", "C − A"]
    swapped = report(tmp_path, tmp_path, runs=["B", "A"])
    assert "haystack:mgpo two_turn" in swapped.table("settings")[0][1]


def test_a_model_without_envelopes_is_compared_by_its_scores(tmp_path):
    bare = [
        Logged(s.doc_id, s.ground_truth, "A", {"accuracy": 1.0, "category": s.metrics["category"]}) for s in mixed()
    ]
    other = one_task(tmp_path / "b", bare, provenance=None, model="other", config={"model": "qwen2_5_vl"})
    page = report([one_task(tmp_path / "a", mixed()), other], tmp_path)
    assert page.table("differences")[1][3:6] == ["0.750", "1.000", "+0.250"]
    assert "12 of 12 samples have no trajectory that can be read" in page.words
    assert "pixel budget and decoding are not recorded for qwen2_5_vl" in page.words
    assert page.buttons["changed"] == 3
    assert {item["data-run"] for item in page.items if item["inside"]} == {"A"}
    alone = report(other, tmp_path)
    assert "There is no trajectory to browse" in alone.words
    assert not alone.shown and not alone.buttons


def test_the_settings_of_each_run_are_on_the_page(single):
    rows = dict(single.table("settings")[1:])
    assert rows["budget"] == "min_pixels 3136 max_pixels 28224 factor 28"
    assert rows["decoding"].startswith("max_new_tokens 1024 temperature 0.0")
    assert rows["weights"] == "name haystack:mgpo identity feedfacefeedface"
    assert rows["template"] == rows["mode"] == "two_turn"
    assert rows["versions"] == "mgpo-eval 0.1.0 torch 2.13.0 lmms-eval 0.7.3"
    assert "pretrained=haystack:mgpo" in rows["lmms-eval"]


@pytest.mark.parametrize("which", ["single", "double"])
def test_the_page_refers_to_nothing_outside_itself(which, request):
    page = request.getfixturevalue(which)
    loading = ("src", "href", "xlink:href", "srcset", "action", "formaction", "poster", "data", "background")
    references = [attrs[name] for _, attrs in page.elements for name in loading if name in attrs]
    ids = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    assert all(r.startswith("data:image/") or (r[0] == "#" and r[1:] in ids) for r in references)
    plain = re.sub(r"data:image/(jpeg|png);base64,[\w+/=]+", "", page.source)
    assert not re.search(r"https?:|//\w|url\(|@import|fetch\(|XMLHttp", plain)
    [policy] = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy.split("script-src")[1]


def test_hostile_text_stays_text(tmp_path):
    def hostile(run_id):
        sample = ours(0, True, run_id=run_id, question=HOSTILE, category=HOSTILE)
        sample.ground_truth = HOSTILE
        sample.metrics[HOSTILE] = 1.0
        return [sample, skipped(HOSTILE, HOSTILE, run_id)]

    provenance = run_json(FIRST, weights={"name": HOSTILE, "identity": HOSTILE}, mode=HOSTILE)
    a = one_task(tmp_path / "a", hostile(FIRST), provenance=provenance)
    log = Evaluation(a, {}).log("mgpo_haystack")
    log.write_text(log.read_text(encoding="utf-8") + HOSTILE + "\n", encoding="utf-8")
    b = one_task(tmp_path / "b", hostile(SECOND), run_id=SECOND)
    for page in (report(a, tmp_path), report([a, b], tmp_path)):
        assert len(page.all("script")) == 1
        assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
        assert all(image["src"].startswith("data:") for image in page.all("img"))
        assert page.words.count(HOSTILE) > 5


def test_hostile_text_in_any_field_above_the_cards_stays_text(tmp_path, monkeypatch):
    def many_categories(run_id):
        return [ours(i, i % 2 == 0, category=f"kind {i}", run_id=run_id) for i in range(13)]

    folders = [one_task(tmp_path / str(n), many_categories(run_id)) for n, run_id in enumerate((FIRST, SECOND))]
    folders.append(one_task(tmp_path / "2", [skipped(0, "", "c" * 16)], run_id="c" * 16))
    for name in ("difference_tables", "score_tables", "setting_columns", "run_notes", "gallery_note"):
        made = getattr(page_module, name)
        monkeypatch.setattr(page_module, name, lambda *args, made=made: poisoned(made(*args)))
    monkeypatch.setattr(page_module, "describe_baseline", lambda *args: HOSTILE)
    page = report(folders, tmp_path, samples=0)
    assert_shown_as_text(page.source, scripts=1)
    assert page.words.count(HOSTILE) > 100


@pytest.mark.slow
def test_the_fixture_is_what_lmms_eval_writes(tmp_path, monkeypatch):
    """The real evaluator and tracker of lmms-eval, and the stock tasks' own scorers, on the fixture's responses."""
    from types import SimpleNamespace

    from lmms_eval.evaluator import _process_document_results
    from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
    from lmms_eval.tasks.hrbench import utils as hr
    from lmms_eval.tasks.mme_realworld.utils import mme_realworld_process_results
    from lmms_eval.tasks.vstar_bench.utils import vstar_process_results

    monkeypatch.setattr(
        hr.hrbench_evaluator, "get_chat_response", lambda asked: {"gpt_prediction": asked["prediction"]}
    )
    rows = {
        "vstar_bench": (vstar(3, True), vstar_process_results, {"text": "?", "label": "A", "question_id": 3,
                        "category": "direct_attributes"}),
        "mmerealworld": (mme_realworld(4, "B"), mme_realworld_process_results, {"answer": "A", "index": "q4",
                         "category": "Perception/Monitoring", "l2-category": "vehicle/count"}),
        "hrbench4k": (hrbench(5, True), hr.hrbench_process_results, {"index": 5, "question": "?", "answer": "A",
                      "A": "x", "category": "single", "cycle_category": "0"}),
        "mgpo_haystack": (ours(6, True), None, {"answer": "A"}),
    }  # fmt: skip
    tracker = EvaluationTracker(output_path=str(tmp_path))
    tracker.general_config_tracker.model_name_sanitized = "haystack__mgpo"
    tracker.save_results_aggregated({"results": {}}, {}, "20250101_120000")
    evaluation = Evaluation(tmp_path, {})
    for name, (sample, process, doc) in rows.items():
        request = SimpleNamespace(
            filtered_resps={"none": sample.text}, raw_filtered_resps={}, resps=[sample.text], doc=doc,
            args=(f"What colour is mark {sample.doc_id}?", print, {}, sample.doc_id, name, "test"),
            token_counts=[SimpleNamespace(to_dict=lambda: {"input_tokens": 90, "output_tokens": 30})],
        )  # fmt: skip
        task = SimpleNamespace(
            process_results=process or (lambda doc, results, sample=sample: dict(sample.metrics)),
            doc_to_target=lambda doc: "A",
        )
        done = _process_document_results(
            (sample.doc_id, doc, [request]),
            task=task,
            filter_key="none",
            reasoning_tags=[["<think>", "</think>"]] if sample.stripped else None,
            log_samples=True,
        )
        tracker.save_results_samples(name, [done.logged_sample])
        [line] = [json.loads(line) for line in evaluation.log(name).read_text(encoding="utf-8").splitlines()]
        expected = sample.line()
        assert list(line) == list(expected), name
        assert line | {"doc_hash": ""} == expected | {"doc_hash": ""}, name
