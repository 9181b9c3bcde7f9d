"""Saved looks open again as they were; files from anywhere else are refused, and change nothing."""

from __future__ import annotations

import base64
import copy
import io
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mgpo_core import Box
from mgpo_demo.page.actions import Actions
from mgpo_demo.session.limits import DemoError, Limits
from mgpo_demo.session.saved import open_saved, write_html, write_json
from mgpo_demo.session.steps import Question
from mgpo_demo.session.visitors import Visitor

sys.path.insert(0, str(Path(__file__).parent))
from scripted_model import image_of, noise, scripted, usual

LIMITS = Limits(upload_mb=2, megapixels=4)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
QUESTION = Question("Which?", ("red", "blue"), "B", (Box(10, 20, 110, 120),))


def refused(episode) -> str:
    return "I see no area." if episode.wants_box else usual(episode)


def played(tmp_path: Path, limits: Limits = LIMITS) -> tuple[Actions, Visitor]:
    """A visitor with three looks, each of another kind, and a compared model whose box is refused."""
    model, other = scripted(), scripted(refused)
    other.name = "other"
    actions, visitor = Actions(lambda: [model, other], limits), Visitor(limits)
    visitor.show(lambda folder: image_of(noise(640, 480), folder), QUESTION)
    for steps in (
        actions.run(visitor, QUESTION),
        actions.from_box(visitor, QUESTION, Box(100, 100, 400, 400)),
        actions.closer(visitor, QUESTION, Box(50, 60, 450, 400)),
    ):
        visitor.start()
        for _ in steps:
            pass
    return actions, visitor


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Actions, Visitor]]:
    folder = tmp_path_factory.mktemp("saved")
    actions, visitor = played(folder)
    yield write_json(visitor, folder), actions, visitor
    visitor.close()


def test_what_was_saved_opens_again_equal(saved, tmp_path: Path) -> None:
    file, _, first = saved
    again = Visitor(LIMITS)
    open_saved(file, again, LIMITS)
    assert json.loads(write_json(again, tmp_path).read_text()) == json.loads(file.read_text())
    assert [look.by for look in again.steps] == ["model", "person", "closer"]
    assert again.image is not None and again.image.path.read_bytes() == first.image.path.read_bytes()
    for was, now in zip(first.steps, again.steps, strict=True):
        assert (was.box, was.area, was.confidence) == (now.box, now.area, now.confidence)
        for (was_name, was_played), (now_name, now_played) in zip(was.trajectories, now.trajectories, strict=True):
            assert was_name == now_name and was_played.to_dict() == now_played.to_dict()
            assert was_played.originals[0].tobytes() == now_played.originals[0].tobytes()
            pairs = zip(was_played.named_images().values(), now_played.named_images().values(), strict=True)
            assert all(a.tobytes() == b.tobytes() for a, b in pairs)
    assert write_html(again, tmp_path).read_text() == write_html(first, tmp_path).read_text()
    again.close()


def test_looks_of_older_versions_open(saved, tmp_path: Path) -> None:
    data = json.loads(saved[0].read_text())
    data["picture"] = data.pop("image")
    for look in data["looks"]:
        look["direct"] = look.pop("single_turn")
        for played in (look["trajectory"], look["direct"], *(other for _, other in look["others"])):
            if played:
                played["trajectory"]["truth"] = played["trajectory"].pop("ground_truth")
    (tmp_path / "old.json").write_text(json.dumps(data))
    again = Visitor(LIMITS)
    open_saved(tmp_path / "old.json", again, LIMITS)
    assert json.loads(write_json(again, tmp_path).read_text()) == json.loads(saved[0].read_text())
    again.close()


def test_the_history_goes_on_where_it_was(saved) -> None:
    file, actions, _ = saved
    again = Visitor(LIMITS)
    open_saved(file, again, LIMITS)
    ask = actions.check(again, QUESTION.text, "\n".join(QUESTION.choices))
    assert ask == QUESTION
    again.start()
    for _ in actions.from_box(again, ask, Box(200, 100, 500, 400)):
        pass
    assert len(again.steps) == 4
    again.undo()
    assert again.step is not None and again.step.by == "closer"
    again.close()


