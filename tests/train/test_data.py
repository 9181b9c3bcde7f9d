"""Data sets: every row is checked before training, and errors name the row and the column."""

from __future__ import annotations

import base64
import io
import json
import pickle
from pathlib import Path

import pytest
from PIL import Image

from mgpo_core.errors import SampleError
from mgpo_train.data.sources import DataSpec, load_samples

GOOD = {"question": "Which colour?", "image": "a.png", "choices": ["red", "blue"], "answer": "B"}


def png(size: tuple[int, int] = (60, 40), colour: str = "blue", **options) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG", **options)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(png())
    return tmp_path


def write(folder: Path, *rows: dict | str, name: str = "samples.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_a_folder_with_one_jsonl_file_is_read_with_images_beside_it(folder: Path) -> None:
    rows = [
        GOOD | {"boxes": [[1, 2, 30, 20]], "id": "first", "place": "attic"},
        {"question": "How many?", "images": ["a.png", "a.png"], "answer": 7},
    ]
    write(folder, *rows)
    first, second = load_samples(str(folder))
    assert (first.id, first.answer, first.choices) == ("first", "B", ("red", "blue"))
    assert first.boxes[0].as_tuple() == (1, 2, 30, 20)
    assert first.metadata == {"place": "attic"}
    assert first.load().size == (60, 40)
    assert (second.answer, len(second.images), second.choices, second.id) == ("7", 2, (), "1")


@pytest.mark.parametrize(
    ("change", "column", "words"),
    [
        ({"question": "  "}, "question", "non-empty"),
        ({"question": None}, "question", "missing"),
        ({"image": None}, "image", "give an image"),
        ({"image": "gone.png"}, "image", "does not exist"),
        ({"image": "https://example.org/a.png"}, "image", "download it first"),
        ({"image": {"path": "http://example.org/a.png", "bytes": None}}, "image", "download it first"),
        ({"answer": None}, "answer", "missing"),
        ({"answer": "C"}, "answer", "A to B"),
        ({"answer": True}, "answer", "text or a number"),
        ({"choices": "red"}, "choices", "is 'red': give a line"),
        ({"choices": "A) red"}, "choices", "is 'A) red': give a line"),
        ({"choices": ["red", ""]}, "choices", "2 to 26"),
        ({"choices": {"A": "red"}}, "choices", "list of texts"),
        ({"boxes": [[1, 2, 3]]}, "boxes", "pixels of the original"),
        ({"boxes": [[1, 2, 300, 20]]}, "boxes", "60x40 original"),
        ({"boxes": [[30, 2, 1, 20]]}, "boxes", "60x40 original"),
        ({"boxes": [{"bbox_2d": [1, 2, 3, 4], "image": 3}]}, "boxes", "image 3"),
    ],
)
def test_a_bad_row_is_refused_by_line_and_column(folder: Path, change: dict, column: str, words: str) -> None:
    path = write(folder, GOOD | {"boxes": []}, GOOD | change)
    with pytest.raises(SampleError, match="line 2") as caught:
        load_samples(str(path))
    assert f"column {column!r}" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (png()[:60], "cut short"),
        (b"no image at all", "not a readable image"),
        (b"", "not a readable image"),
    ],
)
def test_an_unreadable_image_is_found_before_training(folder: Path, broken: bytes, words: str) -> None:
    (folder / "b.png").write_bytes(broken)
    path = write(folder, GOOD, GOOD | {"image": "b.png"})
    with pytest.raises(SampleError, match=r"line 2, column 'image'.*b\.png.*" + words):
        load_samples(str(path))


