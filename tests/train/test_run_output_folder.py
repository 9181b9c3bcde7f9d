"""Folders that `mgpo-train` refuses, before torch is imported; what an interrupted run says; data that were changed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from patience import HANG
from PIL import Image

from mgpo_core import Box, Sample
from mgpo_core.boxes.regions import WorkedSolution
from mgpo_core.files.output_folder import OutputFolderError
from mgpo_train import cli
from mgpo_train.config.options import ConfigError, RunOptions
from mgpo_train.config.resume_options import FREE, check_compatible_options, recorded
from mgpo_train.config.user_errors import disk_failure
from mgpo_train.data import load_samples
from mgpo_train.data.fingerprint import check_same_data, fingerprint
from mgpo_train.distributed import rank_failure
from mgpo_train.output.best_checkpoint import Best, BestFolder
from mgpo_train.output.folder import _mark, _release, check_folder, own_record, what_is_left, write_own_json, writing

RUN = ["haystack-mgpo", "--output_dir", "out"]
QUICK = """
import json, os, sys, time
from mgpo_train.cli import main
told = []
for arguments in json.loads(sys.argv[1]):
    sys.stderr = open("stderr", "w")
    status = main(arguments)
    sys.stderr.close()
    told.append([status, open("stderr").read(), [name for name in ("torch", "transformers", "trl", "accelerate")
                                                 if name in sys.modules]])
