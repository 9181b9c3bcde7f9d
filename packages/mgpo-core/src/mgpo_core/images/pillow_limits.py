"""Settings of Pillow's that belong to the whole process: lifted or held while this package decodes an image."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageFile

_LOCK = threading.RLock()


@contextmanager
def allow_large_images(pixels: int | None) -> Iterator[None]:
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


@contextmanager
def truncated_refused() -> Iterator[None]:
    """Hold PIL.ImageFile.LOAD_TRUNCATED_IMAGES at False: where it is on (lmms-eval turns it on), half images pass.

    Other threads that decode meanwhile are held to it too.
    """
    with _LOCK:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        if before:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            try:
                yield
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = before
    if not before:
        yield
