"""Evaluations in training: they change nothing, say what an evaluation of the checkpoint says, and keep the best."""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import GradientState

from mgpo_core import CoordinateSpace, EngineError, Episode, PixelBudget, haystack
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_train.config import config as config_module
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import ConfigError
from mgpo_train.config.parser import make_config
from mgpo_train.evaluation.evaluate import evaluate
from mgpo_train.evaluation.isolation import preserve_rng_state
from mgpo_train.evaluation.lmms_tasks import LMMSTasks, Scores, data_sets_told, read_scores
from mgpo_train.evaluation.periodic import PeriodicEvaluation, choose_metric, column
from mgpo_train.output.curves import task_panels
from mgpo_train.output.learning_warnings import learning_warnings
from mgpo_train.output.metrics import is_evaluation, read_metrics
from mgpo_train.run import run

sys.path.insert(0, str(Path(__file__).parent))
from launching import launch

HELD_OUT = 12
STEPS = 4
OPTIONS = {
    "train_data": "haystack:train?n=64&seed=1",
    "eval_data": "haystack:val?n=24&seed=7",  # its first samples are those of the task haystack
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "num_generations": 4,
    "max_completion_length": 64,
    "max_steps": STEPS,
    "save_steps": 2,
    "save_total_limit": None,
    "learning_rate": 1e-3,  # weights that move at once: scores that differ from step to step
    "warmup_steps": 0,
    "eval_greedy": False,
    "progress": False,
}
EVALUATED = {"eval_every": 2, "eval_tasks": ["haystack"], "eval_limit": HELD_OUT}
NAMES = ("accuracy", "hit_rate", "valid_box_rate", "mean_iou", "answered_rate")


def rows(folder: Path, *, evaluations: bool) -> list[dict]:
    found = [row for row in read_metrics(folder / "metrics.jsonl") if is_evaluation(row) is evaluations]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in found]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    run(MGPOConfig(output_dir=str(out), **OPTIONS))
    return out


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("evaluated")
    run(MGPOConfig(output_dir=str(out), **OPTIONS, **EVALUATED))
    return out


@pytest.fixture(scope="module")
def models(evaluated) -> dict[int, str]:
    """What can be loaded, by the step after which it was evaluated."""
    return {0: "haystack:base"} | {step: str(evaluated / f"checkpoint-{step}") for step in range(2, STEPS + 1, 2)}


@pytest.fixture(scope="module")
def scores(models) -> dict[int, dict]:
    """Scores of every checkpoint on the held-out samples, measured anew."""
    samples = haystack.make("val", n=HELD_OUT, seed=7)
    return {
        step: evaluate(
            load_model(name),
            load_processor(name),
            samples,
            episode=partial(Episode, budget=haystack.BUDGET),
            temperature=0.0,
            max_new_tokens=64,
        )[0]
        for step, name in models.items()
    }


@pytest.mark.slow
def test_training_goes_on_as_if_nothing_had_been_evaluated(plain, evaluated):
    expected = rows(plain, evaluations=False)
    assert [row["step"] for row in expected] == list(range(1, STEPS + 1))
    assert len({row["reward"] for row in expected}) > 1, "nothing varies: equality would show nothing"
    assert rows(evaluated, evaluations=False) == expected
    assert not rows(plain, evaluations=True) and not (plain / "best").exists()
    assert weights(plain / "model") == weights(evaluated / "model")


@pytest.mark.slow
def test_logged_scores_are_those_of_the_saved_checkpoints(evaluated, scores):
    logged = rows(evaluated, evaluations=True)
    assert [row["step"] for row in logged] == list(scores)
    assert len({row["eval/accuracy"] for row in logged}) > 1
    for row in logged:
        for name in NAMES:
            assert row[f"eval/{name}"] == pytest.approx(scores[row["step"]][name]), (row["step"], name)


@pytest.mark.slow
def test_scores_of_a_task_are_those_of_mgpo_eval_on_the_saved_checkpoints(evaluated, models):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.models import get_model

    for row in rows(evaluated, evaluations=True):
        runner = get_model("mgpo")(pretrained=models[row["step"]], batch_size=64, journal="off")
        found = simple_evaluate(
            model=runner, tasks=["haystack"], limit=HELD_OUT, log_samples=False, bootstrap_iters=0
        )["results"]["haystack"]  # fmt: skip
        for name in (*NAMES, "accuracy_low", "accuracy/circle"):
            assert row[f"eval_haystack/{name}"] == pytest.approx(found[f"{name},none"]), (row["step"], name)
        assert row["eval_haystack/accuracy"] == row["eval/accuracy"], "the same samples"