print(json.dumps(told), file=sys.__stdout__)
"""

REFUSALS: dict[str, tuple[list[str], str]] = {
    "somebody's folder": ([*RUN, "--output_dir", "theirs"], "did not write .data.jsonl, model/.: name a new"),
    "the same with --overwrite": ([*RUN, "--output_dir", "theirs", "--overwrite"], "did not write .data.jsonl, model/"),
    "the same with --resume": ([*RUN, "--output_dir=theirs", "--resume"], "did not write .data.jsonl, model/"),
    "an option of another program": ([*RUN, "--lr", "3"], "unknown option --lr: did you mean 'learning_rate'"),
    "an option misspelt": ([*RUN, "--num-generation=3"], "unknown option --num_generation: did you mean 'num_gen"),
    "an option misspelt in a file": (["misspelt.yaml"], "misspelt.yaml: unknown option 'max_step': did you mean 'max"),
    "a model that is not here": ([*RUN, "--model", "./nowhere"], "no model folder './nowhere'"),
    "a model that is not beside": ([*RUN, "--model", "../nowhere"], "no model folder '../nowhere'"),
    "here": ([*RUN, "--output-dir", "."], "did not write .*mine.yaml"),
    "no name": ([*RUN, "--output_dir", ""], "output_dir is empty: name a folder"),
    "in the home folder": ([*RUN, "--output_dir=~/theirs"], "did not write .data.jsonl, model/"),
    "a base in the home folder": (["haystack-base", "--output_dir=~/theirs"], "did not write .data.jsonl, model/"),
    "a build in the home folder": (
        ["build-reasoning-data", "haystack_multi:train?n=2", "--output=~/theirs"],
        "did not write .data.jsonl, model/",
    ),
    "a file": ([*RUN, "--output_dir", "theirs/data.jsonl"], "is a file: name a folder"),
    "below a file": ([*RUN, "--output_dir", "theirs/data.jsonl/run"], "cannot be made .*is a file"),
    "no writable folder": ([*RUN, "--output_dir", "/proc/run"], "cannot be"),
    "an earlier run": ([*RUN, "--output_dir", "earlier"], "--resume.*--overwrite.*--output_dir"),
    "an older version": ([*RUN, "--output_dir", "older", "--resume"], "earlier version .*name another --output_dir"),
    "older, overwrite": ([*RUN, "--output_dir", "older", "--overwrite"], "starts from its weights"),
    "a reward": ([*RUN, "--rewards", "accuracy", "acuracy"], "rewards='acuracy': did you mean 'accuracy'"),
    "a reward of the recipe": (["mine.yaml"], "rewards='foo'"),
    "multiples": ([*RUN, "--num_generations", "7"], "not a multiple of num_generations=7"),
    "multiples, other words": ([*RUN, "--per-device-train-batch-size=12"], "has 12 rollouts"),
    "a group of one": ([*RUN, "--num_generations", "1"], "at least 2 rollouts"),
    "a method": ([*RUN, "--method", "mpgo"], "did you mean 'mgpo'"),
    "a word": ([*RUN, "--vllm-mode", "colocated"], "vllm_mode='colocated': did you mean 'colocate'"),
    "one of several words": ([*RUN, "--freeze", "merger", "visoin"], "freeze='visoin': did you mean 'vision'"),
    "a data file": ([*RUN, "--train_data", "nowhere.jsonl"], "no such file or folder: 'nowhere.jsonl'"),
    "held-out data": ([*RUN, "--eval_data", "./nowhere"], "no such file or folder: './nowhere'"),
    "a data option": ([*RUN, "--train_data", "theirs/data.jsonl?splitt=x"], "did you mean 'split'"),
    "a model": ([*RUN, "--model", "/no/where"], "there is no model folder"),
    "no recipe": (["haystack-mgop"], "did you mean 'haystack-mgpo'"),
    "no YAML": (["broken.yaml"], "line 2 is not YAML"),
    "no text": (["latin.yaml"], "latin.yaml is not UTF-8 .*save it as UTF-8"),
    "a base in somebody's folder": (["haystack-base", "--output_dir", "theirs"], "did not write .data.jsonl, model/"),
    "the other base": (["haystack-multi-base", "--output-dir", "theirs", "--overwrite"], "did not write"),
    "a build": (["build-reasoning-data", "haystack_multi:train?n=2", "--output", "theirs"], "did not write"),
    "a build in a run": (["build-reasoning-data", "haystack_multi:train?n=2", "--output", "earlier"], "of mgpo-train:"),
}


class Options(RunOptions):
    """A run's options without TRL's."""

    world_size, process_index, lr_scheduler_type, warmup_steps = 1, 0, "constant", 0


def begin(out: Path, **about: object) -> None:
    _mark(out, {"options": {}, "data": {}, **about}, {}, resume=False)


def earlier_run(out: Path) -> None:
    begin(out)
    (out / "metrics.jsonl").write_text('{"step": 1}\n')
    write_own_json(out, "summary.json", {"steps": 1})
    _release(out)


def checkpoint(out: Path, step: int) -> None:
    with writing(out, f"checkpoint-{step}"):
        (out / f"checkpoint-{step}").mkdir()
        (out / f"checkpoint-{step}/trainer_state.json").write_text(json.dumps({"global_step": step}))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_needs_no_torch_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "theirs/model").mkdir(parents=True)
    (tmp_path / "theirs/model/config.json").write_text("{}")
    (tmp_path / "theirs/data.jsonl").write_text("{}\n")
    earlier_run(tmp_path / "earlier")
    (tmp_path / "older").mkdir()
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / "older" / name).write_text('{"same_on_resume": {}}\n')
    (tmp_path / "mine.yaml").write_text("rewards: [foo]\n")
    (tmp_path / "misspelt.yaml").write_text("max_step: 3\n")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    (tmp_path / "latin.yaml").write_bytes(b"description: caf\xe9\n")
    before = snapshot(tmp_path)
    given = json.dumps([arguments for arguments, _ in REFUSALS.values()])
    done = subprocess.run(
        [sys.executable, "-c", QUICK, given],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    for (name, (_, words)), (status, told, heavy) in zip(REFUSALS.items(), json.loads(done.stdout), strict=True):
        assert status == 2 and heavy == [], f"{name}: {told}"
        assert told.count("\n") == 1, told
        assert re.search(words, told), f"{name}: {told}"
    (tmp_path / "stderr").unlink()
    assert snapshot(tmp_path) == before


def test_a_start_that_failed_leaves_nothing_that_blocks_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    begin(out)
    (out / "metrics.jsonl").write_text("")
    write_own_json(out, "before.json", {"n": 1})
    check_folder(out, resume=False, overwrite=False)
    begin(out)
    assert not (out / "before.json").exists()
    checkpoint(out, 2)
    with pytest.raises(ConfigError, match=r"earlier run \(checkpoint-2\)"):
        check_folder(out, resume=False, overwrite=False)


@pytest.mark.parametrize("name", ["model/config.json", "report.html", "best/model.safetensors", "checkpoint-9/a.bin"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_file_that_no_run_wrote_stops_a_run_that_would_replace_it(tmp_path: Path, name: str, resume: bool) -> None:
    earlier_run(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputFolderError, match=f"{name}.*move them elsewhere"):
        check_folder(tmp_path, resume=resume, overwrite=True)


def test_rotation_keeps_copies_and_what_lies_beside_the_weights(tmp_path: Path) -> None:
    from mgpo_train.output.checkpoint_rotation import rotate

    begin(tmp_path)
    for step in (1, 2, 3, 4):
        checkpoint(tmp_path, step)
        if step == 1:
            (tmp_path / "checkpoint-1/notes.md").write_text("mine")
            (tmp_path / "checkpoint-1-good").mkdir()
            (tmp_path / "checkpoint-1-good/trainer_state.json").write_text("mine")
        rotate(tmp_path, step, 2)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("checkpoint-*/*"))
    assert left == [
        "checkpoint-1-good/trainer_state.json",
        "checkpoint-1/notes.md",
        "checkpoint-3/trainer_state.json",
        "checkpoint-4/trainer_state.json",
    ]
    record = own_record(tmp_path)
    assert record is not None and not any(name.startswith("checkpoint-2") for name in record.data["wrote"])


def test_transformers_own_rotation_is_switched_off_in_a_run(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from mgpo_train.output.checkpoint_rotation import OwnCheckpoints

    seen = []

    class Upstream:
        def _save_checkpoint(self, model: object, trial: object) -> None:
            seen.append((self.args.save_total_limit, own_record(tmp_path / "run") is not None))
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True)
            (folder / "trainer_state.json").write_text("{}")

    class Trainer(OwnCheckpoints, Upstream):
        accelerator = SimpleNamespace(wait_for_everyone=lambda: None)

    begin(tmp_path / "run")
    for folder, step in (("run", 1), ("run", 2), ("alone", 1)):
        trainer = Trainer()
        trainer.args = SimpleNamespace(output_dir=str(tmp_path / folder), process_index=0, save_total_limit=1)
        trainer.state = SimpleNamespace(global_step=step)
        trainer._save_checkpoint(None, None)
        assert trainer.args.save_total_limit == 1
    assert [limit for limit, _ in seen] == [None, None, 1]
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]


def test_notes_beside_the_best_weights_stay_where_they_are(tmp_path: Path) -> None:
    begin(tmp_path)
    best = BestFolder(tmp_path, lambda: own_record(tmp_path))
    for step in range(1, 6):
        best.clear_part()
        (tmp_path / "best.part").mkdir()
        (tmp_path / "best.part/model.safetensors").write_text(str(step))
        best.replace(Best(step, "eval/accuracy", step / 8), {})
        if step == 1:
            (tmp_path / "best/notes.md").write_text("mine")
        if step % 2:
            best.saved(step)
        assert (tmp_path / "best/notes.md").read_text() == "mine"
        assert (tmp_path / "best/model.safetensors").read_text() == str(step)


def nothing(out: Path) -> None: ...


def before_a_checkpoint(out: Path) -> None:
    begin(out)


def after_steps(out: Path) -> None:
    begin(out)
    (out / "metrics.jsonl").write_text('{"step": 1}\n')


def after_checkpoints(out: Path) -> None:
    after_steps(out)
    checkpoint(out, 2)
    checkpoint(out, 4)
    (out / "checkpoint-4/trainer_state.json").write_text("{")


@pytest.mark.parametrize(
    ("come_to", "words"),
    [
        (nothing, "interrupted before anything was written.*again"),
        (before_a_checkpoint, "before the first checkpoint: there is nothing to resume from.*command again"),
        (after_steps, "before the first checkpoint.*--overwrite.*save_steps"),
        (after_checkpoints, "--resume continues from .*checkpoint-2$"),
        (earlier_run, "is finished"),
    ],
)
def test_an_interrupted_run_says_what_there_is(tmp_path: Path, come_to: Callable[[Path], None], words: str) -> None:
    come_to(tmp_path / "out")
    told = what_is_left(tmp_path / "out")
    assert re.search(words, told), told


def test_control_c_ends_in_that_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(*arguments: object, **options: object) -> int:
        raise KeyboardInterrupt("interrupted; --resume continues from out/checkpoint-2")

    monkeypatch.setattr(cli, "_start", interrupted)
    assert cli.main(RUN) == 130
    assert capsys.readouterr().err == "mgpo-train: interrupted; --resume continues from out/checkpoint-2\n"


@pytest.mark.parametrize("number", [28, 30, 122])
def test_a_disk_that_fails_in_a_run_is_told_in_a_line(number: int, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def full(*arguments: object, **options: object) -> int:
        raise OSError(number, os.strerror(number), "out/metrics.jsonl")

    monkeypatch.setattr(cli, "_start", full)
    assert cli.main(RUN) == 2
    told = capsys.readouterr().err
    assert "out/metrics.jsonl cannot be written" in told and "--resume" in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), "No space left"),
        (Exception("No space left on device (os error 28)"), "No space left on device"),  # tokenizers
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "may be full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"), "may be full"),
        (OSError(5, "Input/output error", "x"), None),
        (RuntimeError("PytorchStreamReader failed reading zip archive"), None),
        (Exception("No such file or directory (os error 2)"), None),
    ],
)
def test_a_full_disk_is_known_by_what_the_libraries_say(error: Exception, words: str | None) -> None:
    told = disk_failure(error)
    assert told is None if words is None else told is not None and words in told and "free space" in told


@pytest.mark.parametrize(
    ("error", "words", "status"),
    [
        (KeyboardInterrupt(), "rank 0: interrupted; --resume continues from out/checkpoint-2", 130),
        (OSError(28, "No space left on device", "out/x"), "rank 0: out/x cannot be written .No space left", 1),
        (ConfigError("seed=x: no"), "rank 0 failed: ConfigError: seed=x: no", 1),
    ],
)
def test_of_several_processes_each_tells_in_a_line_what_a_user_caused(
    error: BaseException, words: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    ends: list[tuple[str, int]] = []

    def end(message: str, status: int) -> None:
        ends.append((message, status))
        raise SystemExit

    monkeypatch.setattr(rank_failure, "_end", end)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(rank_failure, "_store", dict)
    monkeypatch.setattr(rank_failure.RankMonitor, "start", lambda self: None)
    monkeypatch.setattr(rank_failure.RankMonitor, "finish", lambda self: None)
    left = "interrupted; --resume continues from out/checkpoint-2"
    with pytest.raises(SystemExit), rank_failure.fail_fast(lambda: left):
        raise error
    assert ends[0][1] == status and re.match(words, ends[0][0])
    assert "Traceback" not in capsys.readouterr().err


SAMPLE = Sample(
    "Where is <region>?",
    (b"\x89PNG image",),
    answer="A",
    choices=("here", "there"),
    boxes=(Box(1, 2, 3, 4),),
    id="one",
    metadata={"source": "x"},
    regions=(Box(5, 6, 7, 8),),
    solution=WorkedSolution("It is there.", Box(1, 2, 3, 4), "cup"),
)
CHANGES = {
    "question": "Where was <region>?",
    "images": (b"\x89PNG another",),
    "answer": "B",
    "choices": ("here", "elsewhere"),
    "boxes": (Box(1, 2, 3, 5),),
    "id": "two",
    "metadata": {"source": "y"},
    "regions": (Box(5, 6, 7, 9),),
    "solution": WorkedSolution("It is here.", Box(1, 2, 3, 4), "cup"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_part_of_a_row_counts(name: str) -> None:
    import dataclasses

    changed = dataclasses.replace(SAMPLE, **{name: CHANGES[name]})
    assert fingerprint([SAMPLE]) == fingerprint([dataclasses.replace(SAMPLE)])
    before, after = fingerprint([SAMPLE]), fingerprint([changed])
    assert before is not None and after is not None
    assert {part for part in before if before[part] != after[part]} == {"images" if name == "images" else "rows"}
    with pytest.raises(ConfigError, match="train_data='mine.jsonl' was changed .*--output_dir"):
        check_same_data({"train_data": before}, {"train_data": after}, {"train_data": "mine.jsonl"})


def rewrite(folder: Path) -> None:
    rows = (folder / "data.jsonl").read_text().replace("colour 1", "colour 9")
    (folder / "data.jsonl").write_text(rows)


def reorder(folder: Path) -> None:
    (folder / "data.jsonl").write_text("\n".join(reversed((folder / "data.jsonl").read_text().splitlines())))


def shorten(folder: Path) -> None:
    (folder / "data.jsonl").write_text((folder / "data.jsonl").read_text().splitlines()[0])


def repaint(folder: Path) -> None:
    Image.new("RGB", (56, 56), "blue").save(folder / "0.png")


def touch(folder: Path) -> None:
    os.utime(folder / "0.png", ns=(1, 1))  # as an image of the same size in its place would have


def swap(folder: Path) -> None:
    rows = (folder / "data.jsonl").read_text().replace("0.png", "2.png").replace("1.png", "0.png")
    (folder / "data.jsonl").write_text(rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rewrite, "its rows;"),
        (reorder, "its rows and its image files"),
        (shorten, "2 before and 1 now"),
        (repaint, "its image files .path, size or time"),
        (touch, "its image files .path, size or time"),
        (swap, "its image files"),
    ],
)
def test_data_that_were_changed_are_told_from_those_that_were_not(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    rows = []
    for number in range(3):
        Image.new("RGB", (56, 56), (number, 0, 0)).save(tmp_path / f"{number}.png")
        if number < 2:
            rows.append({"question": f"Which colour {number}?", "image": f"{number}.png", "answer": "red"})
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def now() -> dict[str, object]:
        return {"eval_data": fingerprint(load_samples(str(tmp_path / "data.jsonl")))}

    before = json.loads(json.dumps(now()))
    check_same_data(before, now(), {"eval_data": "data.jsonl"})
    check_same_data({}, now(), {})  # of a run that recorded none
    change(tmp_path)
    with pytest.raises(ConfigError, match=f"--resume: eval_data=.*{words}"):
        check_same_data(before, now(), {"eval_data": "data.jsonl"})


def test_every_option_is_recorded_and_those_that_may_change_exist() -> None:
    options = Options(learning_rate=0.1)
    then = recorded(options)
    check_compatible_options(then, {}, options)
    free = [name for names in FREE.values() for name in names]
    assert len(free) == len(set(free))
    ours = [name for name in then if name in free]
    assert {"output_dir", "save_steps", "logging_steps", "report_to", "eval_every", "progress"} <= set(ours)
    for name in ours:
        check_compatible_options(then | {name: "another"}, {}, options)
    for name in set(then) - set(free) - {
        "max_steps", "num_train_epochs", "world_size", "per_device_train_batch_size", "gradient_accumulation_steps",
    }:  # fmt: skip
        with pytest.raises(ConfigError, match=f"--resume: {name} was 'another'"):
            check_compatible_options(then | {name: "another"}, {}, options)


def test_no_token_is_written_down(tmp_path: Path) -> None:
    from mgpo_train.output.folder import prepare

    prepare(tmp_path, Options(), resume=False, settings={"hub_token": "hf_secret", "seed": 1}, main=True)
    assert "hf_secret" not in (tmp_path / "run.json").read_text()


def test_options_of_another_version_are_named_where_they_decide() -> None:
    options = Options(dynamic_sampling=2)
    then = recorded(options)
    without = {name: value for name, value in then.items() if name not in ("dynamic_sampling", "reward_control")}
    with pytest.raises(ConfigError, match="dynamic_sampling is 2, which the version that began the run did not have"):
        check_compatible_options(without, {}, options)
    check_compatible_options(then | {"gone": 1}, {}, options)  # at its default: nobody asked for it
    with pytest.raises(ConfigError, match="gone was 1, which this version does not have"):
        check_compatible_options(then | {"gone": 1}, {"gone": 1}, options)