def test_a_jpeg_that_was_cut_short_is_found_without_decoding_it(folder: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((200, 200), 80).save(file, "JPEG")
    (folder / "b.jpg").write_bytes(file.getvalue()[:-500])
    with pytest.raises(SampleError, match="cut short"):
        load_samples(str(write(folder, GOOD | {"image": "b.jpg"})))


def test_full_checks_find_damage_inside_an_image_that_quick_ones_do_not(folder: Path) -> None:
    whole = bytearray(png((300, 300)))
    middle = whole.index(b"IDAT") + 8
    whole[middle : middle + 40] = b"\0" * 40
    (folder / "b.png").write_bytes(whole)
    path = str(write(folder, GOOD | {"image": "b.png"}))
    assert len(load_samples(path)) == 1
    with pytest.raises(SampleError, match="truncated or corrupt"):
        load_samples(path, check_images="full")


def test_a_line_that_is_not_json_is_refused_by_its_number(folder: Path) -> None:
    with pytest.raises(SampleError, match=r"samples\.jsonl, line 3 is not JSON"):
        load_samples(str(write(folder, GOOD, "", "{oops")))
    with pytest.raises(SampleError, match="line 2 is a list"):
        load_samples(str(write(folder, GOOD, "[1]")))


def test_bad_rows_can_be_skipped_and_are_counted(folder: Path) -> None:
    path = str(write(folder, *[GOOD] * 9, GOOD | {"answer": None}))
    samples = load_samples(path, on_bad_sample="skip")
    assert len(samples) == 9
    assert len(samples.skipped) == 1
    assert "line 10" in samples.skipped[0]
    assert "1 bad rows skipped" in samples.describe()


def test_a_limit_stops_a_run_in_which_too_many_rows_are_bad(folder: Path) -> None:
    path = str(write(folder, *[GOOD] * 7, *[GOOD | {"answer": None}] * 3))
    with pytest.raises(SampleError, match=r"3 of 10 rows are bad, more than max_bad_fraction=0\.2"):
        load_samples(path, on_bad_sample="skip", max_bad_fraction=0.2)
    assert len(load_samples(path, on_bad_sample="skip", max_bad_fraction=0.3)) == 7
    with pytest.raises(SampleError, match="all 1 rows are bad"):
        load_samples(str(write(folder, GOOD | {"answer": None})), on_bad_sample="skip", max_bad_fraction=1.0)


def test_rows_without_a_list_of_images_fall_back_to_the_one_image(folder: Path) -> None:
    row = {"question": "Which?", "answer": "x"}
    path = write(folder, row | {"image": "a.png", "images": None}, row | {"image": None, "images": ["a.png", "a.png"]})
    assert [len(sample.images) for sample in load_samples(str(path))] == [1, 2]
    assert all(sample.load().size == (60, 40) for sample in load_samples(str(path)))


def test_rows_of_a_table_without_a_list_of_images_fall_back_too(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = {
        "question": ["Which?"] * 2,
        "answer": ["x"] * 2,
        "image": [png(colour="red"), None],
        "images": [None, [png(colour="lime"), png(colour="blue")]],
    }
    Dataset.from_dict(rows).to_parquet(str(tmp_path / "rows.parquet"))
    first, second = load_samples(str(tmp_path / "rows.parquet"))
    seen = [sample.load(i).getpixel((0, 0)) for sample in (first, second) for i in range(len(sample.images))]
    assert seen == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_lines_end_at_newlines_only_and_a_byte_order_mark_is_no_content(folder: Path) -> None:
    text = json.dumps(GOOD | {"question": "One\u2028or two?"}, ensure_ascii=False)
    (folder / "samples.jsonl").write_text("\ufeff" + text + "\r\n", encoding="utf-8")
    (sample,) = load_samples(str(folder))
    assert sample.question == "One\u2028or two?"


def test_a_missing_column_is_named_with_those_there_are(folder: Path) -> None:
    path = write(folder, {"prompt": "Which?", "image": "a.png", "answer": "x"})
    with pytest.raises(SampleError, match=r"no column holds the question \(columns: prompt, image, answer\).*columns="):
        load_samples(str(path))


def test_columns_can_be_mapped_even_nested_ones(folder: Path) -> None:
    path = str(write(folder, {"prompt": "<image>Which?", "picture": "a.png", "truth": {"text": "x"}}))
    columns = {"question": "prompt", "image": "picture", "answer": "truth.text"}
    (sample,) = load_samples(path, columns=columns)
    assert (sample.question, sample.answer) == ("Which?", "x")
    (same,) = load_samples({"path": path, "columns": columns})
    assert same.question == "Which?"
    (same,) = load_samples(f"{path}?columns=question=prompt,image=picture,answer=truth.text")
    assert same.question == "Which?"
    with pytest.raises(SampleError, match=r"'question' maps nothing: write columns=question=prompt"):
        load_samples(f"{path}?columns=question")
    with pytest.raises(SampleError, match=r"does not have .* did you mean 'prompt'"):
        load_samples(path, columns=columns | {"question": "prompd"})
    with pytest.raises(SampleError, match=r"'qestion' is not one of our fields: did you mean 'question'"):
        load_samples(path, columns={"qestion": "prompt"})


def test_answers_may_be_letters_or_the_text_of_a_choice(folder: Path) -> None:
    answers = ["B", "b", "(B)", "B.", "blue", "Blue"]
    path = write(folder, *[GOOD | {"answer": answer} for answer in answers])
    assert {sample.answer for sample in load_samples(str(path))} == {"B"}


def test_images_are_decoded_when_they_are_used_not_before(folder: Path) -> None:
    samples = load_samples(str(write(folder, GOOD)))
    assert samples[0].images == (str(folder / "a.png"),)
    other = folder / "images"
    other.mkdir()
    (folder / "a.png").rename(other / "a.png")
    (moved,) = load_samples({"path": str(folder), "images": str(other)})
    assert moved.load().size == (60, 40)


def test_exif_rotation_counts_when_boxes_are_checked(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "a.png").write_bytes(png((60, 40), exif=exif))
    (sample,) = load_samples(str(write(folder, GOOD | {"boxes": [[0, 50, 40, 60]]})))
    assert sample.load().size == (40, 60)


@pytest.mark.parametrize("as_folder", [True, False])
def test_parquet_files_keep_their_images_on_disk(tmp_path: Path, as_folder: bool) -> None:
    from datasets import Dataset

    rows = {
        "question": ["Which?"] * 3,
        "image": [{"bytes": png(colour=colour), "path": None} for colour in ("red", "lime", "blue")],
        "answer": ["a", "b", "c"],
    }
    Dataset.from_dict(rows).to_parquet(str(tmp_path / "train-0.parquet"))
    samples = load_samples({"path": str(tmp_path if as_folder else tmp_path / "train-0.parquet"), "n": 2})
    assert [sample.load().getpixel((0, 0)) for sample in samples] == [(255, 0, 0), (0, 255, 0)]
    assert all(callable(source) for sample in samples for source in sample.images)
    assert len(pickle.dumps(samples[0].metadata)) < 1000


@pytest.fixture
def parquets(tmp_path: Path) -> Path:
    """A folder with files of two splits, whose samples are called after them."""
    from datasets import Dataset

    for name in ("train-0", "train-1", "test-0"):
        rows = {"question": ["Which?"], "image": [png()], "answer": ["x"], "id": [name]}
        Dataset.from_dict(rows).to_parquet(str(tmp_path / f"{name}.parquet"))
    return tmp_path


def test_a_folder_of_parquet_files_gives_the_split_that_was_asked_for_or_none(parquets: Path) -> None:
    assert [s.id for s in load_samples(f"{parquets}?split=train")] == ["train-0", "train-1"]
    assert [s.id for s in load_samples(f"{parquets}?split=test")] == ["test-0"]
    with pytest.raises(SampleError, match=r"no parquet file of split='val'; there are test-0\.parquet, train-0"):
        load_samples(f"{parquets}?split=val")
    with pytest.raises(SampleError, match=r"several splits .*give split= one of train, test"):
        load_samples(str(parquets))
    (parquets / "test").mkdir()
    (parquets / "test-0.parquet").rename(parquets / "test" / "0.parquet")
    assert [s.id for s in load_samples(f"{parquets}?split=test")] == ["test-0"]


def test_a_saved_data_set_lists_its_splits(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    table = Dataset.from_dict({"question": ["Which?"], "image": [png()], "answer": ["x"]})
    DatasetDict({"train": table, "held_out": table}).save_to_disk(str(tmp_path / "saved"))
    assert len(load_samples(str(tmp_path / "saved"))) == 1
    assert len(load_samples(f"{tmp_path / 'saved'}?split=held_out")) == 1
    with pytest.raises(SampleError, match="no split 'val': give split= one of train, held_out"):
        load_samples(f"{tmp_path / 'saved'}?split=val")


LETTERS = {"question": "Which colour?", "image": "a.png", "answer": "A"}


@pytest.mark.parametrize(
    "cells",
    [
        {"Choices": ["red", "blue"]},
        {"Options": ["A. red", "B. blue"]},
        {"OPTIONS": "['red', 'blue']"},
        {"Options": "A. red\nB. blue"},
        {"options": '{"A": "red", "B": "blue"}'},
        {"option": ["red", "blue"]},
        {"choice": {"A": "red", "B": "blue"}},
        {"candidates": ["red", "blue"]},
        {"answer_choices": ["red", "blue"]},
        {"Answer Options": {"a": "red", "b": "blue"}},
        {"选项": ["A．red", "B．blue"]},
        {"choices": {"(A)": "red", "(B)": "blue"}},
        {"choices": {"A": "A. red", "B": "B. blue"}},
        {"choices": None, "answer_options": ["red", "blue"]},
        {"选项A": "red", "选项B": "blue"},
        {"A选项": "red", "B选项": "blue"},
        {"Ａ": "red", "Ｂ": "blue"},
        {"option.A": "red", "option.B": "blue"},
        {"options/A": "red", "options/B": "blue"},
        {"A_text": "red", "B_text": "blue"},
        {"text_a": "red", "text_b": "blue"},
        {"optionA": "A. red", "optionB": "B. blue", "optionC": None},
    ],
    ids=str,
)
def test_choices_are_read_under_the_names_that_people_give_them(folder: Path, cells: dict) -> None:
    (sample,) = load_samples(str(write(folder, LETTERS | cells)))
    assert (sample.choices, sample.answer) == (("red", "blue"), "A")
    assert not set(cells) & set(sample.metadata)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"alternatives": ["red", "blue"]}, "'alternatives' may hold the choices: say so with columns=choices=alter"),
        ({"picks": {"A": "red", "B": "blue"}}, "'picks' may hold"),
        ({"picks": "['red', 'blue']"}, "'picks' may hold"),
        ({"shown": "Which colour?\nA. red\nB. blue"}, "'shown' may hold"),
        ({"extra": {"choices": ["red", "blue"]}}, "'extra.choices' may hold .* columns=choices=extra.choices"),
        ({"resp_a": "red", "resp_b": "blue"}, "'resp_a', 'resp_b'. may hold .*: put them into one column choices"),
        ({"pickA": "red", "pickB": "blue"}, "'pickA', 'pickB'. may hold"),
        ({"Choices": ["red", "blue"], "Options": ["blue", "red"]}, "'Choices' and 'Options' both hold choices"),
        ({"Options": "red, blue"}, "'Options' is 'red, blue': give a line"),
        ({"Options": ["red", None]}, "'Options' is .*: give a list of texts"),
        ({"选项1": "red", "选项2": "blue"}, "numbered columns"),
    ],
    ids=str,
)
def test_a_letter_beside_choices_that_nobody_reads_is_refused(folder: Path, cells: dict, words: str) -> None:
    path = str(write(folder, LETTERS | cells))
    with pytest.raises(SampleError, match=f"line 1.*{words}"):
        load_samples(path)
    (sample,) = load_samples(path, columns={"choices": ""})
    assert (sample.choices, sample.answer) == ((), "A")


