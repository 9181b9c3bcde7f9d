"""Annotated sets from files: what is read, what is posed, and what every broken field is answered with."""

from __future__ import annotations

import itertools
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from reasoning_fixture import reasons

from mgpo_core.boxes.parse import Box
from mgpo_core.errors import SampleError
from mgpo_core.haystack.multi import make_sets
from mgpo_train.reasoning_data.readers import AnnotationSource, read_annotations
from mgpo_train.reasoning_data.readers.coco_sets import TASKS
from mgpo_train.reasoning_data.writers import write_trace

GOOD: dict[str, Any] = {
    "id": "kitchen-7",
    "question": "Find the object at <region> of image 1 in image 2.",
    "images": ["a.png", "sub/b.png"],
    "objects": [
        {"image": 1, "label": "cup", "bbox": [10, 10, 30, 30.5], "attributes": {"colour": "red"}},
        {"image": 2, "label": "coffee cup", "bbox": [5, 5, 25, 25]},
    ],
    "relations": [{"kind": "same", "images": [1, 2], "objects": [0, 1]}],
    "target": 1,
    "task": "region",
    "regions": [{"image": 1, "bbox": [9, 9, 31, 31]}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (60, 40), "blue").save(tmp_path / "a.png")
    Image.new("RGB", (40, 60), "red").save(tmp_path / "sub" / "b.png")
    return tmp_path


def write(folder: Path, *rows: Any, name: str = "sets.jsonl") -> str:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / name)


def read(input: str, **options: Any) -> Any:
    return read_annotations(AnnotationSource(input, **options))


def changed(**changes: Any) -> dict[str, Any]:
    """The good record with fields replaced; a name with __ steps into lists and objects."""
    row = json.loads(json.dumps(GOOD))
    for path, value in changes.items():
        *steps, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        place = row
        for step in steps:
            place = place[step]
        place[last] = value
    return row


def test_every_field_of_the_schema_is_read(folder) -> None:
    plain = {key: GOOD[key] for key in ("images", "objects", "target")} | {"question": "Which cup?"}
    found = read(write(folder, GOOD, "", plain))
    first, second = found.sets
    assert (first.id, first.question, first.task, first.target) == ("kitchen-7", GOOD["question"], "region", 1)
    assert first.images == (str(folder / "a.png"), str(folder / "sub" / "b.png"))
    assert first.sizes == ((60, 40), (40, 60))
    assert [item.box for item in first.objects] == [Box(10, 10, 30, 30.5, 0), Box(5, 5, 25, 25, 1)]
    assert [item.label for item in first.objects] == ["cup", "coffee cup"]
    assert first.objects[0].attributes == {"colour": "red"}
    [relation] = first.relations
    assert (relation.kind, relation.images, relation.objects) == ("same", (0, 1), (0, 1))
    assert first.regions == (Box(9, 9, 31, 31, 0),)
    assert (second.id, second.relations, second.regions, second.task) == ("3", (), (), "")
    assert not found.left_out


