"""May I write here? Which files of an output folder a command wrote itself, and so may replace or remove.

A command writes into a new or an empty folder, or into one that carries its own `run.json`; any other folder is refused
with what was found there. `run.json` lists every file that the command wrote, as it was then: a file that was changed
since, or that somebody put beside, is not the command's, and is neither removed nor replaced. Nothing is followed
through a symbolic link inside the folder; the folder itself may be one.

A kill must leave nothing behind that nobody owns. So what is about to be written is recorded as `open` first, when
nothing of that name is there: of an open folder, files with the names that the command gives them are its own.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from mgpo_core.files.output_record import (
    FORMAT,
    HERE,
    MODEL_FILES,
    PROGRAM,
    RUN_FILE,
    OutputFolderError,
    OutputRecord,
    Owner,
    found_in,
    reason_of,
)
from mgpo_core.files.processes import writer_alive
from mgpo_core.files.whole_file import aside_of, is_aside

__all__ = [
    "HERE",
    "MODEL_FILES",
    "RUN_FILE",
    "OutputFolderError",
    "OutputRecord",
    "Owner",
    "expanded",
    "found_in",
    "open_output",
]

_HARMLESS = re.compile(
    r"\.DS_Store|\.localized|Thumbs\.db|desktop\.ini|\.directory|\.ipynb_checkpoints|\.gitignore|\.gitkeep|\.keep|"
    r"\.nfs[0-9a-f]+|\._.*|lost\+found|\.snapshot"
)
"""What file managers, notebooks, version control and file systems leave: a folder of these alone counts as empty."""


def expanded(text: str) -> Path:
    """A path as it was given on a command line, "~" read as shells do that leave it in `--option=~/folder`."""
    return Path(os.path.expanduser(text))


def open_output(folder: Path, owner: Owner, *, probe: bool = True) -> OutputRecord | None:
    """The record of a folder that carries the command's own `run.json`; None for a folder that is new or empty.

    Leaves nothing behind; with `probe`, it tries to write. OutputFolderError for every other folder, with what was
    found there, for one that cannot be written, and for one that another process is writing into.
    """
    who = f"{owner.option}={str(folder)!r}"
    try:
        names = _names(folder, who)
        place = _nearest(folder, who)
    except OSError as error:
        raise OutputFolderError(f"{who} cannot be used ({reason_of(error)}): name another folder") from error
    if RUN_FILE not in names:
        rest = [name for name in names if not (_HARMLESS.fullmatch(name) or is_aside(name))]
        if not rest:
            if probe:
                _check_writable(place, who)
            return None
        raise OutputFolderError(
            f"{who} holds files that {owner.command} did not write ({found_in(folder, rest)}): name a new or an empty "
            "folder"
        )
    record = OutputRecord(folder, owner, _read(folder, owner, who))
    if probe:
        _check_writable(place, who)
    if writer_alive(record.data.get("process")):
        raise OutputFolderError(
            f"{who}: another {owner.command} is writing into it (process {record.data['process']['pid']}): wait for "
            "its end, or name another folder"
        )
    return record


def _read(folder: Path, owner: Owner, who: str) -> dict[str, Any]:
    path = folder / RUN_FILE
    try:
        data: dict[str, Any] | None = None if path.is_symlink() else json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OutputFolderError(f"{who}: {path} cannot be read ({reason_of(error)}): name another folder") from error
    except ValueError:
        data = None
    ours = isinstance(data, dict) and data.get("program") == PROGRAM
    if data is None or not ours or not isinstance(data.get("wrote"), dict) or not isinstance(data.get("open"), list):
        raise OutputFolderError(
            f"{who} holds a {RUN_FILE} that {owner.command} did not write, or that was changed since: name a new or an "
            "empty folder"
        )
    if data["command"] != owner.command:
        raise OutputFolderError(f"{who} holds the output of {str(data['command'])[:80]}: name another folder")
    if data["format"] != FORMAT:
        raise OutputFolderError(
            f"{who} holds the output of a newer version of {owner.command}: update, or name another folder"
        )
    return data


def _names(folder: Path, who: str) -> list[str]:
    """What is in the folder; nothing where there is none yet."""
    if folder.is_dir():
        return os.listdir(folder)
    if folder.is_symlink():
        raise OutputFolderError(f"{who} is a symbolic link to something that is not there: name another folder")
    if folder.exists():
        raise OutputFolderError(f"{who} is a file: name a folder")
    return []


def _nearest(folder: Path, who: str) -> Path:
    """The folder, or the nearest one above it that is there."""
    place = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not place.is_dir():
        raise OutputFolderError(f"{who} cannot be made ({str(place)!r} is a file): name another folder")
    return place


def _check_writable(place: Path, who: str) -> None:
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputFolderError(f"{who} cannot be written (no permission in {str(place)!r}): name another folder")
    try:  # permissions do not tell of a full disk, or of a file system that is read-only
        attempt = aside_of(place / RUN_FILE)
        attempt.mkdir()
        attempt.rmdir()
    except OSError as error:
        raise OutputFolderError(
            f"{who} cannot be written ({reason_of(error)} in {str(place)!r}): name another folder"
        ) from error
