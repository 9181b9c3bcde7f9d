"""Finished samples, written one by one, so that an evaluation that was killed goes on where it stopped.

A journal is a folder named after a fingerprint of everything that decides a result: weights, settings, versions. Each
process appends to a file of its own and all files are read at the start, so that another number of processes may go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from mgpo_core.errors import EngineError
from mgpo_core.files.json_lines import append_record, read_records
from mgpo_core.files.whole_file import whole_file
from mgpo_core.runs.evaluation_runs import RUN_FILE
from mgpo_eval.output_path import check_run_folder

__all__ = ["CompletedSample", "Journal", "weights_identity"]


@dataclass(frozen=True)
class CompletedSample:
    """One sample that was run (or skipped): what is returned for it, and what it cost."""

    key: str
    text: str
    """The sealed envelope."""
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    skipped: bool = False


class Journal:
    """The finished samples of one run in `folder`; `None` as the folder keeps nothing on disk.

    OutputFolderError for a folder with somebody else's files, EngineError for one that cannot be written.
    """

    def __init__(self, folder: Path | None, *, rank: int = 0, about: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.broken = 0
        """Lines that a kill or a full disk cut short: their samples are run again."""
        self._lock = Lock()
        self._file = None if folder is None else folder / f"rank{rank}.jsonl"
        self.finished: dict[str, CompletedSample] = {}
        if folder is None:
            return
        check_run_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if rank == 0 and about is not None:
                with whole_file(folder / RUN_FILE, encoding="utf-8") as file:
                    file.write(json.dumps(dict(about), indent=2) + "\n")
        except OSError as error:
            raise EngineError(_not_writable(folder, error)) from error
        for path in sorted(folder.glob("rank*.jsonl")):
            entries, broken = read_records(path, CompletedSample)
            self.finished |= {entry.key: entry for entry in entries}
            self.broken += broken

    def add(self, entry: CompletedSample) -> None:
        """Write one finished sample, now; EngineError when it cannot be written."""
        with self._lock:
            self.finished[entry.key] = entry
            if self._file is None:
                return
            try:
                append_record(self._file, entry)
            except OSError as error:
                raise EngineError(_not_writable(self._file, error)) from error


def _not_writable(path: Path, error: OSError) -> str:
    return (
        f"finished samples cannot be written to {path} ({error}); free space or choose another folder (--output_path, "
        "or journal= in --model_args), and run the same command again: what was written is kept"
    )


def weights_identity(folder: Path) -> str:
    """A hash of every file of a checkpoint that a model or its processor is made from (subfolders left out)."""
    whole = hashlib.sha256()
    for path in _weights_files(folder):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.name} {digest}\n".encode())
    return whole.hexdigest()[:16]


def _weights_files(folder: Path) -> Iterable[Path]:
    kinds = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model")
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in kinds)