def test_images_may_be_elsewhere_and_are_turned_by_their_exif(folder, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("lists")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(folder / "a.png", exif=exif)
    [one] = read(write(elsewhere, GOOD), images=str(folder)).sets
    assert one.sizes[0] == (40, 60)


BAD: list[tuple[dict[str, Any] | str, str]] = [
    ("{", r"sets\.jsonl, line 2 is not JSON"),
    ("[1]", r"line 2 is a list: write one JSON object per line"),
    (changed(question=" "), r"field 'question' is ' ': give a text"),
    (changed(question=None), r"field 'question' is missing"),
    (changed(images=[]), r"field 'images' is \[\]: give a list, not empty"),
    (
        changed(images=["a.png"], objects=[GOOD["objects"][0]], target=0, relations=[]),
        "1 images: a set has at least two",
    ),
    (changed(images__1="gone.png"), r"field 'images\[1\]' is '.*gone\.png': there is no such file.*--images"),
    (changed(images__1=7), r"field 'images\[1\]' is 7: give a text"),
    (changed(images__1="broken.png"), r"field 'images\[1\]' .* not a readable image"),
    (changed(objects=[]), r"field 'objects' is \[\]"),
    (changed(objects__0=5), r"field 'objects\[0\]' is 5: give an object with image, label, bbox, attributes"),
    (changed(objects__0__image=0), r"field 'objects\[0\]\.image' is 0: give a whole number from 1 to 2"),
    (changed(objects__0__image=3), r"field 'objects\[0\]\.image' is 3"),
    (changed(objects__0__image=True), r"field 'objects\[0\]\.image' is True"),
    (changed(objects__0__label=""), r"field 'objects\[0\]\.label' is ''"),
    (changed(objects__0__label="a <think> b"), r"field 'objects\[0\]\.label' .* without <think>"),
    (changed(objects__0__bbox=[1, 2, 3]), r"field 'objects\[0\]\.bbox' is \[1, 2, 3\]: give \[x1, y1, x2, y2\]"),
    (changed(objects__0__bbox=[1, 2, 3, "4"]), r"field 'objects\[0\]\.bbox'"),
    (changed(objects__0__bbox=[1, 2, 3, 4, True]), r"field 'objects\[0\]\.bbox'"),
    (changed(objects__0__bbox=[1, 2, 3, float("nan")]), r"field 'objects\[0\]\.bbox'"),
    (changed(objects__0__bbox="1 2 3 4"), r"field 'objects\[0\]\.bbox'"),
    (changed(objects__0__bbox=[30, 10, 10, 30]), r"line 2: annotated set 'kitchen-7': object 0 \('cup'\).*no area"),
    (changed(objects__0__bbox=[10, 10, 90, 30]), r"line 2: .*reaches out of the 60x40 image.*after EXIF rotation"),
    (changed(objects__0__attributes=["red"]), r"field 'objects\[0\]\.attributes' is \['red'\]"),
    (changed(objects__0__attributes__colour=3), r"field 'objects\[0\]\.attributes\.colour' is 3"),
    (changed(objects__0__bbx=[1, 2, 3, 4]), r"field 'objects\[0\]\.bbx' is unknown: did you mean 'bbox'"),
    (changed(relations="same"), r"field 'relations' is 'same': give a list"),
    (changed(relations__0__kind="sam"), r"field 'relations\[0\]\.kind' is 'sam': did you mean 'same'"),
    (changed(relations__0__kind=None), r"field 'relations\[0\]\.kind' is missing"),
    (changed(relations__0__images=[1, 9]), r"field 'relations\[0\]\.images\[1\]' is 9"),
    (
        changed(relations__0__objects=[0, 2]),
        r"field 'relations\[0\]\.objects\[1\]' is 2: give a whole number from 0 to 1",
    ),
    (changed(relations__0__objects=[0]), r"line 2: .*relation 'same': give one object in each"),
    (changed(target=2), r"field 'target' is 2: give a whole number from 0 to 1"),
    (changed(target="1"), r"field 'target' is '1'"),
    (changed(task=3), r"field 'task' is 3: give a text"),
    (changed(id=""), r"field 'id' is ''"),
    (changed(id=True), r"field 'id' is True"),
    (changed(id=None), r"field 'id' is missing: give a text or a number, or leave it out"),
    (changed(regions=[]), r"line 2: .*the question: 0 regions for 0|1 <region>"),
    (changed(regions__0__image=4), r"field 'regions\[0\]\.image' is 4"),
    (changed(regions__0__bbox=[1]), r"field 'regions\[0\]\.bbox'"),
    (changed(regons=[]), r"field 'regons' is unknown: did you mean 'regions'"),
]


@pytest.mark.parametrize(
    ("row", "words"), [row for row in BAD if row[0] != changed(regions=[])], ids=lambda value: str(value)[:60]
)
def test_a_bad_line_is_named_with_its_field_and_the_remedy(folder, row, words) -> None:
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:-40])
    path = write(folder, GOOD, row)
    with pytest.raises(SampleError, match=words) as caught:
        read(path)
    assert "sets.jsonl, line 2" in str(caught.value)
    found = read(path, on_bad_record="skip")
    assert len(found.sets) == 1 and sum(found.left_out.values()) == 1 and found.messages == [str(caught.value)]


