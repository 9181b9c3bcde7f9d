"""Haystack: a function of the seed, true boxes where the shapes are, and marks that only a crop shows."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mgpo_core import CoordinateSpace, SampleError, crop, haystack
from mgpo_core.haystack.world import COLOURS, DIFFICULTY, MARKS, make_scene, make_scenes


def pixels(sample, image: int = 0) -> np.ndarray:
    return np.asarray(sample.load(image))


def scenes(sample) -> list:
    """The scenes behind a sample's images, which are drawn on demand by a partial of Scene.render."""
    return [draw.args[0] for draw in sample.images]


@pytest.mark.parametrize("split", ["train", "val", "ood"])
def test_a_sample_is_a_function_of_split_seed_and_index(split):
    first, again = haystack.make(split, n=3, seed=5), haystack.make(split, n=5, seed=5)
    for a, b in zip(first, again, strict=False):
        assert (a.question, a.answer, a.boxes, a.id) == (b.question, b.answer, b.boxes, b.id)
        assert np.array_equal(pixels(a), pixels(b))
        assert np.array_equal(pixels(a), pixels(a))


def test_seeds_and_splits_give_different_scenes():
    boxes = {s.boxes for split in ("train", "val") for seed in (0, 1) for s in haystack.make(split, n=20, seed=seed)}
    assert len(boxes) == 80


def test_the_true_box_holds_the_named_shape():
    for sample in haystack.make("val", n=12, seed=1):
        image, box = pixels(sample).astype(int), sample.boxes[0]
        x, y = map(round, box.center)
        # between the mark and the outline, to the right of the centre, lies the shape's own colour
        patch = image[y - 3 : y + 4, x + 60 : x + 67].reshape(-1, 3).mean(axis=0)
        assert np.abs(patch - COLOURS[sample.metadata["colour"]]).max() < 12


def test_questions_name_one_shape_only_and_twins_share_its_colour():
    difficulty = DIFFICULTY["val"]
    scenes = [make_scene("val", 0, i, difficulty) for i in range(400)]
    twins = 0
    for scene in scenes:
        names = [shape.name for shape in scene.shapes]
        assert len(set(names)) == len(names)
        twins += any(shape.colour == scene.target.colour for shape in scene.shapes[1:])
    assert 0.1 < twins / len(scenes) < 0.2
    assert {scene.target.mark for scene in scenes} == set(MARKS)


def test_ood_is_larger_fuller_and_smaller_than_train():
    train, ood = DIFFICULTY["train"], DIFFICULTY["ood"]
    assert ood.canvas > train.canvas and ood.objects > train.objects
    assert ood.size[1] / ood.period < train.size[1] / train.period
    assert haystack.make("ood", n=1)[0].load().size == (ood.canvas, ood.canvas)


@pytest.mark.parametrize("split", ["val", "ood"])
def test_marks_change_the_downsized_image_by_rounding_at_most(split):
    from dataclasses import replace

    for index in range(4):
        scene = make_scene(split, 3, index, DIFFICULTY[split])
        small, large = [], []
        for mark in MARKS:
            image = replace(scene, shapes=(replace(scene.target, mark=mark), *scene.shapes[1:])).render()
            small.append(np.asarray(haystack.BUDGET.resize(image)).astype(int))
            large.append(np.asarray(image).astype(int))
        assert max(np.abs(a - small[0]).max() for a in small[1:]) <= 1
        assert min(np.abs(a - large[0]).max() for a in large[1:]) > 80


MADE_BEFORE = {
    ("haystack-train-0-2", "black cross", "A", 4, "71cbb98bc2a13146"): ("train", 3, 0),
    ("haystack-val-7-2", "green square", "B", 4, "e74fbbf9e307b706"): ("val", 3, 7),
    ("haystack-ood-3-2", "yellow diamond", "D", 6, "9cc0bf1ba076eb68"): ("ood", 3, 3),
}
"""Last samples as they were before there were several images: what the checkpoints and published runs have seen."""