@pytest.mark.parametrize(
    "cells",
    [
        {"tags": ["indoor"]},
        {"answer": "red", "tags": ["indoor", "day"]},
        {"answer": "D", "tags": ["indoor", "day"]},
        {"crops": ["a.png", "b.png"]},
        {"sizes": [60, 40], "more": {"source": "web", "licence": "free"}},
        {"x_a": 3, "x_b": 4},
        {"choice": "A"},
        {"note_b": "red"},
    ],
    ids=str,
)
def test_columns_that_hold_no_choices_leave_a_question_open(folder: Path, cells: dict) -> None:
    row = LETTERS | cells
    (sample,) = load_samples(str(write(folder, row)))
    assert (sample.choices, sample.answer) == ((), row["answer"])


@pytest.mark.parametrize(
    "choices",
    [
        ["B、红", "A、蓝"],
        ["B.red", "A.blue"],
        ["B：红", "A：蓝"],
        ["（B）红", "（A）蓝"],
        ["[B] red", "[A] blue"],
        ["**B.** red", "**A.** blue"],
        ["B - red", "A - blue"],
        ["Option B: red", "Option A: blue"],
        ["A. red", "C. blue", "D. green"],
        ["B. red", "C. blue", "D. green"],
        ["A. red", "B. blue", "C. "],
        {"A": "B. red", "B": "A. blue"},
    ],
    ids=str,
)
def test_choices_with_other_letters_than_their_own_are_refused(folder: Path, choices: list | dict) -> None:
    path = write(folder, LETTERS | {"choices": choices})
    with pytest.raises(SampleError, match=r"line 1, column 'choices' is \[.*lettered in another order .*: sort them"):
        load_samples(str(path))


