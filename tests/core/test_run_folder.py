"""Output folders of trainings and evaluations open as runs: each trajectory once, damage told, no link followed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mgpo_core.files.output_folder import OutputFolderError
from mgpo_core.runs.run_folder import RunFolderError, open_run
from mgpo_core.runs.trajectory_log import IMAGES_FOLDER, TRAJECTORIES_FILE, remove_trajectories, write_trajectories

sys.path.insert(0, str(Path(__file__).parents[1] / "eval"))
from report_fixture import BAD_BOX, Evaluation, ours, played, skipped

PART = "after, temperature 1"


def trajectories() -> list:
    """Right, wrong, and one whose box was refused; the ground truth is A."""
    made = [played(1, "A"), played(2, "B"), played(3, "A", box=BAD_BOX)]
    for trajectory in made:
        trajectory.ground_truth = "A"
    return made


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A folder as a training leaves it, with a curve of three steps."""
    write_trajectories(tmp_path, {PART: trajectories(), "before": trajectories()[:1]})
    rows = [
        {"step": step, "reward": step / 4, "hit_rate": None if step == 2 else 0.5, "loss": 1.0} for step in (1, 2, 3)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"method": "mgpo", "template": "two_turn", "model": "/somewhere/else/run/model", "seed": 4}
    (tmp_path / "run.json").write_text(json.dumps({"options": options}))
    return tmp_path


def test_a_training_opens_with_its_trajectories_parts_and_curves(training: Path) -> None:
    run = open_run(training)
    assert (run.kind, run.title) == ("training", "mgpo, two_turn, run/model, seed 4")
    assert [entry.id for entry in run.entries] == ["task/1", "task/2", "task/3", "task/1"]
    assert run.parts == [PART, "before"] and not run.problems
    assert run.curves == {"reward": [(1, 0.25), (2, 0.5), (3, 0.75)], "hit_rate": [(1, 0.5), (3, 0.5)]}


def test_a_training_of_the_version_before_opens_too(training: Path) -> None:
    options = json.loads((training / "run.json").read_text())["options"]
    (training / "run.json").unlink()
    (training / "config.json").write_text(json.dumps({"same_on_resume": options}))
    assert open_run(training).title == "mgpo, two_turn, run/model, seed 4"


def test_training_data_of_the_version_before_is_not_taken_for_a_training(training: Path) -> None:
    (training / "metrics.jsonl").unlink()
    (training / "build.json").write_text("{}")
    with pytest.raises(RunFolderError, match="holds no run"):
        open_run(training)


def test_writing_trajectories_refuses_somebody_s_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / TRAJECTORIES_FILE).write_text('{"id": "kitchen-7", "question": "mine"}\n')
    with pytest.raises(OutputFolderError, match="did not write|no training wrote"):
        write_trajectories(tmp_path, {PART: trajectories()})
    remove_trajectories(tmp_path)
    assert "mine" in (tmp_path / TRAJECTORIES_FILE).read_text()


def test_flags_are_the_trajectories_own_verdicts(training: Path) -> None:
    for entry, trajectory in zip(open_run(training).entries, [*trajectories(), played(1, "A")], strict=True):
        card = entry.card()
        assert entry.flags["right"] is (trajectory.answer == "A") is card.correct
        assert entry.flags["wrong"] is (trajectory.answer != "A")
        assert entry.flags["refused"] is (trajectory.turns[0].rejection is not None)
        assert [turn.text for turn in card.trajectory.turns] == [turn.text for turn in trajectory.turns]


def test_images_come_back_and_equal_ones_are_stored_once(training: Path) -> None:
    cards = [entry.card() for entry in open_run(training).entries]
    assert cards[0].trajectory.original(0).size == (672, 504)
    assert not any(name == "images" for card in cards for name, _, _ in card.facts)
    named = {name for line in lines(training) for name in line["images"].values()}
    files = {f"{IMAGES_FOLDER}/{path.name}" for path in (training / IMAGES_FOLDER).iterdir()}
    assert files == named
    assert len(files) < sum(len(line["images"]) for line in lines(training))


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / TRAJECTORIES_FILE).read_text().splitlines()]


def test_writing_again_and_removing_leave_only_foreign_images(training: Path) -> None:
    mine = training / IMAGES_FOLDER / "holiday.png"
    mine.write_bytes(b"not a trajectory's")
    write_trajectories(training, {PART: [played(9, "A")]})
    named = {name for line in lines(training) for name in line["images"].values()}
    assert {f"{IMAGES_FOLDER}/{path.name}" for path in mine.parent.iterdir() if path != mine} == named
    remove_trajectories(training)
    assert [path.name for path in mine.parent.iterdir()] == [mine.name]
    assert not (training / TRAJECTORIES_FILE).exists()