@pytest.mark.parametrize("expected", MADE_BEFORE)
def test_samples_of_one_image_stay_what_they_were(expected):
    for sample in (haystack.make(*MADE_BEFORE[expected])[-1], haystack.make(*MADE_BEFORE[expected], images=1)[-1]):
        drawn = hashlib.sha256(sample.load().tobytes()).hexdigest()[:16]
        name = sample.question.removeprefix("Which stripes are on the ").removesuffix("?")
        assert (sample.id, name, sample.answer, sample.metadata["objects"], drawn) == expected
        assert len(sample.images) == 1 and set(sample.metadata) == {"colour", "shape", "objects"}
    assert haystack.make("val", 3, 7)[2].boxes[0].as_tuple() == (
        400.3213957482318, 341.14263291722887, 580.3213957482318, 521.1426329172289,
    )  # fmt: skip


@settings(max_examples=30)
@given(
    split=st.sampled_from(["train", "val", "ood"]),
    seed=st.integers(0, 2**40),
    images=st.integers(2, 6),
    twins=st.sampled_from([0.0, 0.15, 1.0]),
)
def test_exactly_one_of_several_images_holds_the_named_shape(split, seed, images, twins):
    for sample in haystack.make(split, 3, seed, images=images, twins=twins):
        name = f"{sample.metadata['colour']} {sample.metadata['shape']}"
        assert sample.question == f"Which stripes are on the {name}?"
        holders = [(i, s) for i, scene in enumerate(scenes(sample)) for s in scene.shapes if s.name == name]
        ((place, shape),) = holders
        assert len(sample.images) == images and place == sample.metadata["target_image"]
        (box,) = sample.boxes
        assert box.image == place and box.as_tuple() == shape.box.as_tuple()
        assert sample.answer == "ABCD"[MARKS.index(shape.mark)] and sample.choices == MARKS
        assert sample.metadata["objects"] == len(scenes(sample)[place].shapes)
        assert f"{images}-images" in sample.id


def test_every_image_holds_the_named_shape_equally_often():
    for images in (2, 3, 6):
        n = 300 * images
        places = Counter(sample.metadata["target_image"] for sample in haystack.make("train", n, 4, images=images))
        # 300 +- 5 standard deviations
        assert set(places) == set(range(images)) and all(abs(count - 300) < 87 for count in places.values())


def test_the_named_colour_does_not_tell_the_image():
    samples = haystack.make("train", 300, 9, images=3)
    elsewhere = [
        any(
            shape.colour == sample.metadata["colour"]
            for place, scene in enumerate(scenes(sample))
            if place != sample.metadata["target_image"]
            for shape in scene.shapes
        )
        for sample in samples
    ]
    assert np.mean(elsewhere) > 0.7


def test_samples_of_several_images_are_a_function_of_their_arguments():
    first, again = haystack.make("val", 3, 5, images=3), haystack.make("val", 5, 5, images=3)
    for a, b in zip(first, again, strict=False):
        assert (a.question, a.answer, a.boxes, a.id, a.metadata) == (b.question, b.answer, b.boxes, b.id, b.metadata)
        assert scenes(a) == scenes(b)
    assert all(np.array_equal(pixels(first[0], i), pixels(again[0], i)) for i in range(3))
    assert not np.array_equal(pixels(first[0], 0), pixels(first[0], 1))


def test_the_true_box_of_several_images_holds_the_named_shape():
    for sample in haystack.make("val", n=6, seed=1, images=2):
        (box,) = sample.boxes
        image = pixels(sample, box.image).astype(int)
        x, y = map(round, box.center)
        patch = image[y - 3 : y + 4, x + 60 : x + 67].reshape(-1, 3).mean(axis=0)
        assert np.abs(patch - COLOURS[sample.metadata["colour"]]).max() < 12


def test_no_two_samples_share_a_scene():
    made = [
        scene.shapes
        for split in ("train", "val")
        for seed in (0, 1)
        for images in (1, 2, 3)
        for sample in haystack.make(split, 40, seed, images=images)
        for scene in scenes(sample)
    ]
    assert len(set(made)) == len(made) == 2 * 2 * 40 * (1 + 2 + 3)


