"""Pillow's own guard against huge pictures, lifted where this package has checked the size itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

_LOCK = threading.RLock()


@contextmanager
def pillow_limit_lifted(pixels: int | None) -> Iterator[None]:
    """Suspend PIL.Image.MAX_IMAGE_PIXELS if it is below `pixels` (None: in any case).

    The setting belongs to the whole process, hence the lock; other threads decode on as long as they stay below it.
    """
    with _LOCK:
        limit = Image.MAX_IMAGE_PIXELS
        lift = limit is not None and (pixels is None or pixels > limit)
        if lift:
            Image.MAX_IMAGE_PIXELS = None
            try:
                yield
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    if not lift:
        yield