def test_a_missing_image_is_named_whole_however_long_its_path(tmp_path) -> None:
    folder = tmp_path / ("deep" * 20)
    folder.mkdir()
    path = write(folder, GOOD)
    with pytest.raises(SampleError, match=re.escape(f"'{folder / 'a.png'}': there is no such file")):
        read(path)


def test_bad_lines_are_counted_by_field(folder) -> None:
    path = write(folder, "{", changed(target=9), changed(target=8), changed(objects__0__bbox=[1]), GOOD)
    found = read(path, on_bad_record="skip")
    assert found.left_out == {"bad_record": 1, "bad_target": 2, "bad_objects": 1}


def test_so_many_sets_as_are_wanted_are_read(folder) -> None:
    path = write(folder, *(changed(id=f"s{number}") for number in range(5)))
    assert [one.id for one in read(path, n=3).sets] == ["s0", "s1", "s2"]


@pytest.mark.parametrize(
    ("input", "options", "words"),
    [
        ("nowhere.jsonl", {}, "'nowhere.jsonl' is no file: give a .jsonl file"),
        ("sets.txt", {}, "ends in '.txt'"),
        ("sets.jsonl", {"images": "nowhere"}, "images='nowhere' is not a directory"),
        ("sets.jsonl", {"n": 0}, "n=0: give a positive"),
        ("sets.jsonl", {"on_bad_record": "skp"}, "did you mean 'skip'"),
        ("twice.jsonl", {}, "the id 'kitchen-7' is given to 2 sets"),
        ("empty.jsonl", {}, "gave no annotated set"),
        ("latin.jsonl", {}, "not UTF-8"),
        ("haystack_multi:train?n=3&imges=3", {}, "did you mean 'images'"),
        ("haystack_multi:trian?n=3", {}, "no split 'trian'"),
        ("haystack_multi:train?tasks=dif", {}, "did you mean 'diff'"),
    ],
)
def test_an_input_that_cannot_be_read_says_why(folder, monkeypatch, input, options, words) -> None:
    monkeypatch.chdir(folder)
    write(folder, GOOD)
    write(folder, GOOD, name="sets.txt")
    write(folder, GOOD, GOOD, name="twice.jsonl")
    write(folder, name="empty.jsonl")
    (folder / "latin.jsonl").write_bytes(b'{"question": "caf\xe9"}\n')
    with pytest.raises(SampleError, match=words):
        read(input, **options)


def test_made_sets_are_those_of_the_spec() -> None:
    found = read("haystack_multi:val?n=6&images=4&seed=3&tasks=diff,region")
    made = make_sets("val", 6, 3, 4, "diff,region")
    assert [(one.id, one.question, one.objects) for one in found.sets] == [(m.id, m.question, m.objects) for m in made]
    assert len(read("haystack_multi:val?n=6", n=2).sets) == 2
    assert len(read("haystack_multi:val", n=2).sets) == 2


CATEGORIES = ("cat", "dog", "hot dog", "person", "tree", "car")


