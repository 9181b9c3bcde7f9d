"""What the verifier reads in English sentences: each one here is true of three photographs, or false for one reason."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from trajectory_fixture import Kitchen, check, reasons

from mgpo_core.annotations import Relation
from mgpo_core.boxes import Box, CoordinateSpace
from mgpo_train.trajectories.problems import Reason

PLAIN = Kitchen.of()
# image 1: a red cup (upper left), two coffee cups (upper right), a wooden table (lower middle)
# image 2: a brown dog (centre), a metal table (lower left); image 3: a blue cup (lower right), a black dog (left), two
# people

# The claims are held against labels, not against all that a sentence may mean: what is not understood is let pass.
TRUE = """\
Image 1 shows a cup, two coffee cups and a table.
The first image holds a table, but no dog.
In the second image there is a dog; there is no cup.
Image 2 has neither a cup nor a coffee cup.
Image 2 does not show any cup, and it has a table.
Image 2 doesn't hold a person or a coffee cup.
The third image lacks the table and holds two people.
In image 3 the table is missing, and the coffee cups are not there either.
The last image is without a table but with a dog.
There is no dog in image 1.
No person is visible in image 1 or image 2.
The dog is not in image 1, but it is in image 2.
The dog is in image 2 and image 3, not in image 1.
The table is missing from image 3 but present in images 1 and 2.
Image 1 shows a cup and image 2 a dog.
Image 1 shows a table, while image 3 has none.
Image 3 holds a dog that is not in image 1.
Image 2 holds a table, which image 3 lacks.
The dog of image 2 stands beside a table.
The person is in neither image 1 nor image 2.
Images 1 and 2 both hold a table.
Images 2-3 show a dog.
Images 2 to 3 show a dog.
The second and third images show a dog.
The last two images show a dog.
Not every image holds a dog.
The dog is not in all images.
The table is not in every image.
Every image holds a dog or something else, whether or not there is a table?
None of the images holds a knife.
No image shows a knife, and no other image than image 3 has a person.
Only image 3 holds a person.
The person is only in image 3.
The person is in image 3 alone.
Image 3 is the only image with a person.
The person is in image 3 and in none of the others.
The person is in image 3 and nowhere else.
The person is not in any other image than image 3.
The coffee cup is in image 1, not in the other images.
Of images 2 and 3, only image 3 holds a cup.
Image 2 holds only a dog and a table.
Image 1 shows not only a cup but also a table.
Unlike image 1, image 2 has a dog.
The cup in image 3 is not like the coffee cup.
The question asks for the cup: which image holds a knife?
I look for the dog of image 1 in the others.
I need to find the dog in image 1.
Image 3 shows two people.
Image 1 holds a coffee cup and a cup.
The cup lies in the upper left of image 1.
The cup lies in the lower right corner of image 3, at [800, 800, 950, 950].
In the lower right of image 3 is the cup, and in the middle left the dog.
In image 2 the dog is in the centre.
The dog of image 3 is on the left side.
The dog is to the left of the cup in image 3.
The right image is image 3.
The coffee cup of image 1 is in the upper right half, at [700, 100, 800, 200].
Image 1 holds a cup [100, 100, 200, 200], a coffee cup [900, 100, 1000, 200] and a table (200, 600, 800, 950).
The table in image 2 is not in the upper right.
The cup in image 1 is red.
A red cup stands in image 1, a blue cup in image 3.
The cup in image 3 is blue, not red.
The cup in image 3 is not red.
The cup of image 1 has a red handle.
The table of image 2 is metal in material.
The dog in image 2 is brown; it is in the middle.
The person in image 3 is black.
Image 2 holds a table [1, 600, 301, 999].
Image 3 shows a cup. It also holds a dog.
Image 1 and image 3 share the cup.
What images 2 and 3 have in common is the dog.
Images 1 and 2 have a table in common.
The images have nothing in common.
The images differ.
Image 1 and image 3 differ in the table.
The dogs of images 2 and 3 are not the same object.
The images do not show the same scene.
Compared with image 1, image 2 shows a dog.
"""

FALSE = {
    Reason.UNKNOWN_IMAGE: """\
Image 4 shows a cup.
The fifth image is dark.
Images 1, 2 and 4 are bright.
Image 0 shows a cup.
""",
    Reason.FALSE_PRESENCE: """\