@pytest.mark.parametrize("choices", [["A.M.", "P.M."], ["St. Ives", "B. Jones"], ["A", "B"], ["(B)", "(A)"]], ids=str)
def test_choices_that_only_look_lettered_stay(folder: Path, choices: list) -> None:
    (sample,) = load_samples(str(write(folder, LETTERS | {"choices": choices})))
    assert sample.choices == tuple(choices)
    (sample,) = load_samples(str(write(folder, LETTERS | {"choices": ["(A) J. Smith", "(B) B. Jones"]})))
    assert sample.choices == ("J. Smith", "B. Jones")


@pytest.mark.parametrize("option", ["split=val", "seed=0", "name=small"])
def test_options_without_a_meaning_are_refused_not_ignored(folder: Path, parquets: Path, option: str) -> None:
    write(folder, GOOD)
    for place in (folder, folder / "samples.jsonl", parquets / "train-0.parquet", "haystack:val"):
        if option == "seed=0" and place == "haystack:val":
            continue
        with pytest.raises(SampleError, match=f"'{option.split('=')[0]}' is not a valid option for"):
            load_samples(f"{place}?{option}")


def test_mme_realworlds_schema_is_known_by_name(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = {
        "bytes": [base64.b64encode(png()).decode()],
        "question": ["What is it?"],
        "multi-choice options": [["(A) A cat", "(B) A dog", "(C) A bird", "(D) A fish", "(E) None of them"]],
        "answer": ["B"],
        "category": ["Perception/Monitoring"],
        "index": [17],
    }
    path = tmp_path / "train.parquet"
    Dataset.from_dict(rows).to_parquet(str(path))
    (sample,) = load_samples({"path": str(path), "schema": "mme-realworld"})
    assert sample.choices == ("A cat", "A dog", "A bird", "A fish", "None of them")
    assert (sample.answer, sample.id, sample.metadata) == ("B", "17", {"category": "Perception/Monitoring"})
    assert sample.load().size == (60, 40)


def test_the_papers_training_rows_have_their_choices_in_one_text(folder: Path) -> None:
    row = {
        "question": "What is it?",
        "image_path": "a.png",
        "choices": "The choices are listed below:\n(A) A cat\n(B) A dog\n",
        "reward_model": {"ground_truth": "A"},
    }
    (sample,) = load_samples({"path": str(write(folder, row)), "schema": "mme-realworld"})
    assert (sample.choices, sample.answer) == (("A cat", "A dog"), "A")


def test_haystack_is_made_to_order() -> None:
    by_text = load_samples("haystack:val?n=3&seed=5&noise=0")
    by_mapping = load_samples({"kind": "haystack", "split": "val", "n": 3, "seed": 5, "noise": 0})
    assert [s.id for s in by_text] == [s.id for s in by_mapping]
    assert by_text[0].load().tobytes() == by_mapping[0].load().tobytes()
    assert by_text.source == "haystack:val (seed 5)"


def test_haystack_is_made_with_as_many_images_as_asked_for() -> None:
    by_text = load_samples("haystack:train?n=5&seed=1&images=3&twins=1")
    by_mapping = load_samples({"kind": "haystack", "n": 5, "seed": 1, "images": 3, "twins": 1})
    assert len(by_text) == 5 and all(len(sample.images) == 3 for sample in by_text)
    assert [(s.id, s.boxes) for s in by_text] == [(s.id, s.boxes) for s in by_mapping]
    assert all(sample.boxes[0].image == sample.metadata["target_image"] for sample in by_text)
    assert {s.id for s in load_samples("haystack:train?n=5&seed=1")}.isdisjoint(s.id for s in by_text)


def test_haystack_is_made_of_the_shapes_asked_for() -> None:
    by_text = load_samples("haystack:val?n=6&shapes=square,cross")
    by_mapping = load_samples({"kind": "haystack", "split": "val", "n": 6, "shapes": ["square", "cross"]})
    assert {s.metadata["shape"] for s in by_text} == {"square", "cross"}
    assert [s.metadata for s in by_text] == [s.metadata for s in by_mapping]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("haystack:vall", "vall"),
        ("haystack:val?canvs=3", "did you mean 'canvas'"),
        ("haystack:val?noise=abc", "noise='abc': give a number"),
        ("haystack:val?size=100", "size=.100, 100.: the mark"),
        ("haystack:val?shapes=square,star", "shapes=.*: give at least two of square, circle"),
        ("haystack:val?shapes=5", "shapes=5: give names with commas"),
        ("haystack:val?seen=84", "'seen' of 'haystack:val' is fixed"),
        ("haystack:val?seed=x", "seed='x'"),
        ("haystack:val?images=7", "images=7: give a whole number from 1 to 6"),
        ("haystack:val?images=photos", "images='photos': give a whole number"),
        ("haystack:val?columns=question=prompt", "'columns' is not a valid option"),
        ("photos", "no such file or folder: 'photos'"),
        ("photos/", "no such file or folder"),
        ("nowhere/samples.jsonl", "does not exist"),
        ("./nowhere", "does not exist"),
        ({"split": "train"}, "names no path"),
        ({"path": "a/b", "spilt": "train"}, "did you mean 'split'"),
        ("a/b?n=0", "positive whole number"),
        ({"kind": "heystack"}, "only haystack"),
    ],
)
def test_a_wrong_spec_says_what_to_do(spec: str | dict, words: str) -> None:
    with pytest.raises(SampleError, match=words):
        load_samples(spec)


def test_an_empty_data_set_is_refused(folder: Path) -> None:
    with pytest.raises(SampleError, match=r"samples\.jsonl has no rows"):
        load_samples(str(write(folder, "")))
    (folder / "samples.jsonl").unlink()
    with pytest.raises(SampleError, match=r"neither a \.jsonl file nor parquet"):
        load_samples(str(folder))


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_that_breaks_off_is_refused(folder: Path, indent: int | None) -> None:
    (folder / "samples.json").write_text(json.dumps([GOOD, GOOD], indent=indent)[:-1])
    with pytest.raises(SampleError, match=r"samples\.json is not JSON: Expecting"):
        load_samples(str(folder / "samples.json"))
    (folder / "samples.json").write_text(json.dumps([GOOD, 7], indent=indent))
    with pytest.raises(SampleError, match=r"samples\.json, entry 2 is 7: write an object for each row"):
        load_samples(str(folder / "samples.json"))


def test_specs_are_parsed_from_text() -> None:
    spec = DataSpec.parse("org/name?split=test&n=50&schema=mme-realworld")
    assert (spec.path, spec.split, spec.n, spec.schema) == ("org/name", "test", 50, "mme-realworld")
    assert DataSpec.parse("org/name?split=2024").split == "2024"
