"""Results folders read: scores by each task's rules, runs put together, what is broken named, refusals that help."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from report_fixture import Evaluation, hrbench, mme_realworld, vstar
from report_reader import FIRST, SECOND, Page, mixed, one_task, report

from mgpo_core.runs.evaluation_runs import ResultsError, read_runs
from mgpo_core.runs.logged_scores import main_score, read_categories, read_scores, repeated_scores
from mgpo_eval.report.command import main
from mgpo_eval.report.page import write_results_report
from mgpo_eval.report.selection import label_runs


def test_stock_tasks_are_read_by_their_own_rules(tmp_path):
    vs = [vstar(i, i % 3 > 0, ("direct_attributes", "relative_position")[i % 2]) for i in range(6)]
    assert [read_scores(s.line())["vstar_overall_acc"] for s in vs] == [0, 1, 1, 0, 1, 1]
    assert "vstar_direct_attributes_acc" not in read_scores(vs[1].line())
    assert read_categories(vs[1].line()) == (("category", "relative_position"),)
    assert main_score(read_scores(s.line()) for s in vs) == "vstar_overall_acc"

    predictions = {"A": 1, "a": 1, "(A)": 1, "B": 0, "": 0}
    mme = [mme_realworld(i, pred) for i, pred in enumerate(predictions)]
    assert [read_scores(s.line()) for s in mme] == [{"mme_realworld_score": v} for v in predictions.values()]
    assert read_categories(mme[0].line()) == (("category", "Perception"), ("sub_category", "Monitoring"))

    hr = [hrbench(i, i < 2, ("single", "cross")[i % 2], cycle=str(i % 4)) for i in range(4)]
    assert [read_scores(s.line()) for s in hr][:2] == [{"single": 1.0, "average": 1.0}, {"cross": 1.0, "average": 1.0}]
    assert read_categories(hr[3].line()) == (("cycle_category", "3"),)
    assert main_score(read_scores(s.line()) for s in hr) == "average"


def test_what_our_tasks_log_again_for_lmms_eval_to_average_is_no_further_score():
    names = ("accuracy", "accuracy_low", "accuracy_high", "accuracy/colour", "loss/turn1")
    lines = [dict.fromkeys(names, float(i)) | {"skipped": 0.0, "category": "colour"} for i in (0, 1)]
    scores = [read_scores(line) for line in lines]
    assert set(scores[0]) == set(names)
    assert repeated_scores(scores) == {"accuracy_low", "accuracy_high", "accuracy/colour"}
    scores.append({"accuracy": 1.0, "accuracy_low": 0.0})  # no copy, as one sample shows
    assert repeated_scores(scores) == {"accuracy_high", "accuracy/colour"}
    deep = {"accuracy": 0.0, "accuracy/Perception": 0.0, "accuracy/Perception/Monitoring": 0.0, "category": "count"}
    assert read_categories(deep) == tuple(("category", c) for c in ("Perception", "Perception/Monitoring", "count"))


def test_migs_answers_are_right_that_overlap_by_half():
    values = {"iou_03": 1.0, "iou_05": 0.0, "mean_iou": 0.4, "valid_box_rate": 1.0}
    line = {f"{name}{end}": {"score": v, "task": "diff"} for name, v in values.items() for end in ("", "_low", "_high")}
    scores = read_scores(line)
    assert {name: scores[name] for name in scores if name not in repeated_scores([scores])} == values
    assert main_score([values]) == "iou_05"


def test_what_is_not_defined_or_no_score_is_not_averaged():
    line = {
        "doc_id": 3,
        "accuracy": 1.0,
        "hit_rate": float("nan"),
        "mean_iou": None,
        "note": "x",
        "index": 7,
        "ok": True,
    }
    assert read_scores(line, ["accuracy", "ok"]) == {"accuracy": 1.0, "ok": 1.0}
    assert read_scores(line) == {"accuracy": 1.0, "index": 7.0, "ok": True}


def test_evaluations_of_one_run_belong_together_and_the_newer_of_a_task_counts(tmp_path):
    one_task(tmp_path, mixed(), date="20250101_120000")
    one_task(tmp_path, mixed(n=5), date="20250102_120000")
    one_task(tmp_path, [vstar(i, True, run_id=FIRST) for i in range(3)], task="vstar_bench", date="20250103_120000")
    [run] = read_runs([tmp_path])
    assert {name: len(task.samples) for name, task in run.tasks.items()} == {"mgpo_haystack": 5, "vstar_bench": 3}
    page = report(tmp_path, tmp_path)
    assert "mgpo_haystack was evaluated more than once: 20250102_120000 counts." in page.words
    only = report(tmp_path, tmp_path, tasks=["vstar_bench"])
    assert "mgpo_haystack" not in only.words


def test_broken_lines_are_named_and_counted_and_the_rest_is_shown(tmp_path):
    samples = mixed()
    samples[3].text = samples[3].text.replace('"turns":', '"turms":')
    folder = one_task(tmp_path, samples)
    log = Evaluation(folder, {}).log("mgpo_haystack")
    lines = log.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1][:200]
    lines.insert(5, '{"target": "A"}')
    lines.append(lines[0])
    log.write_text("\n".join(lines), encoding="utf-8")
    page = report(folder, tmp_path)
    assert "mgpo_haystack: 3 broken lines" in page.words
    for number, reason in ((2, "left out"), (6, "'doc_id' is missing; left out"), (4, "'turns' is missing; scored")):
        assert re.search(rf"{re.escape(log.name)}, line {number}: [^.]*{reason}", page.words)
    assert "1 lines repeat a document" in page.words
    assert page.table("scores")[1][1] == "11"
    assert len(page.shown) == 10


def test_unknown_settings_are_said_to_be_unknown(tmp_path):
    folder = one_task(tmp_path, mixed())
    (folder / "mgpo" / FIRST / "run.json").unlink()
    next(folder.rglob("*_results.json")).unlink()
    page = report(folder, tmp_path)
    assert f"The settings of run {FIRST} are not known" in page.words
    assert "No results file beside the logs of 20250101_120000" in page.words
    assert "No averages of lmms-eval to compare with." in page.words


def test_the_model_folder_itself_is_a_results_folder_too(tmp_path):
    folder = one_task(tmp_path, mixed())
    page = report(folder / "haystack__mgpo", tmp_path)
    assert "images" not in page.shown[0]["words"]
    assert dict(page.table("settings")[1:])["mode"] == "two_turn"


def test_a_folder_without_results_says_which_to_give(tmp_path):
    with pytest.raises(ResultsError, match=r"nowhere is not a directory: give .*--output_path"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(ResultsError, match=r"holds no results of lmms-eval .*--output_path"):
        read_runs([tmp_path])


def test_results_without_samples_say_how_to_log_them(tmp_path):
    folder = one_task(tmp_path, mixed())
    Evaluation(folder, {}).log("mgpo_haystack").unlink()
    with pytest.raises(ResultsError, match="--log_samples"):
        read_runs([folder])


def test_an_unknown_task_and_a_log_of_nothing_but_broken_lines_are_refused(tmp_path):
    folder = one_task(tmp_path, mixed())
    with pytest.raises(ResultsError, match="no sample of vstar_bench: its logs are of mgpo_haystack"):
        read_runs([folder], ["vstar_bench"])
    log = Evaluation(folder, {}).log("mgpo_haystack")
    log.write_text("not JSON\n", encoding="utf-8")
    with pytest.raises(ResultsError, match=rf"{log.name}, line 1"):
        read_runs([folder])


def test_two_folders_without_a_common_sample_are_refused(tmp_path):
    a = one_task(tmp_path / "a", mixed())
    b = one_task(tmp_path / "b", [vstar(1, True, run_id=SECOND)], run_id=SECOND, task="vstar_bench")
    with pytest.raises(ResultsError, match=r"mgpo_haystack.*vstar_bench.*no sample in common"):
        write_results_report([a, b], tmp_path / "page.html")
    assert not list(tmp_path.glob("*.html"))


def test_a_run_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    folder = one_task(tmp_path, mixed())
    with pytest.raises(
        ResultsError, match=r"no run is called 'B': there are A: haystack:mgpo \(id a+, 20250101_120000"
    ):
        report(folder, tmp_path, runs=["B"])
    with pytest.raises(ResultsError, match="26|too many"):
        label_runs(read_runs([folder]) * 27)


def test_the_command_writes_the_page_beside_the_results(tmp_path, capsys):
    folder = one_task(tmp_path, mixed())
    assert main([str(folder), "--samples", "3", "--tasks", "mgpo_haystack", "--runs", "A"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert len(Page(folder / "report.html").shown) == 3
    assert main([str(folder), "--output", str(tmp_path / "deep" / "page.html")]) == 0
    assert (tmp_path / "deep" / "page.html").is_file()
    assert not list(tmp_path.rglob("*.tmp.html"))


def test_the_command_refuses_in_one_line_and_its_help_teaches(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("mgpo-eval report: error: ")
    assert captured.err.count("\n") == 1
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert "mgpo-eval report outputs/single_turn outputs/two_turn" in text
    assert "--log_samples" in text and "95% interval" in text


def test_neither_the_command_nor_the_report_imports_lmms_eval_or_torch():
    code = (
        "import mgpo_eval.report.command, mgpo_eval.report.page, sys; print({'torch', 'lmms_eval'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
