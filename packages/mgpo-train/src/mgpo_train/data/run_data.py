"""All data sets of a run, read and checked before anything expensive starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mgpo_core.engines.loading import resolve_model
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.data_spec import DataSpec
from mgpo_train.config.options import ConfigError
from mgpo_train.data.sources import SampleSet, UnreachableDataError, load_samples


@dataclass(frozen=True)
class Data:
    """The samples of a run."""

    train: SampleSet
    held_out: SampleSet | None
    ood: SampleSet | None


def load_data(config: MGPOConfig, unreachable: Callable[[DataSpec], SampleSet | None] | None = None) -> Data:
    """Read and check all samples of a run, and that the model is there, before anything expensive starts.

    `unreachable` may give stand-ins for a data set of the hub that cannot be loaded. Raises SampleError and
    EngineError.
    """
    resolve_model(config.model)
    _ = config.space, config.budget  # a model whose boxes cannot be read is refused here

    def load(spec: Any, first: int | None = None) -> SampleSet | None:
        if not spec or spec == "none" or first == 0:
            return None
        try:
            found = load_samples(
                spec,
                columns=config.columns if isinstance(config.columns, Mapping) else None,  # texts are mappings by now
                on_bad_sample=config.on_bad_sample,
                max_bad_fraction=config.max_bad_fraction,
                check_images=config.check_images,
                answers_with_box=config.make_template().answers_with_box,
                box_scale=config.box_scale,
                box_format=config.box_format,
            )
        except UnreachableDataError as error:
            assumed = None if unreachable is None else unreachable(error.spec)
            if assumed is None:
                raise
            found = assumed
        return SampleSet(found[:first], found.source, found.skipped, found.layout)

    train = load(config.train_data)
    if train is None:
        raise ConfigError("train_data is none: name a file, a hub id or haystack:train?n=960&seed=1")
    return Data(train, load(config.eval_data, config.eval_samples), load(config.eval_ood_data, config.eval_samples))
