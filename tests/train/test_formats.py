"""Layouts of data files: each is recognised by its columns, and its rows are read right or refused by name."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from layout_rows import ASKED, CHOICES, LAYOUTS, human, user

from mgpo_core.boxes.parse import Box
from mgpo_core.errors import SampleError
from mgpo_core.samples.grading import grade
from mgpo_train.data import load_samples


def jpeg(size: tuple[int, int] = (60, 40), colour: str = "blue") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "b.jpg").write_bytes(jpeg((80, 50), "red"))
    return tmp_path


def write(folder: Path, *rows: Any, name: str = "rows.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("form", ["jsonl", "array", "object", "pretty"])
def test_a_layout_is_recognised_by_its_columns(folder: Path, name: str, form: str) -> None:
    row, path = LAYOUTS[name], folder / "rows.json"
    text = {
        "jsonl": json.dumps(row) + "\r\n" + json.dumps(row),
        "array": json.dumps([row, row], indent=1),
        "object": json.dumps({"data": [row, row]}),
        "pretty": json.dumps(row, indent=2) + "\n" + json.dumps(row, indent=2),
    }[form]
    path.write_text(text, encoding="utf-8-sig")
    samples = load_samples(str(path))
    assert f"2 samples from {path}, read as {name}" in samples.describe()
    for sample in samples:
        assert (sample.question, sample.choices, sample.answer) == (ASKED, CHOICES, "B")
        assert sample.load().size == (60, 40)
    (first,) = load_samples(f"{path}?n=1&format={name}")
    assert first.question == ASKED


def test_parquet_rows_of_verl_hold_their_images(folder: Path) -> None:
    from datasets import Dataset

    row = LAYOUTS["verl"] | {"images": [{"bytes": jpeg(), "path": None}]}
    Dataset.from_list([row, row | {"images": [{"bytes": None, "path": f"file://{folder / 'b.jpg'}"}]}]).to_parquet(
        str(folder / "rows.parquet")
    )
    first, second = load_samples(str(folder / "rows.parquet"))
    assert (first.question, first.choices, first.answer, first.id) == (ASKED, CHOICES, "B", "7")
    assert (first.load().size, second.load().size) == ((60, 40), (80, 50))


@pytest.mark.parametrize(
    ("prompt", "asked", "read"),
    [
        ("<image>\nWhat is x?\nThink first.", "What is x?", "What is x?"),
        ("<image>Question: What  is\nx? Think.", "What is x?", "What is x?"),
        ("<image>什么颜色？请思考", "什么颜色？", "什么颜色？"),
        ("<image>What is x?", "x", "What is x?"),
        ("<image>What is Carl?", "What is C", "What is Carl?"),
        ("<image>What is x?", "Who?", "What is x?"),
    ],
)
def test_verls_own_question_is_taken_where_the_prompt_asks_it(folder: Path, prompt: str, asked: str, read: str) -> None:
    row = {"prompt": user(prompt), "images": ["a.jpg"], "reward_model": {"ground_truth": "7"}}
    (sample,) = load_samples(write(folder, row | {"extra_info": {"question": asked}}))
    assert sample.question == read


@pytest.mark.parametrize("missing", [None, float("nan"), " "])
def test_an_empty_answer_column_leaves_the_answer_to_the_assistant(folder: Path, missing: Any) -> None:
    messages = [*LAYOUTS["ms-swift"]["messages"], {"role": "assistant", "content": "B"}]
    (sample,) = load_samples(write(folder, {"messages": messages, "images": ["a.jpg"], "solution": missing}))
    assert sample.answer == "B"


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("<think>It is blue, not red.</think><answer>B</answer>", "B"),
        (r"<think>Hm.</think> So \boxed{B}", "B"),
        ("<think>Hm.</think>\n\nblue", "B"),
        (r"<answer>\boxed{\text{blue}}</answer>", "B"),
        ("<answer>A</answer> or <answer>B</answer>", "2 different answers"),
        ("<think>It is blue", "reasoning that is not closed"),
        ("<think>It is red.</think> No: <think>blue", "reasoning that is not closed"),
        ("<think>It is\nB", "reasoning that is not closed"),
        (1, "the number 1: a choice's place or its text"),
        (0.0, "the number 0.0"),
        ("<think>It is blue</think>", "ends without an answer"),
        ("<answer>B", "not closed"),
        (r"\boxed{B", "without a complete"),
        ("I see a car. " * 40, "519 characters: mark it with <answer>"),
        (True, "give a text or a number"),
        (["B"], "give a text or a number"),
        ("C", "give one letter of A to B"),
        ("It is red or blue.\nIt is blue.", "which explains an answer"),
        ("It is not red, so the answer is B.", "which explains an answer"),
        ("The answer is B.", "B"),
        ("So the correct answer: blue", "B"),
        ("Red is out.\n#### B", "B"),
        ("<image>\nblue", "an image mark in it"),
        ("<|begin_of_thought|>maybe red<|end_of_thought|>blue", "B"),
        (r"<|begin_of_thought|>x<|end_of_thought|><|begin_of_solution|>So \boxed{blue}<|end_of_solution|>", "B"),
        ("◁think▷maybe red◁/think▷blue", "B"),
        ("◁think▷maybe red", "reasoning that is not closed"),
        ("[THINK]maybe red[/THINK]blue", "B"),
        ("<seed:think>maybe red</seed:think>blue", "B"),
        ("<analysis>maybe red</analysis>blue", "B"),
        ("<SUMMARY>s</SUMMARY><REASONING>r</REASONING><CONCLUSION>blue</CONCLUSION>", "B"),
        ("<CONCLUSION>blue", "with an <conclusion> tag that is not closed"),
        ("<final_answer>blue</final_answer>", "B"),
        ("<|begin_of_box|>blue<|end_of_box|>", "B"),
        ("<think>x</think><answer>blue</answer><|im_end|>", "B"),
        ("blue</s>", "B"),
        (r"<think>maybe \boxed{red}</think>blue", "B"),
        (r"<think>Hm \boxed{blue}</think>", "B"),
        (r"\boxed{blue}, so \boxed{Blue}", "B"),
        (r"\boxed{\boxed{blue}}", "B"),
        (r"\boxed{red} or \boxed{blue}", "2 different answers in"),
        ('<think>x</think><tool_call>{"name":"zoom"}</tool_call>', "the markup '<tool_call>' in it"),
        ("<|channel|>final<|message|>blue", "the markup '<|channel|>' in it".replace("|", "[|]")),
        ("◁x▷blue", "the markup '◁x▷' in it"),
        ("<b>blue</b>", "the markup '<b>' in it"),
        ("The car <box>(1,2),(30,20)</box>", "the markup '<box>' in it"),
    ],
)
@pytest.mark.parametrize("layout", ["ms-swift", "easyr1"])
def test_reasoning_is_never_an_answer(folder: Path, layout: str, answer: Any, read: str) -> None:
    column = "solution" if layout == "ms-swift" else "answer"
    path = write(folder, LAYOUTS[layout] | {column: answer})
    if len(read) == 1:
        assert load_samples(path)[0].answer == read
        return
    with pytest.raises(SampleError, match=f"line 1, column '{column}' .*({read})"):
        load_samples(path)


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{role} says <image>." if role == "user" else "B"} for role in roles]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": turns("user", "assistant", "user", "assistant")}, "several turns .* a row of its own"),
        ({"messages": turns("user", "tool", "assistant")}, "a turn of 'tool'"),
        ({"messages": turns("system", "assistant")}, "no user's turn"),
        ({"messages": user(7)}, "the content 7: give a text"),
        ({"messages": user("[{'type': 'text', 'text': 'Q?'}]")}, "a list written as text"),
        ({"messages": user(["{'type': 'text', 'text': 'Q?'}"])}, "a list written as text"),
        ({"messages": user([{"type": "video", "video": "a.mp4"}])}, "only texts and images"),
        ({"messages": [{"role": "user", "content": None}]}, "content missing"),
        ({"images": []}, "images' is missing: give an image"),
        ({"images": ["a.jpg", "b.jpg"]}, "1 image mark for 2 images"),
        ({"messages": user(f"<video>{ASKED}")}, "the mark '<video>'"),
        ({"objects": {"ref": ["car"], "bbox": []}}, None),
        ({"messages": user(f"<image>{ASKED} <bbox>")}, "objects' is missing"),
        ({"messages": user(f"<image>{ASKED} <ref-object>"), "objects": {"ref": []}}, "for 1 <ref-object>"),
        ({"objects": {"bbox": [[1, 2, 3]]}}, r"objects' holds .* give \[x1"),
        ({"objects": {"bbox": [[1, 2, 30, 20]], "bbox_type": "norm1000"}}, "use real or norm1"),
        ({"objects": {"bbox": [[1, 2, 30, 20]], "image_id": [1]}}, "image 1 of 1"),
    ],
)
def test_a_conversation_that_is_no_question_is_refused(folder: Path, change: dict, words: str | None) -> None:
    path = write(folder, LAYOUTS["ms-swift"] | change)
    if words is None:
        assert len(load_samples(path)) == 1
        return
    with pytest.raises(SampleError, match=f"rows.jsonl, line 1, column '.*{words}"):
        load_samples(path)


def test_rows_of_mme_realworld_have_choices(folder: Path) -> None:
    with pytest.raises(SampleError, match="line 2, column 'Answer choices' holds no choices, which every row"):
        load_samples(write(folder, LAYOUTS["mme-realworld"], LAYOUTS["mme-realworld"] | {"Answer choices": None}))


def test_boxes_of_ms_swift_have_the_scale_that_they_declare(folder: Path) -> None:
    row = {
        "messages": [*user("<image>Is the <ref-object> at <bbox> red?"), {"role": "assistant", "content": "no"}],
        "images": ["a.jpg"],
        "objects": {"ref": ["car"], "bbox": [[0.5, 0.5, 1, 1], [0, 0, 0.5, 0.5]], "bbox_type": "norm1"},
    }
    real = row | {"objects": {"ref": ["car"], "bbox": [[30, 20, 60, 40]]}}
    first, second = load_samples(write(folder, row, real))
    assert first.question == second.question == "Is the car at <region> red?"
    assert first.regions == second.regions == (Box(30, 20, 60, 40),)
    assert (first.boxes, second.boxes, first.answer) == ((Box(0, 0, 30, 20),), (), "no")


@pytest.mark.parametrize("answer", ["<div>", "A[0] and b[i]", "Map<str, int>", "a < b and c > d", "(3, 4)", "[1, 2]"])
def test_an_open_answer_with_signs_stays_as_it_is(folder: Path, answer: str) -> None:
    assert load_samples(write(folder, OPEN | {"answer": answer}))[0].answer == answer


def answered(answer: Any) -> dict[str, dict[str, Any]]:
    """A row of several layouts with this answer."""
    asked = user("<image>Where is it?")
    return {
        "ms-swift": {"messages": [*asked, {"role": "assistant", "content": answer}], "images": ["a.jpg"]},
        "llama-factory": {"conversations": human("<image>Where is it?", answer), "images": ["a.jpg"]},
        "vlm-r1": {"id": 1, "image": "a.jpg", "conversations": human("<image>Where is it?", answer)},
        "verl": {"prompt": asked, "images": ["a.jpg"], "reward_model": {"ground_truth": answer}},
        "trl": {"prompt": asked, "images": ["a.jpg"], "solution": answer},
        "easyr1": {"problem": "<image>Where is it?", "image": "a.jpg", "answer": answer},
        "plain": {"question": "Where is it?", "image": "a.jpg", "answer": answer},
    }


@pytest.mark.parametrize(
    "answer",
    [
        "[3, 4, 30, 20]",
        '```json\n[{"bbox_2d": [3, 4, 30, 20]}]\n```',
        '{"bbox": [3, 4, 27, 16], "format": "xywh"}',
        "<answer>[3,4,30,20]</answer>",
        "<think>It is there.</think>(3,4),(30,20)",
        "<|box_start|>(3,4),(30,20)<|box_end|>",
        "<ref>car</ref><box>(3,4),(30,20)</box>",
        "<|begin_of_box|>[[3,4,30,20]]<|end_of_box|>",
    ],
)
@pytest.mark.parametrize("layout", answered(""))
def test_an_answer_that_is_a_box_is_the_true_box(folder: Path, layout: str, answer: str) -> None:
    path = write(folder, answered(answer)[layout])
    samples = load_samples(path, answers_with_box=True, box_format="xywh" if "xywh" in answer else None)
    assert samples.layout == layout and samples[0].boxes == (Box(3, 4, 30, 20),) and samples[0].answer is None
    with pytest.raises(SampleError, match="line 1, column '.*' holds a box: use a template"):
        load_samples(path)


@pytest.mark.parametrize("layout", answered(""))
def test_an_answer_that_is_a_box_of_another_layout_is_refused(folder: Path, layout: str) -> None:
    path = write(folder, answered('{"box_2d": [3, 4, 30, 20], "format": "rotated"}')[layout])
    for with_box in (True, False):
        with pytest.raises(SampleError, match="a box in a layout or scale that is not read"):
            load_samples(path, answers_with_box=with_box)
    path = write(folder, answered("[0.25, 0.25, 0.5, 0.5]")[layout])
    with pytest.raises(SampleError, match="less than a pixel as pixels"):
        load_samples(path, answers_with_box=True)
    assert load_samples(path, answers_with_box=True, box_scale="0-1")[0].boxes == (Box(15, 10, 30, 20),)


def test_numbers_may_be_an_answer_where_they_are_a_box(folder: Path) -> None:
    row = answered([3, 4, 30, 20])["verl"]
    assert load_samples(write(folder, row), answers_with_box=True)[0].boxes == (Box(3, 4, 30, 20),)
    row = OPEN | {"choices": ["[3, 4, 30, 20]", "[0, 0, 1, 1]"], "answer": "[0, 0, 1, 1]"}
    assert load_samples(write(folder, row))[0].answer == "B"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([LAYOUTS["plain"], LAYOUTS["ms-swift"]], "mixes layouts: .*line 1 is plain, .*line 2 is ms-swift"),
        (
            [LAYOUTS["plain"] | LAYOUTS["trl"] | {"image": "a.jpg"}],
            "can be read as plain and as trl: say which with format",
        ),
        ([LAYOUTS["ms-swift"] | LAYOUTS["llama-factory"]], "can be read as ms-swift and as llama-factory"),
    ],
)
def test_mixed_and_ambiguous_files_are_refused_by_name(folder: Path, rows: list, words: str) -> None:
    with pytest.raises(SampleError, match=words):
        load_samples(write(folder, *rows))
    assert load_samples(
        write(folder, rows[0]) + "?format=" + words.split("as ")[-1].split(":")[0].replace("mixes layouts", "plain")
        if len(rows) == 1
        else write(folder, rows[0])
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"conversations": str(human("<image>Q?", "B")), "images": ["a.jpg"]},
            "'conversations' is no list of messages",
        ),
        ({"messages": ["Q?"], "images": ["a.jpg"]}, "'messages' is no list of messages"),
        ({"messages": [], "images": ["a.jpg"]}, "'messages' is no list of messages"),
        ({"prompt": ASKED, "image": "a.jpg", "answer": "x"}, "map it with columns="),
    ],
)
def test_advice_can_be_followed(folder: Path, row: dict, words: str) -> None:
    with pytest.raises(SampleError, match=f"no column holds the question .*{words}"):
        load_samples(write(folder, row))


ANSWERED = [{"role": "assistant", "content": "red"}]
PRINTED = "[{'role': 'user', 'content': 'What?'}]"


@pytest.mark.parametrize("layout", ["verl", "ms-swift", "llama-factory"])
def test_lists_that_were_saved_as_text_are_read(folder: Path, layout: str) -> None:
    row = {name: json.dumps(v) if isinstance(v, list | dict) else v for name, v in LAYOUTS[layout].items()}
    for more in ({}, {"images": "['a.jpg']"}):
        samples = load_samples(write(folder, row | more))
        assert samples.layout == layout
        assert (samples[0].question, samples[0].choices, samples[0].answer) == (ASKED, CHOICES, "B")
        assert samples[0].load().size == (60, 40)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (PRINTED, "column 'prompt' is .* a list written as text: give the list itself"),
        (user("<image>What?"), "column 'prompt' is a list of messages, which is read where columns= does not name it"),
    ],
)
def test_messages_are_no_question(folder: Path, prompt: Any, words: str) -> None:
    row = {"prompt": prompt, "images": ["a.jpg"], "reward_model": {"ground_truth": "red"}}
    with pytest.raises(SampleError, match=words):
        load_samples(write(folder, row), columns={"question": "prompt", "answer": "reward_model.ground_truth"})


@pytest.mark.parametrize(
    ("more", "column"),
    [
        ({"messages": user("<image>What?"), "label": "red"}, "label"),
        ({"prompt": user("<image>What?"), "chosen": ANSWERED}, "chosen"),
        (
            {"conversations": human("<image>What?", "")[:1], "chosen": {"from": "gpt", "value": "red"}},
            "chosen",
        ),
    ],
)
def test_a_conversation_without_an_answer_says_how_to_name_it(folder: Path, more: dict, column: str) -> None:
    path, turns = write(folder, {"images": ["a.jpg"], **more}), next(iter(more))
    with pytest.raises(SampleError, match=f"column '{turns}' has no answer in it: .*columns=answer=YOUR COLUMN"):
        load_samples(path)
    assert load_samples(path, columns={"answer": column})[0].answer == "red"


def test_a_completion_is_an_answer(folder: Path) -> None:
    row = {"prompt": user("<image>What?"), "completion": ANSWERED, "images": ["a.jpg"]}
    assert load_samples(write(folder, row))[0].answer == "red"


@pytest.mark.parametrize("empty", ["", " ", None])
def test_an_empty_column_is_passed_over(folder: Path, empty: Any) -> None:
    row = {"messages": [*user("<image>What?"), *ANSWERED], "images": ["a.jpg"], "solution": empty}
    assert load_samples(write(folder, row))[0].answer == "red"
    row = {"problem": "What?", "image": "a.jpg", "answer": empty, "solution": "red"}
    assert load_samples(write(folder, row))[0].answer == "red"


@pytest.mark.parametrize(
    ("row", "layout"),
    [
        (
            {"problem": ASKED, "options": ["A. red", "B. blue"], "solution": "<answer>B</answer>", "path": "a.jpg"},
            "easyr1",
        ),
        ({"question": ASKED, "choices": ["red", "blue"], "solution": "B", "path": "a.jpg"}, "mini-o3"),
        ({"text": ASKED + " (A) red (B) blue", "label": "B", "path": "a.jpg"}, "vstar"),
        (LAYOUTS["verl"] | {"images": None, "path": "a.jpg"}, "verl"),
        (LAYOUTS["vlm-r1"] | {"image": None, "path": "['a.jpg']"}, "vlm-r1"),
    ],
)
def test_only_the_image_is_missing(folder: Path, row: dict, layout: str) -> None:
    path = write(folder, row)
    with pytest.raises(SampleError, match="no column holds the image|'images' is missing|in a row with images"):
        load_samples(path)
    samples = load_samples(path, columns={"image": "path"})
    assert samples.layout == layout
    assert (samples[0].question, samples[0].choices, samples[0].answer) == (ASKED, CHOICES, "B")


@pytest.mark.parametrize("more", [{}, {"image": "a.jpg"}, {"path": "a.jpg"}])
def test_what_is_missing_is_named_and_can_be_mapped(folder: Path, more: dict) -> None:
    row = {"problem": ASKED, "gold": "red", **more}
    with pytest.raises(SampleError, match=f"no column holds the {'answer' if 'image' in more else 'image'}"):
        load_samples(write(folder, row))
    columns = {"answer": "gold"} | ({"image": "path"} if "path" in more else {})
    if more:
        assert load_samples(write(folder, row), columns=columns)[0].answer == "red"


@pytest.mark.parametrize(
    ("reward_model", "read"), [("{'ground_truth': 'B'}", "B"), ("B", None), ("{'ground_truth': B}", None)]
)
def test_a_reward_model_that_is_a_text_is_read_or_refused(folder: Path, reward_model: str, read: str | None) -> None:
    path = write(folder, LAYOUTS["verl"] | {"reward_model": reward_model})
    if read is not None:
        assert load_samples(path)[0].answer == read
        return
    with pytest.raises(SampleError, match="column 'reward_model' is .*: give an object with ground_truth"):
        load_samples(path)


@pytest.mark.parametrize(
    "around",
    [
        lambda rows: {"version": "1.0", "data": rows},
        lambda rows: {"info": {}, "annotations": rows},
        lambda rows: {"meta": {"n": 2}, "vqa": rows, "licenses": []},
        lambda rows: {"images": rows},
    ],
)
def test_rows_in_an_object_are_read(folder: Path, around: Any) -> None:
    row = LAYOUTS["plain"]
    (folder / "rows.json").write_text(json.dumps(around([row, row])))
    assert len(load_samples(str(folder / "rows.json"))) == 2


@pytest.mark.parametrize(
    "more",
    [
        {"options": [{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}], "choices": None},
        {"marks": [{"a": 1}]},
    ],
)
def test_a_row_that_is_all_of_a_file_is_no_object_around_rows(folder: Path, more: dict) -> None:
    (folder / "rows.json").write_text(json.dumps(LAYOUTS["plain"] | more))
    (sample,) = load_samples(str(folder / "rows.json"))
    assert (sample.choices, sample.answer) == (CHOICES, "B")
    (folder / "rows.json").write_text(json.dumps({"pic": "a.jpg", "ask": "Q?", "gold": "x", "notes": [{"a": 1}]}))
    columns = {"image": "pic", "question": "ask", "answer": "gold"}
    assert load_samples(str(folder / "rows.json"), columns=columns)[0].answer == "x"


def test_rows_that_two_layouts_read_alike_are_not_ambiguous(folder: Path) -> None:
    row = OPEN | {"multi-choice options": ["(A) red", "(B) blue"], "category": "x", "l2-category": "y"}
    (sample,) = load_samples(write(folder, row))
    assert (sample.choices, sample.answer) == (CHOICES, "A")


# ---------------------------------------------------------------- columns


CLAIMED = {"problem": ASKED, "solution": "blue", "image": "a.jpg", "id": "7"}


@pytest.mark.parametrize(
    ("row", "columns", "found"),
    [
        (CLAIMED, None, ("blue", "7", {})),
        (CLAIMED, "question=problem,answer=solution", ("blue", "7", {})),
        (CLAIMED, "question=problem,answer=id", ("7", "0", {"solution": "blue"})),
        (
            CLAIMED | {"answer": "red", "regions": "north"},
            "solution=",
            ("red", "7", {"regions": "north", "solution": "blue"}),
        ),
        (
            LAYOUTS["plain"] | {"solution": "Look.", "boxes": "none"},
            "boxes=,id=",
            ("B", "0", {"solution": "Look.", "boxes": "none"}),
        ),
        (LAYOUTS["plain"] | {"images": ["gone.jpg"], "p": "a.jpg"}, "image=p", ("B", "0", {"image": "a.jpg"})),
        (
            LAYOUTS["verl"] | {"truth": {"text": "A"}},
            "answer=truth.text",
            ("A", "7", {"data_source": "vstar", "ability": "vl", "env_name": "visual_toolbox_v2"}),
        ),
    ],
)
def test_a_column_is_read_once_and_can_be_unbound(folder: Path, row: dict, columns: str | None, found: tuple) -> None:
    path = write(folder, row)
    (sample,) = load_samples(path + (f"?columns={columns}" if columns else ""))
    assert (sample.answer, sample.id, dict(sample.metadata)) == found
    assert sample.question == ASKED and sample.load().size == (60, 40)


def test_a_solution_that_is_no_reasoning_can_be_unbound_where_boxes_are_answers(folder: Path) -> None:
    path = write(folder, LAYOUTS["plain"] | {"boxes": [[1, 2, 30, 20]], "solution": "B"})
    with pytest.raises(SampleError, match="column 'solution' is 'B': .* leave the column out with columns=solution="):
        load_samples(path, answers_with_box=True)
    assert load_samples(path, answers_with_box=True, columns={"solution": ""})[0].solution is None


OPEN = {"image": "a.jpg", "question": ASKED, "answer": "A"}


@pytest.mark.parametrize(
    ("cells", "choices"),
    [
        ({"A": "red", "B": "green", "C": "blue", "D": "white"}, ("red", "green", "blue", "white")),
        ({"A": "red", "B": "green", "C": None, "D": ""}, ("red", "green")),
        ({"A": "red", "B": "green", "C": float("nan")}, ("red", "green")),
        ({letter: f"c{letter}" for letter in "ABCDEFG"}, tuple(f"c{letter}" for letter in "ABCDEFG")),
        ({"A": 3, "B": 4.5}, ("3", "4.5")),
        ({"option_a": "red", "option_b": "green"}, ("red", "green")),
        ({"OptionA": "red", "OptionB": "green"}, ("red", "green")),
        ({"choice_A": "red", "choice_B": "green", "choices": None}, ("red", "green")),
        ({"(A)": "red", "(B)": "green"}, ("red", "green")),
        ({"A.": "red", "B.": "green"}, ("red", "green")),
        ({"a": "red", "b": "green", "c": None}, ("red", "green")),
        ({"a": 1.5, "b": 2}, ()),
        ({"options": ["red", "green"]}, ("red", "green")),
        ({"options": "['red', 'green']"}, ("red", "green")),
        ({"choices": {"A": "red", "B": "green", "C": None}}, ("red", "green")),
        ({"A": None, "B": None}, ()),
        ({"X": "1", "Y": "2"}, ()),
    ],
)
def test_choices_may_stand_in_letter_columns(folder: Path, cells: dict, choices: tuple[str, ...]) -> None:
    (sample,) = load_samples(write(folder, OPEN | cells))
    assert (sample.choices, sample.answer) == (choices, "A")
    assert not choices or not set(cells) & set(sample.metadata)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"A": "red", "C": "green"}, "choices A, C alone: give at least A and B, without a gap"),
        ({"A": "red", "B": None, "C": "green"}, "without a gap"),
        ({"A": None, "B": "green"}, "without a gap"),
        ({"A": "red", "B": None, "C": ""}, "choices A alone: give at least A and B"),
        ({"A": "red", "B": ["green"]}, "the choice B .*give a text"),
        ({"A": "red", "B": True}, "the choice B True: give a text"),
        ({"A": "red", "B": "green", "answer": "C"}, "'answer' is 'C': give one letter of A to B"),
        ({"A": "red", "B": "green", "option_a": "x", "option_b": "y"}, "put them into one column choices"),
        ({"option1": "red", "option2": "green"}, "numbered columns .*columns=choices="),
        ({"choices": ["red", None]}, "list of texts"),
        ({"options": "none"}, "column 'options' is 'none': give .* columns=choices="),
        ({"choices": ["red", float("nan")]}, "list of texts"),
        ({"choices": ["(B) red", "(A) blue"]}, "lettered in another order"),
        ({"choices": ["red", "blue"], "options": ["blue", "red"]}, "both hold choices"),
    ],
)
def test_letter_columns_that_are_no_run_are_refused(folder: Path, cells: dict, words: str) -> None:
    with pytest.raises(SampleError, match=f"rows.jsonl, line 1.*{words}"):
        load_samples(write(folder, OPEN | cells))


def test_letter_columns_can_be_unbound(folder: Path) -> None:
    (sample,) = load_samples(write(folder, OPEN | {"A": "red", "B": "green"}) + "?columns=choices=")
    assert (sample.choices, sample.metadata) == ((), {"A": "red", "B": "green"})


@pytest.mark.parametrize("layout", ["ms-swift", "verl", "easyr1", "mini-o3"])
def test_choices_that_the_question_lists_otherwise_are_refused(folder: Path, layout: str) -> None:
    row = LAYOUTS[layout]
    for cells in ({"choices": ["blue", "red"]}, {"options": ["red", "blue", "green"]}, {"A": "blue", "B": "red"}):
        path = write(folder, row | cells)
        with pytest.raises(
            SampleError, match=r"gives \[.* where the question lists \['red', 'blue'\]: .*columns=choices="
        ):
            load_samples(path)
        assert load_samples(path, columns={"choices": ""})[0].choices == CHOICES
    (sample,) = load_samples(write(folder, row | {"choices": ["Red", "blue."]}))
    assert (sample.question, sample.answer) == (ASKED, "B")


def test_choices_that_contradict_the_question_are_invalid(folder: Path) -> None:
    row = OPEN | {"question": f"{ASKED}\nA. blue\nB. red", "choices": ["red", "blue"]}
    with pytest.raises(SampleError, match="where the question lists"):
        load_samples(write(folder, row))


@pytest.mark.parametrize(
    "choices",
    [
        [{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}],
        {"label": ["A", "B"], "text": ["red", "blue"]},
        {"text": ["red", "blue"], "label": ["a", "b"]},
    ],
)
def test_choices_may_name_their_letters(folder: Path, choices: Any) -> None:
    (sample,) = load_samples(write(folder, LAYOUTS["plain"] | {"choices": choices}))
    assert sample.choices == ("red", "blue")


@pytest.mark.parametrize(
    "choices",
    [
        [{"label": "B", "text": "red"}, {"label": "A", "text": "blue"}],
        {"label": ["1", "2"], "text": ["red", "blue"]},
        {"label": ["A", "B"], "text": ["red"]},
        {"label": ["A", "A"], "text": ["red", "blue"]},
        {"label": ["A", "B"], "text": "rb"},
        4,
        {"1": "red", "2": "blue"},
    ],
)
def test_choices_with_other_labels_are_refused(folder: Path, choices: Any) -> None:
    with pytest.raises(SampleError, match="'choices' is .*: give a list of texts, or .* columns=choices="):
        load_samples(write(folder, LAYOUTS["plain"] | {"choices": choices}))


@pytest.mark.parametrize(("answer", "read"), [(2, "refused"), ("2", "B"), ("3", "C"), (9, "D"), ("B", "B")])
def test_a_number_is_the_text_of_a_choice_only_where_it_cannot_be_a_place(folder: Path, answer: Any, read: str) -> None:
    texts = ["1", "2", "3", "9"]
    path = write(folder, OPEN | {"choices": texts, "answer": answer})
    if read == "refused":
        with pytest.raises(SampleError, match="'answer' is the number 2: .*give its letter"):
            load_samples(path)
    else:
        assert load_samples(path)[0].answer == read
    (sample,) = load_samples(write(folder, OPEN | {"choices": [1, 2, 3, 9], "answer": 2}))
    assert sample.answer == "B"


@pytest.mark.parametrize(
    "question",
    [
        "Which colour? Options: A: red, B: green, C: blue",
        "Which colour?\nA. red\nB. green\nC. blue\nPlease answer directly with only the letter.",
        "Which colour? (A) red (B) green (C) blue",
    ],
)
def test_a_letter_answers_the_choices_that_the_question_lists(folder: Path, question: str) -> None:
    row = {"image": "a.jpg", "question": question}
    (sample,) = load_samples(write(folder, row | {"answer": "(B)"}))
    assert (sample.question, sample.choices, sample.answer) == ("Which colour?", ("red", "green", "blue"), "B")
    for answer in ("green", "D"):  # nothing says that its answer is one of the choices
        assert load_samples(write(folder, row | {"answer": answer}))[0].question == question


def test_a_row_without_images_among_others_is_a_bad_row(folder: Path) -> None:
    rows = [
        {"id": 1, "image": "a.jpg", "conversations": human("<image>Which?", "red")},
        {"conversations": human("A?", "b")},
    ]
    with pytest.raises(SampleError, match="line 2, column 'images' is missing: give an image"):
        load_samples(write(folder, *rows))
    assert len(load_samples(write(folder, *rows), on_bad_sample="skip", max_bad_fraction=0.5)) == 1


@pytest.mark.parametrize("said", ["The answer is 4.", "Final answer: 4", "答案是：4"])
def test_an_open_answer_is_read_without_what_announces_it(folder: Path, said: str) -> None:
    answer = load_samples(write(folder, OPEN | {"answer": said}))[0].answer
    assert answer is not None and grade(r"So \boxed{4}", answer)


# ---------------------------------------------------------------- boxes


@pytest.mark.parametrize("layout", ["vlm-r1", "ms-swift"])
def test_what_a_layout_takes_for_pixels_is_checked_and_may_be_declared(folder: Path, layout: str) -> None:
    def row(box: list[float], **more: str) -> dict:
        if layout == "vlm-r1":
            return {"image": "a.jpg", "conversations": human("<image>Where?", str(box))}
        messages = [*user("<image>Where is <ref-object>?"), {"role": "assistant", "content": "<bbox>"}]
        return {"images": ["a.jpg"], "messages": messages, "objects": {"ref": ["car"], "bbox": [box], **more}}

    def boxes(row: dict, **options: str) -> Any:
        return load_samples(write(folder, row), answers_with_box=True, **options)[0].boxes[0].as_tuple()

    assert boxes(row([15, 10, 30, 20])) == (15, 10, 30, 20)
    assert boxes(row([0.25, 0.25, 0.5, 0.5]), box_scale="0-1") == (15, 10, 30, 20)
    assert boxes(row([250, 250, 500, 500]), box_scale="0-1000") == (15, 10, 30, 20)
    for more in ({}, {"bbox_type": "real"}):
        with pytest.raises(SampleError, match="less than a pixel as pixels: box_scale says"):
            boxes(row([0.25, 0.25, 0.5, 0.5], **more))


@pytest.mark.parametrize(
    ("boxes", "options", "read"),
    [
        ([[0.25, 0.25, 0.5, 0.5]], {"box_scale": "0-1"}, (15, 10, 30, 20)),
        ([[0.25, 0.25, 0.25, 0.25]], {"box_scale": "0-1", "box_format": "xywh"}, (15, 10, 30, 20)),
        ([[250, 250, 500, 500]], {"box_scale": "0-1000"}, (15, 10, 30, 20)),
        ([[15, 10, 15, 10]], {"box_format": "xywh"}, (15, 10, 30, 20)),
        ([{"bbox_xywh": [15, 10, 15, 10]}], {}, (15, 10, 30, 20)),
        ([{"bbox_2d": [15, 10, 15, 10], "format": "xywh"}], {}, (15, 10, 30, 20)),
        ([{"box": [15, 10, 30, 20], "bbox_format": "xyxy"}], {"box_format": "xywh"}, (15, 10, 30, 20)),
        ([{"box": [0.25, 0.25, 0.5, 0.5], "normalized": True}], {"box_scale": "0-1"}, (15, 10, 30, 20)),
        ([{"box": [15, 10, 15, 10], "format": "[x, y, width, height]"}], {}, (15, 10, 30, 20)),
        ([{"box": [15, 10, 15, 10], "coordinate_format": "xywh"}], {}, (15, 10, 30, 20)),
        ([{"box": [0.25, 0.25, 0.5, 0.5], "normalized": "true"}], {"box_scale": "0-1"}, (15, 10, 30, 20)),
        ([{"box": [250, 250, 500, 500], "scale": "0-1000"}], {"box_scale": "0-1000"}, (15, 10, 30, 20)),
        ([{"box": [15, 10, 30, 20], "type": "car", "scale": 2.0}], {}, (15, 10, 30, 20)),
        ("<|box_start|>(15,10),(30,20)<|box_end|>", {}, (15, 10, 30, 20)),
        ({"box": [15, 10, 30, 20]}, {}, (15, 10, 30, 20)),
        ([15, 10, 30, 20], {"box_scale": "pixels"}, (15, 10, 30, 20)),
        ("[[15, 10, 30.0, 20]]", {}, (15, 10, 30, 20)),
        ([[0.7, 0, 0.3, 1.0]], {"box_scale": "0-1", "box_format": "xywh"}, (42, 0, 60, 40)),
    ],
)
def test_box_scale_and_format_are_declared(folder: Path, boxes: Any, options: dict, read: tuple) -> None:
    path = write(folder, LAYOUTS["plain"] | {"boxes": boxes})
    by_spec = load_samples({"path": path, **options})
    by_run = load_samples(path, **options)
    for samples in (by_spec, by_run):
        assert samples[0].boxes[0].as_tuple() == pytest.approx(read)


@pytest.mark.parametrize(
    ("boxes", "options", "words"),
    [
        ([[0.25, 0.25, 0.5, 0.5]], {}, "less than a pixel as pixels: box_scale says"),
        ([[0, 0, 1, 1]], {}, "box_scale says"),
        ([[0.1, 0.2, 1, 1.2]], {}, "box_scale says"),
        ([[250, 250, 500, 500]], {}, "does not lie in the 60x40 original: box_scale says"),
        ([[40, 30, 20, 10]], {}, "60x40 original: box_scale says .*xywh"),
        ([[0.2, 0.2, 1.5, 1]], {"box_scale": "0-1"}, "does not lie in 0-1"),
        ([[10, 10, 1001, 20]], {"box_scale": "0-1000"}, "does not lie in 0-1000"),
        ([[10, 10, 10, 20]], {}, "60x40 original"),
        ([[True, 1, 20, 20]], {}, r"give \[x1"),
        ([["10", "20", "30", "40"]], {}, r"give \[x1"),
        ([[10, 10, float("nan"), 20]], {}, r"give \[x1"),
        ([[10, 10, 20, 10**400]], {}, r"give \[x1"),
        ([{"bbox": [1, 2, 30, 20]}], {}, r"give \[x1"),
        ([{"box": [1, 2, 30, 20], "image": True}], {}, "names image True"),
        ([{"box": [1, 2, 30, 20], "format": "cxcywh"}], {}, "a format or scale"),
        (
            [{"box": [1, 2, 30, 20], "normalized": True}],
            {},
            "a format or scale that is not declared: say box_scale=0-1$",
        ),
        ([{"box": [1, 2, 30, 20], "normalized": "true"}], {}, "say box_scale=0-1$"),
        ([{"box": [1, 2, 30, 20], "scale": "0-1000"}], {}, "say box_scale=0-1000$"),
        (
            [{"box": [1, 2, 30, 20], "normalized": True}],
            {"box_scale": "0-1000"},
            "other than box_scale=0-1000: it says 0-1",
        ),
        ([{"box": [1, 2, 30, 20], "format": "yolo"}], {}, "a format or scale that is not read"),
        ([[0.0, 0.0, 1.0002, 1.0001]], {}, "less than a pixel as pixels: box_scale says"),
        (3, {}, "is 3: give .*, or leave the column out with columns=FIELD="),
        ({"a": 1}, {}, "is {'a': 1}: give .*, or leave the column out with columns=FIELD="),
        ("somewhere", {}, r"give \[\[x1"),
        ([], {"box_scale": "percent"}, "box_scale='percent': known are 0-1, 0-1000, pixels"),
        ([], {"box_format": "cxcywh"}, "box_format='cxcywh': known are xywh, xyxy"),
    ],
)
def test_boxes_of_another_scale_are_refused(folder: Path, boxes: Any, options: dict, words: str) -> None:
    for field in ("boxes", "regions"):
        row = LAYOUTS["plain"] | {field: boxes} | ({"question": "Is <region> red?"} if field == "regions" else {})
        with pytest.raises(SampleError, match=words.replace("FIELD", field).replace("$", " ")):
            load_samples({"path": write(folder, row), **options})
