"""The teacher model's prompt: a worked solution of a set whose annotations it is given, with its claims as data.

The words are this project's own: the prompts of MIRG-RL (arXiv 2509.21788) are not published.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.boxes.regions import View
from mgpo_core.images.crop import CropOutcome
from mgpo_core.samples.annotations import RELATIONS, AnnotatedSet
from mgpo_core.samples.sample import Sample
from mgpo_core.templates.base import PLAIN_SYSTEM, Message, chat_message, sentence

__all__ = ["TeacherPrompt"]

_TASK = """\
There are {count} images, numbered from 1. Question: {question}

This is known of the images (boxes are [x1, y1, x2, y2] in {numbers} of the image they are in):
{known}

Write a worked solution, as somebody who sees only the images and the question. Reply with one JSON object and nothing \
else:
{{"reasoning": "...", "claims": [...], "answer": {answer}}}
The reasoning is plain text:
- First weigh the images in order, one sentence for each, that begins with the image, says what it holds or lacks, and \
names no other image: "Image 1 shows ...", "Image 2 has no ...".
- Then say how the images relate, if that matters.
- Then find the object: "The {label} is in image {image}", with where it lies ("upper left", "centre", ...) and its box.
- The last image that you name is the one of the answer.
- Use the labels as they are given. Name nothing, and claim nothing, that is not known.
- Never mention that anything was given or annotated.
The claims are all that the reasoning states, each as an object of one of these forms:
- {{"image": 1, "holds": "LABEL"}}, where the reasoning says so with "count": how many the image holds, "bbox_2d": the \
box of one, "attributes": {{"KEY": "VALUE"}} of that one
- {{"image": 2, "lacks": "LABEL"}}
- {{"relation": {relations}, "images": [1, 2], "objects": ["LABEL", ...]}}, a known relation between all of its images
Every image needs a claim, and every box of the reasoning stands in one, or in the question."""
_NUMBERS = {
    CoordinateSpace.ABSOLUTE: "pixels",
    CoordinateSpace.RELATIVE_1000: "thousandths of the width and the height",
}


@dataclass(frozen=True)
class TeacherPrompt:
    """One question to a teacher, as a template; `read_reply` reads its single response."""

    annotated: AnnotatedSet
    space: CoordinateSpace
    shows_images: bool = False

    name: ClassVar[str] = "teacher"
    max_turns: ClassVar[int] = 1
    answers_with_box: ClassVar[bool] = True

    def wants_box(self, turn: int) -> bool:
        """Never: the whole response is kept."""
        return False

    def opening(self, sample: Sample, images: Sequence[Image.Image]) -> list[Message]:
        """The numbered images, if they are shown, the question, the annotations, and how to write."""
        shown: list[str | Image.Image] = []
        for number, image in enumerate(images if self.shows_images else (), start=1):
            shown += [f"Image {number}: ", image, "\n"]
        view = View(self.space, [image.size for image in images], self.annotated.sizes)
        return [chat_message("system", PLAIN_SYSTEM), chat_message("user", *shown, self._task(sample, view))]

    def follow_up(
        self, sample: Sample, images: Sequence[Image.Image], outcome: CropOutcome, turn: int
    ) -> Message | None:
        """Nothing: the first response is the last."""
        return None

    def _task(self, sample: Sample, view: View) -> str:
        answer = self.annotated.answer
        entry = {"image": answer.box.image + 1, "bbox_2d": view.numbers(answer.box), "label": answer.label}
        return _TASK.format(
            count=len(self.annotated.images),
            question=sentence(sample.question),
            numbers=_NUMBERS[self.space],
            known=json.dumps(self._known(view), ensure_ascii=False),
            label=answer.label,
            image=answer.box.image + 1,
            answer=json.dumps(entry, ensure_ascii=False),
            relations=" or ".join(f'"{kind}"' for kind in RELATIONS),
        )

    def _known(self, view: View) -> dict[str, Any]:
        images = [
            {"image": image + 1, "width": size[0], "height": size[1], "objects": self._objects(image, view)}
            for image, size in enumerate(view.input_sizes)
        ]
        if self.space is not CoordinateSpace.ABSOLUTE:
            images = [{key: entry[key] for key in ("image", "objects")} for entry in images]
        relations = [
            {
                "relation": relation.kind,
                "images": [image + 1 for image in relation.images],
                "objects": [self.annotated.objects[place].label for place in relation.objects],
                "meaning": RELATIONS[relation.kind],
            }
            for relation in self.annotated.relations
        ]
        return {"images": images} | ({"relations": relations} if relations else {})

    def _objects(self, image: int, view: View) -> list[dict[str, Any]]:
        return [
            {
                "label": item.label,
                "bbox_2d": view.numbers(item.box),
                **({"attributes": dict(item.attributes)} if item.attributes else {}),
            }
            for item in self.annotated.objects
            if item.box.image == image
        ]
