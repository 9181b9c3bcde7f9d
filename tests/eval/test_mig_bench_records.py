"""MIG-Bench: a copy is read from its zip or folder, and what is wrong with it is named."""

from __future__ import annotations

import math
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from mig_fixture import CASES, RECORDS, image_bytes, image_size, write_mig_bench

from mgpo_core.errors import ImageError, SampleError
from mgpo_core.images.load import load_image
from mgpo_eval import mig_bench
from mgpo_eval.mig_bench import Record, image_source


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    return write_mig_bench(tmp_path_factory.mktemp("mig"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"question": "Where is it?"}, r"record 7 \(multi_view\): its question names no image: 'Where is it\?'"),
        ({"question": "In the 9th image?"}, "names image 9 of 5"),
        ({"question": "In image 0?"}, "names image 0 of 5"),
        (
            {"task": "group_grounding", "additional_info": "somewhere"},
            "its additional_info names no image: 'somewhere'",
        ),
        ({"task": "multiview"}, "record 7: unknown task 'multiview': did you mean 'multi_view'"),
        ({"answer": [0.1, 0.2, 0.3]}, "record 7: the answer must be x1, y1, x2, y2"),
        ({"answer": [0.1, 0.2, 0.3, math.nan]}, "finite"),
        ({"answer": "all of it"}, "record 7: the answer must be"),
        ({"images": []}, "at least one path"),
        ({"question": " "}, "it must be a text"),
    ],
)
def test_a_record_that_cannot_be_scored_is_refused_by_its_number(change, words):
    with pytest.raises(SampleError, match=words):
        Record.from_row({**CASES[7][0], "index": 7, **change})


def test_a_zip_is_read_without_unpacking_it(copy):
    before = sorted(path.name for path in copy.iterdir())
    records = mig_bench.load_records(copy)
    assert [(r.task, r.target) for r in records] == [(row["task"], target) for row, target in CASES]
    for record in records:
        for number, source in enumerate(record.sources, start=1):
            assert load_image(source).size == image_size(len(record.images), number)
    assert sorted(path.name for path in copy.iterdir()) == before
    assert records == RECORDS
    again = pickle.loads(pickle.dumps(records[0].sources[0]))
    assert load_image(again).size == image_size(len(records[0].images), 1)


@pytest.mark.parametrize("prefix", ["images/", "MIG-Bench/images/", "MIG-Bench/", "", "data/of/MIG-Bench/images/"])
def test_any_folder_may_be_around_the_images_in_the_zip(tmp_path, prefix):
    place = write_mig_bench(tmp_path / "copy", prefix=prefix)
    for record in mig_bench.load_records(place):
        assert [load_image(source).size for source in record.sources] == [
            image_size(len(record.images), number + 1) for number in range(len(record.images))
        ]


@pytest.mark.parametrize("prefix", ["images/", "MIG-Bench/images/", "", "images/images/"])
def test_an_unpacked_folder_serves_as_well_as_the_zip(tmp_path, prefix):
    place = write_mig_bench(tmp_path / "copy", prefix=prefix, unpacked=True)
    records = mig_bench.load_records(place / "MIG_data.json")
    assert records == mig_bench.load_records(place) == RECORDS
    assert all(isinstance(source, Path) for record in records for source in record.sources)
    assert load_image(records[0].sources[1]).size == image_size(3, 2)


@pytest.mark.parametrize("unpacked", [True, False])
def test_a_missing_image_is_named_with_its_record(tmp_path, unpacked):
    name = "./MIG-Bench/images/region/4_3.png"
    place = write_mig_bench(tmp_path / "copy", unpacked=unpacked, leave_out=name)
    for read in (mig_bench.load_records, mig_bench.to_rows):
        with pytest.raises(SampleError, match=r"record 1: its image '\./MIG-Bench/images/region/4_3\.png' is missing"):
            read(place)
    with pytest.raises(SampleError, match="there is no image"):
        image_source(place, name)


def test_another_image_never_stands_in_for_a_missing_one(tmp_path):
    # group_grounding has a 5_1.png too
    place = write_mig_bench(tmp_path / "copy", leave_out="./MIG-Bench/images/multi_view/5_1.png")
    with pytest.raises(SampleError, match="record 7: its image"):
        mig_bench.load_records(place)
    with pytest.raises(SampleError, match="no image"):
        image_source(place, "./MIG-Bench/images/../copy/README.md")


def test_two_files_of_the_same_path_within_a_zip_are_not_chosen_between(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in ("old/images/diff/2_1.png", "new/images/diff/2_1.png"):
            archive.writestr(name, image_bytes(name))
    with pytest.raises(SampleError, match="no image"):
        image_source(tmp_path, "./MIG-Bench/images/diff/2_1.png")
    assert load_image(image_source(tmp_path, "new/images/diff/2_1.png")).size == image_size(2, 1)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no JSON file; download Michael4933/MIG-Bench"),
        ({"a.json": "[]", "b.json": "[]"}, r"holds 2 JSON files \(a.json, b.json\): give the path of the one"),
        ({"a.json": "{oops"}, "cannot be read as JSON"),
        ({"a.json": '{"task": 1}'}, "must hold a list of records, not dict"),
        ({"a.json": "[]"}, "must hold a list of records"),
        ({"a.json": "[3]"}, "record 0 is a int, not an object"),
        ({"a.json": '[{"task": "diff", "images": ["a"]}]'}, "record 0 has no question, answer"),
    ],
)
def test_a_place_that_is_no_copy_says_why(tmp_path, files, words):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SampleError, match=words):
        mig_bench.load_records(tmp_path)
    with pytest.raises(SampleError, match="does not exist"):
        mig_bench.load_records(tmp_path / "nowhere")


def test_the_hubs_json_is_taken_among_several(copy, tmp_path):
    place = shutil.copytree(copy, tmp_path / "copy")
    (place / "dataset_infos.json").write_text("{}")
    assert mig_bench.load_records(place) == RECORDS


def test_a_broken_zip_or_image_is_reported_by_name(copy, tmp_path):
    place = shutil.copytree(copy, tmp_path / "copy")
    with zipfile.ZipFile(place / "images.zip", "a") as archive:
        archive.writestr("images/region/broken.png", b"no image")
    with pytest.raises(ImageError, match=r"images/region/broken\.png in .*images\.zip"):
        load_image(image_source(place, "images/region/broken.png"))
    other = shutil.copytree(copy, tmp_path / "other")
    (other / "images.zip").write_bytes(b"PK")
    with pytest.raises(SampleError, match=r"images\.zip is no readable zip"):
        mig_bench.load_records(other)


def test_rows_go_through_a_datasets_table_and_come_back_as_the_same_records(copy):
    datasets = pytest.importorskip("datasets")
    rows = mig_bench.to_rows(copy)
    assert [row["answer"] for row in rows] == [[float(v) for v in row["answer"]] for row, _ in CASES]
    table = datasets.Dataset.from_list(rows)
    assert [Record.from_row(row) for row in table] == mig_bench.load_records(copy)
    for row in table.select(range(4)):
        sizes = [load_image(image_source(copy, name)).size for name in row["images"]]
        assert sizes == [image_size(len(sizes), number + 1) for number in range(len(sizes))]


def test_reading_and_scoring_need_neither_torch_nor_lmms_eval():
    code = "import sys; import mgpo_eval.mig_bench; print([m for m in ('torch', 'lmms_eval') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_source_opens_its_image_only_when_it_is_used(copy, monkeypatch):
    opened = []
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: opened.append(args))
    mig_bench.load_records(copy)
    assert not opened