def test_images_are_not_drawn_before_they_are_loaded(monkeypatch):
    drawn = []
    render = haystack.Scene.render
    monkeypatch.setattr(haystack.Scene, "render", lambda scene: drawn.append(scene) or render(scene))
    (sample,) = haystack.make("val", 1, 0, images=3)
    assert not drawn
    sample.load(2)
    assert drawn == [make_scenes("val", 0, 0, 3, DIFFICULTY["val"])[0][2]]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"split": "test"}, "known are ood, train, val"),
        ({"canvass": 1344}, "canvas"),
        ({"canvas": 1000}, "multiple"),
        ({"objects": (1, 9)}, "fewest"),
        ({"mark": 200}, "mark"),
        ({"twins": 2.0}, "share"),
        ({"noise": "abc"}, "noise='abc': give a number"),
        ({"noise": -1}, "0 or more"),
        ({"twins": True}, "give a number"),
        ({"canvas": "big"}, "canvas='big': give a whole number"),
        ({"seen": 0}, "from 1"),
        ({"amplitude": 64}, "from 0 to 63"),
        ({"size": 100}, "0.7 times the smallest"),
        ({"size": (160, 200, 240)}, "or two"),
        ({"objects": 5.0}, "give a whole number"),
        ({"objects": 6, "size": 440}, "do not fit"),
        ({"images": 0}, "images=0: give a whole number from 1 to 6"),
        ({"images": 7}, "from 1 to 6"),
        ({"images": 2.0}, "whole number"),
        ({"images": True}, "whole number"),
        ({"image": 3}, "did you mean 'images'"),
    ],
)
def test_wrong_arguments_are_refused_with_a_hint(arguments, hint):
    with pytest.raises(SampleError, match=hint):
        haystack.make(**arguments)


def test_one_number_is_both_ends_of_a_range():
    (sample,) = haystack.make(n=1, objects=5, size=200)
    (same,) = haystack.make(n=1, objects=[5, 5], size=(200, 200))
    assert sample.metadata["objects"] == 5
    assert round(sample.boxes[0].width) == 200
    assert sample.boxes == same.boxes


def test_scenes_at_the_limit_of_the_room_are_still_made():
    assert len(haystack.make(n=4, objects=6, size=300, mark=112)) == 4


@pytest.mark.parametrize("name", haystack.CHECKPOINTS)
def test_checkpoints_are_installed_and_small(name):
    folder = haystack.checkpoint(name)
    files = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json"} <= files
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6


def test_an_unknown_checkpoint_is_refused():
    with pytest.raises(SampleError, match="base, mgpo"):
        haystack.checkpoint("large")


@pytest.mark.slow
def test_a_probe_reads_the_mark_from_a_crop_only():
    """The probe is told where the target is, which no policy is; on crops the same probe is nearly always right."""
    small, large, labels = [], [], []
    for index in range(750):
        scene = make_scene("train", 21, index, DIFFICULTY["train"])
        image = scene.render()
        seen = haystack.BUDGET.resize(image)
        for shape in scene.shapes:
            x, y = shape.x / 8, shape.y / 8
            small.append(np.asarray(seen.crop((round(x) - 14, round(y) - 14, round(x) + 14, round(y) + 14))))
            box = type(shape.box)(*(min(max(v, 0), 168) for v in (x - 16, y - 16, x + 16, y + 16)))
            zoomed = crop(image, box, budget=haystack.BUDGET, space=CoordinateSpace.ABSOLUTE).image
            middle = Image.fromarray(np.asarray(zoomed)).crop(
                (zoomed.width // 2 - 28, zoomed.height // 2 - 28) + (zoomed.width // 2 + 28, zoomed.height // 2 + 28)
            )
            large.append(np.asarray(middle))
            labels.append(MARKS.index(shape.mark))
    assert probe_accuracy(np.stack(large[:1000]), np.array(labels[:1000]), epochs=3) > 0.9
    assert probe_accuracy(np.stack(small), np.array(labels), epochs=12) < 0.32  # chance is 0.25, 600 held-out shapes


def probe_accuracy(pixels: np.ndarray, labels: np.ndarray, epochs: int) -> float:
    """Held-out accuracy of a small convolutional network trained on four fifths of the images."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    images = (images - images.mean(dim=(2, 3), keepdim=True)) / 20
    target = torch.from_numpy(labels)
    cut = len(labels) * 4 // 5
    net = nn.Sequential(
        nn.Conv2d(3, 24, 5, padding=2), nn.ReLU(), nn.Conv2d(24, 24, 5, padding=2, stride=2), nn.ReLU(),
        nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(3), nn.Flatten(), nn.Linear(288, 4),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
    for _ in range(epochs):
        for rows in torch.randperm(cut).split(48):
            loss = nn.functional.cross_entropy(net(images[rows]), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return float((net(images[cut:]).argmax(1) == target[cut:]).float().mean())
