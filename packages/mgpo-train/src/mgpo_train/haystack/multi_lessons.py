"""What the checkpoint for several images is taught: to find, name and miss objects in a row of images.

Its reasoning block holds what it sees in one image, which the question names. Nothing of the five tasks of
haystack_multi, and no weighing of several images: those are the first stage's to teach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.boxes.regions import View
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.haystack.multi import DIFFICULTY, annotated_object, by_colour
from mgpo_core.haystack.world import COLOURS, Scene
from mgpo_core.samples.annotations import AnnotatedObject
from mgpo_core.samples.sample import Sample
from mgpo_core.templates.multi_image import MultiImage, answer_text, reasoning_block
from mgpo_train.haystack.pool import SEEN
from mgpo_train.reasoning_data.writers.terse import found_sentence, image_sentence

LEVEL = DIFFICULTY["train"]
"""What the lessons' scenes are like."""
MOST_IMAGES = 3
"""Most images of a lesson."""
ALONE, TOGETHER = 0.15, 0.35
"""Lessons are of one image for the first share of the steps, of up to two until the second, and then of two or more:
the model comes from the world of one."""
BATCH = {"find": 8, "describe": 14, "look_for": 14, "name": 8}
"""Sequences a step, by kind of lesson."""
ELSEWHERE = 0.7
"""How often what is looked for and not there is in another image of the row: it does not do that it is somewhere."""
FIND, DESCRIBE, LOOK_FOR, NAME = (
    "Find the {}.",
    "What is in image {}?",
    "Is there a {} in image {}?",
    "What is at {} of image {}?",
)


@dataclass(frozen=True)
class MultiLesson:
    """One training sequence over several images; `target` is what the box in it is of (None: there is none)."""

    ids: list[int]
    features: list[Tensor]
    start: int
    target: AnnotatedObject | None = None
    before: int = 0
    """Index of the token before the box's JSON, if there is one: what is to be found is known there."""


class MultiTeacher:
    """Makes lessons of random rows of scenes; `features` (n, 36, D) are the frozen tower's."""

    def __init__(self, scenes: list[Scene], features: Tensor, tokens: TurnTokenizer, rng: np.random.Generator) -> None:
        self.scenes, self.features, self.tokens, self.rng = scenes, features, tokens, rng
        self._prompts: dict[tuple[str, int], list[int]] = {}
        self.images = (1, 1)

    def advance(self, share: float) -> None:
        """Choose the numbers of images for when this share of the steps is over."""
        self.images = (1, 1) if share < ALONE else (1, 2) if share < TOGETHER else (2, MOST_IMAGES)

    def lessons(self, kind: str) -> list[MultiLesson]:
        """A step's lessons of one kind."""
        return [getattr(self, kind)() for _ in range(BATCH[kind])]

    def find(self) -> MultiLesson:
        """An object by its name, which is in one of the images: image and box, as the protocol writes them."""
        once: list[AnnotatedObject] = []
        while not once:
            row = self._row()
            names = [item.label for scene in row.objects for item in scene]
            once = [item for scene in row.objects for item in scene if names.count(item.label) == 1]
        target = once[int(self.rng.integers(len(once)))]
        return self._lesson(row, FIND.format(target.label), "", target)

    def describe(self) -> MultiLesson:
        """All objects of one of the images, colour by colour, and then where one of them is.

        What the box is of is named in the response alone: it has to be read there.
        """
        row, image = self._row_and_image()
        here = row.objects[image]
        target = here[int(self.rng.integers(len(here)))]
        seen = image_sentence(image, [item.label for item in here], target.label)
        return self._lesson(row, DESCRIBE.format(image + 1), _thought(seen, target), target)

    def look_for(self) -> MultiLesson:
        """Whether an object is in one of the images; it is, as often as not, and then its box follows."""
        row, image = self._row_and_image()
        here = {item.label: item for item in row.objects[image]}
        elsewhere = [item.label for scene in row.objects for item in scene if item.label not in here]
        if self.rng.random() < 0.5:
            asked = str(self.rng.choice(list(here)))
        elif elsewhere and self.rng.random() < ELSEWHERE:
            asked = str(self.rng.choice(elsewhere))
        else:
            asked = self._other(list(here))
        target = here.get(asked)
        seen = image_sentence(image, [asked] if target else [], asked)
        return self._lesson(row, LOOK_FOR.format(asked, image + 1), _thought(seen, target), target)

    def name(self) -> MultiLesson:
        """What is at a box of one of the images."""
        row, image = self._row_and_image()
        asked = row.objects[image][int(self.rng.integers(len(row.objects[image])))]
        question = NAME.format(row.view.numbers(asked.box), image + 1)
        return self._lesson(row, question, _thought(image_sentence(image, [asked.label], asked.label)))

    def _other(self, here: list[str]) -> str:
        """The name of an object that is not there; half of the time it has a colour that is."""
        while True:
            colour = str(self.rng.choice(list(COLOURS)))
            if self.rng.random() < 0.5:
                colour = str(self.rng.choice(here)).split()[0]
            label = f"{colour} {self.rng.choice(LEVEL.shapes)}"
            if label not in here:
                return label

    def _row(self) -> _Row:
        count = int(self.rng.integers(self.images[0], self.images[1] + 1))
        chosen = [int(i) for i in self.rng.choice(len(self.scenes), size=count, replace=False)]
        return _Row([self.scenes[i] for i in chosen], [self.features[i] for i in chosen])

    def _row_and_image(self) -> tuple[_Row, int]:
        row = self._row()
        return row, int(self.rng.integers(len(row.scenes)))

    def _lesson(self, row: _Row, question: str, said: str, target: AnnotatedObject | None = None) -> MultiLesson:
        """Words, and the box of `target` behind them."""
        prompt = self._prompt(question, len(row.scenes))
        words = self._encode(said + "\n" if said and target else said)
        box = [] if target is None else self._encode(answer_text(target.box, target.label, row.view))
        ids = [*prompt, *words, *box, self.tokens.end_id]
        return MultiLesson(ids, row.features, len(prompt), target, len(prompt) + len(words) - 1)

    def _encode(self, text: str) -> list[int]:
        return [int(token) for token in self.tokens.tokenizer.encode(text, add_special_tokens=False)]

    def _prompt(self, question: str, count: int) -> list[int]:
        """Prompt ids; they depend on the question and the number of images alone, all being of one size."""
        key = (question, count)
        if key not in self._prompts:
            images = [Image.new("RGB", (SEEN, SEEN))] * count
            self._prompts[key] = self.tokens.opening(MultiImage().opening(Sample(question, tuple(images)), images))
        return self._prompts[key]


def _thought(seen: str, target: AnnotatedObject | None = None) -> str:
    """The reasoning block: what is seen in one image, and what the box behind the block is of, if there is one."""
    return reasoning_block(f"{seen}\n{found_sentence(target.label, target.box.image)}" if target else seen)


class _Row:
    """Scenes side by side."""

    def __init__(self, scenes: list[Scene], features: list[Tensor]) -> None:
        self.scenes, self.features = scenes, features
        sizes = [(scene.difficulty.canvas,) * 2 for scene in scenes]
        self.view = View(CoordinateSpace.ABSOLUTE, [(SEEN, SEEN)] * len(scenes), sizes)
        self.objects = [
            [annotated_object(scene.shapes[place], image) for place in by_colour(scene.shapes)]
            for image, scene in enumerate(scenes)
        ]
