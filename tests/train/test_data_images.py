"""Images of data rows: wherever they are written, whole ones are read and others are refused before training."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from mgpo_core import ImageError, load_image
from mgpo_core.errors import SampleError
from mgpo_core.images.check import check_image
from mgpo_core.samples.image_marks import resolve_marks
from mgpo_train.data.sources import DataSpec, load_samples

ROW = {"question": "Which colour?", "image": "a.png", "answer": "red"}


def encoded(kind: str = "JPEG", size: tuple[int, int] = (60, 40), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(file, kind, **options)
    return file.getvalue()


JPEG, PNG = encoded(), encoded("PNG")
THUMBNAIL = encoded("JPEG", (400, 300), exif=b"Exif\0\0" + encoded("JPEG", (16, 16)))
"""A JPEG with another one in its header, as cameras write them."""


def write(folder: Path, *rows: Any) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / "rows.jsonl")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((20000, 40), "20000x40 pixels is more than 200 times"),
        ((40, 8001), "200 times"),
        ((8000, 40), None),
        ((1, 1), None),
    ],
)
def test_an_image_that_no_processor_takes_is_found_at_load(
    tmp_path: Path, size: tuple[int, int], words: str | None
) -> None:
    Image.new("1", size).save(tmp_path / "a.png")
    if words is None:
        assert load_samples(write(tmp_path, ROW))[0].load().size == size
        return
    with pytest.raises(SampleError, match=rf"line 1, column 'image' .*a\.png.*{words}.* cut or pad it"):
        load_samples(write(tmp_path, ROW))
    with pytest.raises(ImageError, match=r"a\.png' has .* 200 times as long .* cut or pad it"):
        load_image(tmp_path / "a.png")  # what evaluation and the demo open
    Image.new("1", (40, 40)).save(tmp_path / "b.png")
    rows = [*[ROW | {"image": "b.png"}] * 9, ROW]
    assert len(load_samples(write(tmp_path, *rows), on_bad_sample="skip").skipped) == 1


@pytest.mark.parametrize(
    "data",
    [
        JPEG + b"\0\0\0\x18ftypmp42" + b"\x11" * 300_000,  # a motion photo
        JPEG + b"\0" * 100_000,
        JPEG + b"\n",
        PNG + b"trailing" * 20_000,
        PNG + b"\0",
        encoded("WEBP"),
        THUMBNAIL,
    ],
    ids=["motion photo", "padded", "newline", "png and text", "png and zero", "webp", "thumbnail"],
)
@pytest.mark.parametrize("full", [False, True])
def test_what_the_rest_of_the_product_opens_is_right(tmp_path: Path, data: bytes, full: bool) -> None:
    (tmp_path / "a.png").write_bytes(data)
    for source in (data, str(tmp_path / "a.png")):
        assert check_image(source, full=full) == load_image(source).size


@pytest.mark.parametrize(
    "data",
    [JPEG[:-300], PNG[:-30], THUMBNAIL[: len(THUMBNAIL) // 2], JPEG[:-300] + b"\0" * 9],
    ids=["jpeg", "png", "thumbnail", "padded"],
)
def test_what_is_cut_short_is_refused_at_load(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(SampleError, match="line 1, column 'image' .*cut short or damaged; copy it again"):
        load_samples(write(tmp_path, ROW))


def test_a_whole_file_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgpo_core.images.check.load_image", lambda *_: pytest.fail("decoded"))
    assert check_image(JPEG) == check_image(PNG) == (60, 40)


TEXT = base64.b64encode(JPEG).decode()
SAFE = base64.urlsafe_b64encode(JPEG).decode()


@pytest.mark.parametrize(
    "image",
    [
        f"data:image/jpeg;base64,{TEXT}",
        f"data:image/jpeg;charset=utf-8;base64,{TEXT}",
        f"DATA:;base64,{TEXT.rstrip('=')}",
        f"data:image/jpeg;base64,{quote(TEXT, safe='')}",
        f"data:image/jpeg;base64,{SAFE}",
        f"data:image/jpeg,{quote(JPEG)}",
        "data:image/jpeg;base64," + "\n".join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76)),
        f"base64,{TEXT}",
        f"image/jpeg;base64,{TEXT}",
        TEXT,
        SAFE.rstrip("="),
        {"bytes": TEXT},
        {"bytes": None, "path": "a b.jpg"},
        {"path": "gone.jpg", "bytes": TEXT},
        {"url": f"data:image/jpeg;base64,{TEXT}"},
        {"image": "FOLDER/a%20b.jpg"},
        {"image": "a b.jpg", "min_pixels": 3136},
        {"type": "image_url", "image_url": {"url": "FOLDER/a%20b.jpg"}},
        "FOLDER/a%20b.jpg",
        "FILE/a%20b.jpg",
        "a b.jpg",
    ],
)
def test_an_image_may_be_written_in_many_ways(tmp_path: Path, image: Any) -> None:
    (tmp_path / "a b.jpg").write_bytes(JPEG)
    (tmp_path / "a.png").write_bytes(JPEG)
    written = json.loads(json.dumps(image).replace("FOLDER", f"file://{tmp_path}").replace("FILE", f"file:{tmp_path}"))
    (sample,) = load_samples(write(tmp_path, ROW | {"image": written}))
    assert sample.load().tobytes() == load_image(JPEG).tobytes()
    if isinstance(written, str) and written.lower().startswith(("data:", "file:")):
        assert load_image(written).size == (60, 40)


LONG = "x\n" * 500_000


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("https://example.org/a.png", "download it first"),
        ({"url": "http://example.org/a.png"}, "download it first"),
        ("s3://bucket/a.png", "download it first"),
        ("file://server/share/a.png", "on another machine"),
        ("file:///gone.png", "does not exist: '/gone.png'"),
        ("data:image/png;base64", "without a comma"),
        ("data:image/png;base64,!!!" + LONG, "is not base64"),
        ("data:text/plain,hello" + LONG, "not a readable image"),
        ("data:image/jpeg;base64," + TEXT[: len(TEXT) // 2], "cut short"),
        (TEXT[: len(TEXT) // 2], "cut short"),
        ("a\0.png", "not a readable image"),
        (LONG, "not a readable image|does not exist"),
        ("https://example.org/" + LONG, "download it first"),
        (f'"data:image/jpeg;base64,{TEXT}"', "with quotes around it: leave them out"),
        (str(JPEG), "bytes written as text: give them in base64"),
        ("a boat. " * 100, "File name too long; give the path"),
        ("FOLDER", "it is a folder; name an image in it"),
        ({"bytes": LONG}, "is not base64|not a readable"),
        ({"path": None, "bytes": None}, "give a path, or a dict"),
        ({"note": LONG}, "give a path, or a dict"),
        ([LONG, None], "give an image"),
        (7, "is a int: give a path"),
    ],
)
def test_any_other_image_is_refused_in_one_line(tmp_path: Path, image: Any, words: str) -> None:
    with pytest.raises(SampleError, match=f"line 1, column 'image' .*({words})") as caught:
        load_samples(write(tmp_path, ROW | {"image": str(tmp_path) if image == "FOLDER" else image}))
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty .0 bytes.; copy it again"),
        (encoded("WEBP")[:-200], "the WebP file is cut short or damaged; copy it again"),
        (encoded("WEBP")[:16], "the WebP file is cut short or damaged; copy it again"),
        (JPEG[:10], "the JPEG file is cut short or damaged; copy it again"),
        (b"\n<!DOCTYPE html><html>404</html>", "an HTML page, not an image; download the image itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS, .* git lfs pull"),
        (b"<svg xmlns='x'/>", "an SVG drawing; save it as PNG"),
        (b'{"error": "rate limit"}', "a JSON text, not an image"),
        (b"%PDF-1.7", "a PDF; save the page as PNG"),
        (b"no image", "its format is not known; convert it to PNG or JPEG"),
    ],
)
def test_a_file_that_is_no_image_is_called_what_it_is(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.png").write_bytes(data)
    for source in (data, tmp_path / "a.png"):
        with pytest.raises(ImageError, match=words):
            check_image(source)
    with pytest.raises(SampleError, match=f"line 1, column 'image' .*is not a readable image: .*{words}"):
        load_samples(write(tmp_path, ROW))


def test_a_file_of_many_questions_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[Any] = []

    def check(source: Any, **options: Any) -> tuple[int, int]:
        checks.append(source)
        return check_image(source, **options)

    monkeypatch.setattr("mgpo_train.data.rows.check_image", check)
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(encoded("PNG", (80, 50)))
    rows = [ROW, ROW | {"image": "b.png", "boxes": [[60, 40, 80, 50]]}, ROW | {"image": "b.png"}, ROW]
    text = write(tmp_path, *rows)
    assert len(load_samples(text)) == 4 and [Path(source).name for source in checks] == ["a.png", "b.png"]
    (tmp_path / "b.png").write_bytes(PNG[:100])
    with pytest.raises(SampleError, match="line 2, column 'image'"):
        load_samples(text)


# ---------------------------------------------------------------- marks


@pytest.mark.parametrize(
    ("texts", "images", "read"),
    [
        (["Image 1: <image>\nImage 2: <image>\nWhich?"], 2, ["Which?"]),
        (["<image>\n<image>\nWhich?"], 2, ["Which?"]),
        (["Picture 1: <image>, Picture 2: <image>\nWhich?"], 2, ["Which?"]),
        (["[Image 1]: <image>\r\n[Image 2]: <image>\r\nWhich?"], 2, ["Which?"]),
        (["Image-1 <image>\n(2) <image>\nWhich?"], 2, ["Which?"]),
        (["In the picture <image> which?"], 1, ["In the picture image 1 which?"]),
        (["<|vision_start|><|image_pad|><|image_pad|><|vision_end|>Which?"], 1, ["Which?"]),
        (["<image_1><image_2>Which?"], 2, ["Which?"]),
        (["<|image_1|>\n<img>Which?".replace("<img>", "")], 1, ["Which?"]),
        (["<IMAGE> Which?"], 1, ["Which?"]),
        (["<im_start><image><im_end>\nWhich?"], 1, ["Which?"]),
        (["<Image><ImageHere></Image>\nWhich?"], 1, ["Which?"]),
        (["Picture 1: <img>photos/a.jpg</img>\nWhich?"], 1, ["Which?"]),
        (["(<image>./</image>)\nWhich?"], 1, ["Which?"]),
        (["<img><IMG_CONTEXT><IMG_CONTEXT></img>\nWhich?"], 1, ["Which?"]),
        (["<img src='x.png'/>Which?"], 1, ["Which?"]),
        (["Which?\n<image>"], 1, ["Which?"]),
        (["Which? <image>"], 1, ["Which?"]),
        (["Which?"], 3, ["Which?"]),
        (["Is <image 1> like <image 2>?"], 2, ["Is image 1 like image 2?"]),
        (["Is <image> like <image>?"], 2, ["Is image 1 like image 2?"]),
        (["<image> and <image>: same?"], 2, ["image 1 and image 2: same?"]),
        (["Image A: <image>\nImage B: <image>\nIs A red?"], 2, ["Image A: image 1\nImage B: image 2\nIs A red?"]),
        (["Image 2: <image>\nImage 1: <image>\nWhich?"], 2, ["Image 2: image 1\nImage 1: image 2\nWhich?"]),
        (["<image>Which is like it?", "<image>", "<image>"], 3, ["Which is like it?", "image 2", "image 3"]),
        (["Which is like <image 3>?", "<image 1>", "<image 2>"], 3, ["Which is like image 3?", "image 1", "image 2"]),
        (["Is a < image > b?"], 1, ["Is a < image > b?"]),
        (["![](a.jpg)Which?"], 1, ["Which?"]),
        (["Is ![one](a.jpg) like ![two](data:image/png;base64,AA==)?"], 2, ["Is image 1 like image 2?"]),
        (["{image}Which?"], 1, ["Which?"]),
        (["Is {{ image_2 }} like {image1}?"], 2, ["Is image 2 like image 1?"]),
        ([r"Is \text{image} f_{image}?"], 1, [r"Is \text{image} f_{image}?"]),
        (["<images>Which?"], 1, ["Which?"]),
        (["<media_1><media_2>Which?"], 2, ["Which?"]),
        (["<图片1>哪个？"], 1, ["哪个？"]),
        (["图1：<image>；图2：<image>；哪个？"], 2, ["哪个？"]),
        (["Img1:<image>;Img2:<image>;Which?"], 2, ["Which?"]),
        (["<image>, which, or,"], 1, ["which, or,"]),
        (["Which? <image>;"], 1, ["Which?"]),
    ],
)
def test_marks_are_taken_out_or_put_into_words(texts: list[str], images: int, read: list[str]) -> None:
    assert list(resolve_marks(texts, images)) == read


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("<image>" * 3 + "Which?", "has 3 image marks for 1 images"),
        ("Image 1: <image>\nImage 2: <image>\nWhich?", "has 2 image marks for 1 images"),
        ("Is <image 2> red?", "number them from 1"),
        ("<图片1><图片2>Which?", "number them from 1"),
        ("![](a.png)![](a.png)Which?", "has 2 image marks for 1 images"),
        ("<image><image 1>Which?", "with and without a number"),
        ("<video>Which?", "the mark '<video>': only images"),
        ("<|audio|>Which?", "only images"),
        ("<|vision_start|>Which?", "a lone '<|vision_start|>'"),
        ("<image>my photo.jpg</image>Which?", "a lone '</image>'"),
        ("<im_start>Which?", "a lone '<im_start>'"),
        ("<image>", "holds no words"),
    ],
)
def test_marks_and_images_agree(tmp_path: Path, question: str, words: str) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    with pytest.raises(SampleError, match="line 1, column 'question' ") as caught:
        load_samples(write(tmp_path, ROW | {"question": question}))
    assert words in str(caught.value)


# ---------------------------------------------------------------- files and messages


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "has no rows"),
        (b"\n\n", "has no rows"),
        (json.dumps(ROW).encode("utf-16"), "save it as UTF-8"),
        (json.dumps(ROW).encode("utf-16-le"), "save it as UTF-8"),
        (json.dumps(ROW | {"question": "é?"}, ensure_ascii=False).encode("latin-1"), "save it as UTF-8"),
        (b"\x1f\x8b\x08" + b"x" * 40, "compressed"),
        (b"PAR1" + b"\0" * 40, "parquet file: give it a name"),
        (b'{"question": "A?", "answer": "x", "answer": "y", "image": "a.png"}', "gives the key 'answer' twice"),
        (b"[" * 100_000, "nested too deeply|is not JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"question": "A?", "image": "a.png", "answer": ' + b"9" * 5000 + b"}", "is not JSON"),
        (json.dumps(ROW | {"question": "\ud800 A?"}).encode(), "half a character"),
        (json.dumps(ROW | {"note": "\ud800"}).encode(), "half a character"),
        (json.dumps(ROW | {"answer": float("inf")}).encode(), "give a text or a number"),
        (json.dumps({"7": ROW, "8": ROW}).encode(), "row under each key"),
        (json.dumps({"images": [{"a": 1}], "annotations": [{"a": 1}]}).encode(), "several lists"),
        (json.dumps({"question": ["A?", "B?"], "image": ["a.png", "a.png"]}).encode(), "a list for each column"),
        (json.dumps({LONG: 1}).encode(), "no column holds the question"),
        (json.dumps(ROW | {"question": [LONG]}).encode(), "give a non-empty text"),
        (json.dumps(ROW | {"choices": [LONG]}).encode(), "2 to 26 non-empty"),
        (json.dumps(ROW | {"choices": ["x", "y"], "answer": LONG}).encode(), "mark it with <answer>"),
        (json.dumps(ROW | {"boxes": LONG}).encode(), "column 'boxes'"),
        (json.dumps(ROW | {"id": {"$oid": LONG}}).encode(), "column 'id'"),
        (json.dumps(ROW | {"messages": [{"role": LONG}]}).encode(), "can be read as plain and as ms-swift"),
        (LONG.encode(), "is not JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (
            json.dumps(ROW).encode() + b",\n" + json.dumps(ROW).encode(),
            "is not JSON: .*; write one JSON object per line",
        ),
        (
            json.dumps({"conversations": [{"from": "human", "value": "A?"}]}).encode(),
            "'conversations' is no list of .* in a row with images",
        ),
    ],
)
def test_a_file_that_cannot_be_read_says_why_in_a_line(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "rows.json").write_bytes(data)
    with pytest.raises(SampleError, match=words) as caught:
        load_samples(str(tmp_path / "rows.json"))
    assert len(str(caught.value)) < 800 and "\n" not in str(caught.value)
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize(
    "spec",
    [
        LONG,
        {"path": LONG, "n": 0},
        {"path": "a.jsonl", LONG: 1},
        {"path": "a.jsonl", "n": LONG},
        {"path": "a.jsonl", "columns": LONG},
        {"path": "a.jsonl", "split": [LONG]},
        {"path": "a\0b"},
        {"path": "a.jsonl", "box_scale": LONG},
        {"kind": LONG},
        {"split": LONG},
    ],
)
def test_a_wrong_spec_is_told_in_a_line(spec: Any) -> None:
    with pytest.raises(SampleError) as caught:
        load_samples(spec)
    assert len(str(caught.value)) < 800 and "\n" not in str(caught.value)


def test_files_that_were_put_together_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "rows.jsonl").write_text("\n".join(["\ufeff" + json.dumps(ROW)] * 2), encoding="utf-8")
    assert len(load_samples(str(tmp_path))) == 2


def test_format_and_schema_are_one_option() -> None:
    assert DataSpec.parse("a.json?format=verl") == DataSpec.parse("a.json?schema=verl")
    with pytest.raises(SampleError, match="format and schema are the same option"):
        DataSpec.parse("a.json?format=verl&schema=plain")
