"""`mgpo-eval` is lmms-eval's command line that finds our tasks and fails when it failed."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from patience import HANG

from mgpo_eval import cli, plugin
from mgpo_eval.plugin import TASKS

NAMES = {
    "haystack",
    "haystack_images",
    "haystack_multi",
    "haystack_ood",
    "mgpo_hrbench4k",
    "mgpo_hrbench8k",
    "mgpo_mmerealworld",
    "mgpo_mmerealworld_lite",
    "mgpo_vstar",
    "mig_bench",
}


def test_help_teaches_without_loading_anything(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = set(sys.modules)
    assert cli.main(["--help"]) == cli.main([]) == 0
    assert not [name for name in set(sys.modules) - loaded if name.startswith("lmms_eval.")]
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES)
    for option in ("pretrained", "mode", "max_pixels", "tensor_parallel_size", "url", "journal", "coordinate_space"):
        assert re.search(rf"^  {option} ", printed, flags=re.MULTILINE), option


def test_a_report_of_no_folder_is_refused_without_scipy() -> None:
    code = (
        "import sys; from mgpo_eval.cli import main; status = main(['report', 'nope']); "
        "sys.exit(3 if {'scipy', 'torch', 'lmms_eval'} & set(sys.modules) else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 2 and "error: nope is not a directory" in done.stderr


def test_every_task_file_is_known() -> None:
    assert {path.stem for path in TASKS.glob("*.yaml")} == NAMES


def test_every_function_that_a_task_file_names_exists() -> None:
    files = [path for path in TASKS.iterdir() if path.name.endswith("yaml")]
    named = {name for path in files for name in re.findall(r"!function (\S+)", path.read_text())}
    assert len(named) > 10
    for module, _, function in (name.rpartition(".") for name in named):
        assert hasattr(import_module(module), function), f"{module}.{function}"


def test_task_files_are_read_in_c_as_they_are_in_python(tmp_path: Path) -> None:
    import lmms_eval.tasks
    from lmms_eval.utils import ignore_constructor

    yaml.add_constructor("!function", ignore_constructor)
    stock = sorted(Path(lmms_eval.tasks.__file__).parent.rglob("*.yaml"))[::15]
    files = [*stock, *TASKS.glob("*.yaml")]
    assert len(files) > 100 and yaml.__with_libyaml__
    for path in files:
        with path.open("rb") as file:
            assert repr(plugin._full_load(file)) == repr(yaml.full_load(path.read_bytes())), path
    (tmp_path / "task.yaml").write_text("task: !unknown {}")
    with (tmp_path / "task.yaml").open("rb") as file, pytest.raises(yaml.YAMLError, match="!unknown"):
        plugin._full_load(file)


def test_defaults_are_added_where_nothing_is_said() -> None:
    added = cli.with_defaults(["--model", "mgpo", "--tasks", "haystack"])
    assert added[4:] == [
        *("--include_path", str(TASKS), "--output_path", cli.OUTPUT, "--log_samples", "--batch_size", "auto")
    ]
    given = ["--model", "mgpo", "--output_path=o", "--log_samples", "-b", "4", "--include_path", "mine"]
    assert cli.with_defaults(given) == given
    assert "--batch_size" not in cli.with_defaults(["--model", "qwen2_5_vl"])


def test_the_plugin_is_an_entry_point() -> None:
    found = {point.name: point.value for point in entry_points(group="lmms_eval.models")}
    assert found["mgpo"] == "mgpo_eval.plugin:manifests"


@pytest.mark.slow
def test_upstream_still_has_what_we_stand_on() -> None:
    import inspect

    from lmms_eval import evaluator, evaluator_utils, models
    from lmms_eval.__main__ import cli_evaluate_single
    from lmms_eval.api import task
    from lmms_eval.api.model import lmms
    from lmms_eval.api.task import ConfigurableMessagesTask
    from lmms_eval.cli.dispatch import main
    from lmms_eval.models.model_utils import gen_metrics
    from lmms_eval.tasks import TaskManager

    moved = "lmms-eval moved what mgpo_eval relies on (0.7.3): "
    assert list(inspect.signature(TaskManager.initialize_tasks).parameters) == [
        "self", "include_path", "include_defaults"
    ], moved + "TaskManager.initialize_tasks"  # fmt: skip
    assert "evaluator.simple_evaluate" in inspect.getsource(cli_evaluate_single), moved + "where results come from"
    assert "evaluation_tracker" in inspect.signature(evaluator.simple_evaluate).parameters, moved + "the tracker"
    assert not inspect.signature(main).parameters, moved + "cli.dispatch.main"
    assert lmms.is_simple is True and hasattr(lmms, "create_from_arg_string"), moved + "the model's base"
    assert "doc_to_messages, copy.deepcopy(self.config.generation_kwargs), doc_id, self.config.task, split" in (
        inspect.getsource(ConfigurableMessagesTask.construct_requests)
    ), moved + "the request's arguments"
    assert "task.args = cli_args" in inspect.getsource(evaluator.evaluate), moved + "the command line's options"
    assert hasattr(gen_metrics, "log_metrics"), moved + "log_metrics"
    assert list(inspect.signature(evaluator_utils.stderr_for_metric).parameters) == ["metric", "bootstrap_iters"], (
        moved + "the standard errors of averages"
    )
    assert "datasets.load_dataset(" in inspect.getsource(task) and hasattr(task, "snapshot_download"), (
        moved + "how data sets are loaded"
    )
    for name, cls in (("mgpo", "MGPO"), ("mgpo_vllm", "MGPOVLLM"), ("mgpo_openai", "MGPOOpenAI")):
        assert models.get_model(name).__name__ == cls
    assert set(TaskManager("ERROR").all_tasks) >= NAMES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "mgpo", "--tasks", "haystack", "--model_args", "pretrained=gone/"], "no model folder 'gone/'"),
        (
            ["--model", "mgpo", "--tasks", "haystack", "--model_args", "pretrained=haystack:mgpo,mod=single_turn"],
            "did you mean .mode",
        ),
        (["--model", "mgpo", "--tasks", "haystuck", "--model_args", "pretrained=haystack:mgpo"], "no result"),
        (["--model", "mgpo", "--model_args", "pretrained=haystack:mgpo"], "no result"),
    ],
)
def test_what_fails_says_so_and_exits_with_another_status(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mgpo-eval"])
    try:
        status = cli.main(arguments)
    except SystemExit as stop:
        status = stop.code  # type: ignore[assignment]
    assert status not in (0, None)
    assert re.search(f"mgpo-eval: failed: .*{message}", capsys.readouterr().err)


@pytest.mark.slow
def test_without_a_network_the_data_set_and_the_remedy_are_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets

    def unreachable(path: str, **options: object) -> None:
        raise ConnectionError(f"Couldn't reach '{path}' on the Hub")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mgpo-eval"])
    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert cli.main(["--model", "mgpo", "--model_args", "pretrained=haystack:mgpo", "--tasks", "mgpo_vstar"]) == 1
    printed = capfd.readouterr()
    [line] = [line for line in printed.err.splitlines() if line.startswith("mgpo-eval: failed: ")]
    assert "'lmms-lab-encoder/vstar-bench' could not be downloaded" in line and "./lmms-lab-encoder/vstar-bench" in line
    assert "Traceback" not in printed.out + printed.err and "RetryError" not in printed.out + printed.err


@pytest.mark.slow
def test_a_full_disk_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mgpo-eval"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/haystack__mgpo").write_text("in the way")
    monkeypatch.setattr(cli, "check_output_path", lambda *arguments: None)  # which would see it before
    arguments = ["--model", "mgpo", "--model_args", "pretrained=haystack:mgpo", "--tasks", "haystack", "--limit", "2"]
    assert cli.main([*arguments, "--output_path", "out"]) == 1
    assert re.search(r"failed: out/haystack__mgpo/\S+_results\.json was not written", capsys.readouterr().err)
