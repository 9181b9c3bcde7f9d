"""Where `mgpo-eval` and its report write: into new, empty or own folders, over pages of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgpo_core.errors import EngineError
from mgpo_core.files.output_folder import OutputFolderError
from mgpo_core.render import write_report
from mgpo_eval import cli
from mgpo_eval.models.journal import CompletedSample, Journal
from mgpo_eval.output_path import check_output_path
from mgpo_eval.report.command import main as report

SAMPLES = "2026-01-01_samples_vstar.jsonl"


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return folder


@pytest.mark.parametrize(
    "names",
    [
        [],
        [".DS_Store"],
        [SAMPLES, "notes.txt"],
        ["model__name/2026-01-01_results.json"],
        ["mgpo/0123456789abcdef/run.json", "report.html"],
    ],
)
def test_an_evaluation_adds_to_folders_of_evaluations(tmp_path: Path, names: list[str]) -> None:
    check_output_path(make(tmp_path / "out", *names))


@pytest.mark.parametrize("names", [["notes.txt"], ["mgpo/notes.txt"], ["a/b/" + SAMPLES], ["run.json"]])
def test_any_other_folder_is_refused_before_lmms_eval_is_loaded(
    tmp_path: Path, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = make(tmp_path / "out", *names)
    assert cli.main(["--model", "mgpo", "--tasks", "haystack", "--output_path", str(out)]) == 2
    told = capsys.readouterr().err
    assert "did not write" in told and names[0].split("/")[0] in told and told.count("\n") == 1


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "out.json")
    assert cli.main(["--model", "mgpo", f"--output_path={tmp_path / 'out.json'}"]) == 2
    assert "is a file: name a folder" in capsys.readouterr().err


def test_the_home_folder_is_read_behind_an_equals_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make(tmp_path, "out.json")
    assert cli.main(["--model", "mgpo", "--output_path=~/out.json"]) == 2
    assert f"{tmp_path / 'out.json'}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run.json", "rank0.jsonl", "photo.png", "images/mine.png"])
def test_a_journal_is_not_mixed_into_somebody_s_folder(tmp_path: Path, name: str) -> None:
    make(tmp_path / "run", name)
    with pytest.raises((OutputFolderError, EngineError), match=f"no evaluation wrote .{name.split('/')[0]}"):
        Journal(tmp_path / "run", about={"id": "run", "weights": {}})
    assert (tmp_path / "run" / name).read_text() == "mine"


@pytest.mark.parametrize("folder", ["images", "pictures"])
def test_a_journal_resumes_beside_its_images(tmp_path: Path, folder: str) -> None:
    about = {"id": "run", "weights": {"name": "x"}}
    Journal(tmp_path / "run", about=about).add(CompletedSample("a", "text"))
    (tmp_path / "run" / folder).mkdir()
    assert set(Journal(tmp_path / "run", about=about).finished) == {"a"}


def test_a_journal_is_continued_by_as_many_processes_as_there_are(tmp_path: Path) -> None:
    about = {"id": "run", "weights": {"name": "x"}}
    Journal(tmp_path / "run", about=about).add(CompletedSample("a", "text"))
    Journal(tmp_path / "run", rank=1).add(CompletedSample("b", "text"))
    assert set(Journal(tmp_path / "run", about=about).finished) == {"a", "b"}
    assert json.loads((tmp_path / "run/run.json").read_text()) == about


@pytest.mark.parametrize("text", ["", "<!doctype html><html><body>mine</body></html>", "notes"])
def test_a_page_that_is_not_a_report_of_ours_is_left_alone(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    page.write_text(text)
    for arguments in ([str(tmp_path)], [str(tmp_path / "nowhere"), "--output", str(page)]):
        assert report(arguments) == 2
        assert f"{page} is there already and is not a report of this program" in capsys.readouterr().err
    with pytest.raises(OutputFolderError):
        write_report(page, [], "title")
    assert page.read_text() == text


def test_a_page_of_ours_is_replaced_and_a_link_is_not_followed(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    for title in ("first", "second"):
        write_report(page, [], title)
    assert "second" in page.read_text() and [path.name for path in tmp_path.iterdir()] == ["report.html"]
    page.write_text(page.read_text().replace('<meta name="generator" content="mgpo">', ""))  # of the version before
    write_report(page, [], "third")
    (tmp_path / "link.html").symlink_to(page)
    with pytest.raises(OutputFolderError, match="is not a report"):
        write_report(tmp_path / "link.html", [], "fourth")
    assert "third" in page.read_text()
