"""The varied writer: English sentences whose wordings depend only on the seed and on the id of the set."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from mgpo_core.boxes.parse import Box, Size, iou
from mgpo_core.boxes.regions import REGION, WorkedSolution
from mgpo_core.images.load import load_image
from mgpo_core.samples.annotations import AnnotatedSet, Relation
from mgpo_train.reasoning_data.trace import Claim, ObjectClaim, RelationClaim, Trace
from mgpo_train.reasoning_data.writers.english import ORDINALS, counted, joined, plural, position_words
from mgpo_train.reasoning_data.writers.wordings import WORDINGS

__all__ = ["write_varied"]

_SHOWN = 4
"""The most labels listed of an image that is not compared with others."""


def write_varied(annotated: AnnotatedSet, seed: int) -> Trace:
    """A trace that weighs every image in order, says how they relate, finds the object, and concludes."""
    writer = _Writer(annotated, seed)
    parts = [" ".join(part()) for part in (writer.images, writer.relations, writer.object)]
    reasoning = "\n".join(part for part in [*parts, writer.conclusion()] if part)
    solution = WorkedSolution(reasoning, annotated.answer.box, annotated.answer.label, tuple(writer.regions))
    return Trace(solution, tuple(writer.claims))


class _Writer:
    """Draws the sentences of one trace; collects the boxes of its markers and its claims, in the order written."""

    def __init__(self, annotated: AnnotatedSet, seed: int) -> None:
        self.annotated, self.asked = annotated, annotated.answer.label
        self.regions: list[Box] = []
        self.claims: list[Claim] = []
        self._rng = random.Random(f"{seed}:{annotated.id}")
        self._names = {item.label for item in annotated.objects}
        self._compared = annotated.relation("common", "differs") is not None

    def _say(self, kind: str, **words: object) -> str:
        text = self._rng.choice(WORDINGS[kind]).format(**words)
        return text[:1].upper() + text[1:]

    def _mark(self, box: Box) -> str:
        self.regions.append(box)
        return REGION

    def images(self) -> Iterator[str]:
        """What each image holds, and what the question points at in it."""
        for image in range(len(self.annotated.images)):
            yield self._image(image)
            for region in self.annotated.regions:
                label = self._pointed_at(region) if region.image == image else None
                if label is not None:
                    self.claims.append(ObjectClaim(image, label))
                    yield self._say("pointed at", region=self._mark(region), label=label)

    def _image(self, image: int) -> str:
        place = self._rng.randrange(len(WORDINGS["image"]))
        ordinal = ORDINALS[image] if image < len(ORDINALS) else f"{image + 1}th"
        begin = WORDINGS["image"][place].format(number=image + 1, ordinal=ordinal)
        inside = place % 2 == 1
        held = self._held(image)
        if self.asked not in held and (not held or not self._compared):
            self.claims.append(ObjectClaim(image, self.asked, present=False))
        if not held:
            return f"{begin} {_lower(self._say('none in it' if inside else 'has none', asked=self.asked))}."
        self.claims += [ObjectClaim(image, label, count=count) for label, count in held.items()]
        things = [counted(label, count or 1) for label, count in held.items()]
        are = "is" if things[0].startswith(("a ", "an ")) else "are"
        said = _lower(self._say("in it" if inside else "holds", things=joined(things), are=are))
        lacking = "" if self.asked in held or self._compared else self._say("lacks", asked=self.asked)
        return f"{begin} {said}{lacking}."

    def _held(self, image: int) -> dict[str, int | None]:
        """Labels in an image with their counts: all where images are compared, else the asked one and a few more.

        A count is None where it is not said, because the plural is another label of the set.
        """
        counts = Counter(item.label for item in self.annotated.objects if item.box.image == image)
        labels = list(counts)
        if not self._compared and len(labels) > _SHOWN:
            kept = self._rng.sample([label for label in labels if label != self.asked], _SHOWN - 1)
            labels = [label for label in labels if label in kept or label == self.asked]
        return {label: None if plural(label) in self._names else counts[label] for label in labels}

    def _pointed_at(self, region: Box) -> str | None:
        """The label of the object that a region of the question means; None in the image of the answer."""
        if region.image == self.annotated.answer.box.image:
            return None
        nearest = max(self.annotated.objects, key=lambda item: iou(item.box, region))
        return nearest.label if iou(nearest.box, region) >= 0.5 else None

    def relations(self) -> Iterator[str]:
        """How the images relate, as annotated, and whether only one holds the object."""
        for relation in self.annotated.relations:
            items = [self.annotated.objects[place] for place in relation.objects]
            self.claims.append(RelationClaim(relation.kind, relation.images, tuple(item.label for item in items)))
            if relation.kind == "same":
                objects = joined([f"the {item.label} of image {item.box.image + 1}" for item in items])
                yield self._say("same", the_objects=objects[:1].upper() + objects[1:])
            elif relation.kind == "differs":
                yield self._differs(relation, list(dict.fromkeys(item.label for item in items)))
            else:
                label = items[0].label if items else ""
                yield self._say(relation.kind, images=self._named(relation), label=label)
        holding = [i for i in range(len(self.annotated.images)) if self.asked in self.annotated.labels(i)]
        if len(holding) == 1 and not self._compared:
            yield self._say("only", asked=self.asked, number=holding[0] + 1)

    def _differs(self, relation: Relation, labels: list[str]) -> str:
        *others, last = relation.images
        plain = not any(label in self.annotated.labels(image) for label in labels for image in others)
        words = {"labels": joined(labels), "are": "is" if len(labels) == 1 else "are", "number": last + 1}
        return self._say("differs" if plain else "adds", others=_image_list(others), **words)

    def _named(self, relation: Relation) -> str:
        images = sorted(relation.images)
        every = len(images) == len(self.annotated.images)
        return ("both images" if len(images) == 2 else "all images") if every else _image_list(images)

    def object(self) -> Iterator[str]:
        """Where the object asked for lies, its box, and its attributes."""
        answer = self.annotated.answer
        self.claims.append(ObjectClaim(answer.box.image, self.asked, box=answer.box, attributes=answer.attributes))
        position = self._rng.choice(position_words(answer.box, self._size(answer.box.image)))
        words = {"label": self.asked, "number": answer.box.image + 1, "position": position}
        yield self._say("object", region=self._mark(answer.box), **words)
        for key, value in answer.attributes.items():
            if value.lower() not in self.asked.lower() or self._rng.random() < 0.5:
                yield self._say("attribute", key=key, value=value)

    def conclusion(self) -> str:
        """What follows from it all."""
        return self._say("answer", label=self.asked, number=self.annotated.answer.box.image + 1)

    def _size(self, image: int) -> Size:
        return self.annotated.sizes[image] if self.annotated.sizes else load_image(self.annotated.images[image]).size


def _image_list(images: list[int]) -> str:
    return f"image{'s' if len(images) > 1 else ''} {joined([str(image + 1) for image in images])}"


def _lower(text: str) -> str:
    return text if text.startswith("I ") else text[:1].lower() + text[1:]