def test_the_page_shows_what_was_opened(saved) -> None:
    file, actions, first = saved
    again = Visitor(LIMITS)
    news = actions.open(again, file)
    was = actions._parts(first)
    assert {name: news[name] for name in was if name != "image"} == {
        name: value for name, value in was.items() if name != "image"
    }
    assert news["question"] == "Which?" and news["choices"] == "red\nblue"
    again.close()


def test_each_image_is_in_the_file_once(saved) -> None:
    file, _, _ = saved
    data = json.loads(file.read_text())
    uses = [key for look in data["looks"] for name in ("trajectory", "single_turn") if look[name]
            for key in look[name]["images"].values()]  # fmt: skip
    assert len(uses) > len(set(uses)) and set(uses) <= set(data["images"])
    assert len(set(data["images"].values())) == len(data["images"])


def test_nothing_is_saved_before_the_first_look(tmp_path: Path) -> None:
    visitor = Visitor(LIMITS)
    for write in (write_json, write_html):
        with pytest.raises(DemoError, match="press Run first"):
            write(visitor, tmp_path)
    visitor.close()


def test_looks_that_could_not_be_opened_again_are_not_saved(tmp_path: Path) -> None:
    _, visitor = played(tmp_path, Limits(upload_mb=1, megapixels=4))
    visitor.limits = Limits(upload_mb=1, megapixels=1)
    visitor.steps *= 30
    write_json(visitor, tmp_path)  # the same images thirty times are the same images
    visitor.limits = Limits(upload_mb=1, megapixels=1)
    for number in range(40):
        image = noise(200, 200, seed=number)
        visitor.steps[0].trajectory.messages.append({"role": "user", "content": [{"type": "image", "image": image}]})
    with pytest.raises(DemoError, match="more than 1 million pixels"):
        write_json(visitor, tmp_path)
    visitor.limits = Limits(upload_mb=1, megapixels=9)
    with pytest.raises(DemoError, match="MB that can be opened again"):
        write_json(visitor, tmp_path)
    visitor.close()


def put(*place: Any) -> Callable[[dict[str, Any], Any], None]:
    """Puts a value at this place of the data."""

    def put_there(data: Any, value: Any) -> None:
        for step in place[:-1]:
            data = data[step]
        data[place[-1]] = value

    put_there.__name__ = ".".join(map(str, place))
    return put_there


def png(width: int, height: int) -> str:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


