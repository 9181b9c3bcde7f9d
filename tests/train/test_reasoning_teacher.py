"""A teacher behind a chat server: what it is asked, what is kept of its replies, and that nothing is asked twice."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from patience import HANG
from PIL import Image

pytest.importorskip("openai")

import openai._base_client

from mgpo_core.annotations import RELATIONS
from mgpo_core.boxes import Box, CoordinateSpace, iou
from mgpo_core.engines import openai as engine_module
from mgpo_core.errors import EngineError
from mgpo_core.multi_image import solution_text
from mgpo_core.regions import REGION
from mgpo_train.options import ConfigError
from mgpo_train.reasoning_data.build import main
from mgpo_train.reasoning_data.outcomes import teacher_outcomes
from mgpo_train.reasoning_data.teacher.client import Teacher, TeacherOptions
from mgpo_train.reasoning_data.teacher.journal import Reply, ReplyJournal
from mgpo_train.reasoning_data.teacher.reply import ReplyError, read_reply
from mgpo_train.reasoning_data.verifier import Reason, Verifier
from mgpo_train.reasoning_data.writers import write_trace

sys.path.insert(0, str(Path(__file__).parent))
from reasoning_fixture import BUDGET, VERIFIER, haystack_sets, kitchen, reply_of, reply_text, scene_set

ABSOLUTE = CoordinateSpace.ABSOLUTE


@dataclasses.dataclass
class ChatServer:
    """Answers every prompt by `script(prompt, how often it was asked before)`; an int is an HTTP error."""

    script: Callable[[str, int], str | int] = lambda prompt, before: "?"
    url: str = ""
    prompts: list[str] = dataclasses.field(default_factory=list)
    bodies: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    open_now: int = 0
    most_open: int = 0
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any]) -> str | int:
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        with self.lock:
            before = self.prompts.count(prompt)
            self.prompts.append(prompt)
            self.bodies.append(body)
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
        try:
            return self.script(prompt, before)
        finally:
            with self.lock:
                self.open_now -= 1


def handler_of(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.say(200, {"object": "list", "data": [{"id": "tutor", "object": "model", "owned_by": "us"}]})

        def do_POST(self) -> None:
            answer = server.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if isinstance(answer, int):
                return self.say(answer, {"error": {"message": "no such luck", "code": answer}})
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for delta, end in (({"content": answer}, None), ({}, "stop")):
                chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
                self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            return None

        def say(self, status: int, data: dict[str, Any]) -> None:
            text = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch) -> Iterator[ChatServer]:
    """Without pauses between attempts."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.0)
    monkeypatch.setattr(engine_module, "_PAUSE", 0.0)
    chat = ChatServer()
    listener = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(chat))
    listener.daemon_threads = True
    chat.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield chat
    listener.shutdown()
    listener.server_close()
    thread.join()


SETS = haystack_sets(2, 12)


def tutor(sets=SETS, wording: str = "varied") -> Callable[[str, int], str]:
    """Replies as the rules would write, to the set whose annotations the prompt tells."""
    texts = {known_of(prompt_of(one)): reply_text(one, write_trace(one, wording=wording)) for one in sets}
    return lambda prompt, before: texts[known_of(prompt)]


def known_of(prompt: str) -> str:
    return re.search(r"\{\"images\".*", prompt)[0]  # type: ignore[index]


def prompt_of(one, **options: Any) -> str:
    teacher = Teacher(TeacherOptions("", "tutor"), ReplyJournal(Path("nowhere")), budget=BUDGET, space=ABSOLUTE)
    episode = teacher._episode(one, "key", 0)
    return episode.messages[-1]["content"][-1]["text"]


def teacher_at(server: ChatServer, folder: Path, **options: Any) -> Teacher:
    asked = TeacherOptions(server.url, "tutor", **({"retries": 1, "timeout": HANG} | options))
    return Teacher(asked, ReplyJournal(folder / "teacher.jsonl"), budget=BUDGET, space=ABSOLUTE)


TOLERANT = Verifier(BUDGET, ABSOLUTE, 0.7)


