"""Which rows ask one question of the same images again, as benchmarks do that rotate or shuffle its choices.

Such rows are no independent draws of questions: `mgpo_core.episodes.intervals` takes them together. What is asked
decides, not where a row stands, so that subsets and other orders give the same clusters.
Different questions about one image are different questions.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence

from PIL import Image

from mgpo_core.images.load import ImageSource
from mgpo_core.samples.sample import Sample

__all__ = ["cluster_samples", "question_key"]


def question_key(question: str, images: Iterable[str | bytes], choices: Iterable[str] = ()) -> str:
    """A name for a question about images, the same whatever the order of the choices, spaces and case.

    `images` is what tells them apart: their bytes, or paths. Choices belong to the question where images are not known.
    """
    digest = hashlib.blake2b(_plain(question).encode(), digest_size=8)
    for text in sorted(map(_plain, choices)):
        digest.update(b"\0choice\0" + text.encode())
    for image in images:
        digest.update(b"\0image\0")
        digest.update(image.encode() if isinstance(image, str) else image)
    return digest.hexdigest()


def cluster_samples(samples: Sequence[Sample]) -> list[Hashable] | None:
    """The cluster of each sample, for `mgpo_core.episodes.metrics.aggregate`; None where no question is asked twice.

    Images are compared by path or by content, those that are drawn by a function by that function.
    """
    asked = [_plain(sample.question) for sample in samples]
    often = Counter(asked)
    keys: list[Hashable] = [
        (question, tuple(map(_identity, sample.images))) if often[question] > 1 else place
        for place, (question, sample) in enumerate(zip(asked, samples, strict=True))
    ]
    return keys if len(set(keys)) < len(keys) else None


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _identity(source: ImageSource) -> Hashable:
    if isinstance(source, Mapping):
        content = source.get("bytes")
        source = content if content is not None else str(source.get("path"))
    if isinstance(source, Image.Image):
        return source.size, hashlib.blake2b(source.tobytes()).digest()
    if isinstance(source, (bytes, bytearray, memoryview)):
        return hashlib.blake2b(source).digest()
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return source if isinstance(source, Hashable) else id(source)