FIRST = ("looks", 0, "trajectory", "trajectory")
TURN = (*FIRST, "turns", 0)
BOX = {"x1": 0.0, "y1": 0.0, "x2": 9.0, "y2": 9.0, "image": 0}
BAD: list[tuple[Callable[[dict[str, Any], Any], None], Any]] = [
    (put("format"), "something else"),
    (put("version"), 2),
    (put("looks"), []),
    (put("looks"), {}),
    (put("looks"), "all"),
    (put("further"), 1),
    (put("image", "data"), "/etc/passwd"),
    (put("image", "data"), "file:///etc/passwd"),
    (put("image", "data"), base64.b64encode(b"/etc/passwd").decode()),
    (put("image", "data"), png(3000, 3000)),
    (put("image", "data"), 7),
    (put("image", "data"), png(600, 480)),  # another image than the one that was looked at
    (put("image", "name"), {"a": 1}),
    (put("image"), "/etc/passwd"),
    (put("ask", "question"), 7),
    (put("ask", "question"), ""),
    (put("ask", "question"), "x" * 2001),
    (put("ask", "choices"), ["red"]),
    (put("ask", "choices"), [str(number) for number in range(40)]),
    (put("ask", "choices"), ["red\nblue", "green"]),
    (put("ask", "boxes"), [BOX | {"x1": "left"}]),
    (put("ask", "boxes"), [BOX | {"image": 1}]),
    (put("looks", 0, "by"), HOSTILE),
    (put("looks", 0, "area"), BOX | {"x2": 1e6}),
    (put("looks", 0, "area"), BOX | {"x2": 0.0}),
    (put("looks", 0, "area"), BOX | {"x1": 0.5}),
    (put("looks", 0, "area"), BOX),  # the look was on the whole image
    (put("looks", 0, "others"), [["other"]]),
    (put("looks", 0, "confidence"), {"A": "much"}),
    (put("looks", 0, "confidence"), {"A": 7}),
    (put("looks", 0, "trajectory", "images", "shown-0.png"), "/etc/passwd"),
    (put("looks", 0, "trajectory", "images"), {}),
    (put("looks", 0, "single_turn", "images"), {"original-0.png": "x"}),
    (put(*FIRST, "originals"), ["/etc/passwd"]),
    (put(*FIRST, "original_sizes"), [[10**9, 10**9]]),
    (put(*FIRST, "input_sizes"), [[10**9, 10**9]]),
    (put(*FIRST, "input_sizes"), [[0, 0]]),
    (put(*FIRST, "messages"), []),
    (put(*FIRST, "messages", 0, "content", 0), {"type": "image", "image": "/etc/passwd"}),
    (put(*FIRST, "messages", 0, "content", 0), {"type": "file", "path": "/etc/passwd"}),
    (put(*FIRST, "turns"), []),
    (put(*FIRST, "done"), False),
    (put(*FIRST, "metadata"), {"path": "/etc/passwd"}),
    (put(*FIRST, "true_boxes"), [BOX | {"x2": 1e300}]),
    (put(*FIRST, "budget"), {"min_pixels": 0, "max_pixels": -1, "factor": 0}),
    (put(*TURN, "text"), ["a"]),
    (put(*TURN, "box_original"), BOX | {"x2": 1e9}),
    (put(*TURN, "box"), BOX | {"x2": 1e308}),
    (put(*TURN, "box"), [0, 0, 9, 9]),
    (put(*TURN, "tokens"), 10**400),
    (put(*TURN, "seconds"), -1.0),
    (put(*TURN, "shown_size"), [1]),
    (put(*TURN, "shown_size"), [0, 0]),
]


@pytest.mark.parametrize(("place", "value"), BAD, ids=[f"{place.__name__}={value!r:.30}" for place, value in BAD])
def test_a_file_from_elsewhere_is_refused_in_words_and_changes_nothing(saved, place, value, tmp_path: Path) -> None:
    file, actions, _ = saved
    data = json.loads(file.read_text())
    place(data, value)
    assert_refused(json.dumps(data), actions, file, tmp_path)


def assert_refused(text: str, actions: Actions, good: Path, tmp_path: Path, said: str = ".") -> None:
    """The text is refused to a visitor who has something, and they still have it."""
    visitor = Visitor(LIMITS)
    open_saved(good, visitor, LIMITS)
    before = visitor.image, visitor.question, list(visitor.steps), sorted(visitor.folder.iterdir())
    bad = tmp_path / "bad.json"
    bad.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DemoError, match=said) as told:
        actions.open(visitor, bad)
    assert len(str(told.value)) < 500 and "root:" not in str(told.value)
    assert (visitor.image, visitor.question, visitor.steps, sorted(visitor.folder.iterdir())) == before
    assert json.loads(write_json(visitor, tmp_path).read_text()) == json.loads(good.read_text())
    visitor.close()


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "7", "{", "[" * 100_000, '{"a":' * 100_000, '{"format": "mgpo-demo looks"}', "\ud800", "PK\x03"],
)
def test_what_is_no_such_file_is_refused(saved, text: str, tmp_path: Path) -> None:
    assert_refused(text, saved[1], saved[0], tmp_path, "cannot be opened")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_numbers_that_are_none_are_refused(saved, number: str, tmp_path: Path) -> None:
    file, actions, _ = saved
    for name in ("box", "box_original"):
        data = json.loads(file.read_text())
        put(*TURN, name)(data, BOX | {"x2": "NUMBER"})
        assert_refused(json.dumps(data).replace('"NUMBER"', number), actions, file, tmp_path, "cannot be opened")


