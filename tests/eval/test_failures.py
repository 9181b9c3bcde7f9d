"""What a person can put right is told in one line: data sets of the hub, models, options; no RetryError, no Future."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mgpo_core.errors import EngineError, SampleError
from mgpo_eval.failures import data_set_failure, data_sets_told, in_one_line
from mgpo_eval.models.options import OptionError

VSTAR = "lmms-lab-encoder/vstar-bench"


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables by which the tests are kept from the network."""
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def named(name: str, text: str = "", base: type[Exception] = Exception) -> Exception:
    """An error of a class of this name, as the hub's client and its HTTP library have them."""
    return type(name, (base,), {})(text)


def retried(error: Exception) -> Exception:
    """What tenacity makes of an error."""
    from tenacity import Future, RetryError

    future = Future(1)
    future.set_exception(error)
    return RetryError(future)


REMEDY = "check its name, the network and the login"
UNREACHED = caused(
    ConnectionError(f"Couldn't reach '{VSTAR}' on the Hub (LocalEntryNotFoundError)"), named("LocalEntryNotFoundError")
)


@pytest.mark.parametrize(
    "name", [VSTAR, "DreamMr/HR-Bench", "yifanzhang114/MME-RealWorld-Lmms-eval", "lmms-lab/DocVQA"]
)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UNREACHED, "the hub cannot be reached; check the network"),
        (retried(UNREACHED), "the hub cannot be reached; check the network"),
        (named("ConnectTimeout", "timed out"), "the hub cannot be reached; check the network"),
        (ConnectionError("Couldn't reach it: Offline mode is enabled."), "offline mode is set and the cache holds no"),
        (
            named("DatasetNotFoundError", "Dataset 'x' doesn't exist on the Hub"),
            "the hub has none of this",
        ),
        (
            named("DatasetNotFoundError", "Dataset 'x' is a gated dataset on the Hub."),
            "it is gated; ask for access",
        ),
        (named("LocalTokenNotFoundError", "Token is required"), "its task asks for a login to the hub; log in"),
        (OSError("disk full"), "disk full; try again"),
        (ValueError(), "ValueError; try again"),
    ],
)
def test_a_data_set_is_named_with_the_reason_and_the_local_copy(
    name: str, error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = data_set_failure(name, error)
    assert line.startswith(f"data set {name!r} could not be downloaded: {reason}")
    copied = f"hf download {name} --repo-type dataset --local-dir {name}"
    assert line.endswith(f", or put a copy into ./{name} ({copied}), where lmms-eval looks first")
    assert "\n" not in line and "Future" not in line


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1", "{} is set and the cache holds no copy; unset it"),
        ("true", "{} is set and the cache holds no copy; unset it"),
        ("0", "the hub cannot be reached; check the network"),
    ],
)
def test_offline_mode_is_told_from_a_network_that_is_down(
    name: str, value: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    assert f"could not be downloaded: {reason.format(name)}, or put a copy" in data_set_failure(VSTAR, UNREACHED)
    assert "offline" not in data_set_failure(VSTAR, named("DatasetNotFoundError", "no such")).lower()


def test_a_local_copy_that_is_broken_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / VSTAR).mkdir(parents=True)
    line = data_set_failure(VSTAR, ValueError("BuilderConfig 'x' not found.\nAvailable: ['default']"))
    assert line.startswith(f"data set {VSTAR!r}: the copy in ./{VSTAR} cannot be read: BuilderConfig 'x' not found.; ")
    assert "\n" not in line
    line = data_set_failure("parquet", FileNotFoundError("x" * 9_999))
    assert line.startswith("data set 'parquet' cannot be read: xxx") and len(line) < 400


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OptionError("mod=single_turn: did you mean\n  mode?"), "mod=single_turn: did you mean mode?"),
        (EngineError("there is no model folder 'gone/'"), "there is no model folder 'gone/'"),
        (retried(SampleError("MIG-Bench could not be downloaded")), "MIG-Bench could not be downloaded"),
        (
            caused(OSError("We couldn't connect to the hub\nand more"), named("LocalEntryNotFoundError")),
            f"a file of the hub could not be downloaded: We couldn't connect to the hub; {REMEDY}",
        ),
        (
            caused(OSError("no/model is not a local folder"), named("RepositoryNotFoundError")),
            f"a file of the hub could not be downloaded: no/model is not a local folder; {REMEDY}",
        ),
        (TypeError("a bug"), None),
        (caused(TypeError("a bug"), OptionError("seen before")), None),
        (OSError("disk full"), None),
        (retried(KeyError("a bug")), None),
    ],
)
def test_only_what_a_person_can_put_right_is_told_without_a_traceback(error: Exception, line: str | None) -> None:
    assert in_one_line(error) == line


@pytest.mark.slow
@pytest.mark.parametrize("verbosity", ["INFO", "DEBUG"])
def test_a_data_set_that_cannot_be_loaded_ends_the_run_at_once(verbosity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from lmms_eval.api.task import ConfigurableTask

    asked: list[str] = []

    def unreachable(path: str, **options: Any) -> Any:
        asked.append(path)
        raise UNREACHED

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setenv("VERBOSITY", verbosity)
    monkeypatch.setattr(ConfigurableTask.download.retry, "sleep", lambda seconds: None)
    task = SimpleNamespace(DATASET_PATH=VSTAR, DATASET_NAME=None)
    failures: list[str] = []
    expected = SystemExit if verbosity == "INFO" else Exception
    with data_sets_told(failures), pytest.raises(expected) as caught:
        ConfigurableTask.download(task, {})
    assert datasets.load_dataset is unreachable
    if verbosity == "DEBUG":
        assert type(caught.value).__name__ == "RetryError" and failures == []
    else:
        assert asked == [VSTAR] and failures == [data_set_failure(VSTAR, UNREACHED)]
