"""Where the image of a row is: a path, bytes, base64 text, a `data:` or `file:` URI, or a dict around one of them.

Training, evaluation and the demo read image cells by these functions; `load_image` then decodes what they return.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from mgpo_core.errors import ImageError
from mgpo_core.messages.shown import show

__all__ = ["as_source", "decode_base64", "from_uri", "is_uri"]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+(?=:)", re.IGNORECASE)
_NO_SCHEME = re.compile(r"(?:image/[\w.+-]{1,40};\s{0,3})?base64,", re.IGNORECASE)
"""How a `data:` URI goes on: some leave its scheme out."""
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]{100}")
_MAGIC = ("iVBORw0KGgo", "/9j/", "_9j_", "R0lGOD", "UklGR")
"""How the base64 text of a PNG, JPEG, GIF and WebP begins."""
_SHORTEST = 60
"""Characters of base64 below which no image fits."""
_LONGEST_PATH = 4096
_KEYS = ("bytes", "path", "url", "image", "image_url")
"""Keys under which a dict holds an image, the first with a value wins."""
_DEPTH = 4


def as_source(value: Any, folder: str | os.PathLike[str] | None = None, *, _depth: int = 0) -> Any:
    """An image cell as something `load_image` takes: bytes, a path (relative ones below `folder`), or itself.

    Raises ImageError for web addresses, for text that breaks off or is not base64, and for dicts without an image.
    """
    if isinstance(value, Mapping):
        key = next((key for key in _KEYS if value.get(key) not in (None, "", b"")), None)
        if key is None or _depth > _DEPTH:
            raise ImageError(f"is {show(value)}: give a path, or a dict with bytes, path or url")
        inner = value[key]
        if key == "bytes" and isinstance(inner, str):
            return decode_base64(inner)
        return as_source(inner, folder, _depth=_depth + 1)
    if isinstance(value, str):
        value = value.strip()
        if _NO_SCHEME.match(value):
            value = f"data:{'' if value[0] in 'iI' else ';'}{value}"
        if is_uri(value):
            found = from_uri(value)
            return _below(found, folder) if isinstance(found, str) else found
        if _is_base64(value, folder):
            return decode_base64(value)
        _refuse_written(value, folder)
        return _below(value, folder)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return value


def from_uri(text: str) -> bytes | str:
    """The bytes of a `data:` URI, or the path of a `file:` URI; ImageError for any other."""
    scheme = text[: text.index(":")].lower()
    if scheme == "data":
        return _from_data(text)
    if scheme != "file":
        raise ImageError(f"is the address {show(text)}: download it first and give its path")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ImageError(f"is {show(text)}, not a valid file URL: give the path itself") from error
    if parts.netloc not in ("", "localhost"):
        raise ImageError(f"is {show(text)}, on another machine: give a path, or file:///PATH")
    # a file name may hold "?" and "#", which nobody escapes
    rest = "".join(
        [parts.path, f"?{parts.query}" if parts.query else "", f"#{parts.fragment}" if parts.fragment else ""]
    )
    return url2pathname(rest)


def is_uri(text: str) -> bool:
    """Whether a text is an address (`scheme://`), a `data:` or a `file:` URI rather than a path or base64."""
    scheme = _SCHEME.match(text[:40])
    if scheme is None:
        return False
    return scheme.group().lower() in ("data", "file") or text.startswith("://", scheme.end())


def _from_data(text: str) -> bytes:
    head, comma, payload = text.partition(",")
    if not comma:
        raise ImageError(f"is {show(text, 40)}, a data URI without a comma: write data:image/png;base64,...")
    if "base64" in [part.strip() for part in head.lower().split(";")[1:]]:
        return decode_base64(unquote(payload) if "%" in payload else payload)
    return unquote_to_bytes(payload)


def decode_base64(text: str) -> bytes:
    """The bytes of base64 text in either alphabet, padded or not, in lines or not; ImageError if it is none."""
    plain = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"is not base64 ({error}): encode the whole file again, or give its path") from error


def _is_base64(text: str, folder: str | os.PathLike[str] | None) -> bool:
    """Whether a text is an image in base64 rather than a path: paths have a suffix, or exist."""
    if len(text) < _SHORTEST or "." in text[-10:]:
        return False
    if not text.startswith(_MAGIC) and _BASE64.match(text) is None:
        return False
    try:
        return len(text) > _LONGEST_PATH or not os.path.exists(_below(text, folder))
    except (OSError, ValueError):
        return True


def _refuse_written(text: str, folder: str | os.PathLike[str] | None) -> None:
    """Raise ImageError for what a program printed: bytes, or a text in quotes."""
    bare = text[1:] if text[:1] in "bB" else text
    if len(bare) < 2 or bare[0] not in "\"'" or bare[-1] != bare[0] or _exists(text, folder):
        return
    if bare is text:
        raise ImageError(f"is {show(text)}, with quotes around it: leave them out")
    raise ImageError(f"is {show(text)}, bytes written as text: give them in base64, or the path of the file")


def _exists(path: str, folder: str | os.PathLike[str] | None) -> bool:
    try:
        return os.path.exists(_below(path, folder))
    except (OSError, ValueError):
        return False


def _below(path: str, folder: str | os.PathLike[str] | None) -> str:
    return str(Path(folder) / path) if folder is not None and not os.path.isabs(path) else path