def test_a_prompt_tells_the_question_and_all_annotations_in_the_models_numbers() -> None:
    region = next(one for one in SETS if one.task == "region")
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
    assert known["relations"][0]["images"] == [1, 2] and "one and the same" in known["relations"][0]["meaning"]
    assert "pixels" in prompt and [entry["width"] for entry in known["images"]] == [view.input_sizes[0][0]] * 2
    assert json.dumps(reply_of(region, write_trace(region))["answer"]) in prompt
    assert all(f'"{kind}"' in prompt for kind in RELATIONS)


def test_replies_become_solutions_in_pixels_of_the_originals(server, tmp_path) -> None:
    server.script = tutor()
    outcomes = teacher_outcomes(SETS, TOLERANT, teacher_at(server, tmp_path), attempts=1)
    for one, outcome in zip(SETS, outcomes, strict=True):
        assert outcome.annotated is one and not outcome.failed
        written, given = write_trace(one, wording="varied").solution, outcome.solution
        assert given.label == written.label and given.reasoning == written.reasoning.strip()
        assert [box.image for box in given.regions] == [box.image for box in written.regions]
        for ours, theirs in zip((given.box, *given.regions), (written.box, *written.regions), strict=True):
            assert iou(ours, theirs) > 0.8
        assert solution_text(given, VERIFIER.view(one)) == solution_text(written, VERIFIER.view(one))


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


def test_at_most_so_many_requests_are_open_at_a_time(server, tmp_path) -> None:
    together = threading.Barrier(3)  # three requests have to be open before any is answered
    script = tutor()
    server.script = lambda prompt, before: together.wait(HANG) >= 0 and script(prompt, before)
    teacher_at(server, tmp_path, concurrency=3).ask(SETS, 0)
    assert server.most_open == 3 and len(server.prompts) == len(SETS)


def test_nothing_is_asked_twice(server, tmp_path) -> None:
    server.script = tutor()
    first = teacher_at(server, tmp_path).ask(SETS, 0)
    assert teacher_at(server, tmp_path, concurrency=1).ask(SETS[::-1], 0) == first[::-1]
    assert len(server.prompts) == len(SETS)
    twins = [dataclasses.replace(SETS[0], id=name) for name in ("a", "b")]
    assert teacher_at(server, tmp_path).ask(twins, 0) == [first[0]] * 2
    server.url = "http://127.0.0.1:9"  # nobody listens there, and nobody has to
    assert teacher_at(server, tmp_path).ask(SETS, 0) == first


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"temperature": 0.1},
        {"seed": 5},
        {"max_new_tokens": 9},
        {"top_p": 0.5},
        {"shows_images": True},
    ],
    ids=str,
)
def test_whatever_decides_an_answer_is_in_its_key(tmp_path, change) -> None:
    options = TeacherOptions("http://a", "tutor")
    journal = ReplyJournal(tmp_path / "teacher.jsonl")
    plain, other = (
        Teacher(asked, journal, budget=BUDGET, space=ABSOLUTE)
        for asked in (options, dataclasses.replace(options, **change))
    )
    assert plain.key(SETS[0], 0) == Teacher(
        dataclasses.replace(options, url="http://b", concurrency=2), journal, budget=BUDGET, space=ABSOLUTE
    ).key(SETS[0], 0)
    assert len({plain.key(SETS[0], 0), plain.key(SETS[0], 1), plain.key(SETS[1], 0), other.key(SETS[0], 0)}) == 4