def coco(folder: Path, count: int = 24, seed: int = 0, **changes: Any) -> str:
    """A made file of annotations over images of one size, some of them crowds or without area."""
    rng = random.Random(seed)
    Image.new("RGB", (100, 80)).save(folder / "one.png")
    data: dict[str, Any] = {
        "categories": [{"id": 10 + number, "name": name} for number, name in enumerate(CATEGORIES)],
        "images": [{"id": number, "file_name": "one.png", "width": 100, "height": 80} for number in range(count)],
        "annotations": [],
    }
    for image in range(count):
        for _ in range(rng.randint(1, 5)):
            x, y, crowd = rng.randint(0, 70), rng.randint(0, 50), rng.random() < 0.1
            width = 0 if rng.random() < 0.05 else rng.randint(5, 40)
            entry = {"id": len(data["annotations"]), "image_id": image, "category_id": 10 + rng.randrange(6)}
            data["annotations"].append(entry | {"bbox": [x, y, width, 20], "iscrowd": int(crowd)})
    data |= changes
    (folder / "instances.json").write_text(json.dumps(data))
    return str(folder / "instances.json")


def present(path: str) -> list[Counter[str]]:
    """By brute force: how many of each category an image may hold, unclear ones as a hundred."""
    data = json.loads(Path(path).read_text())
    found: list[Counter[str]] = [Counter() for _ in data["images"]]
    for entry in data["annotations"]:
        clear = not entry["iscrowd"] and entry["bbox"][2] > 0
        found[entry["image_id"]][CATEGORIES[entry["category_id"] - 10]] += 1 if clear else 100
    return found


def distinct_images(folder: Path, path: str) -> None:
    """Give each image of the annotations a file of its own, so that a set tells which it is of."""
    data = json.loads(Path(path).read_text())
    for entry in data["images"]:
        entry["file_name"] = f"{entry['id']}.png"
        Image.new("RGB", (100, 80)).save(folder / entry["file_name"])
    Path(path).write_text(json.dumps(data))


@pytest.mark.parametrize("set_images", [2, 3, 4])
def test_coco_questions_have_one_certain_answer(folder, set_images) -> None:
    path = coco(folder, count=40)
    distinct_images(folder, path)
    present_labels = present(path)
    found = read(path, set_images=set_images)
    assert {one.task for one in found.sets} == set(TASKS)
    for one in found.sets:
        places = [int(Path(str(source)).stem) for source in one.images]
        assert len(set(places)) == set_images
        asked, target = one.answer.label, one.answer.box.image
        assert present_labels[places[target]][asked] == 1
        if one.task == "group_grounding":
            assert [asked in present_labels[place] for place in places].count(True) == 1
            assert one.question == f"Find the {asked}." and not one.relations
        else:
            assert set.intersection(*(set(present_labels[place]) for place in places)) == {asked}
            assert all(present_labels[place][asked] < 100 for place in places)
            assert f"image {target + 1}" in one.question and one.relations[0].kind == "common"
        for wording in ("terse", "varied"):
            assert not reasons(one, write_trace(one, wording=wording))
    asked_for = [(one.task, one.images[one.answer.box.image], one.answer.label) for one in found.sets]
    assert len(set(asked_for)) == len(asked_for)


def test_coco_sets_are_a_function_of_the_seed(folder) -> None:
    path = coco(folder, count=30)
    first, again, other = (read(path, n=20, seed=seed).sets for seed in (1, 1, 2))
    assert [one.objects for one in first] == [one.objects for one in again]
    assert [one.objects for one in first] != [one.objects for one in other]
    assert [one.task for one in first[:4]] == ["group_grounding", "common_object"] * 2
    assert {one.task for one in read(path, tasks="common_object").sets} == {"common_object"}