@pytest.fixture
def old_training(training: Path) -> Path:
    """The same as an older version left it: `pictures` in place of `images`, `truth` of `ground_truth`."""
    changed = (training / TRAJECTORIES_FILE).read_text().replace('"images"', '"pictures"')
    changed = changed.replace(f'"{IMAGES_FOLDER}/', '"pictures/').replace('"ground_truth"', '"truth"')
    (training / TRAJECTORIES_FILE).write_text(changed)
    (training / IMAGES_FOLDER).rename(training / "pictures")
    return training


def test_a_training_of_an_older_version_opens_with_its_images(old_training: Path) -> None:
    cards = [entry.card() for entry in open_run(old_training).entries]
    assert [card.correct for card in cards] == [True, False, True, True]
    assert cards[0].trajectory.original(0).size == (672, 504)
    assert not any(name == "images" for card in cards for name, _, _ in card.facts)


def test_writing_again_replaces_an_older_version_s_images(old_training: Path) -> None:
    mine = old_training / "pictures" / "holiday.png"
    mine.write_bytes(b"mine")
    write_trajectories(old_training, {PART: trajectories()})
    assert [path.name for path in mine.parent.iterdir()] == [mine.name]
    mine.unlink()
    write_trajectories(old_training, {PART: trajectories()})
    assert not mine.parent.exists() and len(open_run(old_training).entries) == 3


def test_a_broken_line_is_reported_and_the_rest_is_there(training: Path) -> None:
    path = training / TRAJECTORIES_FILE
    whole = path.read_text().splitlines(keepends=True)
    path.write_text(whole[0] + whole[1][:100] + "\n" + '{"part": "x"}\n' + whole[2])
    with (training / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": "four"')
    run = open_run(training)
    assert [entry.id for entry in run.entries] == ["task/1", "task/3"]
    assert len(run.problems) == 3
    assert sum("trajectories.jsonl, line" in problem for problem in run.problems) == 2
    assert run.entries[1].card().trajectory.sample_id == "task/3"


def test_a_file_rewritten_meanwhile_is_an_error(training: Path) -> None:
    run = open_run(training)
    write_trajectories(training, {PART: [played(7, "B"), played(8, "B")]})
    assert run.changed
    with pytest.raises(RunFolderError, match="open the run again"):
        run.entries[0].card()


def test_an_evaluation_opens_with_the_scorers_verdicts(tmp_path: Path) -> None:
    samples = [ours(1, True), ours(2, False, hit=False), ours(3, False, box=BAD_BOX), skipped(4, "no image")]
    Evaluation(tmp_path, {"haystack": samples}).write()
    run = open_run(tmp_path)
    assert run.kind == "evaluation"
    assert [entry.id for entry in run.entries] == [f"haystack/{number}" for number in (1, 2, 3, 4)]
    flags = [[name for name, value in entry.flags.items() if value] for entry in run.entries]
    assert flags == [["right"], ["wrong", "missed"], ["wrong", "refused"], ["wrong"]]
    card = run.entries[1].card()
    assert card.correct is False and card.trajectory.original(0).size[0] > 8
    assert any(value == "no image" for _, value, _ in run.entries[3].card().facts)


def test_an_image_that_leads_out_of_the_run_is_not_read(
    training: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.png"
    played(1, "A").original(0).save(secret)
    link = training / IMAGES_FOLDER / "link.png"
    link.symlink_to(secret)
    path = training / TRAJECTORIES_FILE
    for name in (f"../{secret.parent.name}/secret.png", str(secret), f"{IMAGES_FOLDER}/link.png"):
        changed = lines(training)[0]
        changed["images"] = dict.fromkeys(changed["images"], name)
        path.write_text(json.dumps(changed) + "\n")
        card = open_run(training).entries[0].card()
        assert card.trajectory.original(0).size == (8, 8), name  # the grey stand-in
        assert any("not found" in value for _, value, _ in card.facts)


def test_a_logged_run_id_reads_no_settings_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "mgpo").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/run.json").write_text('{"weights": {"name": "secret"}}')
    Evaluation(tmp_path, {"haystack": [ours(1, True, run_id="../elsewhere", images=False)]}, provenance=None).write()
    run = open_run(tmp_path)
    assert "secret" not in run.title and any("not the name of a folder" in problem for problem in run.problems)


def test_other_folders_and_links_are_refused_by_name(tmp_path: Path, training: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RunFolderError, match="holds no run: give the --output_dir"):
        open_run(empty)
    (empty / TRAJECTORIES_FILE).symlink_to(training / TRAJECTORIES_FILE)
    with pytest.raises(RunFolderError, match="symbolic link"):
        open_run(empty)
