"""The folder that a haystack checkpoint is written into: whose it is, and replacing what was there before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgpo_core.files.output_folder import HERE, MODEL_FILES, OutputRecord, Owner, open_output

OWNER = Owner("mgpo-train haystack-base", "output_dir", files=MODEL_FILES)
"""What the commands write into their folder: a checkpoint with its `mgpo.json`, and `base.json`."""


@contextmanager
def checkpoint_folder(folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Around a block that writes a checkpoint into a folder, in place of one that these commands made before."""
    record = open_output(folder, OWNER)
    if record is None:
        record = OutputRecord.create(folder, OWNER, {"options": dict(settings)})
    else:
        record.clear()
        record.update(options=dict(settings))
    record.begin(HERE)
    try:
        yield
    finally:
        record.done()