def test_thousands_of_looks_are_refused_before_any_is_opened(saved, tmp_path: Path) -> None:
    file, actions, _ = saved
    data = json.loads(file.read_text())
    data["looks"] = [{**data["looks"][1]}] * 300
    assert_refused(json.dumps(data), actions, file, tmp_path, "300 steps; at most 20")


def test_many_images_are_refused_where_one_as_large_would_be(saved, tmp_path: Path) -> None:
    file, actions, _ = saved
    data = json.loads(file.read_text())
    data["images"] |= {str(number): png(1500, 1000) for number in range(5)}  # some hundred bytes, 1.5 megapixels each
    assert_refused(json.dumps(data), actions, file, tmp_path, "over 4 million pixels together")


def test_a_file_that_is_too_large_is_not_read(saved, tmp_path: Path) -> None:
    assert_refused(" " * (LIMITS.saved_bytes + 1), saved[1], saved[0], tmp_path, "has 6 MB")


def test_texts_of_a_file_are_shown_as_texts(saved, tmp_path: Path) -> None:
    file, actions, _ = saved
    data = json.loads(file.read_text())
    data["image"]["name"] = data["ask"]["question"] = HOSTILE
    data["ask"]["choices"] = [HOSTILE, "blue"]
    for look in data["looks"]:
        for played in (look["trajectory"], look["single_turn"], *(other for _, other in look["others"])):
            if played:
                trajectory = played["trajectory"]
                trajectory |= {"question": HOSTILE, "choices": [HOSTILE, "blue"], "sample_id": HOSTILE}
                trajectory["template"] = HOSTILE
                for turn in trajectory["turns"]:
                    turn |= {"text": HOSTILE + "\\boxed{A}", "label": HOSTILE, "finish_reason": HOSTILE}
                    turn["rejection"] = turn["rejection"] and HOSTILE
        look["others"] = [[HOSTILE, other] for _, other in look["others"]]
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(data))
    visitor = Visitor(LIMITS)
    news = actions.open(visitor, bad)
    news.pop("question"), news.pop("choices")  # values of text boxes
    page = json.dumps([value for name, value in news.items() if name != "image"]) + write_html(
        visitor, tmp_path
    ).read_text().replace("<script>", "", 1)  # its own
    assert "alert(1)" in page and "<script>alert" not in page and "<img src=x" not in page
    visitor.close()


SEEDS = 4
JUNK = [None, True, -1, 0, 10**30, 1.5, -2.5e9, "", HOSTILE, "/etc/passwd", [], [[]], {}, [1, 2], "A" * 50, BOX]


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON value."""
    if path:
        yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_is_changed_the_file_is_refused_or_all_of_it_can_be_shown(saved, seed: int, tmp_path: Path) -> None:
    file, actions, _ = saved
    good = json.loads(file.read_text())
    everywhere, rng = list(places(good)), random.Random(seed)
    counts = {"refused": 0, "shown": 0}
    visitor = Visitor(LIMITS)
    bad = tmp_path / "bad.json"
    for _ in range(60):
        data = copy.deepcopy(good)
        put(*rng.choice(everywhere))(data, rng.choice(JUNK))
        bad.write_text(json.dumps(data))
        try:
            actions.open(visitor, bad)
        except DemoError:
            counts["refused"] += 1
            continue
        write_json(visitor, tmp_path)
        write_html(visitor, tmp_path)
        while len(visitor.steps) > 1:
            actions.undo(visitor)
        counts["shown"] += 1
    assert counts["refused"] > 20 and counts["shown"] > 0
    visitor.close()
