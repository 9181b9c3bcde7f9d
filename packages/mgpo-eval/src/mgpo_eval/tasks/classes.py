"""Tasks whose rows are made or read by us instead of by `datasets.load_dataset`: haystack and MIG-Bench.

Relies on lmms-eval 0.7.3: a YAML file with `class:` makes a task of that class from the file's other entries;
`ConfigurableMessagesTask.download` fills `dataset` and `dataset_no_image`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmms_eval.api.task import ConfigurableMessagesTask
from loguru import logger

from mgpo_core.errors import SampleError
from mgpo_eval import mig_bench
from mgpo_eval.failures import data_set_failure
from mgpo_eval.fingerprint import fingerprint
from mgpo_eval.tasks.haystack_rows import haystack_multi_rows, haystack_rows

__all__ = ["HaystackMultiTask", "HaystackTask", "MIGBenchTask"]


class _MadeTask(ConfigurableMessagesTask):
    """A task that says itself where its rows come from; for chat models."""

    def __init__(self, config: Mapping[str, Any], model_name: str | None = None) -> None:
        config = {name: value for name, value in config.items() if name != "class"}
        super().__init__(config=config, model_name=model_name)

    def rows(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of the test split, given the file's `dataset_kwargs`."""
        raise NotImplementedError

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        """Make the data set; its fingerprint is that of the rows, so that finished samples are known again."""
        import datasets

        rows = self.rows(dataset_kwargs or {})
        table = datasets.Dataset.from_list(rows)
        table._fingerprint = fingerprint({"rows": rows})
        self.dataset = datasets.DatasetDict({str(self.config.test_split): table})
        self.dataset_no_image = self.dataset


class HaystackTask(_MadeTask):
    """Held-out samples of the haystack world: `split`, `n`, `seed` and `images` in `dataset_kwargs`."""

    def rows(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """As `haystack_rows` makes them."""
        return haystack_rows(options["split"], options["n"], options["seed"], options.get("images", 1))


class HaystackMultiTask(_MadeTask):
    """Held-out questions over several images, answered by a box: `split`, `n`, `seed`, `images`."""

    def rows(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """As `haystack_multi_rows` makes them."""
        return haystack_multi_rows(options["split"], options["n"], options["seed"], options["images"])


class MIGBenchTask(_MadeTask):
    """MIG-Bench out of a local copy of its hub repository, or out of the hub (`repo` in `dataset_kwargs`)."""

    def rows(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The records, each with the place that its images are in; the repairs of the ground truth are reported."""
        place = _mig_bench_copy(str(options["repo"]))
        rows = mig_bench.to_rows(place)
        counts = mig_bench.count_defects(mig_bench.Record.from_row(row) for row in rows)
        logger.info(
            "MIG-Bench in {}: {} records; true boxes put in order: {} inverted, {} reaching out; {} are empty",
            place,
            counts.n,
            counts.inverted,
            counts.clipped,
            counts.empty,
        )
        return [{**row, "place": str(place)} for row in rows]


def _mig_bench_copy(repo: str) -> Path:
    """The folder that MIG_BENCH names, else one of the repository's name under the working folder, else the hub's."""
    named = os.environ.get("MIG_BENCH")
    if named:
        return Path(named).expanduser()
    if Path(repo).is_dir():
        return Path(repo).resolve()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, repo_type="dataset"))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise SampleError(
            f"{data_set_failure(repo, error)}; or set MIG_BENCH to a folder with its JSON and images"
        ) from error
