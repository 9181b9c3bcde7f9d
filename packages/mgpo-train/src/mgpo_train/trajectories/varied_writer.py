"""Solutions in natural, varied English, whose wordings are drawn from the seed and the set's id alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from string import Formatter

from mgpo_core.annotations import AnnotatedObject, AnnotatedSet, Relation
from mgpo_core.boxes import Box, Size, iou
from mgpo_core.regions import REGION, Solution
from mgpo_core.sample import load_image
from mgpo_train.trajectories.language.lexicon import lexicon_of
from mgpo_train.trajectories.language.sentences import read_sentences
from mgpo_train.trajectories.nouns import ORDINALS, counted, joined, plural
from mgpo_train.trajectories.positions import position_words
from mgpo_train.trajectories.wordings import WORDINGS

__all__ = ["write_varied"]

_SHOWN = 4
"""So many kinds of things are told of an image, where it is not compared with others."""


def write_varied(annotated: AnnotatedSet, seed: int) -> Solution:
    """A solution that weighs every image in order, says how they relate, finds the object, and concludes."""
    writer = _Writer(annotated, seed)
    parts = [" ".join(part()) for part in (writer.images, writer.relations, writer.object, writer.answer)]
    reasoning = "\n".join(part for part in parts if part)
    return Solution(reasoning, annotated.answer.box, annotated.answer.label, tuple(writer.regions))


class _Writer:
    """Draws the sentences of one solution; `regions` are the boxes of its markers, in the order written."""

    def __init__(self, annotated: AnnotatedSet, seed: int) -> None:
        self.annotated, self.asked = annotated, annotated.answer.label
        self.regions: list[Box] = []
        self._rng = random.Random(f"{seed}:{annotated.id}")
        self._lexicon = lexicon_of(annotated)
        self._names = {item.label for item in annotated.objects}
        self._compared = annotated.relation("common", "differs") is not None

    def say(self, kind: str, **words: object) -> str:
        """A wording of a kind, filled in; one whose own words would be read as a label of the set is passed over."""
        plain = [wording for wording in WORDINGS[kind] if self._is_plain(wording, words)]
        return _capital(self._rng.choice(plain or WORDINGS[kind]).format(**words))

    def _is_plain(self, wording: str, words: Mapping[str, object]) -> bool:
        own = " ".join(literal for literal, *_ in Formatter().parse(wording))
        if not self._lexicon.label_pattern.search(own):
            return True
        meant, read = (self._labels(text) for text in (" ; ".join(map(str, words.values())), wording.format(**words)))
        return read <= meant

    def _labels(self, text: str) -> set[str]:
        sentences = read_sentences(text, self._lexicon, len(self.annotated.images))
        return {token.value for sentence in sentences for token in sentence.tokens if token.kind == "label"}

    def mark(self, box: Box) -> str:
        """A marker for a box."""
        self.regions.append(box)
        return REGION

    def images(self) -> Iterator[str]:
        """What each image holds, and where the question points at something in it, what that is."""
        for image in range(len(self.annotated.images)):
            yield self._image(image)
            for region in self.annotated.regions:
                pointed_at = self._pointed_at(region) if region.image == image else None
                if pointed_at is not None:
                    yield self.say("pointed at", region=self.mark(region), label=pointed_at.label)

    def _image(self, image: int) -> str:
        place = self._rng.randrange(len(WORDINGS["image"]))
        begin = WORDINGS["image"][place].format(number=image + 1, ordinal=_ordinal(image))
        inside = place % 2 == 1
        things, held = self._things(image), self.asked in self.annotated.labels(image)
        if not things:
            return f"{begin} {_lower(self.say('none in it' if inside else 'has none', asked=self.asked))}."
        are = "is" if things[0].startswith(("a ", "an ")) else "are"
        said = _lower(self.say("in it" if inside else "holds", things=joined(things), are=are))
        lacking = "" if held or self._compared else self.say("lacks", asked=self.asked)
        return f"{begin} {said}{lacking}."

    def _things(self, image: int) -> list[str]:
        """What an image holds, with numbers; all of it where images are compared, else the asked and a few more."""
        counts = Counter(item.label for item in self.annotated.objects if item.box.image == image)
        labels = list(counts)
        if not self._compared and len(labels) > _SHOWN:
            kept = self._rng.sample([label for label in labels if label != self.asked], _SHOWN - 1)
            labels = [label for label in labels if label in kept or label == self.asked]
        return [counted(label, 1 if plural(label) in self._names else counts[label]) for label in labels]

    def _pointed_at(self, region: Box) -> AnnotatedObject | None:
        """The object that a region of the question is meant to be; none in the image of the answer."""
        if region.image == self.annotated.answer.box.image:
            return None
        return max(
            (item for item in self.annotated.objects if iou(item.box, region) >= 0.5),
            key=lambda item: iou(item.box, region),
            default=None,
        )

    def relations(self) -> Iterator[str]:
        """How the images relate, as annotated; without a relation, whether only one holds the object."""
        writers: Mapping[str, Callable[[Relation], str]] = {
            "same": self._same, "common": self._common, "differs": self._differs, "order": self._scene,
            "view": self._scene,
        }  # fmt: skip
        for relation in self.annotated.relations:
            yield writers[relation.kind](relation)
        holding = [i for i in range(len(self.annotated.images)) if self.asked in self.annotated.labels(i)]
        if len(holding) == 1 and not self._compared:
            yield self.say("only", asked=self.asked, number=holding[0] + 1)

    def _same(self, relation: Relation) -> str:
        items = [self.annotated.objects[place] for place in relation.objects]
        objects = [f"the {item.label} of image {item.box.image + 1}" for item in items]
        return self.say("same", the_objects=_capital(joined(objects)))

    def _common(self, relation: Relation) -> str:
        label = self.annotated.objects[relation.objects[0]].label
        return self.say("common", images=self._named(relation), label=label)

    def _differs(self, relation: Relation) -> str:
        labels = list(dict.fromkeys(self.annotated.objects[place].label for place in relation.objects))
        *others, last = relation.images
        plain = not any(label in self.annotated.labels(image) for label in labels for image in others)
        words = {"labels": joined(labels), "are": "is" if len(labels) == 1 else "are", "number": last + 1}
        return self.say("differs" if plain else "adds", others=_image_list(others), **words)

    def _scene(self, relation: Relation) -> str:
        return self.say(relation.kind, images=self._named(relation))

    def _named(self, relation: Relation) -> str:
        images = sorted(relation.images)
        every = len(images) == len(self.annotated.images)
        return ("both images" if len(images) == 2 else "all images") if every else _image_list(images)

    def object(self) -> Iterator[str]:
        """The object asked for: where it lies, its box, and what it is like."""
        box = self.annotated.answer.box
        position = self._rng.choice(position_words(box, self._size(box.image)))
        words = {"label": self.asked, "number": box.image + 1, "position": position}
        yield self.say("object", region=self.mark(box), **words)
        for key, value in self.annotated.answer.attributes.items():
            if value.lower() not in self.asked.lower() or self._rng.random() < 0.5:
                yield self.say("attribute", key=key, value=value)

    def answer(self) -> Iterator[str]:
        """What follows from it all."""
        yield self.say("answer", label=self.asked, number=self.annotated.answer.box.image + 1)

    def _size(self, image: int) -> Size:
        return self.annotated.sizes[image] if self.annotated.sizes else load_image(self.annotated.images[image]).size


def _image_list(images: list[int]) -> str:
    return f"image{'s' if len(images) > 1 else ''} {joined([str(image + 1) for image in images])}"


def _ordinal(image: int) -> str:
    return ORDINALS[image] if image < len(ORDINALS) else f"{image + 1}th"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text if text.startswith("I ") else text[:1].lower() + text[1:]