def test_pictures_are_in_the_key_where_they_are_shown(tmp_path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.new("RGB", SETS[0].sizes[0], "red").save(path)
    one = dataclasses.replace(SETS[0], images=tuple(map(str, paths)))
    for shows, same in ((True, False), (False, True)):
        Image.new("RGB", SETS[0].sizes[0], "red").save(paths[1])
        asked = TeacherOptions("", "tutor", shows_images=shows)
        teacher = Teacher(asked, ReplyJournal(tmp_path / "t.jsonl"), budget=BUDGET, space=ABSOLUTE)
        before = teacher.key(one, 0)
        Image.new("RGB", SETS[0].sizes[0], "blue").save(paths[1])
        assert (teacher.key(one, 0) == before) == same


def test_pictures_are_shown_on_demand_at_the_size_of_the_budget(server, tmp_path) -> None:
    server.script = tutor()
    teacher_at(server, tmp_path, shows_images=True).ask(SETS[:1], 0)
    parts = server.bodies[0]["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    shown = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]
    assert [image.size for image in shown] == list(VERIFIER.view(SETS[0]).input_sizes)
    assert all(len(image.getcolors(10**6) or ()) > 5 for image in shown)  # no blanks
    assert parts[0]["text"] == "Image 1: "
    teacher_at(server, tmp_path / "..", temperature=0.1).ask(SETS[:1], 0)
    assert isinstance(server.bodies[1]["messages"][-1]["content"], str)


def test_a_dead_server_is_named_with_the_remedy_and_what_was_answered_is_kept(server, tmp_path) -> None:
    right = tutor()
    server.script = lambda prompt, before: right(prompt, before) if len(server.prompts) <= 5 else 503
    with pytest.raises(EngineError, match=r"127\.0\.0\.1.*did not answer.*503.*run again") as caught:
        teacher_at(server, tmp_path, concurrency=1).ask(SETS, 0)
    assert server.url in str(caught.value)
    kept = ReplyJournal(tmp_path / "teacher.jsonl").replies
    assert len(kept) == 5
    asked = len(server.prompts)
    server.script = right
    assert len(teacher_at(server, tmp_path).ask(SETS, 0)) == len(SETS)
    assert len(server.prompts) - asked == len(SETS) - 5


def test_no_server_at_all_is_named(tmp_path) -> None:
    nobody = ChatServer(url="http://127.0.0.1:9")
    with pytest.raises(EngineError, match=r"http://127\.0\.0\.1:9/v1 cannot be used.*see that url is right"):
        teacher_at(nobody, tmp_path, retries=0).ask(SETS[:1], 0)


def test_a_line_cut_in_half_is_asked_for_again(server, tmp_path) -> None:
    server.script = tutor()
    teacher_at(server, tmp_path).ask(SETS, 0)
    file = tmp_path / "teacher.jsonl"
    data = file.read_bytes()
    file.write_bytes(data[: data.rindex(b'"text"') + 30])
    journal = ReplyJournal(file)
    assert (journal.broken, len(journal.replies)) == (1, len(SETS) - 1)
    before = len(server.prompts)
    teacher_at(server, tmp_path).ask(SETS, 0)
    assert len(server.prompts) == before + 1
    again = ReplyJournal(file)
    assert (again.broken, len(again.replies)) == (1, len(SETS))


def test_a_journal_that_cannot_be_written_says_so(tmp_path) -> None:
    journal = ReplyJournal(tmp_path / "teacher.jsonl")
    (tmp_path / "teacher.jsonl").mkdir()
    with pytest.raises(EngineError, match=r"teacher\.jsonl.*free space.*what was written is kept"):
        journal.add(Reply("key", "id", 0, "text"))


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


def test_a_reply_that_fails_is_asked_for_again_with_another_seed_until_one_passes(server, tmp_path) -> None:
    right, needed = tutor(), {known_of(prompt_of(one)): number % 4 for number, one in enumerate(SETS)}
    server.script = lambda prompt, before: right(prompt, before) if before == needed[known_of(prompt)] else "no"
    outcomes = teacher_outcomes(SETS, TOLERANT, teacher_at(server, tmp_path), attempts=3)
    for number, outcome in enumerate(outcomes):
        assert (outcome.solution is not None) == (number % 4 < 3)
        assert len(outcome.failed) == min(number % 4, 3)
    assert Counter(server.prompts.count(prompt_of(one)) for one in SETS) == {1: 3, 2: 3, 3: 6}
    seeds = [
        body["seed"] for body, prompt in zip(server.bodies, server.prompts, strict=True) if prompt == prompt_of(SETS[3])
    ]
    assert len(set(seeds)) == 3


def arguments(server: ChatServer, folder: Path, *more: str) -> list[str]:
    pixels = ["--min-pixels", str(BUDGET.min_pixels), "--max-pixels", str(BUDGET.max_pixels)]
    given = ["haystack_multi:train?n=12&images=2&seed=2", "--output", str(folder), "--writer", "teacher", *pixels]
    return [*given, "--teacher-url", server.url, "--teacher-model", "tutor", *more]


def test_a_build_goes_on_where_it_was_stopped_and_ends_the_same(server, tmp_path, capsys) -> None:
    right = tutor()
    server.script = lambda prompt, before: right(prompt, before) if len(server.prompts) <= 4 else 400
    with pytest.raises(EngineError, match="status 400"):
        main(arguments(server, tmp_path / "stopped", "--concurrency", "1"))
    journal = tmp_path / "stopped" / "teacher.jsonl"
    journal.write_bytes(journal.read_bytes()[:-40])
    server.script = right
    asked = len(server.prompts)
    assert main(arguments(server, tmp_path / "stopped")) == 0
    assert "1 lines were cut short" in capsys.readouterr().out
    assert len(server.prompts) - asked == 12 - 3
    assert main(arguments(server, tmp_path / "whole")) == 0
    whole, resumed = ((tmp_path / name / "sft_traces.jsonl").read_bytes() for name in ("whole", "stopped"))
    assert whole == resumed and whole.count(b"\n") == 12


def test_a_build_that_is_killed_loses_no_answer(server, tmp_path) -> None:
    held, script = threading.Event(), tutor()

    def three_answers(prompt: str, before: int) -> str | int:
        if len(server.prompts) > 3:
            held.wait(HANG)
        return script(prompt, before)

    server.script = three_answers
    command = [sys.executable, "-m", "mgpo_train.reasoning_data.build"]
    process = subprocess.Popen([*command, *arguments(server, tmp_path, "--concurrency", "1")], stderr=subprocess.PIPE)
    journal = tmp_path / "teacher.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.kill()
    process.wait()
    held.set()
    kept = len(ReplyJournal(journal).replies)
    asked = len(server.prompts)
    assert main(arguments(server, tmp_path)) == 0
    assert len(server.prompts) - asked == 12 - kept
    assert (tmp_path / "sft_traces.jsonl").read_bytes().count(b"\n") == 12


def test_dropped_replies_are_reported_with_text_and_reason(server, tmp_path, capsys) -> None:
    right, last = tutor(), known_of(prompt_of(SETS[-1]))
    server.script = lambda prompt, before: "never" if known_of(prompt) == last else right(prompt, before)
    assert main(arguments(server, tmp_path, "--attempts", "2")) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["kept"], report["dropped"], report["failed_attempts"]) == (11, 1, 2)
    assert report["dropped_by_reason"] == {"reply_not_json": 1}
    lines = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert [(line["id"], line["attempt"], line["text"]) for line in lines] == [
        (SETS[-1].id, n, "never") for n in (1, 2)
    ]
    assert lines[0]["problems"][0]["reason"] == "reply_not_json"
    assert "kept 11 of 12" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--attempts", "0"], "--attempts 0: give a positive"),
        (["--concurrency", "0"], "--concurrency 0"),
        (["--temperature", "0", "--attempts", "2"], "asks the same again"),
        (["--temperature", "-1"], "--temperature -1"),
        (["--min-iou", "1.5"], "--min-iou 1.5"),
        (["--min-pixels", "5000000"], "--min-pixels"),
    ],
)
def test_options_that_cannot_be_are_refused(server, tmp_path, change, words) -> None:
    with pytest.raises(ConfigError, match=words):
        main(arguments(server, tmp_path, *change))
    assert not server.prompts


@pytest.mark.parametrize("missing", ["--teacher-url", "--teacher-model"])
def test_a_teacher_needs_an_address_and_a_name(server, tmp_path, missing) -> None:
    given = arguments(server, tmp_path)
    place = given.index(missing)
    with pytest.raises(ConfigError, match=f"--writer teacher needs {missing}"):
        main(given[:place] + given[place + 2 :])
