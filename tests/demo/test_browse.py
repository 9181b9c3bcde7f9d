"""The second tab's pages: what a filter counts is what its pages hold, and no name leads out of the folder of runs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mgpo_core.runs.run_folder import RunFolderError
from mgpo_core.runs.trajectory_log import TRAJECTORIES_FILE, write_trajectories
from mgpo_demo.session.browse import FILTERS, OpenRuns, counts, find_runs, open_below, page

sys.path.insert(0, str(Path(__file__).parents[1] / "eval"))
from report_fixture import BAD_BOX, Evaluation, ours, played

ANSWERS = "AABABBBAAAB"


def write_run(folder: Path, question: str | None = None) -> None:
    """Eleven trajectories, every third with a refused box."""
    made = []
    for number, answer in enumerate(ANSWERS):
        box = {"box": BAD_BOX} if number % 3 == 0 else {}
        trajectory = played(number, answer, question=question, **box)
        trajectory.ground_truth = "A"
        made.append(trajectory)
    write_trajectories(folder, {"before": made[:4], "after": made[4:]})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: a training, and below another folder an evaluation."""
    root = tmp_path_factory.mktemp("runs")
    write_run(root / "training")
    Evaluation(root / "deep" / "eval", {"haystack": [ours(1, True), ours(2, False)]}).write()
    (root / "notes").mkdir()
    return root


def samples_of(text: str) -> list[str]:
    return re.findall(r"<small>sample</small> ([^<]+)<", text)


def test_runs_are_found_by_their_names_below_the_root(root: Path) -> None:
    assert find_runs(root) == ["deep/eval", "training"]
    assert open_below(root, "deep/eval").kind == "evaluation"


@pytest.mark.parametrize("filter", list(FILTERS))
@pytest.mark.parametrize("part", [None, "before", "after"])
def test_the_pages_of_a_filter_hold_each_trajectory_once(root: Path, filter: str, part: str | None) -> None:
    run = open_below(root, "training")
    _, count, pages = page(run, filter, 1, per_page=2, part=part)
    assert count == counts(run, part)[filter]
    seen = [name for number in range(1, pages + 1) for name in samples_of(page(run, filter, number, 2, part)[0])]
    chosen = [entry for entry in run.entries if (filter == "all" or entry.flags[filter]) and part in (None, entry.part)]
    assert seen == [entry.id for entry in chosen] and len(seen) == count


def test_counts_are_the_verdicts(root: Path) -> None:
    found = counts(open_below(root, "training"))
    assert (found["all"], found["right"], found["wrong"]) == (11, ANSWERS.count("A"), ANSWERS.count("B"))
    assert found["refused"] == 4


def test_pages_are_clamped_and_unknown_filters_are_errors(root: Path) -> None:
    run = open_below(root, "training")
    assert page(run, "all", 99)[0] == page(run, "all", 2)[0] != page(run, "all", -3)[0] == page(run, "all", 1)[0]
    with pytest.raises(ValueError, match="no filter 'best'"):
        page(run, "best", 1)


@pytest.mark.parametrize("name", ["..", "../other", "training/../../other", "/etc", "training\x00", "a" * 5000])
def test_names_that_lead_elsewhere_are_refused_without_telling_what_is_there(root: Path, name: str) -> None:
    (root.parent / "other").mkdir(exist_ok=True)
    with pytest.raises(RunFolderError) as error:
        open_below(root, name)
    assert str(root) not in str(error.value)


def test_links_to_runs_outside_are_neither_listed_nor_opened(root: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "outside")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "half").mkdir()
    (root / "half" / TRAJECTORIES_FILE).symlink_to(tmp_path / "outside" / TRAJECTORIES_FILE)
    try:
        assert "link" not in find_runs(root)
        for name in ("link", "half"):
            with pytest.raises(RunFolderError) as error:
                open_below(root, name)
            assert str(tmp_path) not in str(error.value) and str(root) not in str(error.value)
    finally:
        (root / "link").unlink()
        (root / "half" / TRAJECTORIES_FILE).unlink()


def test_texts_of_trajectories_are_escaped_and_the_page_runs_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "run", question="<script>alert(1)</script> <img src=x onerror=alert(2)>?")
    text, _, _ = page(open_below(tmp_path, "run"), "all", 1)
    assert "&lt;script&gt;" in text and "<script" not in text and "<img src=x" not in text
    assert "default-src 'none'" in text and "script-src" not in text


@pytest.mark.parametrize(
    "edit",
    [
        lambda trajectory: trajectory.update(input_sizes=[["<b onclick=x>", 4]]),
        lambda trajectory: trajectory.update(original_sizes=[["<b onclick=x>", 4]]),
        lambda trajectory: trajectory["turns"][0].update(shown_size=["<b onclick=x>", 4]),
        lambda trajectory: trajectory["turns"][0].update(finish_reason="<b onclick=x>"),
        lambda trajectory: trajectory["turns"][0].update(rejection="<b onclick=x>"),
        lambda trajectory: trajectory["turns"][0]["box"].update(x1="<b onclick=x>"),
        lambda trajectory: trajectory.update(
            tokens={"ids": ['"><b onclick=x>'], "mask": [1], "spans": [[0, 1]], "prompt_length": 0}
        ),
    ],
)
def test_what_should_be_a_number_is_escaped_too(tmp_path: Path, edit: Callable[[dict], None]) -> None:
    write_run(tmp_path / "run")
    path = tmp_path / "run" / TRAJECTORIES_FILE
    record = json.loads(path.read_text().splitlines()[0])
    edit(record["trajectory"])
    path.write_text(json.dumps(record) + "\n")
    run = open_below(tmp_path, "run")
    text, _, _ = page(run, "all", 1)
    assert "<b onclick" not in text
    assert "&lt;b onclick" in text or "is not shown" in text or run.problems  # and nothing is dropped in silence


def test_an_open_run_is_kept_until_its_files_or_its_place_change(tmp_path: Path) -> None:
    runs = OpenRuns(tmp_path, most=1)
    write_run(tmp_path / "run")
    first = runs.open("run")
    assert runs.open("run") is first
    write_trajectories(tmp_path / "run", {"after": [played(1, "A")]})
    second = runs.open("run")
    assert [len(run.entries) for run in (first, second)] == [11, 1]
    write_run(tmp_path / "other")
    assert len(runs.open("other").entries) == 11
    assert runs.open("run") is not second  # only the newest is kept
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="refused"):
        runs.open("run")


def test_an_edited_line_is_named_in_its_place(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    run = open_below(tmp_path, "run")
    path = tmp_path / "run" / TRAJECTORIES_FILE
    whole = path.read_text().splitlines()
    record = json.loads(whole[0])
    record["trajectory"]["sample_id"] = "x" * len(record["trajectory"]["sample_id"])
    path.write_text("\n".join([json.dumps(record), *whole[1:]]) + "\n")
    text, count, _ = page(run, "all", 1)
    assert count == 11 and "task/0 is not shown" in text and len(samples_of(text)) == 9
