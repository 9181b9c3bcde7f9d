"""lmms-eval's requests as samples: a key to know each again by, and images that are read only when they are run.

Relies on lmms-eval 0.7.3: request arguments `(ctx, doc_to_messages, gen_kwargs, doc_id, task, split)` of chat models,
`lm.task_dict[task]` being the task's data set, `metadata["__padding_only__"]`, `ChatMessages.extract_media()`.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from PIL import Image

from mgpo_core import Sample
from mgpo_core.errors import ImageError, SampleError
from mgpo_core.images.load import ImageSource, load_image
from mgpo_core.images.pillow_limits import truncated_refused
from mgpo_core.samples.image_marks import count_marks, resolve_marks
from mgpo_core.samples.questions import split_question
from mgpo_core.templates.base import Template
from mgpo_eval import mig_bench
from mgpo_eval.models.options import ModelOptions, OptionError
from mgpo_eval.models.templates import Templates
from mgpo_eval.tasks.readers import find_reader

__all__ = ["EvalRequest", "make_requests"]


@dataclass(frozen=True)
class EvalRequest:
    """One request to be run: where its answer goes, how it is known again, and how its sample is made."""

    place: int
    task: str
    doc_id: int
    repeat: int
    key: str
    sample: Callable[[], Sample]
    template: Template

    @property
    def name(self) -> str:
        """The sample's id: task and row, for errors and reports."""
        return f"{self.task}/{self.doc_id}" + (f"#{self.repeat}" if self.repeat else "")


def make_requests(
    requests: Sequence[Any], task_dict: Mapping[str, Any], options: ModelOptions, templates: Templates
) -> list[EvalRequest]:
    """One for every request that is not padding, in order; `prompts="auto"` reads known benchmarks by column.

    OptionError where a task's answers are boxes and the trajectories, which it scores, are to be left out.
    """
    tables: dict[tuple[str, str], Table] = {}
    seen: Counter[tuple[str, int]] = Counter()
    eval_requests = []
    for place, request in enumerate(requests):
        if (request.metadata or {}).get("__padding_only__"):
            continue
        context, doc_to_messages, _, doc_id, task, split = request.args
        table = tables.get((task, split))
        if table is None:
            table = tables[task, split] = Table(task, task_dict[task][split])
        template = table.template(templates)
        if template.answers_with_box and options.response == "answer":
            raise OptionError(f"response=answer leaves out the boxes that {task} scores: leave it out for this task")
        repeat = seen[task, doc_id]
        seen[task, doc_id] += 1
        make = table.reading(doc_id, doc_to_messages, template, by_columns=options.prompts == "auto")
        text = hashlib.sha256(str(context).encode()).hexdigest()[:16]
        key = f"{task}/{doc_id}/{repeat}/{table.identity}/{text}"
        eval_requests.append(EvalRequest(place, task, doc_id, repeat, key, make, template))
    return eval_requests


MIG_COLUMNS = {"task", "images", "question", "answer", "additional_info", "need_format", "place"}
"""Columns of our task's MIG-Bench rows; `place` is the local copy that the images are in."""


