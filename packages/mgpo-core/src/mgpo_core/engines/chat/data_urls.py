"""Images as text, for servers that take them inside a JSON body."""

from __future__ import annotations

import asyncio
import base64
import io
import weakref
from functools import partial

from PIL import Image

__all__ = ["DataUrls"]


class DataUrls:
    """Images as lossless data URLs; each object is encoded once, by whoever wants it first.

    A URL is kept for as long as its image lives: an evaluation lets go of thousands of them in one run.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Image.Image], asyncio.Task[str]]] = {}

    async def url(self, image: Image.Image) -> str:
        """The image as `data:image/png;base64,...`, encoded in a thread."""
        key = id(image)
        if key not in self._known:
            forget = partial(self._known.pop, key)  # pop(key, reference): another image may get the id
            self._known[key] = weakref.ref(image, forget), asyncio.create_task(asyncio.to_thread(_png, image))
        return await self._known[key][1]


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