Image 1 shows a cup, a dog and a table.
The second image holds a cup.
In image 2 there is a coffee cup.
Image 2 has a coffee cup, but no cup.
The dog is in image 1.
The dog is in image 2 and image 1.
The person is in image 2, not in image 1.
The third image does not lack the table.
Image 1 shows a cup and image 2 a person.
Image 2 has no cup, but it has a person.
Image 1 has no dog, and a person.
Images 1 and 2 both hold a dog.
Images 1-3 hold a table.
Images 1-3 show a cup.
Images 1 through 3 show a cup.
The last two images show a cup.
The coffee cups are in the third image.
Image 3 shows a cup. It also holds a table.
Image 2 shows a dog. There is also a person.
The dog of image 2 stands beside a person.
The person in image 2 is tall.
Image 1 shows a table, and image 3 has one too.
""",
    Reason.FALSE_ABSENCE: """\
Image 1 holds a cup, but no table.
The third image lacks the dog.
Image 3 has neither a cup nor a table.
In image 2 the dog is missing.
In image 2, the table is not visible.
The dog is in image 3, but not in image 2.
There is no coffee cup in image 1.
The table is absent from image 1.
Image 3 doesn't show any person.
Image 1 holds a cup, which image 3 lacks.
Image 2 shows a dog, but image 3 has none.
The dog is not in image 1, and not in image 2.
I see no people in the third image.
No person is visible in image 1 or image 3.
""",
    Reason.FALSE_COMPARISON: """\
Every image holds a table.
The dog is in all images.
All three images show a cup.
Each of the images has a dog.
The cup is in none of the images.
No image holds a person.
None of the images shows a table.
Only image 3 holds a cup.
The dog is only in image 2.
The table is in image 1 alone.
Image 3 is the only image with a dog.
The dog is in image 3 and in none of the others.
The table is in image 1 and nowhere else.
The dog is not in any other image than image 3.
Image 2 holds only a dog.
Not every image holds a table, and all of them hold a dog.
Of images 2 and 3, only image 3 holds a dog.
The cup is in image 3 and in the other images.
""",
    Reason.FALSE_COUNT: """\
Image 1 shows three coffee cups.
In the third image there are 4 people.
Image 2 holds two dogs.
""",
    Reason.FALSE_RELATION: """\
The dog of image 2 and the dog of image 3 are one and the same.
Images 1 and 3 show the same cup.
The cups are identical.
Images 1 and 2 show the same object.
The images show the same scene.
Image 2 is taken from a different angle.
The images follow each other in time.
Image 2 and image 3 are consecutive frames.
What all images have in common is the table.
The dog is common to all images.
Images 1 and 2 share the dog.
What images 1 and 2 have in common is the person.
Images 1 and 3 have no cup in common.
The images have no cup in common, but images 1 and 2 share the coffee cup.
""",
    Reason.FALSE_POSITION: """\
The cup lies in the lower left of image 1.
The cup lies in the upper left corner of image 3.
In the lower right of image 3 is the dog.
In image 2 the dog is at the top left corner.
The dog of image 3 is on the right side.
The coffee cup of image 1 is at the bottom.
The table in image 2 is not in the lower left.
""",
    Reason.FALSE_BOX: """\
The cup of image 3 is at [100, 100, 200, 200].
The dog in image 2 is at [450, 450, 550, 1200].
The dog in image 2 is at [550, 450, 450, 550].
At [10, 10, 20, 20] of image 1 is the cup.
Image 1 holds a coffee cup at [900, 100, 1001, 200].
Image 2 holds a table at [0, 600, 300, 1001].
Image 2 holds a table at [-1, 600, 300, 1000].
Image 1 holds a cup [700, 100, 800, 200] and a coffee cup [100, 100, 200, 200].
In image 3, something lies at [450, 450, 550, 550].
""",
    Reason.FALSE_ATTRIBUTE: """\
The cup in image 1 is blue.
A blue cup stands in image 1.
The cup in image 3 is red.
The cup in image 3 is not blue.
The table of image 2 is wood in material.
The dog in image 2 is brown and the dog in image 3 is white.
The dog in image 2 is in the middle; it is black.
""",
    Reason.SPEAKS_OF_ANNOTATIONS: """\
