"""Mutated data files of every layout: rows are read right or refused by name, with no other error.

`python tests/train/test_data_fuzz.py 2000 [SEED]` runs as many files and prints the counts.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from layout_rows import ASKED, CHOICES, LAYOUTS

from mgpo_core import Box, Sample
from mgpo_core.errors import SampleError
from mgpo_train.data import load_samples

FILES = 300
ROWS = 3
SIZE = (16, 12)
BOX = Box(2, 3, 10, 9)

SOURCES: dict[str, dict[str, str]] = {
    # which columns feed which field: a mutation of others must leave the field as it is
    "plain": {
        "question": "question",
        "images": "image images",
        "choices": "choices",
        "answer": "answer",
        "boxes": "boxes",
    },
    "ms-swift": {
        "question": "messages objects",
        "images": "images image messages",
        "choices": "messages",
        "answer": "solution answer ground_truth messages",
        "boxes": "objects messages boxes",
    },
    "verl": {
        "question": "prompt extra_info",
        "images": "images image prompt",
        "choices": "prompt extra_info",
        "answer": "reward_model",
    },
    "easyr1": {
        "question": "problem",
        "images": "images image",
        "choices": "problem",
        "answer": "answer solution ground_truth",
    },
    "mini-o3": {"question": "question", "images": "images image", "choices": "question", "answer": "solution"},
    "vstar": {"question": "text", "images": "image", "choices": "text", "answer": "label"},
    "mme-realworld": {
        "question": "Text question",
        "images": "Image image images",
        "choices": "Answer_choices choices",
        "answer": "Ground_truth answer",
    },
    **{
        name: {
            "question": turns,
            "images": f"images image {turns}",
            "choices": turns,
            "answer": f"solution answer ground_truth {turns}",
        }
        for name, turns in (("trl", "prompt"), ("llama-factory", "conversations"), ("vlm-r1", "conversations"))
    },
}
ANYWHERE = {"choices", "options", "multi-choice_options", "Answer_choices", *"ABCDEF"}
"""Columns that any layout takes for choices."""

Path_ = tuple[Any, ...]


@dataclass
class Counts:
    """What became of all files and rows."""

    files: int = 0
    refused_files: int = 0
    accepted_rows: int = 0
    refused_rows: int = 0
    untouched_rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def report(self) -> str:
        """The counts in lines."""
        lines = [
            f"{self.files} files, {self.refused_files} refused as a whole",
            f"{self.accepted_rows} rows accepted, all of them round-trip; {self.refused_rows} rows refused",
            f"{self.untouched_rows} rows beside a mutated one, all of them as they were",
        ]
        return "\n".join([*lines, *(f"{count:6d}  {reason}" for reason, count in self.reasons.most_common(60))])


def rows_of(layout: str) -> list[dict[str, Any]]:
    """Valid rows, each with a name of its own where the layout has room for one."""
    row = copy.deepcopy(LAYOUTS[layout])
    if layout == "plain":
        row["boxes"] = [list(BOX.as_tuple())]
    if layout == "ms-swift":
        row["objects"] = {
            "ref": [],
            "bbox": [[x / y for x, y in zip(BOX.as_tuple(), SIZE * 2, strict=True)]],
            "bbox_type": "norm1",
        }
    return [copy.deepcopy(row) for _ in range(ROWS)]


def places(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Every place in a nested value."""
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def at(value: Any, path: Path_) -> Any:
    for key in path:
        value = value[key]
    return value


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


SCALARS = (None, True, False, 0, -1, 1, 1.0, 2.5, 1e308, 10**400, float("nan"), float("inf"), -float("inf"))
TEXTS = ("", " ", "\n", "\0", "\ud800", "é😀", "x" * 5000, "A", "B", "Z", "red", "(B)", "nan", "<think>", "\\boxed{B}")
MARKS = ("<image>", "<image><image>Q?", "<video>", "<bbox>", "<region>", "<answer>B</answer>")
IMAGES = ("gone.jpg", "cut.jpg", "long.png", "b.jpg", "http://x.org/a.jpg", "data:image/png;base64,AAAA", "a.jpg\0")
NESTED = ([], {}, [[]], [None], [{}], {"a": 1}, [1, 2, 3, 4], [[1, 1, 5, 5]], [[0.1, 0.1, 0.5, 0.5]], deep(60))
NAMES = ("question", "image", "images", "choices", "answer", "solution", "boxes", "id", "messages", "prompt", "text")
NAMES += ("A", "B", "options", "role", "content")


