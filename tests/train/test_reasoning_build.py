"""`mgpo-train build-reasoning-data`: what it writes, that training can read it, and that builds are not mixed."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops

sys.path.insert(0, str(Path(__file__).parent))
from reasoning_fixture import VERIFIER, reasons

from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.errors import SampleError
from mgpo_core.files.output_folder import OutputFolderError
from mgpo_core.haystack.multi import make_sets
from mgpo_core.images.budget import PixelBudget
from mgpo_core.templates.multi_image import MultiImage, solution_text
from mgpo_train import cli
from mgpo_train.config.options import ConfigError
from mgpo_train.data import load_samples
from mgpo_train.reasoning_data.build import main
from mgpo_train.reasoning_data.readers import AnnotationSource, read_annotations
from mgpo_train.reasoning_data.readers.jsonl import FIELDS
from mgpo_train.reasoning_data.teacher.reply import read_reply
from mgpo_train.reasoning_data.verifier import Problem, Reason, Verifier
from mgpo_train.reasoning_data.verifier.replay import replay
from mgpo_train.reasoning_data.writers import write_trace

SPEC = "haystack_multi:train?n=5&images=3&seed=4"


def build(folder: Path, *more: str, input: str = SPEC) -> dict:
    assert main([input, "--output", str(folder), *more]) == 0
    return json.loads((folder / "report.json").read_text())


def rows(folder: Path, name: str = "sft_traces.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


@pytest.mark.parametrize("wording", ["terse", "varied"])
def test_the_rows_are_samples_with_solutions_for_training(tmp_path, wording) -> None:
    report = build(tmp_path, "--wording", wording, "--seed", "3")
    samples = load_samples(str(tmp_path / "sft_traces.jsonl"), answers_with_box=True)
    for made, sample in zip(make_sets("train", 5, 4, 3), samples, strict=True):
        trace = write_trace(made, wording=wording, seed=3)
        assert (sample.id, sample.question, sample.regions) == (made.id, made.question, made.regions)
        assert (sample.boxes, sample.solution) == ((made.answer.box,), trace.solution)
        assert sample.metadata == {"task": made.task, "target_image": made.answer.box.image, "label": made.answer.label}
        assert not reasons(made, trace)
        episode = replay(made, budget=VERIFIER.budget, space=VERIFIER.space, template=MultiImage())
        episode.observe(solution_text(sample.solution, episode.view))
        answer = episode.trajectory.answer_turn
        assert (answer.rejection, answer.label, answer.box.image) == (None, made.answer.label, made.answer.box.image)
        assert list(answer.box.as_tuple()) == episode.view.numbers(made.answer.box)
        for index, source in enumerate(made.images):
            assert ImageChops.difference(sample.load(index), source()).getbbox() is None
    assert (report["kept"], report["dropped"], report["sets"]) == (5, 0, 5)
    assert report["kept_by_task"] == dict.fromkeys(
        ["common_object", "diff", "group_grounding", "object_tracking", "region"], 1
    )
    assert report["settings"]["wording"] == wording and report["versions"]["mgpo-train"]
    assert rows(tmp_path, "dropped.jsonl") == []


def test_the_same_command_gives_the_same_bytes(tmp_path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "run.json"]
        return {str(p.relative_to(folder)): p.read_bytes() for p in files}

    for name in ("a", "b", "a"):
        build(tmp_path / name, "--wording", "varied")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(list((tmp_path / "a" / "images").iterdir())) == 4 * 3 + 2


def test_image_files_are_named_by_their_path_from_the_folder(tmp_path, monkeypatch) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out" / "deep"
    photos.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (60, 40)).save(photos / f"{name}.png")
    objects = [{"image": 1, "label": "cat", "bbox": [1, 1, 20, 20]}, {"image": 2, "label": "dog", "bbox": [1, 1, 9, 9]}]
    row = {"question": "Find the cat.", "images": ["a.png", "b.png"], "objects": objects, "target": 0}
    (photos / "sets.jsonl").write_text(json.dumps(row))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(out, target_is_directory=True)
    out.mkdir(parents=True)
    build(Path("link"), input="photos/sets.jsonl")
    [written] = rows(out)
    assert written["images"] == ["../../photos/a.png", "../../photos/b.png"]
    assert not (out / "images").exists()
    [sample] = load_samples(str(out / "sft_traces.jsonl"), answers_with_box=True)
    assert os.path.samefile(sample.images[0], photos / "a.png")


@pytest.mark.parametrize("wording", ["terse", "varied"])
def test_the_budget_and_the_space_are_those_of_the_verification(tmp_path, monkeypatch, wording) -> None:
    seen, problems = [], Verifier.problems
    monkeypatch.setattr(Verifier, "problems", lambda self, *rest: seen.append(self) or problems(self, *rest))
    more = ["--min-pixels", "3136", "--max-pixels", "12544", "--coordinate-space", "0-1000", "--min-iou", "0.95"]
    build(tmp_path, *more, "--wording", wording)
    assert seen == [Verifier(PixelBudget(3136, 12544), CoordinateSpace.RELATIVE_1000, 0.95)] * 5


def test_what_fails_is_dropped_and_told(tmp_path, monkeypatch, capsys) -> None:
    def reject(_, annotated, trace):
        place = int(annotated.id.rpartition("-")[2])
        return [Problem(Reason.WRONG_BOX, f"box {place}")] * 2 if place % 3 == 0 else []

    monkeypatch.setattr(Verifier, "problems", reject)
    report = build(tmp_path)
    assert (report["kept"], report["dropped"], report["dropped_by_reason"]) == (3, 2, {"wrong_box": 2})
    dropped = rows(tmp_path, "dropped.jsonl")
    assert [row["id"].rpartition("-")[2] for row in dropped] == ["0", "3"]
    assert dropped[1]["problems"] == [{"reason": "wrong_box", "detail": "box 3"}] * 2
    assert dropped[1]["text"].startswith("<think>Image 1:") and '"bbox_2d"' in dropped[1]["text"]
    said = capsys.readouterr().out
    assert "kept 3 of 5" in said and "dropped: wrong_box 2" in said


def test_an_empty_result_is_an_error_that_says_why(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Verifier, "problems", lambda *_: [Problem(Reason.FALSE_BOX, "no")])
    with pytest.raises(SampleError, match=r"none of the 5 traces.*false_box.*dropped\.jsonl"):
        main([SPEC, "--output", str(tmp_path)])
    assert len(rows(tmp_path, "dropped.jsonl")) == 5
    assert json.loads((tmp_path / "report.json").read_text())["kept"] == 0


def test_what_was_left_out_while_reading_is_reported(tmp_path, capsys) -> None:
    objects = [{"image": 1, "label": "cat", "bbox": [1, 1, 20, 20]}]
    good = {"question": "Find the cat.", "images": ["a.png", "a.png"], "objects": objects, "target": 0}
    (tmp_path / "sets.jsonl").write_text("\n".join(json.dumps(row) for row in (good, good | {"target": 4})))
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    report = build(tmp_path / "out", "--on-bad-record", "skip", input=str(tmp_path / "sets.jsonl"))
    assert report["left_out_by_reason"] == {"bad_target": 1} and "line 2, field 'target'" in report["left_out"][0]
    assert "left out while reading: bad_target 1" in capsys.readouterr().out


def test_a_build_with_other_settings_is_not_mixed_in(tmp_path) -> None:
    build(tmp_path)
    with pytest.raises(ConfigError, match=r"wording was 'terse' and is 'varied'.*--overwrite"):
        build(tmp_path, "--wording", "varied")
    (tmp_path / "teacher.jsonl").write_text("kept\n")
    fewer = SPEC.replace("n=5", "n=2")
    build(tmp_path, "--overwrite", input=fewer)
    assert len(list((tmp_path / "images").iterdir())) == 6
    assert (tmp_path / "teacher.jsonl").read_text() == "kept\n"
    build(tmp_path, "--concurrency", "3", input=fewer)  # decides nothing about the result


def test_a_folder_of_something_else_is_left_alone(tmp_path) -> None:
    (tmp_path / "sft_traces.jsonl").write_text("mine")
    with pytest.raises(OutputFolderError, match="did not write .sft_traces.jsonl.: name a new or an empty folder"):
        build(tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OutputFolderError, match="is a file: name a folder"):
        build(file)
    assert (tmp_path / "sft_traces.jsonl").read_text() == "mine"


def test_help_shows_commands_to_copy(capsys) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert said.count("mgpo-train build-reasoning-data") >= 5 and "--teacher-url http" in said


def test_the_earlier_name_of_the_command_still_works(capsys) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["build-trajectories", "--help"])
    assert "build-trajectories has been renamed: use build-reasoning-data" in capsys.readouterr().err


def test_a_build_imports_no_torch(tmp_path) -> None:
    import subprocess

    code = (
        "import sys; from mgpo_train.reasoning_data.build import main; "
        f"main([{SPEC!r}, '--n', '1', '--output', {str(tmp_path)!r}]); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PAGE = Path(__file__).parents[2] / "docs" / "reasoning-data.md"


def test_the_page_tells_every_reason_and_every_field(tmp_path, monkeypatch) -> None:
    page = PAGE.read_text("utf-8")
    table = page[page.index("| Reason |") :]
    assert {reason.value for reason in Reason} <= set(re.findall(r"`(\w+)`", table))
    blocks = re.findall(r"^```json\n(.*?)\n```", page, flags=re.DOTALL | re.MULTILINE)
    record, reply = map(json.loads, blocks)
    assert set(record) == set(FIELDS)
    for name in record["images"]:
        Image.new("RGB", (84, 56)).save(tmp_path / name)
    (tmp_path / "sets.jsonl").write_text(json.dumps(record))
    assert build(tmp_path / "out", "--wording", "varied", input=str(tmp_path / "sets.jsonl"))["kept"] == 1
    [one] = read_annotations(AnnotationSource(str(tmp_path / "sets.jsonl"))).sets
    assert not reasons(one, read_reply(one, json.dumps(reply), VERIFIER.view(one)))


def test_the_python_of_the_page_runs_and_finds_nothing_wrong(capsys) -> None:
    [code] = re.findall(r"```python\n(.*?)\n```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), {})
    said = capsys.readouterr().out
    assert "image 1" in said.lower() and said.rstrip().endswith("[]")
