"""`run.json`: the record of what a command wrote into its folder, by which it knows its own files again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgpo_core.errors import MGPOError
from mgpo_core.files.file_identity import identity, is_unchanged
from mgpo_core.files.processes import this_process
from mgpo_core.files.whole_file import aside_of, is_aside, whole_file

__all__ = [
    "FORMAT",
    "HERE",
    "MODEL_FILES",
    "PROGRAM",
    "RUN_FILE",
    "OutputFolderError",
    "OutputRecord",
    "Owner",
    "found_in",
    "reason_of",
]

RUN_FILE = "run.json"
"""The file by which a command knows its own folder again."""

HERE = "."
"""The folder itself, as a name to `begin` and `done`: the files that the command writes directly into it."""

MODEL_FILES = (
    r".*\.(safetensors|bin|pt|pth|distcp|jinja|model)(\.index\.json)?|(.*_)?config\.json|tokenizer\.json|"
    r"vocab\.(json|txt)|merges\.txt|.*_tokens(_map)?\.json|chat_template\.json|(trainer|entropy_ctrl)_state\.json|"
    r"(mgpo|base|best)\.json|README\.md|MODEL_CARD\.md|latest(_universal)?|zero_to_fp32\.py|\.metadata"
)
"""Names that a model, a processor, an adapter or a checkpoint is written under, as a regular expression."""

PROGRAM, FORMAT = "mgpo", 1
"""What distinguishes a `run.json` of ours from another program's."""

_LISTED = 5
_GENERATIONS = 4


class OutputFolderError(MGPOError, ValueError):
    """A folder that must not, or cannot, be written; the message names it, what was found, and the remedy."""


@dataclass(frozen=True)
class Owner:
    """A command, and the names under which it writes into its folder."""

    command: str
    "As it is called, `mgpo-train`."
    option: str
    "Its option that names the folder, `output_dir`."
    files: str = r"(?!)"
    "Names of the files that it writes directly into the folder, as a regular expression."
    folders: Mapping[str, str] = field(default_factory=dict)
    "Names of its folders -> names of the files that it writes below them, both as regular expressions."
    renamed: Mapping[str, str] = field(default_factory=dict)
    "Names of folders while they are being written or replaced -> the name under which their files are recorded."

    def writes(self, place: str) -> bool:
        """Whether the command gives a file such a place, relative to the folder, with "/"."""
        top, below, _ = place.partition("/")
        if not below:
            return re.fullmatch(self.files, top) is not None
        name = place.rpartition("/")[2]
        return any(re.fullmatch(names, name) for folder, names in self.folders.items() if re.fullmatch(folder, top))

    def takes(self, name: str) -> bool:
        """Whether the command uses this name directly in the folder, for a file or for a folder."""
        return self.writes(name) or any(re.fullmatch(folder, name) for folder in self.folders)

    def key(self, place: str) -> str:
        """The place under which a file is recorded."""
        return "/".join(self.renamed.get(part, part) for part in place.split("/"))


def found_in(folder: Path, names: Iterable[str]) -> str:
    """Names in a folder as a short list; folders end in "/"."""
    listed = sorted(names)
    shown = [f"{_printable(name)}{'/' if (folder / name).is_dir() else ''}" for name in listed[:_LISTED]]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(shown) + more


