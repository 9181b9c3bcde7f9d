"""`mgpo-train ... --dry-run`: the resolved options, the checked data and the size of the run, printed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from mgpo_core import Sample
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.data_spec import DataSpec
from mgpo_train.config.options import grouped_fields
from mgpo_train.data.run_data import load_data
from mgpo_train.data.sources import SampleSet
from mgpo_train.output.folder import earlier_run
from mgpo_train.sizing.hardware import HardwareTarget
from mgpo_train.sizing.sizing import size_run

PUBLISHED_ROWS = {
    "xinyu1205/mme_realworld_train_21690": 21_690,
    "yifanzhang114/MME-RealWorld-Lite-lmms-eval": 1_919,
    "lmms-lab-encoder/vstar-bench": 191,
}
"""Samples of the paper's data sets, by which a run is sized where they cannot be downloaded."""

ASSUMED_SIZE = (2000, 1500)
"""Pixels of an assumed image: the average that MME-RealWorld's authors give."""


def print_dry_run(config: MGPOConfig, overrides: Mapping[str, Any], machine: HardwareTarget | None = None) -> None:
    """Print what a run would do on a machine; raises the errors that the run would raise before training."""
    machine = machine or HardwareTarget()
    # its errors first: nobody should have to look for them above the options
    data = load_data(config, unreachable=assumed_samples)
    sized = size_run(_as_on(machine, config, overrides), data.train, machine)
    budget = {"min_pixels": config.budget.min_pixels, "max_pixels": config.budget.max_pixels}
    for title, options in grouped_fields().items():
        print(f"# {title}")
        for option in options:
            value = budget.get(option.name, getattr(config, option.name))
            print(f"{option.name}: {_shown(value)}{_mark(option.name, overrides)}")
    ours = {option.name for options in grouped_fields().values() for option in options}
    rest = [name for name in overrides if name not in ours]
    if rest:
        print("# Other (TRL, transformers)")
        for name in rest:
            print(f"{name}: {_shown(getattr(config, name))}{_mark(name, overrides)}")
    print("# Data")
    print(config.budget_origin)
    for title, samples in (("train", data.train), ("held out", data.held_out), ("ood", data.ood)):
        if samples is not None:
            print(f"{title}: {samples.describe()}")
    print("# Size")
    for line in sized.lines():
        print(line)
    left = earlier_run(Path(str(config.output_dir)))
    if left and not config.overwrite:
        print(f"{config.output_dir} holds an earlier run ({left}): it takes --resume, --overwrite or another folder")


def assumed_samples(spec: DataSpec) -> SampleSet | None:
    """Stand-ins for one of the paper's data sets that cannot be reached: its size, and typical questions; or None."""
    rows = PUBLISHED_ROWS.get(spec.path)
    if rows is None:
        return None
    sample = Sample(
        question="q" * 120, images=(Image.new("1", ASSUMED_SIZE),), choices=("c" * 20,) * 5, answer="A", id="assumed"
    )
    width, height = ASSUMED_SIZE
    what = f"{spec.path} (NOT REACHED: sized by its published number of questions, images of {width}x{height} assumed)"
    return SampleSet([sample] * min(rows, spec.n or rows), what)


def _as_on(machine: HardwareTarget, config: MGPOConfig, overrides: Mapping[str, Any]) -> MGPOConfig:
    """The configuration as it would resolve on the machine's GPU, when this one has none."""
    if machine.gpu is None:
        return config
    resolved = copy.copy(config)
    for name in ("bf16", "gradient_checkpointing"):
        if overrides.get(name) is None and not config.fp16:
            setattr(resolved, name, True)
    return resolved


def _shown(value: Any) -> str:
    value = getattr(value, "value", value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _mark(name: str, overrides: Mapping[str, Any]) -> str:
    return "  # given" if name in overrides else ""