def mutate(rng: random.Random, row: dict[str, Any]) -> set[Any]:
    """Change one place of a row; returns the columns that the change touches."""
    path = rng.choice(list(places(row)))
    holder, key = at(row, path[:-1]), path[-1]
    kind = rng.choice(
        ["value", "value", "value", "delete", "rename", "wrap", "text", "json", "swap", "double", "truncate"]
    )
    if kind == "value":
        numbers = [rng.randint(-5, 20) for _ in range(rng.randint(1, 6))]
        holder[key] = copy.deepcopy(rng.choice(rng.choice([SCALARS, TEXTS, MARKS, IMAGES, NESTED, [numbers]])))
    elif kind == "delete":
        del holder[key]
    elif kind == "rename" and isinstance(holder, dict):
        name = rng.choice([*NAMES, str(key).upper(), f"{key} "])
        holder[name] = holder.pop(key)
        return {path[0], name if len(path) == 1 else path[0]}
    elif kind == "wrap":
        holder[key] = rng.choice([[holder[key]], {"value": holder[key]}, [holder[key], holder[key]]])
    elif kind == "text":
        holder[key] = str(holder[key])
    elif kind == "json" and isinstance(holder[key], list | dict):
        holder[key] = json.dumps(holder[key])
    elif kind == "swap":
        other = rng.choice(list(places(row)))
        if other[: len(path)] != path and path[: len(other)] != other:
            there = at(row, other[:-1])
            holder[key], there[other[-1]] = there[other[-1]], holder[key]
        return {path[0], other[0]}
    elif kind == "double" and isinstance(holder, list):
        holder.insert(rng.randint(0, len(holder)), copy.deepcopy(holder[key]))
    elif kind == "truncate" and isinstance(holder[key], str | list):
        holder[key] = holder[key][: rng.randint(0, len(holder[key]))]
    return {path[0]}


def damage(rng: random.Random, data: bytes) -> bytes:
    """Change the bytes of a file."""
    spot = rng.randrange(len(data))
    return rng.choice(
        [
            lambda: data[:spot],
            lambda: data[spot:],
            lambda: data[:spot] + bytes([rng.randrange(256)]) + data[spot + 1 :],
            lambda: data[:spot] + b"\0" * 8 + data[spot:],
            lambda: data[:spot] + b"\xef\xbb\xbf" + data[spot:],
            lambda: data.decode("latin-1").encode("utf-16"),
            lambda: gzip.compress(data),
            lambda: data.replace(b"\n", b""),
            lambda: data.replace(b'"', b"'"),
            lambda: data + b"\n" + data[:spot],
            lambda: data.replace(b": ", b": NaN, ", 1),
        ]
    )()


@dataclass
class File:
    """One mutated file: for each row the columns that were touched, None where bytes were."""

    layout: str
    path: Path
    touched: list[set[Any]] | None


def make_file(rng: random.Random, folder: Path) -> File:
    layout = rng.choice(list(LAYOUTS))
    rows = rows_of(layout)
    touched: list[set[Any]] = [set() for _ in rows]
    by_bytes = rng.random() < 0.2
    for _ in range(0 if by_bytes else rng.choice([0, 1, 1, 1, 2, 3])):
        place = rng.randrange(ROWS)
        if rows[place]:
            touched[place] |= mutate(rng, rows[place])
    kind = rng.choice(["jsonl", "jsonl", "json", "parquet"])
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        try:
            columns = dict.fromkeys(column for row in rows for column in row)
            pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows]), path)
        except (pa.ArrowException, ValueError, OverflowError, UnicodeError, TypeError):
            kind, path = "jsonl", folder / "rows.jsonl"  # a table cannot hold such rows
    if kind != "parquet":
        lines = [json.dumps(row, ensure_ascii=rng.random() < 0.5 or "\\ud8" in json.dumps(row)) for row in rows]
        path.write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]", encoding="utf-8")
    if by_bytes:
        path.write_bytes(damage(rng, path.read_bytes()))
    return File(layout, path, None if by_bytes else touched)


def check_message(message: str) -> None:
    """A message is a line, or a line for each of a few rows, and can be written as UTF-8."""
    lines = message.split("\n")
    assert all(len(line) < 1000 for line in lines) and len(lines) < 10, message
    message.encode("utf-8")


def check_refusal(message: str, file: File) -> None:
    """A file with a row that nothing touched is only refused as a whole where its rows contradict each other."""
    good = file.touched is not None and not all(file.touched)
    assert not good or any(words in message for words in ("mixes layouts", "can be read as")), message


def check_file(file: File, folder: Path, counts: Counts) -> None:
    """Load a file, and check every row that was accepted and every one that was refused."""
    counts.files += 1
    try:
        samples = load_samples(str(file.path), on_bad_sample="skip", max_bad_fraction=1.0)
    except SampleError as error:
        check_message(str(error))
        check_refusal(str(error), file)
        counts.refused_files += 1
        counts.reasons[reason(str(error).split("\n")[-1])] += 1
        return
    for message in samples.skipped:
        assert "\n" not in message and len(message) < 1000, message
        counts.reasons[reason(message)] += 1
    counts.refused_rows += len(samples.skipped)
    counts.accepted_rows += len(samples)
    check_round_trip(samples, folder)
    if file.touched is not None:
        check_untouched(file, samples, counts)