@pytest.mark.slow
def test_best_is_the_checkpoint_with_the_best_score(evaluated, models, scores):
    values = {step: found["accuracy"] for step, found in scores.items()}
    best = max(values, key=lambda step: (values[step], -step))
    record = json.loads((evaluated / "best" / "best.json").read_text())
    assert (record["step"], record["metric"], record["value"]) == (best, "eval/accuracy", values[best])
    assert record["scores"]["haystack/accuracy"] == values[best]
    expected, found = load_model(models[best]).state_dict(), load_model(evaluated / "best").state_dict()
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    load_processor(evaluated / "best")
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["best"] == {name: record[name] for name in ("step", "metric", "value")} | {
        "folder": str(evaluated / "best")
    }
    assert summary["warnings"] == learning_warnings(list(read_metrics(evaluated / "metrics.jsonl")), summary)
    assert not [path.name for path in evaluated.glob("best.*")], "nothing half done is left"


@pytest.mark.slow
def test_every_folder_with_weights_says_how_it_is_played(evaluated):
    config = MGPOConfig(**OPTIONS)
    for folder in (evaluated / name for name in ("model", "best", "checkpoint-2", "checkpoint-4")):
        assert EpisodeSettings.read(folder) == config.episode_settings
        again = MGPOConfig(model=str(folder))
        assert (again.budget, again.space, again.rules) == (config.budget, config.space, config.rules)
    assert config.episode_settings.max_new_tokens == 64


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the line of the log", "after the checkpoint"])
def test_a_killed_run_goes_on_with_the_best_of_its_checkpoint(when, evaluated, tmp_path, monkeypatch):
    values = {0: 0.2, 2: 0.5, 4: 0.9}
    config = MGPOConfig(output_dir=str(tmp_path), **OPTIONS, eval_every=2, eval_limit=HELD_OUT)
    seen = []

    def scored(self, step):
        seen.append((step, json.loads((tmp_path / "best" / "best.json").read_text())["step"] if step else None))
        return Scores({"eval/accuracy": values[step]})

    monkeypatch.setattr(PeriodicEvaluation, "_scores", scored)

    def kill(self, scores, control):
        if scores.values["eval/accuracy"] == values[4]:
            raise Killed
        write(self, scores, control)

    write = PeriodicEvaluation._write
    if when.startswith("before"):
        with monkeypatch.context() as patch:
            patch.setattr(PeriodicEvaluation, "_write", kill)
            with pytest.raises(Killed):
                run(config)
        assert seen == [(0, None), (2, 0), (4, 2)]
        assert json.loads((tmp_path / "best" / "best.json").read_text())["step"] == 4, "ahead of checkpoint-2"
        repeated = [(4, 2)]
    else:
        run(config)
        (tmp_path / "summary.json").unlink()
        repeated = []
    seen.clear()
    summary = run(MGPOConfig(output_dir=str(tmp_path), **OPTIONS, eval_every=2, eval_limit=HELD_OUT), resume=True)
    assert seen == repeated, "what the log holds is not measured again; what is best came back with the checkpoint"
    assert summary["best"]["step"] == 4 and summary["best"]["value"] == values[4]
    assert weights(tmp_path / "best") == weights(evaluated / "checkpoint-4")
    assert [row["eval/accuracy"] for row in rows(tmp_path, evaluations=True)] == list(values.values())


@pytest.mark.slow
def test_the_baselines_and_adapters_keep_their_best_too(tmp_path):
    for name, options in (("sft", {"method": "sft", "per_device_train_batch_size": 2}), ("lora", {"use_peft": True})):
        out = tmp_path / name
        asked = {"max_steps": 1, "eval_every": 1, "eval_limit": 4, "best_metric": "eval/answered_rate"}
        run(MGPOConfig(output_dir=str(out), **OPTIONS | options | asked))
        assert [row["step"] for row in rows(out, evaluations=True)] == [0, 1]
        load_model(out / "best"), load_processor(out / "best")
        assert EpisodeSettings.read(out / "best") == EpisodeSettings.read(out / "model")


