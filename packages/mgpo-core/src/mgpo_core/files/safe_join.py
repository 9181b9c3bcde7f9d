"""Names from a file or a request, made into paths that cannot lead out of the folder they are meant for."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

__all__ = ["path_below"]


def path_below(folder: Path, name: object) -> Path | None:
    """The path called `name` (with "/") below `folder`, whether or not something is there.

    None for what is no text, an absolute path, a way up ("..") or a way through a symbolic link. The folder itself may
    be a link: who gave it chose it.
    """
    if not isinstance(name, str) or not name.isprintable():
        return None
    parts = PurePosixPath(name).parts
    if ".." in parts or "\\" in name or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return None
    place = folder
    try:
        for part in parts:
            place /= part
            if place.is_symlink():
                return None
    except OSError:  # a name too long to be one
        return None
    return place
