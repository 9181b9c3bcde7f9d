"""haystack_multi: every question has one answer, which its objects and relations show; a function of the arguments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mgpo_core import SampleError, haystack
from mgpo_core.boxes.parse import Box
from mgpo_core.haystack.multi import DIFFICULTY, TASKS, make_sets
from mgpo_core.haystack.world import COLOURS
from mgpo_core.samples.annotations import AnnotatedObject, AnnotatedSet, Relation

MANY = [one for images in (2, 3, 5) for split in ("train", "val", "ood") for one in make_sets(split, 60, 4, images)]


def by_task(task: str) -> list[AnnotatedSet]:
    return [one for one in MANY if one.task == task]


def holders(one: AnnotatedSet, label: str, images: range) -> list[int]:
    return [image for image in images if label in one.labels(image)]


def test_there_is_every_task_with_answers_in_every_image() -> None:
    assert {one.task for one in MANY} == set(TASKS)
    assert len(TASKS) == 5
    assert {one.answer.box.image for one in by_task("group_grounding")} == {0, 1, 2, 3, 4}
    assert {one.answer.box.image for one in by_task("object_tracking")} == {1, 2, 3, 4}


def test_a_named_object_is_in_one_image_only() -> None:
    for one in by_task("group_grounding"):
        assert one.question == f"Find the {one.answer.label}."
        assert holders(one, one.answer.label, range(len(one.images))) == [one.answer.box.image]


@pytest.mark.parametrize("task", ["object_tracking", "region"])
def test_the_object_of_the_first_image_is_in_one_other(task: str) -> None:
    for one in by_task(task):
        assert holders(one, one.answer.label, range(1, len(one.images))) == [one.answer.box.image]
        relation = one.relation("same")
        assert relation is not None and relation.images == (0, one.answer.box.image)
        first, second = (one.objects[place] for place in relation.objects)
        assert second == one.answer and first.label == second.label and first.box.image == 0
        if task == "object_tracking":
            assert one.labels(0) == [first.label]
        else:
            assert one.regions == (first.box,) and one.question.count("<region>") == 1


def test_one_kind_is_in_every_image_and_no_other() -> None:
    for one in by_task("common_object"):
        everywhere = set.intersection(*(set(one.labels(image)) for image in range(len(one.images))))
        assert everywhere == {one.answer.label}
        assert f"image {one.answer.box.image + 1}" in one.question


def test_two_images_differ_in_one_object_and_in_nothing_else() -> None:
    for one in by_task("diff"):
        assert len(one.images) == 2
        places = [{(o.label, o.box.as_tuple()) for o in one.objects if o.box.image == image} for image in (0, 1)]
        assert places[0] < places[1] and [label for label, _ in places[1] - places[0]] == [one.answer.label]
        assert one.answer.label not in one.labels(0)


def test_no_colour_is_twice_in_an_image() -> None:
    for one in MANY:
        for image in range(len(one.images)):
            labels = [item.label for item in one.objects if item.box.image == image]
            assert len({label.split()[0] for label in labels}) == len(labels)


def test_only_the_shapes_of_the_level_are_drawn() -> None:
    labels = {label.split()[1] for one in MANY for image in range(len(one.images)) for label in one.labels(image)}
    assert labels == set(DIFFICULTY["train"].shapes) == {"square", "diamond", "cross"}
    level = replace(DIFFICULTY["val"], shapes=("circle", "square"))
    sets = make_sets("val", 20, 4, difficulty=level)
    assert {item.attributes["shape"] for one in sets for item in one.objects} == {"circle", "square"}
    for shapes in (("square",), ("square", "square"), ("square", "star")):
        with pytest.raises(ValueError, match="at least two of square, circle, diamond, cross"):
            replace(level, shapes=shapes)


def test_boxes_are_where_the_colours_are() -> None:
    for one in make_sets("val", 10, 3):
        images = [np.asarray(source()) for source in one.images]
        for item in one.objects:
            x, y = map(round, item.box.center)
            patch = images[item.box.image][y - 14 : y + 14, x - 14 : x + 14].reshape(-1, 3).mean(axis=0)
            assert np.abs(patch - COLOURS[item.attributes["colour"]]).max() < 12, item


def test_samples_carry_the_true_box_the_target_and_the_task() -> None:
    for one, sample in zip(make_sets("val", 10, 3), haystack.make_multi("val", 10, 3), strict=True):
        assert sample.boxes == (one.answer.box,) and sample.regions == one.regions and sample.answer is None
        assert sample.metadata == {
            "task": one.task, "target_image": one.answer.box.image, "label": one.answer.label
        }  # fmt: skip


def test_same_arguments_same_sets_and_splits_share_none() -> None:
    def key(one: AnnotatedSet) -> object:
        return one.question, one.objects

    assert [key(one) for one in make_sets("val", 20, 3)] == [key(one) for one in make_sets("val", 30, 3)][:20]
    drawn = [np.asarray(make_sets("val", 1, 3)[0].images[0]()) for _ in range(2)]
    assert (drawn[0] == drawn[1]).all()
    streams = [make_sets(split, 40, seed) for split in ("train", "val") for seed in (0, 1)]
    places = [{repr(one.objects) for one in stream} for stream in streams]
    assert all(not (a & b) for i, a in enumerate(places) for b in places[:i])


def test_tasks_can_be_chosen() -> None:
    assert {one.task for one in make_sets("val", 10, tasks="diff, region")} == {"diff", "region"}
    assert {one.task for one in make_sets("val", 10, tasks=["diff"])} == {"diff"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"split": "test"}, "no split 'test': known are ood, train, val"),
        ({"images": 1}, "images=1: give a whole number from 2 to 6"),
        ({"images": 7}, "from 2 to 6"),
        ({"images": True}, "from 2 to 6"),
        ({"tasks": "dif"}, "no task 'dif': did you mean 'diff'"),
        ({"tasks": "xyz"}, "known are common_object, diff, group_grounding"),
    ],
)
def test_what_cannot_be_made_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(SampleError, match=words):
        make_sets(**{"n": 1, **arguments})


IMAGE = Image.new("RGB", (100, 80))
CUP, DISH = AnnotatedObject("cup", Box(1, 1, 20, 20, 0)), AnnotatedObject("dish", Box(5, 5, 50, 50, 1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"question": " "}, "the question is empty"),
        ({"images": (IMAGE,), "sizes": ()}, "1 images: a set has at least two"),
        ({"target": 2}, "target 2 is none of its 2 objects"),
        ({"target": -1}, "target -1"),
        ({"objects": (CUP, AnnotatedObject(" ", Box(1, 1, 2, 2)))}, "object 1 has no label"),
        ({"objects": (CUP, AnnotatedObject("x", Box(1, 1, 2, 2, 2)))}, r"object 1 \('x'\) is on image 2 of 2"),
        ({"objects": (CUP, AnnotatedObject("x", Box(3, 1, 2, 2)))}, "has no area"),
        ({"objects": (CUP, AnnotatedObject("x", Box(1, 1, float("nan"), 2)))}, "has no area"),
        ({"objects": (CUP, AnnotatedObject("x", Box(1, 1, 101, 2)))}, "reaches out of the 100x80 image"),
        ({"regions": (Box(1, 1, 2, 2),)}, "1 regions for 0 <region>"),
        ({"question": "<region>?", "regions": (Box(1, 1, 200, 2),)}, "region: the box .* reaches out"),
        ({"relations": (Relation("near", (0, 1)),)}, "unknown relation 'near'; known: differs"),
        ({"relations": (Relation("order", (0,)),)}, "name two or more"),
        ({"relations": (Relation("order", (0, 0)),)}, "name two or more"),
        ({"relations": (Relation("order", (0, 2)),)}, "name two or more"),
        ({"relations": (Relation("same", (0, 1), (0, 5)),)}, "which are not all there"),
        ({"relations": (Relation("same", (0, 1), (0, 0)),)}, "give one object in each of its images"),
        ({"relations": (Relation("differs", (0, 1), (0,)),)}, "must be in the last of its images"),
        ({"relations": (Relation("differs", (0, 1)),)}, "must be in the last of its images"),
    ],
)
def test_a_set_that_contradicts_itself_is_refused_by_name(changes: dict, words: str) -> None:
    right = {
        "id": "kitchen", "question": "Where is the cup?", "images": (IMAGE, IMAGE), "objects": (CUP, DISH),
        "target": 0, "sizes": ((100, 80), (100, 80)), "relations": (Relation("same", (0, 1), (0, 1)),),
    }  # fmt: skip
    AnnotatedSet(**right)
    with pytest.raises(SampleError, match=f"'kitchen'.*{words}"):
        AnnotatedSet(**right | changes)