class OutputRecord:
    """`run.json` of a folder: what the command was asked (`data`), and what it wrote."""

    def __init__(self, folder: Path, owner: Owner, data: dict[str, Any]) -> None:
        self.folder, self.owner, self.data = folder, owner, data

    @classmethod
    def create(cls, folder: Path, owner: Owner, about: Mapping[str, Any]) -> OutputRecord:
        """Mark a new or an empty folder as the command's; OutputFolderError when it cannot be, or another was first."""
        head = {"program": PROGRAM, "command": owner.command, "format": FORMAT}
        record = cls(folder, owner, {**head, **about, "open": [], "wrote": {}, "process": this_process()})
        who = f"{owner.option}={str(folder)!r}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_first(folder / RUN_FILE, record._text())
        except FileExistsError as error:
            raise OutputFolderError(f"{who}: another {owner.command} has just begun to write into it") from error
        except (OSError, ValueError) as error:
            raise OutputFolderError(f"{who} cannot be written ({reason_of(error)}): name another folder") from error
        return record

    @property
    def is_mine(self) -> bool:
        """Whether this process is the one that writes into the folder."""
        return bool(self.data.get("process") == this_process())

    def update(self, **about: Any) -> None:
        """Record more, and that this process writes from now on."""
        self.data |= {**about, "process": this_process()}
        self._write()

    def begin(self, name: str, *, fresh: bool = True) -> None:
        """Say that a file or folder of the command's is about to be written, before it is.

        With `fresh`, what the command wrote there before is removed. What is somebody else's and in the way gives way:
        it is renamed to NAME.kept, never touched.
        """
        if fresh and name != HERE:
            self.remove(name)
        if name != HERE and "/" not in name and self.in_the_way([name]):
            self.set_aside(name)
        if name not in self._open:
            self._open.append(name)
        self._write()

    def done(self, *names: str) -> None:
        """Record what was written below these names; without one, below all that are open, and that nobody writes."""
        for name in names or tuple(self._open):
            for place in self.files(name):
                if self.owns(place):
                    self._remember(place)
            if name in self._open:
                self._open.remove(name)
        if not names:
            self.data["process"] = None
        self._write()

    @contextlib.contextmanager
    def writing(self, name: str, *, fresh: bool = True) -> Iterator[None]:
        """`begin` and `done` around a block that writes a file or a folder."""
        self.begin(name, fresh=fresh)
        try:
            yield
        finally:
            self.done(name)

    def owns(self, place: str) -> bool:
        """Whether the file at a place below the folder is one that the command wrote, as it wrote it."""
        path = self.folder / place
        if not _is_plain(self.folder, place):
            return False
        if is_aside(path.name):
            return True
        if any(is_unchanged(path, entry) for entry in self._wrote.get(self.owner.key(place), ())):
            return True
        return self.owner.writes(place) and any(_lies_in(place, name) for name in self._open)

    def in_the_way(self, names: Iterable[str] | None = None) -> list[str]:
        """What is not the command's and has a name that it would write; of all names in the folder, or of some."""
        found = []
        for name in sorted(os.listdir(self.folder)) if names is None else names:
            path = self.folder / name
            if not self.owner.takes(name) or not os.path.lexists(path):
                continue
            if path.is_symlink() or path.is_dir() == self.owner.writes(name):
                found.append(name)  # a link, a folder for a file, or a file for a folder
                continue
            places = [place for place in self.files(name) if not self.owns(place)]
            found += [p for p in places if self.owner.writes(p) or (self.folder / p).is_symlink()]
        return found

    def refuse_in_the_way(self, names: Iterable[str] | None = None) -> None:
        """Raise OutputFolderError when something that is not the command's has a name that it would write."""
        found = self.in_the_way(names)
        if found:
            raise OutputFolderError(
                f"{self.owner.option}={str(self.folder)!r} holds files that {self.owner.command} did not write, or "
                f"that were changed since, where it would write its own ({found_in(self.folder, found)}): move them "
                "elsewhere, or name another folder"
            )

    def others(self, name: str) -> list[str]:
        """Places of the files below a name that are not the command's."""
        return [place for place in self.files(name) if not self.owns(place)]

    def set_aside(self, name: str) -> None:
        """Rename what is somebody else's and in the way to NAME.kept, or NAME.kept-2 where there is one."""
        number, kept = 1, f"{name}.kept"
        while os.path.lexists(self.folder / kept):
            number += 1
            kept = f"{name}.kept-{number}"
        (self.folder / name).rename(self.folder / kept)

    def remove(self, name: str) -> None:
        """Remove the files that the command wrote at or below a name, and folders that are empty then; nothing else."""
        self._remove(place for place in self.files(name) if self.owns(place))
        if _is_plain(self.folder, name, directory=True):
            _remove_if_empty(self.folder / name)
        self._write()

    def clear(self) -> None:
        """Remove all that the command wrote, for it to begin again.

        OutputFolderError, and nothing is removed, where something else would be in the way then.
        """
        self.refuse_in_the_way()
        places = [place for place in self.files(HERE, deep=True) if place != RUN_FILE]
        self._remove(place for place in places if self.owns(place))
        for name in os.listdir(self.folder):
            if self.owner.takes(name) and _is_plain(self.folder, name, directory=True):
                _remove_if_empty(self.folder / name)
        self.data |= {"wrote": {}, "open": []}
        self._write()

    def _remove(self, places: Iterable[str]) -> None:
        parents = set()
        for place in list(places):
            (self.folder / place).unlink(missing_ok=True)
            if self.owner.key(place) == place and not self._has_generations(place):
                self._wrote.pop(place, None)
            parts = place.split("/")[:-1]
            parents |= {"/".join(parts[:count]) for count in range(1, len(parts) + 1)}
        for parent in sorted(parents, key=lambda parent: -parent.count("/")):
            _remove_if_empty(self.folder / parent)

    def _has_generations(self, place: str) -> bool:
        """Whether several files of a place may be there at a time, under the names that its folder has in turn."""
        return any(part in self.owner.renamed.values() for part in self.owner.key(place).split("/"))

    @property
    def _open(self) -> list[str]:
        found: list[str] = self.data["open"]
        return found

    @property
    def _wrote(self) -> dict[str, list[list[Any]]]:
        found: dict[str, list[list[Any]]] = self.data["wrote"]
        return found

    def _remember(self, place: str) -> None:
        entries = self._wrote.setdefault(self.owner.key(place), [])
        entry = identity(self.folder / place)
        if entry is not None and entry not in entries:
            entries.append(entry)
            del entries[: -(_GENERATIONS if self._has_generations(place) else 1)]

    def files(self, name: str, *, deep: bool = False) -> list[str]:
        """Places of the files at or below a name; of the folder itself only those directly in it, unless `deep`."""
        start = self.folder if name == HERE else self.folder / name
        if name != HERE and not start.is_dir():
            return [name] if os.path.lexists(start) else []
        if name != HERE and not _is_plain(self.folder, name, directory=True):
            return []
        found = []
        for at, folders, files in os.walk(start):
            inside = Path(at).relative_to(self.folder)
            links = [each for each in folders if (Path(at) / each).is_symlink()]
            found += [(inside / each).as_posix() for each in (*files, *links)]
            if name == HERE and not deep:
                break
        return found

    def _text(self) -> str:
        return json.dumps(self.data, indent=1, default=str) + "\n"

    def _write(self) -> None:
        with whole_file(self.folder / RUN_FILE, encoding="utf-8") as file:
            file.write(self._text())


def _write_first(path: Path, text: str) -> None:
    """Write a whole file that must not be there yet; FileExistsError when it is."""
    aside = aside_of(path)
    aside.write_text(text, encoding="utf-8")
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    finally:
        aside.unlink(missing_ok=True)


def _is_plain(folder: Path, place: str, *, directory: bool = False) -> bool:
    """Whether a regular file (or a folder) is there, on a way without symbolic links."""
    path = folder
    parts = place.split("/")
    for number, part in enumerate(parts, start=1):
        path /= part
        try:
            mode = path.lstat().st_mode
        except (OSError, ValueError):
            return False
        is_last = number == len(parts)
        if not (stat.S_ISDIR(mode) if directory or not is_last else stat.S_ISREG(mode)):
            return False
    return True


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # what is left in it is somebody else's
        folder.rmdir()


def _lies_in(place: str, name: str) -> bool:
    return "/" not in place if name == HERE else place == name or place.startswith(f"{name}/")


def _printable(name: str) -> str:
    return name[:60] if name.isprintable() else repr(name[:60])


def reason_of(error: Exception) -> str:
    """Why an operation on the disk failed, in the system's words."""
    return getattr(error, "strerror", None) or str(error)