class Table:
    """The rows of one task, images left as bytes."""

    def __init__(self, task: str, rows: Any) -> None:
        self.task = task
        self.rows = rows
        self.reader = find_reader(rows.column_names)
        self.is_mig_bench = set(rows.column_names) >= MIG_COLUMNS

    def template(self, templates: Templates) -> Template:
        """What the task's rows are run with."""
        if self.is_mig_bench:
            return templates.mig_bench
        return templates.box if self.reader is not None and self.reader.asks_for_box else templates.words

    def reading(
        self, doc_id: int, doc_to_messages: Callable[[Any], Any], template: Template, *, by_columns: bool
    ) -> Callable[[], Sample]:
        """What makes the sample of a row for a template; where answers are boxes, always `by_columns`."""
        if self.is_mig_bench:
            return partial(self.from_mig_bench, doc_id, template)
        if self.reader is not None and (by_columns or self.reader.asks_for_box):
            return partial(self.from_columns, doc_id)
        return partial(self.from_prompt, doc_id, doc_to_messages)

    @cached_property
    def identity(self) -> str:
        """A fingerprint of the data, the same wherever the same files are read; else one that never recurs."""
        return str(getattr(self.rows, "_fingerprint", None) or uuid.uuid4().hex)

    @cached_property
    def raw(self) -> Any:
        """The rows with image columns as bytes: decoding is ours, which refuses what is truncated."""
        import datasets

        rows = self.rows
        for name, feature in rows.features.items():
            if isinstance(feature, datasets.Image):
                rows = rows.cast_column(name, datasets.Image(decode=False))
        return rows

    @cached_property
    def texts(self) -> Any:
        """The rows without the columns that hold images: cheap to read."""
        assert self.reader is not None
        return self.raw.remove_columns(list(self.reader.image_columns))

    def from_columns(self, doc_id: int) -> Sample:
        """The sample of a row whose columns are known; the row's answer is left out."""
        assert self.reader is not None
        reader, name = self.reader, f"{self.task}/{doc_id}"
        try:
            row = self.texts[doc_id]
            question, choices = reader.question(row)
            count, regions = reader.count(row), reader.regions(row)
        except (KeyError, TypeError, ValueError) as error:
            raise SampleError(f"sample {name}: not a row of {reader.name} ({error})") from error
        sources = tuple(partial(self._column_image, doc_id, index) for index in range(count))
        return Sample(question, sources, choices=choices, id=name, regions=regions)

    def _column_image(self, doc_id: int, index: int) -> Image.Image:
        assert self.reader is not None
        source = self.reader.images(self.raw[doc_id])[index]
        return load_image(source, name=f"image {index + 1} of {self.task}/{doc_id}")

    def from_mig_bench(self, doc_id: int, template: Template) -> Sample:
        """The sample of a record of MIG-Bench: as published, or for a template that says itself how to answer."""
        row = self.rows[doc_id]
        record, name = mig_bench.Record.from_row(row), f"{self.task}/{doc_id}"
        sources = tuple(mig_bench.image_source(row["place"], image) for image in record.images)
        if not template.answers_with_box:
            return Sample(mig_bench.published_prompt(record), sources, id=name)
        text, boxes = mig_bench.mark_boxes(record)
        regions = tuple(box.scaled(*load_image(sources[box.image], name=name).size) for box in boxes)
        return Sample(text, sources, id=name, regions=regions)

    def from_prompt(self, doc_id: int, doc_to_messages: Callable[[Any], Any]) -> Sample:
        """The sample of any other task: its own prompt without the instruction how to answer.

        The images are read again when the sample is run: those of many samples do not fit in memory.
        """
        name = f"{self.task}/{doc_id}"
        text, images = self._prompt(doc_id, doc_to_messages)
        question, choices = split_question(text)
        if not question:
            raise SampleError(f"sample {name}: its task gives no question")
        sources = tuple(partial(self._prompt_image, doc_id, index, doc_to_messages) for index in range(len(images)))
        return Sample(question, sources, choices=choices, id=name)

    def _prompt_image(self, doc_id: int, index: int, doc_to_messages: Callable[[Any], Any]) -> Image.Image:
        _, images = self._prompt(doc_id, doc_to_messages)
        return load_image(images[index], name=f"image {index + 1} of {self.task}/{doc_id}")

    def _prompt(self, doc_id: int, doc_to_messages: Callable[[Any], Any]) -> tuple[str, list[ImageSource]]:
        """(text, images) that the row's task makes of it; it may decode images on the way."""
        with truncated_refused():
            return _read_messages(doc_to_messages(self.rows[doc_id]), f"{self.task}/{doc_id}")


def _read_messages(messages: Any, name: str) -> tuple[str, list[ImageSource]]:
    """(text, images) of a task's messages; SampleError for video and sound."""
    from lmms_eval.protocol import ChatMessages

    chat = ChatMessages(messages=messages)
    images, videos, audios = chat.extract_media()
    if videos or audios:
        raise SampleError(
            f"sample {name} has {'video' if videos else 'sound'}; this model takes images: choose a task of images"
        )
    parts = [part for message in chat.messages for part in message.content]
    text = "\n".join(part.text for part in parts if part.type == "text")
    if not count_marks(text):  # images between texts are spoken of there
        text = "\n".join(part.text if part.type == "text" else "<image>" for part in parts)
        text = text.replace("\n<image>", " <image>")  # behind its label: "Image 1:"
    try:
        return resolve_marks([text], len(images))[0], images
    except SampleError:
        return text, images  # the task's own words: "<img>" in a question about HTML


def reading_error(name: str, error: Exception) -> ImageError | SampleError:
    """An error that names the sample, whatever the reading of its row raised."""
    if isinstance(error, (ImageError, SampleError)):
        return error
    return ImageError(f"sample {name} cannot be read ({type(error).__name__}: {error}); download the data set again")
