"""Where an evaluation may write: a new or an empty folder, or one that holds evaluations already.

lmms-eval adds files whose names hold the date, and our own lie below `mgpo/RUN`, a folder for each fingerprint of
settings: an evaluation only ever adds to a folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mgpo_core.files.output_folder import OutputFolderError, Owner, found_in, open_output
from mgpo_core.files.whole_file import is_aside
from mgpo_core.runs.evaluation_runs import FOLDER, RUN_FILE, is_evaluation_file

__all__ = ["check_output_path", "check_run_folder"]

_OWNER = Owner("mgpo-eval", "output_path")
_OF_A_RUN = re.compile(r"run\.json|rank\d+\.jsonl|images|pictures")  # pictures: of older versions


def check_output_path(folder: Path) -> None:
    """Raise OutputFolderError when no evaluation may be written into the folder, or can be; writes nothing."""
    try:
        open_output(folder, _OWNER)  # new or empty
    except OutputFolderError:
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK) or not _holds_evaluations(folder):
            raise


def _holds_evaluations(folder: Path) -> bool:
    """Whether there are evaluations in the folder, or one folder further down, which lmms-eval names after a model."""
    if any(is_evaluation_file(name) for name in _names(folder)):
        return True
    return any(_OF_A_RUN.fullmatch(name) for run in _folders(folder / FOLDER) for name in _names(run)) or any(
        is_evaluation_file(name) for model in _folders(folder) for name in _names(model)
    )


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _folders(folder: Path) -> Iterator[Path]:
    return (path for name in _names(folder) if (path := folder / name).is_dir() and not path.is_symlink())


def check_run_folder(folder: Path) -> None:
    """Raise OutputFolderError when the folder of a run's samples and images holds somebody else's files."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise OutputFolderError(f"{folder} is not a folder of an evaluation: move it, or choose another --output_path")
    names = [name for name in _names(folder) if not is_aside(name)]
    ours = _is_ours(folder / RUN_FILE)  # it is written before anything else
    strange = [name for name in names if not (ours and _OF_A_RUN.fullmatch(name))]
    if strange:
        raise OutputFolderError(
            f"{folder} holds files that no evaluation wrote ({found_in(folder, strange)}): move them, or choose "
            "another --output_path"
        )


def _is_ours(path: Path) -> bool:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return not path.is_symlink() and isinstance(data, dict) and {"id", "weights"} <= data.keys()