def test_what_coco_annotations_cannot_be_used_for_is_counted(folder) -> None:
    path = coco(folder, count=20)
    data = json.loads(Path(path).read_text())
    data["images"] += [
        {"id": 50, "file_name": "gone.png", "width": 9, "height": 9},
        {"id": 51, "file_name": "cut.png", "width": 100, "height": 80},
        {"id": 52, "file_name": "one.png", "width": 80, "height": 100},
        {"id": 53, "file_name": "one.png"},
        {"id": 54},
        {"id": 0, "file_name": "one.png"},
        "image",
    ]
    (folder / "cut.png").write_bytes((folder / "one.png").read_bytes()[:-40])
    plain = {"category_id": 10, "bbox": [1, 1, 9, 9], "iscrowd": 0}
    data["annotations"] = [entry for entry in data["annotations"] if not entry["iscrowd"] and entry["bbox"][2]]
    data["annotations"] += [plain | {"image_id": image} for image in (50, 51, 52, 54, 99)]
    data["annotations"] += [
        plain | {"image_id": 1, "category_id": 99},
        plain | {"image_id": 1, "category_id": [1]},
        plain | {"image_id": 2, "iscrowd": 1, "bbox": [0, 0, 50, 50]},
        plain | {"image_id": 3, "bbox": [5, 5, 0, 9]},
        plain | {"image_id": 3, "bbox": [500, 5, 9, 9]},
        plain | {"image_id": 3, "bbox": None},
        plain | {"image_id": 3, "bbox": [1, 2, float("inf"), 4]},
        plain | {"image_id": 4, "bbox": [90, 70, 30, 30]},
        [],
    ]
    Path(path).write_text(json.dumps(data))
    cut = sum(
        entry.get("bbox") is not None and entry["bbox"][0] + entry["bbox"][2] > 100
        for entry in data["annotations"][:-14]
    )
    bare = {0, *range(20), 53} - {entry["image_id"] for entry in data["annotations"] if entry}
    found = read(path, n=10_000)
    posed = found.left_out.pop("sets_that_could_not_be_posed")
    assert posed == 10_000 - len(found.sets)
    assert found.left_out == {
        "missing_image": 1,
        "unreadable_image": 1,
        "image_of_another_size": 1,
        "image_without_annotations": len(bare),
        "image_without_file_name": 1,
        "id_given_twice_in_images": 1,
        "bad_entry_of_images": 1,
        "bad_entry_of_annotations": 1,
        "annotation_of_unknown_image": 1,
        "annotation_of_unknown_category": 2,
        "crowd": 1,
        "box_without_area": 4,
        "box_cut_to_its_image": 1 + cut,
    }
    assert any("gone.png" in message and "--images" in message for message in found.messages)


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"images": {}}, {}, "has no list 'images'"),
        ({"annotations": None}, {}, "has no list 'annotations'"),
        ({}, {"set_images": 1}, "set_images=1: give a whole number from 2 to 24"),
        ({}, {"set_images": 25}, "set_images=25"),
        ({}, {"tasks": "common_objct"}, "did you mean 'common_object'"),
        ({"annotations": []}, {}, "gave no annotated set .*image_without_annotations: 24"),
        ({"categories": []}, {}, "annotation_of_unknown_category"),
    ],
)
def test_annotations_that_give_no_sets_say_why(folder, changes, options, words) -> None:
    with pytest.raises(SampleError, match=words):
        read(coco(folder, **changes), **options)


def test_a_file_of_another_kind_is_no_coco(folder) -> None:
    (folder / "x.json").write_text("not json")
    (folder / "y.json").write_text("[]")
    for name, words in (("x.json", "is not JSON"), ("y.json", "has no list 'images'")):
        with pytest.raises(SampleError, match=words):
            read(str(folder / name))


def test_rare_others_are_found_too(folder) -> None:
    """Nearly every image holds the label: the two that do not are not met by chance."""
    Image.new("RGB", (100, 80)).save(folder / "one.png")
    annotations = [
        {"id": image, "image_id": image, "category_id": 1 if image < 98 else 2, "bbox": [1, 1, 9, 9], "iscrowd": 0}
        for image in range(100)
    ]
    data = {
        "images": [{"id": image, "file_name": "one.png"} for image in range(100)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (folder / "instances.json").write_text(json.dumps(data))
    found = read(str(folder / "instances.json"), tasks="group_grounding").sets
    assert Counter(one.answer.label for one in found) == {"cat": 98, "dog": 2}
    assert all(Counter(len(one.labels(image)) for image in range(3)) == {1: 3} for one in found)
    assert len(list(itertools.chain(*(one.images for one in found)))) == 300
