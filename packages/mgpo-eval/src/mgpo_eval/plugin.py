"""What lmms-eval finds by itself once mgpo-eval is installed: our models, and with them our tasks.

Relies on lmms-eval 0.7.3: the entry point group `lmms_eval.models`, read at `import lmms_eval.models`, and
`TaskManager.initialize_tasks(include_path=, include_defaults=)`. There is no entry point for tasks, so the function
that lists them is wrapped to see our folder too; names of stock tasks win. It reads some 3,000 files by
`yaml.full_load`, whose parser in Python takes most of the start of an evaluation; inside the wrapper, PyYAML's parser
in C reads them. Nor is there an entry point for standard errors:
`evaluator_utils.stderr_for_metric(metric, bootstrap_iters)` knows those of lmms-eval's own averages, and is wrapped to
know those of ours. No model is imported here, and nothing is raised: an error would take other plug-ins down.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

__all__ = ["TASKS", "manifests"]

TASKS = Path(__file__).resolve().parent / "tasks"
"""The folder of our tasks, for `--include_path`."""

_MODELS = {"mgpo": "MGPO", "mgpo_vllm": "MGPOVLLM", "mgpo_openai": "MGPOOpenAI"}


def manifests() -> list[Any]:
    """Our models for lmms-eval's registry; makes our tasks known on the way."""
    from lmms_eval.models.registry_v2 import ModelManifest

    _add_tasks()
    _add_standard_errors()
    return [ModelManifest(name, chat_class_path=f"mgpo_eval.models.lmms.{cls}") for name, cls in _MODELS.items()]


def _add_tasks() -> None:
    try:
        from lmms_eval.tasks import TaskManager

        original = TaskManager.initialize_tasks
        if getattr(original, "includes_mgpo", False):
            return

        @functools.wraps(original)
        def initialize_tasks(
            self: Any, include_path: str | Sequence[str] | None = None, include_defaults: bool = True
        ) -> Any:
            given = [include_path] if isinstance(include_path, str) else list(include_path or [])
            ours = [] if any(Path(path).resolve() == TASKS for path in given) else [str(TASKS)]
            with mock.patch.object(yaml, "full_load", _full_load):
                return original(self, include_path=[*given, *ours], include_defaults=include_defaults)

        initialize_tasks.includes_mgpo = True  # type: ignore[attr-defined]
        TaskManager.initialize_tasks = initialize_tasks
    except Exception as error:
        warnings.warn(
            f"mgpo-eval could not add its tasks to this version of lmms-eval ({error}); add --include_path {TASKS}",
            stacklevel=2,
        )


class _CLoader(getattr(yaml, "CFullLoader", yaml.FullLoader)):  # type: ignore[misc]
    """`yaml.FullLoader` with the parser in C, where PyYAML has it; knows the tags that were added to that one."""

    @property
    def yaml_constructors(self) -> dict[str, Any]:
        return yaml.FullLoader.yaml_constructors


def _full_load(stream: Any) -> Any:
    """`yaml.full_load` of a file; what the parser in C does not take is left to the other one."""
    try:
        return yaml.load(stream, Loader=_CLoader)
    except yaml.YAMLError:
        stream.seek(0)
        return yaml.load(stream, Loader=yaml.FullLoader)


def _add_standard_errors() -> None:
    try:
        from lmms_eval import evaluator_utils

        original = evaluator_utils.stderr_for_metric
        if getattr(original, "knows_mgpo", False):
            return

        @functools.wraps(original)
        def stderr_for_metric(metric: Any, bootstrap_iters: int) -> Any:
            own = getattr(metric, "stderr", None)
            return original(metric, bootstrap_iters) if own is None or bootstrap_iters <= 0 else own

        stderr_for_metric.knows_mgpo = True  # type: ignore[attr-defined]
        evaluator_utils.stderr_for_metric = stderr_for_metric
    except Exception as error:
        warnings.warn(
            f"mgpo-eval could not add its standard errors to this version of lmms-eval ({error}); its tasks have "
            "N/A there, and their intervals all the same",
            stacklevel=2,
        )
