"""What a person can put right when an evaluation fails, in one line each: data sets, models, options.

Relies on these internals of lmms-eval 0.7.3: `api.task` calls `datasets.load_dataset(path=...)` and its own
`snapshot_download(repo_id=...)` inside tenacity's `retry`, which tries any Exception again and then hides it in a
RetryError. What is raised here instead is a SystemExit, which neither that nor lmms-eval's command catches; the hub's
own client has tried again by then.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mgpo_core.errors import MGPOError

__all__ = ["data_set_failure", "data_sets_told", "in_one_line"]

_LONGEST = 240
"Most characters of somebody else's message that are repeated."


@contextlib.contextmanager
def data_sets_told(failures: list[str]) -> Iterator[None]:
    """While lmms-eval runs: a data set that cannot be loaded is reported in `failures` and ends the run at once."""
    import datasets
    from lmms_eval.api import task

    kept = datasets.load_dataset, task.snapshot_download
    datasets.load_dataset = _told(datasets.load_dataset, "path", failures)
    task.snapshot_download = _told(task.snapshot_download, "repo_id", failures)
    try:
        yield
    finally:
        datasets.load_dataset, task.snapshot_download = kept


def _told(load: Callable[..., Any], name: str, failures: list[str]) -> Callable[..., Any]:
    @functools.wraps(load)
    def loading(*args: Any, **options: Any) -> Any:
        try:
            return load(*args, **options)
        except Exception as error:
            if os.environ.get("VERBOSITY") == "DEBUG":
                raise
            failures.append(data_set_failure(str(options.get(name, args[0] if args else "?")), error))
            raise SystemExit from error

    return loading


def data_set_failure(name: str, error: Exception) -> str:
    """One line on a data set that cannot be loaded: its name, the reason, what to do."""
    if "/" not in name or name.startswith((".", "/", "~")):
        return f"data set {name!r} cannot be read: {_reason(error)}; check the task's data_files and dataset_path"
    if Path(name).is_dir():
        return (
            f"data set {name!r}: the copy in ./{name} cannot be read: {_reason(error)}; download it again "
            f"({_download(name)}), or remove the folder to use the hub"
        )
    kinds = {type(part).__name__ for part in _chain(error)}
    text = " ".join(str(part) for part in _chain(error))
    unreached = any(isinstance(part, (ConnectionError, TimeoutError)) for part in _chain(error)) or kinds & _UNREACHED
    offline = next((name for name in _OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")), None)
    if (unreached and offline) or "offline mode" in text.lower():
        reason, remedy = f"{offline or 'offline mode'} is set and the cache holds no copy", "unset it"
    elif "LocalTokenNotFoundError" in kinds:
        reason, remedy = "its task asks for a login to the hub", "log in (hf auth login)"
    elif "gated" in text:
        reason, remedy = "it is gated", "ask for access on its page and log in (hf auth login)"
    elif kinds & {"DatasetNotFoundError", "RepositoryNotFoundError"}:
        reason, remedy = "the hub has none of this name, or it is private", "check the name, log in (hf auth login)"
    elif unreached:
        reason, remedy = "the hub cannot be reached", "check the network"
    else:
        reason, remedy = _reason(error), "try again"
    return (
        f"data set {name!r} could not be downloaded: {reason}; {remedy}, or put a copy into ./{name} "
        f"({_download(name)}), where lmms-eval looks first"
    )


_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"What keeps the hub's client, and `datasets`, from the network; the latter's errors do not say so."

_UNREACHED = {"ConnectError", "ConnectTimeout", "ReadTimeout", "ProxyError", "LocalEntryNotFoundError"}
"Names of errors that mean no connection, of whatever HTTP library the hub's client uses."


def _download(name: str) -> str:
    return f"hf download {name} --repo-type dataset --local-dir {name}"


def in_one_line(error: BaseException) -> str | None:
    """The line for an error that a person can put right; None for any other, of which the traceback tells more."""
    first = _unhidden(error)
    if isinstance(first, MGPOError):
        return " ".join(str(first).split())
    of_hub = _UNREACHED | {"OfflineModeIsEnabled", "RepositoryNotFoundError", "GatedRepoError"}
    if isinstance(first, OSError) and any(type(part).__name__ in of_hub for part in _chain(error)):
        return f"a file of the hub could not be downloaded: {_reason(error)}; check its name, the network and the login"
    return None


def _reason(error: BaseException) -> str:
    """The first line of what went wrong, not longer than a line."""
    first = _unhidden(error)
    text = next((line.strip() for line in str(first).splitlines() if line.strip()), type(first).__name__)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _unhidden(error: BaseException) -> BaseException:
    """What tenacity's RetryError hides, which prints as `RetryError[<Future at 0x...>]`."""
    attempt = getattr(error, "last_attempt", None)
    hidden = attempt.exception() if attempt is not None else None
    return error if hidden is None else _unhidden(hidden)


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it came from."""
    found: list[BaseException] = []
    following: BaseException | None = _unhidden(error)
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found