def written(sample: Sample, folder: Path, number: int) -> dict[str, Any]:
    """A sample as a row of our own layout."""
    images = []
    for place, source in enumerate(sample.images):
        if not isinstance(source, str):
            sample.load(place).save(folder / f"back-{number}-{place}.png")
            source = f"back-{number}-{place}.png"
        images.append(source)
    row: dict[str, Any] = {"question": sample.question, "images": images, "answer": sample.answer, "id": sample.id}
    row |= {"choices": list(sample.choices)} if sample.choices else {}
    for name in ("boxes", "regions"):
        row |= {name: [{"box": list(box.as_tuple()), "image": box.image} for box in getattr(sample, name)]}
    return row


def check_round_trip(samples: list[Sample], folder: Path) -> None:
    """Every accepted sample, written in our own layout, is read as itself."""
    rows = [written(sample, folder, number) for number, sample in enumerate(samples)]
    (folder / "back.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    again = load_samples({"path": str(folder / "back.jsonl"), "format": "plain", "box_scale": "pixels"})
    assert len(again) == len(samples)
    for first, second in zip(samples, again, strict=True):
        for name in ("question", "choices", "answer", "boxes", "regions", "id"):
            assert getattr(first, name) == getattr(second, name), name
        assert [first.load(i).tobytes() for i in range(len(first.images))] == [
            second.load(i).tobytes() for i in range(len(second.images))
        ]


def check_untouched(file: File, samples: Any, counts: Counts) -> None:
    """What no mutation touched is there, and as it was."""
    assert file.touched is not None and samples.layout == file.layout
    bad = {int(found[1]) for message in samples.skipped if (found := re.search(r"(?:line|entry|row) (\d+)", message))}
    first = 0 if file.path.suffix == ".parquet" else 1
    good = [place for place in range(ROWS) if place + first not in bad]
    assert len(good) == len(samples)
    assert all(file.touched[place] for place in range(ROWS) if place not in good), "a row that nothing touched"
    for place, sample in zip(good, samples, strict=True):
        counts.untouched_rows += not file.touched[place]
        touched = {str(column).replace(" ", "_") for column in file.touched[place]}
        free = {name for name, columns in SOURCES[file.layout].items() if not {*columns.split()} & touched}
        free -= {"choices", "answer"} if ANYWHERE & touched else set()
        if {"question", "choices"} & free == {"question", "choices"}:
            assert (sample.question, sample.choices) == (ASKED, CHOICES)
        if {"choices", "answer"} <= free:
            assert sample.answer == "B"
        if "images" in free:
            assert [sample.load(i).size for i in range(len(sample.images))] == [SIZE]
            if "boxes" in free:
                assert [box.as_tuple() for box in sample.boxes] == [pytest.approx(BOX.as_tuple())]
        if sample.choices:
            assert sample.answer in tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(sample.choices)])


def reason(message: str) -> str:
    """A message without what it says of one row."""
    text = re.sub(r"^.*?(?:line|entry|row) \d+,? ?", "", message.strip())
    text = re.sub(r"\(.*\)|\[.*\]|\{.*\}|'[^']*'|\"[^\"]*\"|\S*/\S+|<[^>]*>|-?\d[\d.,x]*", "*", text)
    return re.sub(r"(?:\* ?)+", "* ", text)[:90]


def fuzz(files: int, seed: int = 0) -> Counts:
    """Make and check so many files."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo = io.BytesIO()
        Image.effect_noise(SIZE, 60).convert("RGB").save(photo, "JPEG")
        (folder / "a.jpg").write_bytes(photo.getvalue())
        (folder / "cut.jpg").write_bytes(photo.getvalue()[:-40])
        Image.new("RGB", (9, 9), "red").save(folder / "b.jpg")
        Image.new("1", (4000, 10)).save(folder / "long.png")
        for number in range(files):
            rng = random.Random(f"{seed}:{number}")
            file = make_file(rng, folder)
            try:
                check_file(file, folder, counts)
            except Exception as error:
                shown = file.path.read_bytes()[:1500]
                raise AssertionError(
                    f"file {number} of seed {seed} ({file.layout}, {file.touched}): {shown!r}"
                ) from error
    return counts


def test_mutated_files_are_read_right_or_refused() -> None:
    counts = fuzz(FILES)
    print(counts.report())
    assert counts.files == FILES
    assert counts.accepted_rows > FILES and counts.refused_rows > FILES // 6 and counts.untouched_rows > FILES // 2
    assert counts.refused_files > FILES // 20 and len(counts.reasons) > 20


if __name__ == "__main__":
    print(fuzz(*map(int, sys.argv[1:] or [FILES])).report())
