"""Annotated sets of every kind for the tests of trajectories, and how to look at what the verifier says."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from PIL import Image

from mgpo_core.annotations import AnnotatedObject, AnnotatedSet, Relation
from mgpo_core.boxes import Box, CoordinateSpace
from mgpo_core.budget import PixelBudget
from mgpo_core.haystack.multi import make_sets
from mgpo_core.multi_image import MultiImage, solution_text
from mgpo_core.regions import Solution
from mgpo_train.trajectories.problems import Problem, Reason
from mgpo_train.trajectories.replay import replay
from mgpo_train.trajectories.rule_writer import write_solution
from mgpo_train.trajectories.verifier import verify, verify_solution

BUDGET = PixelBudget(min_pixels=4 * 28 * 28, max_pixels=168 * 168)
"""What the haystack's models are shown."""
LABELS = (
    "cup", "coffee cup", "person", "traffic light", "glass", "bus", "bus stop sign", "knife", "dog", "hot dog", "apple",
    "red umbrella", "scissors", "St. Bernard", "woman", "teddy bear", "box", "image frame", "side table",
)  # fmt: skip
ATTRIBUTES = {"colour": ("red", "blue", "green", "orange"), "material": ("wood", "bright metal", "glass")}
SIZES = ((640, 480), (375, 500), (803, 601), (333, 333), (910, 300))
"""Few, so that the blank pictures that stand for them are made once."""
COURSE = {
    Reason.IMAGE_NOT_WEIGHED, Reason.IMAGES_OUT_OF_ORDER, Reason.OBJECT_BEFORE_IMAGES, Reason.NO_CONCLUSION,
    Reason.CONTRADICTS_ANSWER,
}  # fmt: skip
"""Reasons about how a reasoning goes, not about what one sentence says."""


def blank(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size)


def reasons(problems: list[Problem]) -> set[Reason]:
    return {problem.reason for problem in problems}


def check(annotated: AnnotatedSet, text: str, **options: Any) -> list[Problem]:
    return verify(annotated, text, **({"budget": BUDGET, "space": CoordinateSpace.ABSOLUTE} | options))


def check_solution(annotated: AnnotatedSet, solution: Solution, **options: Any) -> list[Problem]:
    return verify_solution(annotated, solution, **({"budget": BUDGET, "space": CoordinateSpace.ABSOLUTE} | options))


def view_of(annotated: AnnotatedSet, *, budget: PixelBudget = BUDGET, space=CoordinateSpace.ABSOLUTE) -> Any:
    return replay(annotated, budget=budget, space=space, template=MultiImage()).view


def text_of(annotated: AnnotatedSet, wording: str = "terse", seed: int = 0, **view: Any) -> str:
    """The response that the rules write."""
    return solution_text(write_solution(annotated, wording=wording, seed=seed), view_of(annotated, **view))


@cache
def haystack_sets(images: int, n: int = 25) -> list[AnnotatedSet]:
    return make_sets("train", n, seed=images, images=images)


