"""Digests of the Python files that a run was given, to notice changes before --resume (no torch).

A module (`package.module:name`) is known by its name alone, as other installed code is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mgpo_core.files.file_identity import digest_bytes
from mgpo_core.registry import named_file
from mgpo_train.config.options import ConfigError

__all__ = ["check_same_code", "code_of"]


def code_of(specs: Iterable[str]) -> dict[str, str]:
    """A digest of every Python file that one of the specs or plugins names, by its path as given there."""
    files = {file for file in map(named_file, specs) if file is not None}
    return {file: digest_bytes(Path(file).expanduser().read_bytes()) for file in sorted(files)}


def check_same_code(then: Mapping[str, str], now: Mapping[str, str], out: Path) -> None:
    """Raise ConfigError when a file of the run in the folder `out` is not what it began with.

    `then` and `now` are of `code_of`; a file that only one of them has is reported by the comparison of options.
    """
    changed = [file for file in now if file in then and then[file] != now[file]]
    if changed:
        raise ConfigError(
            f"--resume: {', '.join(changed)} was changed since the run began; restore the file, or start a new run "
            f"with another --output_dir (from the weights of this one: --model {out}/checkpoint-N)"
        )
