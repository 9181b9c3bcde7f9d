"""The runs below a folder, opened and shown page by page; no interface in here, and no way out of the folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from mgpo_core.files.json_lines import MALFORMED_RECORD, reason
from mgpo_core.files.safe_join import path_below
from mgpo_core.render.card import View, card_view
from mgpo_core.render.page import FILTERS as FILTER_WORDS
from mgpo_core.render.page import frame_html
from mgpo_core.runs.run_folder import Entry, RunFolder, RunFolderError, open_run, run_folder_of

__all__ = ["FILTERS", "PER_PAGE", "OpenRuns", "counts", "find_runs", "open_below", "page"]

FILTERS = {name: FILTER_WORDS[name] for name in ("all", "wrong", "right", "refused", "missed")}
"What the trajectories of a run are filtered by, with the words for it."

PER_PAGE = 10

_DEPTH = 5
"How many folders below the root a run's files may lie."

_NOT_WALKED = ("images", "pictures", "model", "adapter", "best")
"Folders of a run that hold no other run, but many files."


def find_runs(root: Path) -> list[str]:
    """The run folders below the root by their names relative to it ("." for the root itself), sorted.

    Folders are walked five deep, hidden ones and symbolic links not at all.
    """
    found = {folder if folder.is_relative_to(root) else root for folder in _run_folders(root)}
    return sorted(folder.relative_to(root).as_posix() for folder in found)


def _run_folders(root: Path) -> Iterator[Path]:
    for place, subfolders, names in os.walk(root):
        folder = Path(place)
        run = run_folder_of(folder, names)
        if run is not None:
            yield run
        deep = len(folder.relative_to(root).parts) >= _DEPTH
        # what lies in a training's folder is its own
        subfolders[:] = [] if deep or run == folder else sorted(filter(_is_walked, subfolders))


def _is_walked(name: str) -> bool:
    return not name.startswith((".", "checkpoint-")) and name not in _NOT_WALKED


def open_below(root: Path, name: str) -> RunFolder:
    """The run called `name` below the root, as `find_runs` names it.

    RunFolderError for a name that leads out of the root or through a symbolic link, and for what is no run. No message
    says where the root is or what there is outside.
    """
    folder = path_below(root, name)
    if folder is None:
        raise RunFolderError(
            f"{name!r} is refused: a run is named relative to the folder of runs, without '..' and without symbolic "
            "links on the way"
        )
    if not folder.is_dir():
        raise RunFolderError(f"there is no folder {name!r} (any more): refresh the list of runs")
    try:
        run = open_run(folder)
    except RunFolderError as error:
        raise RunFolderError(str(error).replace(str(folder), name)) from None
    except OSError as error:
        raise RunFolderError(f"{name!r} cannot be read: {error.strerror}") from None
    run.problems = [text.replace(str(folder), name) for text in run.problems]
    return run


class OpenRuns:
    """The runs that were opened last, so that turning a page does not read a log of thousands of samples again."""

    def __init__(self, root: Path, most: int = 4) -> None:
        self.root = root
        self.most = most
        self._runs: dict[str, RunFolder] = {}
        self._lock = Lock()

    def open(self, name: str) -> RunFolder:
        """As `open_below`; a run whose files changed since is read again."""
        with self._lock:
            known = self._runs.pop(name, None)
        folder = path_below(self.root, name)  # a link may have come onto the way since
        run = known if known is not None and folder == known.folder and not known.changed else None
        run = open_below(self.root, name) if run is None else run
        with self._lock:
            self._runs[name] = run  # the last one is the newest
            while len(self._runs) > self.most:
                del self._runs[next(iter(self._runs))]
        return run


def counts(run: RunFolder, part: str | None = None) -> dict[str, int]:
    """How many trajectories pass each filter, of one part or all."""
    return {name: len(_chosen(run, name, part)) for name in FILTERS}


def page(
    run: RunFolder, filter: str, number: int, per_page: int = PER_PAGE, part: str | None = None
) -> tuple[str, int, int]:
    """(a page for a frame, how many trajectories pass the filter, how many pages they make: at least 1).

    `number` counts from 1; one that is out of range shows the nearest page. A trajectory that cannot be read is named
    in its place. ValueError for a filter that there is not.
    """
    if filter not in FILTERS:
        raise ValueError(f"no filter {filter!r}: there are {', '.join(FILTERS)}")
    chosen = _chosen(run, filter, part)
    pages = max(1, -(-len(chosen) // per_page))
    first = (min(max(1, number), pages) - 1) * per_page
    return frame_html([_card(entry) for entry in chosen[first : first + per_page]]), len(chosen), pages


def _chosen(run: RunFolder, filter: str, part: str | None) -> list[Entry]:
    return [
        entry
        for entry in run.entries
        if (filter == "all" or entry.flags[filter]) and (part is None or entry.part == part)
    ]


def _card(entry: Entry) -> View | str:
    """A trajectory as a page shows it, or why it does not."""
    try:
        return card_view(entry.card())
    except MALFORMED_RECORD as error:  # of a file that was edited by hand, anything may be wrong
        return f"{entry.id} is not shown: {reason(error)}"
