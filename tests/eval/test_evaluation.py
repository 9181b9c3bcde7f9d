"""One evaluation, however it is run: by lmms-eval or mgpo-eval, in batches or not, on two processes, killed or not."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import hub_fixture
from running import command, journal_keys, run, scores, seen, trajectories

pytestmark = pytest.mark.slow

N = 40
MODEL = ["--model", "mgpo", "--model_args", "pretrained=haystack:mgpo"]
TASK = ["--tasks", "haystack", "--limit", str(N)]
METRICS = ("accuracy", "hit_rate", "mean_iou", "valid_box_rate", "answered_rate", "crop_area_fraction")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of lmms-eval's own command, one sample after the other."""
    folder = tmp_path_factory.mktemp("reference")
    done = run(
        command("lmms-eval", "eval", *MODEL, *TASK, "--batch_size", "1", "--log_samples", "--output_path", "out"),
        folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out"


def assert_same(output: Path, reference: Path) -> None:
    found, expected = scores(output), scores(reference)
    assert {name: found[f"{name},none"] for name in METRICS} == {name: expected[f"{name},none"] for name in METRICS}
    assert seen(output) == seen(reference)


def test_the_task_scores_what_the_trajectories_say(reference: Path) -> None:
    from mgpo_core import haystack
    from mgpo_core.engines import load_engine
    from mgpo_core.episodes.episode import Episode
    from mgpo_core.episodes.metrics import aggregate

    samples = haystack.make("val", N, 7)
    engine = load_engine("transformers", model="haystack:mgpo", max_new_tokens=64)
    expected = aggregate(engine.run([Episode(sample, budget=haystack.BUDGET) for sample in samples]))
    found = scores(reference)
    for name in METRICS:
        assert found[f"{name},none"] == pytest.approx(expected[name]), name
    assert [found["accuracy_low,none"], found["accuracy_high,none"]] == pytest.approx(expected["intervals"]["accuracy"])
    assert 0.7 < found["accuracy,none"] < 1.0  # neither trivial nor broken
    assert all(trajectory.box_turn is not None for trajectory in trajectories(reference).values())


def test_results_say_what_they_depend_on(reference: Path) -> None:
    [about] = [path.read_text() for path in reference.glob("mgpo/*/run.json")]
    for part in ('"max_pixels": 28224', '"words": "two_turn"', '"temperature": 0.0', '"transformers"', '"identity"'):
        assert part in about
    images = list(reference.glob("mgpo/*/images/*"))
    assert len(images) >= 3 * N  # the original, as it was seen, the crop


def test_killed_and_begun_again_it_plays_no_sample_twice_and_scores_the_same(reference: Path, tmp_path: Path) -> None:
    arguments = [*MODEL, *TASK, "--batch_size", "4", "--output_path", "out"]
    output = tmp_path / "out"
    killed = run([str(Path(__file__).with_name("dying_evaluation.py")), "10", *arguments], tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    before = journal_keys(output)
    assert len(before) == 10 and not list(output.glob("*/*_results.json"))
    done = run(command("mgpo-eval", *arguments), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"10 of {N} samples were finished by an earlier run" in done.stdout
    assert "1 lines of the journal were cut short" in done.stdout
    keys = journal_keys(output)
    assert keys[:10] == before and len(keys) == len(set(keys)) == N
    assert_same(output, reference)


def test_two_processes_give_the_same_and_report_their_throughput_together(reference: Path, tmp_path: Path) -> None:
    import json

    done = run(
        ["-m", "lmms_eval", *MODEL, *TASK, "--batch_size", "16", "--log_samples", "--output_path", "out"],
        tmp_path,
        processes=2,
        ACCELERATE_USE_CPU="true",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(tmp_path / "out", reference)
    [written] = (tmp_path / "out").glob("*/*_results.json")
    throughput = json.loads(written.read_text())["throughput"]
    turns = [turn for trajectory in trajectories(reference).values() for turn in trajectory.turns]
    assert throughput["total_gen_tokens"] == sum(turn.tokens for turn in turns)
    assert throughput["avg_processes"] == 2
    assert len(list((tmp_path / "out").glob("mgpo/*/rank*.jsonl"))) == 2


def test_a_process_that_fails_ends_the_others_and_the_run_fails(tmp_path: Path) -> None:
    hub_fixture.write_vstar(tmp_path)
    hub_fixture.spoil_image(tmp_path, 1)  # the second process's
    done = run(
        ["-m", "lmms_eval", *MODEL, "--tasks", "mgpo_vstar", "--batch_size", "1", "--output_path", "out"],
        tmp_path,
        processes=2,
        ACCELERATE_USE_CPU="true",
        LMMS_EVAL_DATASETS_CACHE=str(tmp_path / "cache"),
    )
    assert done.returncode != 0
    assert "process 1 failed" in done.stdout and "image 1 of mgpo_vstar/1" in done.stdout
    assert not list(tmp_path.glob("out/*/*_results.json"))
