"""The baseline of a report is what the rules say, whatever order the runs are named in, and the page says which."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from report_fixture import Logged, run_json, vstar
from report_reader import FIRST, SECOND, Page, one_task, report

from mgpo_core.runs.evaluation_runs import ResultsError, Run, read_runs
from mgpo_eval.report.baseline import baseline_first, describe_baseline
from mgpo_eval.report.command import main
from mgpo_eval.report.selection import order_runs

SINGLE_TURN, TWO_TURN = {"mode": "single_turn"}, {"mode": "two_turn"}
HUB = {"weights": {"name": "Qwen/Qwen2.5-VL-7B-Instruct"}}


def run(name: str = "run", **provenance: Any) -> Run:
    return Run(Path(name), Path(name), name, provenance, name, name=name)


def weights(name: Any, **rest: Any) -> dict[str, Any]:
    return {"weights": {"name": str(name)}, **rest}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (SINGLE_TURN, TWO_TURN, "single turn"),
        (HUB | SINGLE_TURN, weights("OUT/model") | TWO_TURN, "single turn"),
        ({"template": "single_turn"}, {"template": "two_turn"}, "single turn"),
        ({"template": {"words": "single_turn"}}, {"template": {"words": "two_turn"}}, "single turn"),
        (weights("haystack:base"), weights("haystack:mgpo"), "the weights that training started from"),
        (
            weights("haystack:base") | TWO_TURN,
            weights("haystack:mgpo") | SINGLE_TURN,
            "the weights that training started",
        ),
        ({"pretrained": "haystack:base"}, {"pretrained": "haystack:mgpo"}, "the weights that training started from"),
    ],
)
def test_the_baseline_is_the_same_in_either_order(
    first: dict[str, Any], second: dict[str, Any], why: str, swapped: bool
) -> None:
    runs = [run("first", **first), run("second", **second)]
    found, reason = baseline_first(runs[::-1] if swapped else runs)
    assert [r.name for r in found] == ["first", "second"]
    assert reason.startswith(why)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("kind", ["model", "best", "."])
def test_a_training_folder_says_what_its_weights_started_from(tmp_path: Path, kind: str, swapped: bool) -> None:
    (tmp_path / "out" / kind).mkdir(parents=True, exist_ok=True)
    (tmp_path / "out/summary.json").write_text(json.dumps({"model": "Qwen/Qwen2.5-VL-7B-Instruct"}))
    runs = [run("base", **HUB), run("trained", **weights(tmp_path / "out" / kind))]
    found, _ = baseline_first(runs[::-1] if swapped else runs)
    assert [r.name for r in found] == ["base", "trained"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": 3}'])
def test_a_summary_that_says_nothing_decides_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    runs = [run("trained", **weights(tmp_path / "model")), run("base", **HUB)]
    assert baseline_first(runs) == (runs, "the first named")


@pytest.mark.parametrize("provenance", [{}, TWO_TURN, SINGLE_TURN, {"mode": None}])
def test_where_nothing_tells_the_first_named_is_the_baseline_and_it_is_said(provenance: dict[str, Any]) -> None:
    runs = [run("a", **provenance), run("b", **provenance), run("c", **provenance)]
    assert baseline_first(runs) == (runs, "the first named")
    assert baseline_first([runs[0], run("foreign")])[0][0] is runs[0]
    stated = describe_baseline(dict(zip("ABC", runs, strict=True)), "the first named")
    assert stated == "baseline: A a (the first named); difference = B − A, C − A: B b, C c minus baseline"


def test_of_four_runs_the_start_weights_with_a_single_turn_are_the_baseline() -> None:
    runs = [
        run(f"{name} {mode}", **weights(f"haystack:{name}", mode=mode))
        for name in ("mgpo", "base")
        for mode in ("two_turn", "single_turn")
    ]
    found, reason = baseline_first(runs)
    assert found == [runs[3], runs[0], runs[1], runs[2]]
    assert reason == "the weights that training started from, single turn"


def test_a_named_baseline_and_named_runs_overrule_the_rules() -> None:
    runs = [run("two", **TWO_TURN), run("one", **SINGLE_TURN), run("foreign")]
    assert [r.name for r in order_runs(runs)[0]] == ["two", "one", "foreign"]
    runs = runs[:2]
    assert [r.name for r in order_runs(runs)[0]] == ["one", "two"]
    assert order_runs(runs, baseline="two") == (runs, "named by --baseline")
    assert order_runs(runs, baseline="B") == (runs, "named by --baseline")
    assert order_runs(runs, ["B", "A"]) == (runs, "named first in --runs")
    assert order_runs(runs, ["two", "one"], "one")[0] == runs[::-1]
    with pytest.raises(ResultsError, match="no run is called 'three': there are A: one"):
        order_runs(runs, baseline="three")
    with pytest.raises(ResultsError, match="--baseline one: not among the runs two; add it to --runs"):
        order_runs(runs, ["two"], "one")


def samples(run_id: str, right: int, errors: float) -> list[Logged]:
    """20 samples of a task, so many right, with a score of which less is better."""
    found = [vstar(i, i < right, run_id=run_id, single_turn=True) for i in range(20)]
    for sample in found:
        sample.metrics["error"] = errors + int(sample.doc_id) / 1000
    return found


def folders(tmp_path: Path) -> list[Path]:
    """A single turn, 4 of 20 right; two turns, 16 of 20 right, with smaller errors."""
    return [
        one_task(
            tmp_path / name,
            samples(run_id, right, errors),
            run_id=run_id,
            provenance=run_json(run_id, mode=mode),
            task="vstar_bench",
            lower_is_better=["error"],
        )
        for name, run_id, right, errors, mode in (
            ("one", FIRST, 4, 0.8, "single_turn"),
            ("two", SECOND, 16, 0.3, "two_turn"),
        )
    ]


def colours(page: Page) -> dict[str, tuple[str, str]]:
    """Score -> (difference, colour) of the comparison's table."""
    marks = [
        attributes.get("class", "") for attributes in page.all("b") if attributes.get("class") in ("good", "bad", "")
    ]
    rows = page.table("differences")[1:]
    return {row[1]: (row[5], mark) for row, mark in zip(rows, marks, strict=False)}


