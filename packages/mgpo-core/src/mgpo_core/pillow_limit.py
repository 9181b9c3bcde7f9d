"""Pillow's own guard against huge pictures, lifted where this package has checked the size itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

_LOCK = threading.RLock()


@contextmanager
def pillow_limit_lifted() -> Iterator[None]:
    """Suspend PIL.Image.MAX_IMAGE_PIXELS (a process-wide setting, hence the lock); keep what runs inside short."""
    with _LOCK:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
