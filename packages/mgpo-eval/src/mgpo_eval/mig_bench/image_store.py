"""The images of MIG-Bench, out of the hub's zip or of the folder it was unpacked into; opened when they are used."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from PIL import Image

from mgpo_core.errors import ImageError, SampleError
from mgpo_core.images.load import ImageSource, load_image

__all__ = ["ImageStore", "ZippedImage", "image_source"]

_ROOT = "images"
"""The folder that paths of the JSON lead through, "./MIG-Bench/images/region/x.jpg"; what is above it may vary."""


@dataclass(frozen=True)
class ZippedImage:
    """An image inside a zip; calling it reads and decodes it. Plain data, so it may go to other processes."""

    archive: Path
    member: str

    def __call__(self) -> Image.Image:
        """The image, RGB and upright; ImageError when its bytes are damaged."""
        name = f"{self.member} in {self.archive}"
        try:
            data = _opened(self.archive, os.getpid()).read(self.member)
        except (OSError, zipfile.BadZipFile) as error:
            raise ImageError(f"{name} cannot be read ({error}); download the zip again") from error
        return load_image(data, name=name)


@dataclass(frozen=True)
class ImageStore:
    """Where the images of one copy of the benchmark lie: below `folder`, or in one of its zips."""

    folder: Path
    archives: tuple[Path, ...]

    @classmethod
    def at(cls, place: str | os.PathLike[str]) -> ImageStore:
        """The store of a folder, or of the folder that a JSON file lies in."""
        path = Path(place).expanduser()
        folder = path if path.is_dir() else path.parent
        return cls(folder, tuple(sorted(folder.glob("*.zip"))))

    def find(self, name: str) -> ImageSource | None:
        """The source of an image named as in the JSON: unpacked, else zipped; None if it is in neither."""
        tails = list(_tails(name))
        for tail in tails:
            for base in (self.folder, self.folder / _ROOT):
                if (base / tail).is_file():
                    return base / tail
        for archive in self.archives:
            members = _members(archive)
            member = next((found for tail in tails if (found := members.get(tail))), None)
            if member is not None:
                return ZippedImage(archive, member)
        return None

    def describe(self) -> str:
        """Where an image was looked for."""
        zips = ", ".join(archive.name for archive in self.archives)
        return f"{self.folder} ({f'and in {zips}' if zips else 'which holds no zip'})"


def image_source(place: str | os.PathLike[str], name: str) -> ImageSource:
    """The image of that name (as in the JSON, and in the rows of `to_rows`) of the copy at `place`, opened at use.

    Raises SampleError when there is none.
    """
    store = ImageStore.at(place)
    source = store.find(name)
    if source is None:
        raise SampleError(f"MIG-Bench: there is no image {name!r} in {store.describe()}")
    return source


def _tails(name: str) -> Iterator[str]:
    """The ends of a path by which an image may be known: all of it, from `images/` on, and below that."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts:
        return
    parts = parts[1:] if parts[0] == "/" else parts
    yield "/".join(parts)
    if _ROOT in parts[:-1]:
        root = parts.index(_ROOT)
        yield "/".join(parts[root:])
        yield "/".join(parts[root + 1 :])


@lru_cache(maxsize=8)
def _opened(archive: Path, process: int) -> zipfile.ZipFile:
    """The zip, opened once in every process: a forked one would share the reading position of its parent."""
    return zipfile.ZipFile(archive)


@lru_cache(maxsize=8)
def _members(archive: Path) -> Mapping[str, str]:
    """Every file of a zip by every end of its path; "" where two files share an end."""
    try:
        names = [info.filename for info in _opened(archive, os.getpid()).infolist() if not info.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise SampleError(f"MIG-Bench: {archive} is no readable zip ({error}); download it again") from error
    found: dict[str, str] = {}
    for name in names:
        parts = PurePosixPath(name).parts
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            found[tail] = "" if tail in found else name
    return found | {name: name for name in names}
