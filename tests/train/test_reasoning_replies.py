"""What a teacher is asked, and how its reply is read: a trace, or a named reason why there is none."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from reasoning_fixture import (
    BUDGET,
    VERIFIER,
    haystack_sets,
    kitchen,
    known_of,
    prompt_of,
    reply_of,
    reply_text,
    scene_set,
)

from mgpo_core.boxes.parse import Box, CoordinateSpace
from mgpo_core.boxes.regions import REGION
from mgpo_core.samples.annotations import RELATIONS
from mgpo_train.reasoning_data.teacher.reply import ReplyError, read_reply
from mgpo_train.reasoning_data.verifier import Reason, Verifier
from mgpo_train.reasoning_data.writers import write_trace


def test_a_prompt_holds_the_question_and_all_annotations() -> None:
    region = next(one for one in haystack_sets(2, 6) if one.task == "region")
    prompt, view = prompt_of(region), VERIFIER.view(region)
    known = json.loads(known_of(prompt))
    assert f"at {view.numbers(region.regions[0])} of image 1" in prompt and REGION not in prompt
    told = [
        (entry["image"], thing["label"], thing["bbox_2d"], thing["attributes"])
        for entry in known["images"]
        for thing in entry["objects"]
    ]
    assert told == [
        (item.box.image + 1, item.label, view.numbers(item.box), dict(item.attributes)) for item in region.objects
    ]
    assert (known["relations"][0]["relation"], known["relations"][0]["images"]) == ("same", [1, 2])
    assert "one and the same" in known["relations"][0]["meaning"]
    assert "pixels" in prompt and [entry["width"] for entry in known["images"]] == [view.input_sizes[0][0]] * 2
    assert json.dumps(reply_of(region, write_trace(region))["answer"]) in prompt
    assert all(f'"{kind}"' in prompt for kind in RELATIONS)


@pytest.mark.parametrize("space", CoordinateSpace)
def test_a_reply_is_read_as_the_trace_it_states(space) -> None:
    verifier = Verifier(BUDGET, space)
    for seed in range(60):
        one = scene_set(seed)
        trace = write_trace(one, wording="varied", seed=seed)
        given = read_reply(one, reply_text(one, trace, verifier), verifier.view(one))
        assert verifier.text(one, given) == verifier.text(one, trace)
        assert [type(claim) for claim in given.claims] == [type(claim) for claim in trace.claims]
        assert verifier.problems(one, given) == []


def test_a_region_of_the_question_may_be_named_without_a_claim() -> None:
    one = dataclasses.replace(kitchen(), question="At <region>?", regions=(Box(300, 100, 400, 200, 1),))
    view = VERIFIER.view(one)
    reply = reply_of(one, write_trace(one))
    reply["reasoning"] += f" At {view.numbers(one.regions[0])} there is nothing; it is in image 3."
    given = read_reply(one, json.dumps(reply), view)
    assert given.solution.regions == one.regions and VERIFIER.problems(one, given) == []


def reply(**changes: Any) -> str:
    """A right reply with keys replaced; a name with __ steps into lists and objects, `...` leaves a key out."""
    values = reply_of(KITCHEN, write_trace(KITCHEN))
    for path, value in changes.items():
        *steps, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        place: Any = values
        for step in steps:
            place = place[step]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return json.dumps(values)


KITCHEN = kitchen()
NOT_JSON, MISSING, INVALID = Reason.REPLY_NOT_JSON, Reason.REPLY_MISSING_KEY, Reason.REPLY_INVALID_VALUE
UNREADABLE = [
    (NOT_JSON, ""),
    (NOT_JSON, "I cannot help with that."),
    (NOT_JSON, "<think>Image 1: cup.</think>"),
    (NOT_JSON, reply()[:-40]),
    (NOT_JSON, '{"reasoning": "Image 1.", "claims": [{"image": 1, "lacks": "cup"}, '),
    (NOT_JSON, reply() + reply()),
    (NOT_JSON, '[{"reasoning": "Image 1"}]'),
    (NOT_JSON, "\x00\ud83d" * 50),
    (NOT_JSON, '{"reasoning": "' + "Image 1: no, " * 3000),
    (MISSING, "{}"),
    (MISSING, reply(reasoning=...)),
    (MISSING, reply(claims=...)),
    (MISSING, reply(answer=None)),
    (MISSING, reply(answer__image=...)),
    (MISSING, reply(answer__bbox_2d=...)),
    (MISSING, reply(answer__label=...)),
    (MISSING, reply(claims__0={"image": 1})),
    (MISSING, reply(claims__0={"holds": "cup"})),
    (MISSING, reply(claims__0={"relation": "same"})),
    (INVALID, reply(reasoning=["Image 1"])),
    (INVALID, reply(claims={"image": 1, "holds": "cup"})),
    (INVALID, reply(claims__0="image 1 holds a cup")),
    (INVALID, reply(claims__0={"image": 1, "holds": "cup", "lacks": "dog"})),
    (INVALID, reply(claims__0={"image": 1, "lacks": "dog", "count": 0})),
    (INVALID, reply(claims__0__image="1")),
    (INVALID, reply(claims__0__image=True)),
    (INVALID, reply(claims__0__holds=3)),
    (INVALID, reply(claims__0__count="one")),
    (INVALID, reply(claims__0__attributes=["red"])),
    (INVALID, reply(claims__0__attributes={"colour": 1})),
    (INVALID, reply(claims__0__bbox_2d=[1, 2, 3])),
    (INVALID, reply(claims__0__bbox_2d=[1, 2, 3, float("nan")])),
    (INVALID, reply(claims__0={"relation": "near", "images": [1, 2]})),
    (INVALID, reply(claims__0={"relation": "same", "images": [1, "2"]})),
    (INVALID, reply(claims__0={"relation": "same", "images": [1, 2], "objects": [0]})),
    (INVALID, reply(answer=[{"image": 3}, {"image": 3}])),
    (INVALID, reply(answer__bbox_2d="1 2 3 4")),
    (Reason.NO_SUCH_IMAGE, reply(answer__image=4)),
    (Reason.NO_SUCH_IMAGE, reply(answer__image=0)),
    (Reason.NO_SUCH_IMAGE, reply(claims__0__image=9)),
    (Reason.NO_SUCH_IMAGE, reply(claims__0={"relation": "same", "images": [1, 4]})),
    (Reason.INVALID_BOX, reply(answer__bbox_2d=[30, 10, 10, 30])),
    (Reason.INVALID_BOX, reply(answer__bbox_2d=[10, 10, 4000, 4000])),
    (Reason.INVALID_BOX, reply(claims__0__bbox_2d=[-5, 10, 20, 20])),
    (Reason.INVALID_BOX, reply(claims__0__bbox_2d=[10, 10, 20, 4000])),
    (Reason.INVALID_BOX, reply(claims__0__bbox_2d=[10, 10, 10, 20])),
    (Reason.RESERVED_TEXT, reply(reasoning="Image 1 is at <region>.")),
]


@pytest.mark.parametrize(("reason", "text"), UNREADABLE, ids=[f"{r}-{n}" for n, (r, _) in enumerate(UNREADABLE)])
def test_an_unreadable_reply_has_a_named_reason(reason: Reason, text: str) -> None:
    with pytest.raises(ReplyError) as caught:
        read_reply(KITCHEN, text, VERIFIER.view(KITCHEN))
    assert caught.value.problem.reason is reason and caught.value.problem.detail


def test_prose_around_the_json_and_null_keys_do_no_harm() -> None:
    text = f"Here it is:\n```json\n{reply(claims__0__bbox_2d=None, claims__0__lacks=None)}\n```\nDone."
    assert VERIFIER.problems(KITCHEN, read_reply(KITCHEN, text, VERIFIER.view(KITCHEN))) == []
