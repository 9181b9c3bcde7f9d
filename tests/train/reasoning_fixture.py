"""Annotated sets of every kind for the tests of reasoning data, and how to look at what the verifier says."""

from __future__ import annotations

import json
import random
from functools import cache, partial
from typing import Any

from PIL import Image

from mgpo_core.boxes.parse import Box, CoordinateSpace
from mgpo_core.haystack.multi import make_sets
from mgpo_core.images.budget import PixelBudget
from mgpo_core.samples.annotations import AnnotatedObject, AnnotatedSet, Relation
from mgpo_train.reasoning_data.teacher.prompt import TeacherPrompt
from mgpo_train.reasoning_data.trace import Claim, ObjectClaim, Trace
from mgpo_train.reasoning_data.verifier import Reason, Verifier
from mgpo_train.reasoning_data.verifier.replay import replay

BUDGET = PixelBudget(min_pixels=4 * 28 * 28, max_pixels=168 * 168)
"""What the haystack's models are shown."""
VERIFIER = Verifier(BUDGET, CoordinateSpace.ABSOLUTE)
LABELS = (
    "cup", "coffee cup", "person", "traffic light", "glass", "bus", "bus stop sign", "knife", "dog", "hot dog", "apple",
    "red umbrella", "scissors", "St. Bernard", "woman", "teddy bear", "box", "image frame", "side table",
)  # fmt: skip
ATTRIBUTES = {"colour": ("red", "blue", "green", "orange"), "material": ("wood", "bright metal", "glass")}
SIZES = ((640, 480), (375, 500), (803, 601), (333, 333), (910, 300))
"""Few, so that the blank images that stand for them are made once."""


def blank(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size)


def reasons(annotated: AnnotatedSet, trace: Trace, verifier: Verifier = VERIFIER) -> set[Reason]:
    return {problem.reason for problem in verifier.problems(annotated, trace)}


def reply_of(annotated: AnnotatedSet, trace: Trace, verifier: Verifier = VERIFIER) -> dict[str, Any]:
    """A teacher's reply that states a trace."""
    view, solution = verifier.view(annotated), trace.solution

    def entry(claim: Claim) -> dict[str, Any]:
        if not isinstance(claim, ObjectClaim):
            images = [image + 1 for image in claim.images]
            return {"relation": claim.kind, "images": images, "objects": list(claim.labels)}
        said = {"image": claim.image + 1, "holds" if claim.present else "lacks": claim.label}
        if claim.count is not None:
            said["count"] = claim.count
        if claim.box is not None:
            said |= {"bbox_2d": view.numbers(claim.box), "attributes": dict(claim.attributes)}
        return said

    return {
        "reasoning": view.write_out(solution.reasoning, solution.regions),
        "claims": [entry(claim) for claim in trace.claims],
        "answer": {"image": solution.box.image + 1, "bbox_2d": view.numbers(solution.box), "label": solution.label},
    }


def reply_text(annotated: AnnotatedSet, trace: Trace, verifier: Verifier = VERIFIER, **changes: Any) -> str:
    return f"```json\n{json.dumps(reply_of(annotated, trace, verifier) | changes)}\n```"


def prompt_of(annotated: AnnotatedSet) -> str:
    """What a teacher is asked of a set."""
    prompt = TeacherPrompt(annotated, VERIFIER.space)
    episode = replay(annotated, budget=VERIFIER.budget, space=VERIFIER.space, template=prompt)
    return episode.messages[-1]["content"][-1]["text"]


def known_of(prompt: str) -> str:
    """The annotations in a prompt."""
    return next(line for line in prompt.splitlines() if line.startswith('{"images"'))


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


def kitchen(*relations: Relation) -> AnnotatedSet:
    """Three photographs whose every object is known by heart."""
    things = [
        ("cup", Box(100, 100, 200, 200, 0), {"colour": "red"}),
        ("coffee cup", Box(700, 100, 800, 200, 0), {}),
        ("coffee cup", Box(900, 100, 1000, 200, 0), {}),
        ("dog", Box(450, 450, 550, 550, 1), {"colour": "brown"}),
        ("cup", Box(800, 800, 950, 950, 2), {"colour": "blue"}),
        ("dog", Box(50, 450, 150, 550, 2), {}),
    ]
    objects, size = tuple(AnnotatedObject(*thing) for thing in things), (1000, 1000)
    images = (partial(blank, size),) * 3
    return AnnotatedSet("kitchen", "Find the cup.", images, objects, 4, relations, sizes=(size,) * 3)
