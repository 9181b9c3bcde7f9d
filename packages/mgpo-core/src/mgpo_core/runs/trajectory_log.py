"""`trajectories.jsonl`: the trajectories that a training run shows, one a line, their images beside it.

A line is {"part": "after, temperature 1", "trajectory": Trajectory.to_dict(), "images": {name: file}}: the record of
`ResponsePayload`, preceded by the part of the run. Files are relative to the run's folder, named by their content, so
that equal images are stored once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import ImageError
from mgpo_core.files.output_folder import OutputFolderError, found_in
from mgpo_core.files.whole_file import is_aside, whole_file
from mgpo_core.images.encode import DISPLAY_SIDE, small_image

__all__ = ["IMAGES_FOLDER", "OLD_IMAGES_FOLDER", "TRAJECTORIES_FILE", "remove_trajectories", "write_trajectories"]

TRAJECTORIES_FILE, IMAGES_FOLDER = "trajectories.jsonl", "images"
OLD_IMAGES_FOLDER = "pictures"
"""The folder, and the key of a line, of older versions."""

_NAME = re.compile(r"([0-9a-f]{16})\.(png|jpeg)")
"Names of images: of one that was written here, the hash of its bytes."


def write_trajectories(folder: Path, parts: Mapping[str, Sequence[Trajectory]]) -> Path | None:
    """Write the trajectories of each part ("after, temperature 1") into a run's folder, in place of earlier ones.

    Aside and renamed, so that a reader never meets half a file; images that no line names any more are removed. None,
    and nothing is written, when there is no trajectory. Images are small copies (`DISPLAY_SIDE`); one whose source is
    gone is left out of its line, and the card says so. OutputFolderError, and nothing is written, where somebody else's
    files have these names.
    """
    if not any(parts.values()):
        return None
    folder = Path(folder)
    _refuse_strangers(folder)
    (folder / IMAGES_FOLDER).mkdir(parents=True, exist_ok=True)
    named: set[str] = set()
    path = folder / TRAJECTORIES_FILE
    with whole_file(path, encoding="utf-8") as lines:
        for part, trajectories in parts.items():
            for trajectory in trajectories:
                images = {name: _keep(image, folder) for name, image in _images(trajectory)}
                named.update(images.values())
                record = {"part": part, "trajectory": trajectory.to_dict(), "images": images}
                lines.write(json.dumps(record, default=_plain) + "\n")
    for file in _kept(folder):
        if file.relative_to(folder).as_posix() not in named:
            file.unlink(missing_ok=True)
    _remove_empty(folder / OLD_IMAGES_FOLDER)
    return path


def remove_trajectories(folder: Path) -> None:
    """Remove what `write_trajectories` wrote, and nothing else."""
    if _is_ours(folder / TRAJECTORIES_FILE):
        (folder / TRAJECTORIES_FILE).unlink(missing_ok=True)
    for file in _kept(folder):
        file.unlink(missing_ok=True)
    for name in (IMAGES_FOLDER, OLD_IMAGES_FOLDER):
        _remove_empty(folder / name)


def _remove_empty(images: Path) -> None:
    if images.is_dir() and not images.is_symlink() and not any(images.iterdir()):
        images.rmdir()


def _images(trajectory: Trajectory) -> Iterator[tuple[str, Image.Image]]:
    """Every image by its name in `Trajectory.to_dict`, without originals that cannot be read any more."""
    for index in range(len(trajectory.sources)):
        try:
            yield f"original-{index}.png", trajectory.original(index)
        except ImageError:  # a file that was moved since must not cost the run its trajectories
            continue
    yield from trajectory.named_images(originals=()).items()


def _keep(image: Image.Image, folder: Path) -> str:
    """Store a small copy of the image unless it is there; its file relative to the folder."""
    kind, data = small_image(image, DISPLAY_SIDE)
    name = f"{IMAGES_FOLDER}/{_hash(data)}.{kind}"
    file = folder / name
    if not os.path.lexists(file):
        with whole_file(file, "wb") as stored:
            stored.write(data)
    return name


def _kept(folder: Path) -> list[Path]:
    """The images that were written here, and what a kill left of one; others are somebody's own."""
    folders = [folder / name for name in (IMAGES_FOLDER, OLD_IMAGES_FOLDER)]
    files = [file for images in folders if images.is_dir() and not images.is_symlink() for file in images.iterdir()]
    return [file for file in files if not file.is_symlink() and _is_image(file)]


def _is_image(file: Path) -> bool:
    match = _NAME.fullmatch(file.name)
    if match is None or not file.is_file():
        return is_aside(file.name)
    return _hash(file.read_bytes()) == match[1]


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _refuse_strangers(folder: Path) -> None:
    path, images = folder / TRAJECTORIES_FILE, folder / IMAGES_FOLDER
    strange = [TRAJECTORIES_FILE] if os.path.lexists(path) and not _is_ours(path) else []
    if os.path.lexists(images) and (images.is_symlink() or not images.is_dir()):
        strange.append(IMAGES_FOLDER)
    if strange:
        raise OutputFolderError(
            f"{folder} holds files that no training wrote ({found_in(folder, strange)}): name a new or an empty folder"
        )


def _is_ours(path: Path) -> bool:
    """Whether a file is one that `write_trajectories` wrote, by its first line."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as lines:
        try:
            record = json.loads(lines.readline())
        except ValueError:
            return False
    return (
        isinstance(record, dict)
        and {"part", "trajectory"} <= record.keys()
        and not record.keys().isdisjoint((IMAGES_FOLDER, OLD_IMAGES_FOLDER))
    )


def _plain(value: Any) -> Any:
    """What JSON has no form for, such as a number of numpy's in the metadata: its words are enough to look at."""
    return value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else str(value)
