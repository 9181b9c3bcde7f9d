"""`mgpo-train ... --dry-run`: the resolved options, the checked data and the size of the run, printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgpo_train.config import MGPOConfig
from mgpo_train.options import grouped_fields
from mgpo_train.output_folder import earlier_run
from mgpo_train.run import load_data
from mgpo_train.sizing import size_run


def print_dry_run(config: MGPOConfig, given: Mapping[str, Any]) -> None:
    """Print what a run would do; raises the errors that the run would raise before training."""
    data = load_data(config)  # its errors first: nobody should have to look for them above the options
    budget = {"min_pixels": config.budget.min_pixels, "max_pixels": config.budget.max_pixels}
    for title, options in grouped_fields().items():
        print(f"# {title}")
        for option in options:
            value = budget.get(option.name, getattr(config, option.name))
            print(f"{option.name}: {_shown(value)}{_mark(option.name, given)}")
    ours = {option.name for options in grouped_fields().values() for option in options}
    rest = [name for name in given if name not in ours]
    if rest:
        print("# Other (TRL, transformers)")
        for name in rest:
            print(f"{name}: {_shown(getattr(config, name))}{_mark(name, given)}")
    print("# Data")
    for title, samples in (("train", data.train), ("held out", data.held_out), ("ood", data.ood)):
        if samples is not None:
            print(f"{title}: {samples.describe()}")
    print(f"# Size on {config.device}, {config.world_size} process(es)")
    for line in size_run(config, data.train).lines():
        print(line)
    left = earlier_run(Path(str(config.output_dir)))
    if left and not config.overwrite:
        print(f"{config.output_dir} holds an earlier run ({left}): it takes --resume, --overwrite or another folder")


def _shown(value: Any) -> str:
    value = getattr(value, "value", value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _mark(name: str, given: Mapping[str, Any]) -> str:
    return "  # given" if name in given else ""