The annotations say so.
According to the ground truth, it is there.
The provided data leave no doubt.
The JSON names it.
""",
}


@pytest.mark.parametrize("sentence", TRUE.splitlines())
def test_what_is_true_is_let_pass(sentence: str) -> None:
    assert PLAIN.told(sentence) == set()


@pytest.mark.parametrize(
    ("reason", "sentence"), [(reason, line) for reason, lines in FALSE.items() for line in lines.splitlines()]
)
def test_what_is_false_is_told_by_its_reason(reason: Reason, sentence: str) -> None:
    told = PLAIN.told(sentence)
    assert told == {reason} or (reason is Reason.FALSE_RELATION and reason in told)


RELATED = Kitchen.of(
    Relation("same", (1, 2), (4, 7)),
    Relation("order", (0, 1, 2)),
    Relation("view", (0, 2)),
    Relation("differs", (0, 2), (8,)),
)


@pytest.mark.parametrize(
    "sentence",
    [
        "The dog of image 2 and the dog of image 3 are one and the same.",
        "Images 2 and 3 show the same dog.",
        "Image 1 does not show the same dog.",
        "All images follow each other in time.",
        "The images follow each other in time.",
        "Images 1 and 3 show the same scene, from different sides.",
        "These are not the same object.",
        "What is new in image 3 is the person.",
        "What image 3 adds is the person.",
        "The difference is the person, absent from image 1 and present in image 3.",
    ],
)
def test_relations_that_are_annotated_may_be_told(sentence: str) -> None:
    assert RELATED.told(sentence) == set()


@pytest.mark.parametrize(
    "sentence",
    [
        "Images 1 and 3 show the same dog.",
        "Images 2 and 3 show the same cup.",
        "The dog of image 2 and the cup of image 3 are one and the same.",
        "The dogs of images 2 and 3 are not the same object.",
        "All images show the same scene from different sides.",
        "The images do not follow each other in time.",
        "What is new in image 3 is the cup.",
        "The images do not differ.",
        "There is no difference.",
    ],
)
def test_other_relations_than_the_annotated_ones_are_refused(sentence: str) -> None:
    assert Reason.FALSE_RELATION in RELATED.told(sentence)


@pytest.mark.parametrize(
    "sentence", ["Image 1 holds a knife.", "The third image shows three knives.", "A KNIFE is in image 2."]
)
def test_labels_of_other_sets_are_known_to_be_in_none_of_these_images(sentence: str) -> None:
    assert PLAIN.told(sentence) == set()
    assert Reason.FALSE_PRESENCE in PLAIN.told(sentence, vocabulary={"knife"})
    assert PLAIN.told("Image 1 holds no knife.", vocabulary={"knife"}) == set()


def test_a_part_that_the_question_points_at_may_be_spoken_of() -> None:
    pointed_at = dataclasses.replace(
        PLAIN.annotated, question="What is at <region>?", regions=(Box(90, 90, 300, 300, 0),)
    )
    sentence = "The part at [90, 90, 300, 300] of image 1 holds something."
    assert PLAIN.told(sentence) == {Reason.FALSE_BOX}
    assert Kitchen(pointed_at).told(sentence) == set()
    assert Kitchen(pointed_at).told(sentence.replace("image 1", "image 2")) == {Reason.FALSE_BOX}


@pytest.mark.parametrize(
    ("sentence", "weighs"),
    [
        ("Image 3 holds a cup.", True),
        ("The third image: no table.", True),
        ("Looking at image 3, I see people.", True),
        ("In image 3 there is nothing like a knife.", True),
        ("Image 2 shows a dog and image 3 a cup.", True),
        ("Images 2 and 3 hold a dog.", True),
        ("Image 3 is the last one.", False),
        ("Does image 3 hold a cup?", False),
        ("Only image 3 holds a person.", False),
        ("That leaves image 3: no other image holds a person.", False),
        ("What is new in image 3 is the person.", False),
        ("The person is in image 3.", False),
        ("Images 2 and 3 share the dog.", False),
        ("Compared with image 2, image 3 has a cup.", False),
        ("All images hold something, no cup in image 2.", False),
        ("Image 3 is the answer, with its cup.", False),
    ],
)
def test_an_image_is_weighed_by_what_is_said_of_it_alone_before_any_object(sentence: str, weighs: bool) -> None:
    text = PLAIN.response().replace("Image 3: cup.", sentence)
    found = reasons(check(PLAIN.annotated, text, space=CoordinateSpace.RELATIVE_1000))
    assert (Reason.IMAGE_NOT_WEIGHED in found) != weighs


WHOLE = [
    """Image 1 shows a red cup in the upper left, two coffee cups in the upper right and a wooden table across the
    lower middle. Image 2 shows a brown dog in the centre and a metal table in the lower left corner, with no cup.
    Image 3 contains a blue cup in the lower right, a black dog on the left, and two people standing in the
    middle. The cup asked about is therefore the one in image 3: it is located in the lower right corner, at [800,
    800, 950, 950].""",
    """Let me go through the images one by one. **Image 1**: There is a cup, there are two coffee cups, and a table.
    **Image 2**: There is a dog near the centre and a table; no cup is visible. **Image 3**: There is a cup, a
    dog, and two people. The question is about the cup that stands apart from the coffee cups. The cup is in image
    3, in the lower right corner, with the bounding box [800, 800, 950, 950].""",
    """Image 1 contains a table at [200, 600, 800, 950], a cup at [100, 100, 200, 200], and two coffee cups at [700,
    100, 800, 200] and [900, 100, 1000, 200]. Image 2 contains only a dog at [450, 450, 550, 550] and a table at
    [0, 600, 300, 1000], so there is no cup here. Image 3 contains a dog at [50, 450, 150, 550], two people, and a
    cup at [800, 800, 950, 950]. Since image 2 has no cup, the choice is between images 1 and 3. The cup we want
    is in image 3, located at the bottom right, [800, 800, 950, 950].""",
    """In the first image, I see a table with a cup and two coffee cups. In the second image, a dog sits next to a
    table, but I don't see any cup. In the third image, there's a dog, two people, and a cup. Both image 1 and
    image 3 contain a cup, while image 2 does not. The cup in question is the blue one: it is in image 3, in the
    bottom right part of the image.""",
    """Image 1 features a cup, coffee cups and a table. Image 2 features a dog and a table. It doesn't include a cup.
    Image 3 features a cup, along with a dog and two persons. Comparing these, the cup appears in image 1 and
    image 3, but the dog appears only in images 2 and 3. The cup in image 3 is located at [800, 800, 950, 950] in
    the lower-right corner.""",
    """First, image 1 shows a cup and two coffee cups on a table. Next, image 2 shows a dog beside a table, without a
    cup. Finally, image 3 shows a dog, a cup, and two people. So the cup can be found in image 3 at the lower
    right.""",
    """The first image depicts a wooden table, with a red cup to the left of two coffee cups. The second image
    depicts a brown dog; the cup is absent. The third image depicts two people, a black dog to the left of them,
    and a blue cup to the right. The blue cup is the object we are looking for. It is in image 3, near the bottom
    right corner.""",
]


def unwrapped(text: str) -> str:
    return text.replace("\n    ", " ")


def whole(reasoning: str) -> set[Reason]:
    text = f"<think>{reasoning}</think>" + PLAIN.response().partition("</think>")[2]
    return reasons(check(PLAIN.annotated, text, space=CoordinateSpace.RELATIVE_1000))


@pytest.mark.parametrize("reasoning", WHOLE, ids=range(len(WHOLE)))
def test_reasonings_as_models_write_them_are_kept(reasoning: str) -> None:
    assert whole(unwrapped(reasoning)) == set()


@pytest.mark.parametrize(
    ("number", "right", "false", "reason"),
    [
        (0, "with no cup", "with a cup", Reason.FALSE_PRESENCE),
        (0, "blue cup", "red cup", Reason.FALSE_ATTRIBUTE),
        (0, "two coffee cups", "three coffee cups", Reason.FALSE_COUNT),
        (0, "is located in the lower right", "is located in the upper left", Reason.FALSE_POSITION),
        (1, "no cup is visible", "a cup is visible", Reason.FALSE_PRESENCE),
        (1, "**Image 2**: There is a dog near", "Something lies near", Reason.IMAGE_NOT_WEIGHED),
        (1, "The cup is in image 3", "The cup is in image 1", Reason.CONTRADICTS_ANSWER),
        (2, "a dog at [450, 450, 550, 550]", "a dog at [50, 450, 150, 550]", Reason.FALSE_BOX),
        (2, "contains only a dog at [450, 450, 550, 550] and a table", "contains only a dog", Reason.FALSE_COMPARISON),
        (2, "so there is no cup here", "so there is a cup here", Reason.FALSE_PRESENCE),
        (3, "while image 2 does not", "and image 2 does too", Reason.FALSE_PRESENCE),
        (3, "Both image 1 and image 3", "Both image 1 and image 2", Reason.FALSE_PRESENCE),
        (4, "It doesn't include a cup", "It also includes a cup", Reason.FALSE_PRESENCE),
        (4, "only in images 2 and 3", "only in image 2", Reason.FALSE_COMPARISON),
        (5, "So the cup can be found in image 3 at the lower right.", "", Reason.NO_CONCLUSION),
        (6, "the cup is absent", "the dog is absent", Reason.FALSE_ABSENCE),
        (6, "It is in image 3", "It is in image 1", Reason.CONTRADICTS_ANSWER),
        (6, "It is in image 3, near the bottom right corner.", "", Reason.NO_CONCLUSION),
    ],
)
def test_one_false_word_in_them_is_found(number: int, right: str, false: str, reason: Reason) -> None:
    reasoning = unwrapped(WHOLE[number])
    assert right in reasoning
    assert reason in whole(reasoning.replace(right, false))
