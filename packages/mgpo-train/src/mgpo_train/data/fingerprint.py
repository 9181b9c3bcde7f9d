"""A short digest of what a run was trained and scored on, to notice data that changed before --resume.

Of an image file its path, its size and its time count, not its bytes: one stat of the file system for each. Of an image
in a table or in the text of a row, its length and a digest that was taken when the row was read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mgpo_core import Sample
from mgpo_core.files.file_identity import digest_bytes
from mgpo_train.config.options import ConfigError

__all__ = ["check_same_data", "fingerprint"]

_WORDS = {"rows": "its rows", "images": "its image files"}


def fingerprint(samples: Sequence[Sample] | None) -> dict[str, Any] | None:
    """How many rows there are, a digest of their content, and one of their images; None where there are no data."""
    if samples is None:
        return None
    rows, images = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    for sample in samples:
        rows.update(_line(_content(sample)))
        for source in sample.images:
            images.update(_line(_image(source)))
    return {"n": len(samples), "rows": rows.hexdigest(), "images": images.hexdigest()}


def check_same_data(then: Mapping[str, Any], now: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """Raise ConfigError when the data of a run are not those that it began with.

    `then` and `now` map an option (`train_data`) to its fingerprint, `names` to what it was given.
    """
    for option in now:
        before, after = then.get(option), now[option]
        if option not in then or before == after or before is None or after is None:
            continue  # whether there were data is compared with the options
        changed = [words for part, words in _WORDS.items() if before.get(part) != after[part]]
        count = "" if before["n"] == after["n"] else f", {before['n']} before and {after['n']} now"
        times = "" if changed == ["its rows"] else " (path, size or time of a file; cp -p and rsync -a keep times)"
        raise ConfigError(
            f"--resume: {option}={str(names.get(option))[:120]!r} was changed since the run began: "
            f"{' and '.join(changed)}{count}{times}; restore the data, or start a new run with another --output_dir"
        )


def _content(sample: Sample) -> Any:
    return [
        sample.id,
        sample.question,
        sample.choices,
        sample.answer,
        [[box.image, *box.as_tuple()] for box in sample.boxes],
        [[box.image, *box.as_tuple()] for box in sample.regions],
        None if sample.solution is None else asdict(sample.solution),
        dict(sample.metadata),
    ]


def _image(source: Any) -> Any:
    """What tells an image from another without decoding it."""
    if isinstance(source, Mapping):
        return _image(source["bytes"] if source.get("bytes") is not None else source.get("path"))
    if isinstance(source, bytes | bytearray | memoryview):
        return digest_bytes(bytes(source))
    if isinstance(source, str | os.PathLike):
        try:
            status = os.stat(source)
        except OSError:
            return [str(source), None]  # refused by name when it is read
        return [str(source), status.st_size, status.st_mtime_ns]
    # an image of a table has its digest; what is drawn by a function is what its data's name and its row say
    return getattr(source, "digest", None)


def _line(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode() + b"\n"