@pytest.mark.slow
def test_several_processes_share_the_samples_and_keep_one_best(tmp_path):
    options = OPTIONS | EVALUATED | {"max_steps": 2, "eval_limit": 5}
    out = tmp_path / "run"
    words = [f"--{name}={' '.join(value) if isinstance(value, list) else value}" for name, value in options.items()
             if value is not None]  # fmt: skip
    (tmp_path / "mine.yaml").write_text("description: two processes\n")
    done = launch("zero3", 2, "-m", "mgpo_train", str(tmp_path / "mine.yaml"), *words, f"--output_dir={out}")
    assert done.returncode == 0, done.stderr[-4000:]
    logged = rows(out, evaluations=True)
    assert [row["step"] for row in logged] == [0, 2]
    assert all(row["eval/accuracy"] == row["eval_haystack/accuracy"] for row in logged)
    assert all((row["eval/accuracy"] * 5) % 1 == pytest.approx(0, abs=1e-9) for row in logged), "of five samples"
    load_model(out / "best"), load_processor(out / "best")


def test_the_random_generators_and_the_accumulation_are_put_back():
    def draws():
        return random.random(), float(np.random.rand()), float(torch.rand(())), dict(GradientState().plugin_kwargs)

    GradientState().plugin_kwargs = {"num_steps": 3}
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draws()
    random.setstate(before[0]), np.random.set_state(before[1]), torch.set_rng_state(before[2])
    with preserve_rng_state():
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        GradientState().plugin_kwargs = {"num_steps": 1}
    try:
        assert draws() == expected
    finally:
        GradientState().plugin_kwargs = {}


RESULTS = {
    "results": {
        "haystack": {
            "alias": "haystack", "samples": 4, "accuracy,none": 0.5, "accuracy_stderr,none": "N/A",
            "accuracy_stderr_clt,none": np.float64(0.1), "accuracy/circle,none": np.float32(0.25), "category,none": [],
            "crop_area_fraction,none": 0.1, "exact_match,flexible": 1, "submission,none": None,
        }
    },
    "higher_is_better": {"haystack": {"accuracy": True, "crop_area_fraction": False}},
}  # fmt: skip


def test_numbers_are_read_out_of_lmms_evals_results():
    found = read_scores(RESULTS)
    assert found.values == {
        "haystack/accuracy": 0.5, "haystack/accuracy/circle": 0.25, "haystack/crop_area_fraction": 0.1,
        "haystack/exact_match,flexible": 1.0,
    }  # fmt: skip
    assert found.lower == {"haystack/crop_area_fraction"}


def test_the_best_metric_is_held_out_accuracy_or_the_first_score():
    tasks = read_scores(RESULTS) | Scores({"other/f1": 0.3})
    held_out = Scores({"eval/valid_box_rate": 1.0, "eval/accuracy": 0.5})
    config = MGPOConfig(eval_tasks="other, haystack")
    assert choose_metric(config, held_out | tasks) == "eval/accuracy"
    assert choose_metric(config, tasks) == "other/f1"
    assert choose_metric(MGPOConfig(eval_tasks=["haystack"]), tasks) == "haystack/accuracy"
    wanted = MGPOConfig(eval_tasks=["haystack"], best_metric="haystack/accuracy/circle")
    assert choose_metric(wanted, held_out | tasks) == "haystack/accuracy/circle"
    assert [column(name) for name in ("eval/accuracy", "haystack/accuracy")] == [
        "eval/accuracy", "eval_haystack/accuracy",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "scores", "words"),
    [
        ("haystack/acuracy", read_scores(RESULTS), "no evaluation of this run gives it; there are haystack/accuracy"),
        ("haystack/crop_area_fraction", read_scores(RESULTS), "lower is better; choose one of haystack/accuracy"),
        (None, Scores(), "give no score"),
    ],
)
def test_a_best_metric_that_cannot_be_is_refused(wanted, scores, words):
    with pytest.raises(ConfigError, match=words):
        choose_metric(MGPOConfig(eval_every=1, best_metric=wanted), scores)


@pytest.mark.slow
def test_a_best_metric_that_no_evaluation_gives_is_refused_before_training(tmp_path):
    options = OPTIONS | {"eval_every": 2, "eval_limit": 2, "best_metric": "eval/acc"}
    with pytest.raises(ConfigError, match=r"best_metric=eval/acc: .*there are eval/accuracy"):
        run(MGPOConfig(output_dir=str(tmp_path), **options))
    assert not rows(tmp_path, evaluations=False) and not (tmp_path / "best").exists()


