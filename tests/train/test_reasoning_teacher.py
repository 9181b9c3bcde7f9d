"""A teacher behind a chat server: what is kept of its replies, and that nothing is asked twice."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import HANG
from PIL import Image

pytest.importorskip("openai")

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
import chat_server
from reasoning_fixture import BUDGET, VERIFIER, haystack_sets, known_of, prompt_of, reply_text

from mgpo_core.boxes.parse import CoordinateSpace, iou
from mgpo_core.errors import EngineError
from mgpo_core.templates.multi_image import solution_text
from mgpo_train.config.options import ConfigError
from mgpo_train.reasoning_data.build import main
from mgpo_train.reasoning_data.outcomes import teacher_outcomes
from mgpo_train.reasoning_data.teacher.client import Teacher, TeacherOptions
from mgpo_train.reasoning_data.teacher.journal import Reply, ReplyJournal
from mgpo_train.reasoning_data.verifier import Reason, Verifier
from mgpo_train.reasoning_data.writers import write_trace

ABSOLUTE = CoordinateSpace.ABSOLUTE
TOLERANT = Verifier(BUDGET, ABSOLUTE, 0.7)
SETS = haystack_sets(2, 6)
KNOWN = [known_of(prompt_of(one)) for one in SETS]
TEXTS = [reply_text(one, write_trace(one, wording="varied")) for one in SETS]


class Tutor:
    """Answers the prompt of set `n` by `script(n, how often it was asked before)`; an int is an HTTP error."""

    def __init__(self, chat: chat_server.ChatServer) -> None:
        self.script: Callable[[int, int], str | int] = lambda n, before: TEXTS[n]
        self.chat, chat.script = chat, self.answer

    @property
    def asked(self) -> list[int]:
        """The sets asked about so far, in order."""
        return [self.set_of(body) for body in self.chat.bodies]

    @staticmethod
    def set_of(body: dict[str, Any]) -> int:
        content = body["messages"][-1]["content"]
        return KNOWN.index(known_of(content if isinstance(content, str) else content[-1]["text"]))

    def answer(self, body: dict[str, Any], number: int) -> chat_server.Reply:
        n = self.set_of(body)
        said = self.script(n, self.asked[:number].count(n))
        return chat_server.Reply([said]) if isinstance(said, str) else chat_server.Reply(status=said)


@pytest.fixture
def tutor(monkeypatch) -> Iterator[Tutor]:
    with chat_server.chatting(monkeypatch) as chat:
        yield Tutor(chat)


def teacher_at(tutor: Tutor, folder: Path, **options: Any) -> Teacher:
    asked = TeacherOptions(tutor.chat.url, "tiny", **({"retries": 1, "timeout": HANG} | options))
    return Teacher(asked, ReplyJournal(folder / "teacher.jsonl"), budget=BUDGET, space=ABSOLUTE)


def test_replies_become_solutions_in_original_pixels(tutor, tmp_path) -> None:
    outcomes = teacher_outcomes(SETS, TOLERANT, teacher_at(tutor, tmp_path), attempts=1)
    for one, outcome in zip(SETS, outcomes, strict=True):
        assert outcome.annotated is one and not outcome.failed
        written, given = write_trace(one, wording="varied").solution, outcome.solution
        assert given.label == written.label and given.reasoning == written.reasoning.strip()
        assert [box.image for box in given.regions] == [box.image for box in written.regions]
        for ours, theirs in zip((given.box, *given.regions), (written.box, *written.regions), strict=True):
            assert iou(ours, theirs) > 0.8
        assert solution_text(given, VERIFIER.view(one)) == solution_text(written, VERIFIER.view(one))


def test_requests_are_sent_side_by_side(tutor, tmp_path) -> None:
    together = threading.Barrier(3)  # three requests have to be open before any is answered
    tutor.script = lambda n, before: TEXTS[n] if together.wait(HANG) >= 0 else ""
    teacher_at(tutor, tmp_path, concurrency=3).ask(SETS, 0)
    assert sorted(tutor.asked) == [*range(6)]


def test_nothing_is_asked_twice(tutor, tmp_path) -> None:
    first = teacher_at(tutor, tmp_path).ask(SETS, 0)
    assert teacher_at(tutor, tmp_path, concurrency=1).ask(SETS[::-1], 0) == first[::-1]
    twins = [dataclasses.replace(SETS[0], id=name) for name in ("a", "b")]
    assert teacher_at(tutor, tmp_path).ask(twins, 0) == [first[0]] * 2
    tutor.chat.url = "http://127.0.0.1:9"  # nobody listens there, and nobody has to
    assert teacher_at(tutor, tmp_path).ask(SETS, 0) == first
    assert len(tutor.asked) == len(SETS)


@pytest.mark.parametrize(
    "change",
    [{"model": "a"}, {"temperature": 0.1}, {"seed": 5}, {"max_new_tokens": 9}, {"top_p": 0.5}, {"shows_images": True}],
    ids=str,
)
def test_whatever_decides_a_reply_is_in_its_key(tmp_path, change) -> None:
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


def test_images_are_in_the_key_where_they_are_shown(tmp_path) -> None:
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


def test_images_are_shown_on_demand_at_the_budget_s_size(tutor, tmp_path) -> None:
    teacher_at(tutor, tmp_path, shows_images=True).ask(SETS[:1], 0)
    parts = tutor.chat.bodies[0]["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    shown = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]
    assert [image.size for image in shown] == list(VERIFIER.view(SETS[0]).input_sizes)
    assert all(len(image.getcolors(10**6) or ()) > 5 for image in shown)  # no blanks
    assert parts[0]["text"] == "Image 1: "
    teacher_at(tutor, tmp_path / "..", temperature=0.1).ask(SETS[:1], 0)
    assert isinstance(tutor.chat.bodies[1]["messages"][-1]["content"], str)


def test_a_dead_server_is_named_and_every_reply_is_kept(tutor, tmp_path) -> None:
    journal, written = tmp_path / "teacher.jsonl", []

    def dies(n: int, before: int) -> str | int:
        written.append(journal.read_bytes().count(b"\n") if journal.exists() else 0)
        return TEXTS[n] if len(written) <= 4 else 503

    tutor.script = dies
    with pytest.raises(EngineError, match=r"127\.0\.0\.1.*did not answer.*503.*run again") as caught:
        teacher_at(tutor, tmp_path, concurrency=1).ask(SETS, 0)
    assert tutor.chat.url in str(caught.value)
    assert written[:5] == [0, 1, 2, 3, 4]  # each reply was on disk before the next was asked for
    tutor.script, asked = lambda n, before: TEXTS[n], len(tutor.asked)
    assert len(teacher_at(tutor, tmp_path).ask(SETS, 0)) == len(SETS)
    assert sorted(tutor.asked[asked:]) == [4, 5]


def test_a_line_cut_in_half_is_asked_for_again(tutor, tmp_path) -> None:
    teacher_at(tutor, tmp_path).ask(SETS, 0)
    file = tmp_path / "teacher.jsonl"
    data = file.read_bytes()
    file.write_bytes(data[: data.rindex(b'"text"') + 30])
    journal = ReplyJournal(file)
    assert (journal.broken, len(journal.replies)) == (1, len(SETS) - 1)
    teacher_at(tutor, tmp_path).ask(SETS, 0)
    assert len(tutor.asked) == len(SETS) + 1
    again = ReplyJournal(file)
    assert (again.broken, len(again.replies)) == (1, len(SETS))


def test_a_journal_that_cannot_be_written_says_so(tmp_path) -> None:
    journal = ReplyJournal(tmp_path / "teacher.jsonl")
    (tmp_path / "teacher.jsonl").mkdir()
    with pytest.raises(EngineError, match=r"teacher\.jsonl.*free space.*what was written is kept"):
        journal.add(Reply("key", "id", 0, "text"))


def test_a_failed_reply_is_asked_for_again_with_another_seed(tutor, tmp_path) -> None:
    def fails(n: int, before: int) -> str:
        false = TEXTS[n].replace('"claims": [', '"claims": [{"image": 1, "holds": "unicorn"}, ')
        return TEXTS[n] if before == n % 4 else "no" if before else false

    tutor.script = fails
    outcomes = teacher_outcomes(SETS, TOLERANT, teacher_at(tutor, tmp_path), attempts=3)
    for n, outcome in enumerate(outcomes):
        assert (outcome.solution is not None) == (n % 4 < 3)
        reasons = [problem.reason for attempt in outcome.failed for problem in attempt.problems]
        assert reasons == [Reason.FALSE_PRESENCE, *[Reason.REPLY_NOT_JSON] * 2][: n % 4]
    assert Counter(tutor.asked) == {0: 1, 1: 2, 2: 3, 3: 3, 4: 1, 5: 2}
    asked = [body["seed"] for body, n in zip(tutor.chat.bodies, tutor.asked, strict=True) if n == 3]
    assert len(set(asked)) == 3


def arguments(tutor: Tutor, folder: Path, *more: str) -> list[str]:
    pixels = ["--min-pixels", str(BUDGET.min_pixels), "--max-pixels", str(BUDGET.max_pixels)]
    given = ["haystack_multi:train?n=6&images=2&seed=2", "--output", str(folder), "--writer", "teacher", *pixels]
    return [*given, "--teacher-url", tutor.chat.url, "--teacher-model", "tiny", *more]


def test_a_build_resumes_where_it_stopped_and_ends_the_same(tutor, tmp_path, capsys) -> None:
    tutor.script = lambda n, before: TEXTS[n] if len(tutor.asked) <= 4 else 400
    with pytest.raises(EngineError, match="status 400"):
        main(arguments(tutor, tmp_path / "stopped", "--concurrency", "1"))
    journal = tmp_path / "stopped" / "teacher.jsonl"
    journal.write_bytes(journal.read_bytes()[:-40])
    tutor.script, asked = lambda n, before: TEXTS[n], len(tutor.asked)
    assert main(arguments(tutor, tmp_path / "stopped")) == 0
    assert "1 lines were cut short" in capsys.readouterr().out
    assert len(tutor.asked) - asked == 6 - 3
    assert main(arguments(tutor, tmp_path / "whole")) == 0
    whole, resumed = ((tmp_path / name / "sft_traces.jsonl").read_bytes() for name in ("whole", "stopped"))
    assert whole == resumed and whole.count(b"\n") == 6


def test_dropped_replies_are_reported_with_text_and_reason(tutor, tmp_path, capsys) -> None:
    tutor.script = lambda n, before: "never" if n == 5 else TEXTS[n].replace('"claims": [', '"claims": [{}, ', n == 4)
    assert main(arguments(tutor, tmp_path, "--attempts", "2")) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["kept"], report["dropped"], report["failed_attempts"]) == (4, 2, 4)
    assert report["dropped_by_reason"] == {"reply_missing_key": 1, "reply_not_json": 1}
    lines = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert [(line["id"], line["attempt"]) for line in lines] == [(SETS[n].id, k) for n in (4, 5) for k in (1, 2)]
    assert lines[2]["text"] == "never" and lines[2]["problems"][0]["reason"] == "reply_not_json"
    assert "kept 4 of 6" in capsys.readouterr().out


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
def test_invalid_options_are_errors(tutor, tmp_path, change, words) -> None:
    with pytest.raises(ConfigError, match=words):
        main(arguments(tutor, tmp_path, *change))
    assert not tutor.asked


@pytest.mark.parametrize("missing", ["--teacher-url", "--teacher-model"])
def test_a_teacher_needs_an_address_and_a_model(tutor, tmp_path, missing) -> None:
    given = arguments(tutor, tmp_path)
    place = given.index(missing)
    with pytest.raises(ConfigError, match=f"--writer teacher needs {missing}"):
        main(given[:place] + given[place + 2 :])