class Scene:
    """Draws a set of photographs: sizes, objects with attributes, and the relation that fits a kind of question."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.count = self.rng.randint(2, 5)
        self.sizes = tuple(self.rng.choice(SIZES) for _ in range(self.count))
        self.objects: list[AnnotatedObject] = []
        self.seed = seed

    def box(self, image: int) -> Box:
        width, height = self.sizes[image]
        w, h = (self.rng.uniform(0.06, 0.4) * side for side in (width, height))
        x, y = self.rng.uniform(0, width - w), self.rng.uniform(0, height - h)
        return Box(x, y, x + w, y + h, image)

    def add(self, label: str, image: int) -> int:
        said = {key: self.rng.choice(values) for key, values in ATTRIBUTES.items() if self.rng.random() < 0.4}
        self.objects.append(AnnotatedObject(label, self.box(image), said))
        return len(self.objects) - 1

    def fill(self, image: int, without: set[str]) -> None:
        """Up to six objects, some of them several times."""
        for label in self.rng.sample([label for label in LABELS if label not in without], self.rng.randint(0, 6)):
            for _ in range(self.rng.choice((1, 1, 2, 3))):
                self.add(label, image)

    def set(self, target: int, *relations: Relation, regions: tuple[Box, ...] = ()) -> AnnotatedSet:
        return AnnotatedSet(
            id=f"scene-{self.seed}",
            question="Which one is meant?" + " <region>" * len(regions),
            images=tuple(partial(blank, size) for size in self.sizes),
            objects=tuple(self.objects),
            target=target,
            relations=relations,
            task=relations[0].kind if relations else "plain",
            regions=regions,
            sizes=self.sizes,
        )


def scene_set(seed: int) -> AnnotatedSet:
    """A set of photographs, one of six kinds in turn."""
    scene, kinds = Scene(seed), (_plain, _differs, _common, _same, _order, _view)
    return kinds[seed % len(kinds)](scene, scene.rng.choice(LABELS))


def _plain(scene: Scene, asked: str) -> AnnotatedSet:
    place = scene.rng.randrange(scene.count)
    for image in range(scene.count):
        scene.fill(image, {asked})
    if scene.rng.random() < 0.3:
        scene.add(asked, place)
    return scene.set(scene.add(asked, place))


def _differs(scene: Scene, asked: str) -> AnnotatedSet:
    """The asked one may be in the other images too, as another thing of its kind."""
    for image in range(scene.count):
        scene.fill(image, {asked})
    if scene.rng.random() < 0.3:
        scene.add(asked, 0)
    members = [scene.add(asked, scene.count - 1)]
    if scene.rng.random() < 0.5:
        members.append(scene.add("lamp post", scene.count - 1))
    return scene.set(members[0], Relation("differs", tuple(range(scene.count)), tuple(members)))


def _common(scene: Scene, asked: str) -> AnnotatedSet:
    left_out = {asked} | set(LABELS[::2])
    scene.fill(0, left_out)
    for image in range(1, scene.count):
        scene.fill(image, {asked} | set(LABELS[1::2]))
    members = [scene.add(asked, image) for image in range(scene.count)]
    relation = Relation("common", tuple(range(scene.count)), tuple(members))
    return scene.set(scene.rng.choice(members), relation)


def _same(scene: Scene, asked: str) -> AnnotatedSet:
    """One thing in the first image and in another, where it may go by a more exact name."""
    place = scene.rng.randrange(1, scene.count)
    for image in range(scene.count):
        scene.fill(image, {asked})
    first = scene.add(scene.rng.choice((asked, f"small {asked}")), 0)
    target = scene.add(asked, place)
    regions = (scene.objects[first].box,) if scene.rng.random() < 0.5 else ()
    return scene.set(target, Relation("same", (0, place), (first, target)), regions=regions)


def _order(scene: Scene, asked: str) -> AnnotatedSet:
    plain = _plain(scene, asked)
    return scene.set(plain.target, Relation("order", tuple(range(scene.count))))


def _view(scene: Scene, asked: str) -> AnnotatedSet:
    plain = _plain(scene, asked)
    return scene.set(plain.target, Relation("view", (0, scene.count - 1)))


@dataclass(frozen=True)
class Kitchen:
    """Three photographs whose every object is known by heart."""

    annotated: AnnotatedSet

    @classmethod
    def of(cls, *relations: Relation) -> Kitchen:
        things = [
            ("cup", Box(100, 100, 200, 200, 0), {"colour": "red"}),  # upper left
            ("coffee cup", Box(700, 100, 800, 200, 0), {}),  # upper right
            ("coffee cup", Box(900, 100, 1000, 200, 0), {}),
            ("table", Box(200, 600, 800, 950, 0), {"material": "wood"}),  # lower middle
            ("dog", Box(450, 450, 550, 550, 1), {"colour": "brown"}),  # centre
            ("table", Box(0, 600, 300, 1000, 1), {"material": "metal"}),  # lower left
            ("cup", Box(800, 800, 950, 950, 2), {"colour": "blue"}),  # lower right
            ("dog", Box(50, 450, 150, 550, 2), {"colour": "black"}),  # left
            ("person", Box(300, 300, 400, 700, 2), {"colour": "white"}),
            ("person", Box(500, 300, 600, 700, 2), {}),
        ]
        objects = tuple(AnnotatedObject(*thing) for thing in things)
        size = (1000, 1000)
        return cls(
            AnnotatedSet(
                "kitchen", "Find the cup.", (partial(blank, size),) * 3, objects, 6, relations, sizes=(size,) * 3
            )
        )

    def response(self, *sentences: str) -> str:
        """Right reasoning with sentences between the images and the object; numbers are thousandths."""
        lines = ["Image 1: cup.", "Image 2: no cup.", "Image 3: cup.", *sentences, "The cup is in image 3."]
        answer = '[{"image": 3, "bbox_2d": [800, 800, 950, 950], "label": "cup"}]'
        reasoning = "\n".join(lines)
        return f"<think>{reasoning}</think>\n```json\n{answer}\n```"

    def told(self, *sentences: str, **options: Any) -> set[Reason]:
        """What is wrong with sentences that stand between the images and the object."""
        space = CoordinateSpace.RELATIVE_1000
        return reasons(check(self.annotated, self.response(*sentences), space=space, **options)) - COURSE


@dataclass
class Response:
    """A right response in parts that can be made wrong."""

    images: list[str]
    rest: list[str]
    entry: dict[str, Any]

    @property
    def reasoning(self) -> str:
        return "\n".join([*self.images, *self.rest])

    def text(self) -> str:
        return f"<think>{self.reasoning}</think>\n```json\n{json.dumps([self.entry])}\n```"


OPENS_IMAGE = re.compile(r"(?<=[.;]) (?=(?:In )?(?:[Ii]mage \d|[Tt]he (?:first|second|third|fourth|fifth) image))")


def response(annotated: AnnotatedSet, wording: str, seed: int) -> Response:
    text = text_of(annotated, wording, seed)
    reasoning, answer = text.removeprefix("<think>").split("</think>")
    lines, count = reasoning.split("\n"), len(annotated.images)
    images, rest = (lines[:count], lines[count:]) if wording == "terse" else (OPENS_IMAGE.split(lines[0]), lines[1:])
    assert len(images) == count, lines
    return Response(images, rest, json.loads(answer.strip("`json\n "))[0])