@pytest.mark.slow
def test_a_task_that_does_not_exist_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match="eval_tasks='haystak': lmms-eval has no such task: did you mean 'haystack'"):
        LMMSTasks(MGPOConfig(eval_tasks=["haystak"]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eval_every": -1}, "eval_every=-1: give 0 or a positive number"),
        ({"eval_every": 2, "eval_limit": 0}, "eval_limit=0: give a positive number"),
        ({"eval_every": 2, "eval_data": "none"}, "eval_every=2 has nothing to evaluate: name eval_data"),
        ({"eval_every": 2, "eval_samples": 0}, "leave eval_samples=0 out"),
        ({"eval_limit": 5}, "eval_limit=5 has no effect without .*set eval_every"),
        ({"best_metric": "eval/accuracy"}, "best_metric=eval/accuracy has no effect"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        MGPOConfig(**options)


def test_tasks_without_mgpo_eval_are_refused_when_the_run_starts(monkeypatch):
    MGPOConfig(eval_tasks=["haystack"]).check_installed()
    monkeypatch.setattr(config_module, "entry_points", lambda **names: ())
    with pytest.raises(ConfigError, match=r"eval_tasks=haystack,x: .*pip install -e packages/mgpo-eval, or"):
        MGPOConfig(eval_tasks=["haystack", "x"]).check_installed()
    MGPOConfig().check_installed()


@pytest.mark.parametrize("text", ["eval_tasks: [haystack, vstar_bench]", "eval_tasks: haystack, vstar_bench"])
def test_tasks_are_written_as_a_list_or_with_commas(tmp_path, text):
    config, _ = make_config(tmp_path / "mine.yaml", {"eval_tasks": text.partition(": ")[2].strip("[]")}, [])
    assert config.eval_tasks == ["haystack", "vstar_bench"]
    assert make_config(tmp_path / "mine.yaml", {}, ["--eval_tasks", "a", "b,c"])[0].eval_tasks == ["a", "b", "c"]
    assert MGPOConfig(eval_tasks="none").eval_tasks == []


@pytest.fixture
def trained(tmp_path) -> Path:
    """A model's folder as far as its configuration goes, run unlike the paper's models in every way."""
    shutil.copy(haystack.checkpoint("base") / "config.json", tmp_path)
    EpisodeSettings("single_turn", 4000, 9000, "0-1000", 7.0, 9.0, True, 33).write(tmp_path)
    return tmp_path


def test_a_model_is_played_as_its_folder_says_unless_options_say_otherwise(trained):
    config = MGPOConfig(model=str(trained))
    assert config.budget == PixelBudget(4000, 9000)
    assert config.space is CoordinateSpace.RELATIVE_1000
    assert (config.crop_min_side, config.crop_max_aspect, config.strict_boxes) == (7.0, 9.0, True)
    assert config.template == "two_turn", "the method's own"
    words = ["--max_pixels=10000", "--coordinate_space=absolute", "--crop_min_side=5", "--strict_boxes=false"]
    given = make_config(trained / "mine.yaml", {"model": str(trained)}, words)[0]
    with pytest.warns(UserWarning, match="coordinate_space=absolute is given"):
        settings = given.episode_settings
    assert settings == EpisodeSettings("two_turn", 4000, 10000, "absolute", 5.0, 9.0, False, 512)
    assert make_config(trained / "mine.yaml", {}, ["--strict_boxes"])[0].strict_boxes is True
    assert MGPOConfig().strict_boxes is False


def test_a_broken_record_of_a_model_is_refused(trained):
    (trained / "mgpo.json").write_text('{"min_pixels": ')
    with pytest.raises(EngineError, match=r"mgpo\.json cannot be read"):
        MGPOConfig(model=str(trained))


def test_a_task_has_a_panel_of_its_own_scores():
    logged = [{"step": 0, "eval/accuracy": 0.1} | {column(name): 0.5 for name in read_scores(RESULTS).values}]
    logged[0] |= {"eval_haystack/accuracy_low": 0.1, "eval_haystack/skipped": 0.0}
    assert task_panels(logged) == {
        "lmms-eval: haystack": {
            "eval_haystack/accuracy": "accuracy", "eval_haystack/crop_area_fraction": "crop area fraction",
            "eval_haystack/exact_match,flexible": "exact match,flexible",
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (ConnectionError("Couldn't reach 'a/b' on the Hub"), "Couldn't reach 'a/b' on the Hub"),
        (FileNotFoundError("Dataset 'a/b' doesn't exist\nor cannot be accessed"), "Dataset 'a/b' doesn't exist"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_data_set_that_cannot_be_loaded_is_told_with_the_remedy(cause, reason):
    from tenacity import Future, RetryError

    hidden = Future(1)
    hidden.set_exception(cause)
    told = f"eval_tasks=mgpo_vstar: a data set could not be loaded: {re.escape(reason)}; check the network"
    with pytest.raises(ConfigError, match=f"{told}.*put a copy"), data_sets_told(["mgpo_vstar"]):
        raise RetryError(hidden)
    with pytest.raises(KeyError), data_sets_told(["mgpo_vstar"]):
        raise KeyError("a bug")