@pytest.mark.parametrize("swapped", [False, True])
def test_two_turns_that_won_are_green_in_either_order(tmp_path: Path, swapped: bool, capsys: Any) -> None:
    given = folders(tmp_path)[::-1] if swapped else folders(tmp_path)
    assert main([*map(str, given), "--output", str(tmp_path / "page.html")]) == 0
    told, path = capsys.readouterr().out.splitlines()
    expected = "baseline: A haystack:mgpo single_turn (single turn); difference = B − A: B haystack:mgpo two_turn minus"
    assert told.startswith(expected) and path == str(tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert f"B{told[1:]}" in page.words
    found = colours(page)
    assert found["vstar_overall_acc"] == ("+0.600", "good")
    assert found["error"] == ("−0.500", "good")


def test_a_baseline_that_won_leaves_the_other_red(tmp_path: Path, capsys: Any) -> None:
    given = [*map(str, folders(tmp_path))]
    assert main([*given, "--output", str(tmp_path / "page.html"), "--baseline", "B"]) == 0
    assert "named by --baseline" in capsys.readouterr().out
    found = colours(Page(tmp_path / "page.html"))
    assert found["vstar_overall_acc"] == ("−0.600", "bad")
    assert found["error"] == ("+0.500", "bad")
    assert main([*given, "--baseline", "nobody"]) == 2
    assert capsys.readouterr().err.startswith("mgpo-eval report: error: no run is called 'nobody'")


def test_runs_of_older_versions_have_the_same_baseline(tmp_path: Path) -> None:
    old, new = run_json(FIRST, mode="direct"), run_json(SECOND, mode="two_turn")
    two = one_task(tmp_path / "two", samples(SECOND, 9, 0.3), run_id=SECOND, provenance=new)
    one = one_task(tmp_path / "one", samples(FIRST, 4, 0.8), provenance=old)
    found, reason = baseline_first(read_runs([two, one]))
    assert [(r.id, r.name) for r in found] == [(FIRST, "haystack:mgpo single_turn"), (SECOND, "haystack:mgpo two_turn")]
    assert reason == "single turn" and found[0].provenance == old | {"mode": "single_turn"}


def test_a_single_run_has_no_baseline(tmp_path: Path) -> None:
    told: list[str] = []
    page = report(folders(tmp_path)[:1], tmp_path, tell=told.append)
    assert told == [] and "aseline" not in page.words
