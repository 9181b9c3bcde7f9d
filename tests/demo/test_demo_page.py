"""The page's own events over HTTP: what one visitor does, no other sees; and errors leave the page working."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gradio")

import gradio as gr

from mgpo_core.errors import EngineError
from mgpo_demo.cli import parser
from mgpo_demo.serving.server import free_port, opened
from mgpo_demo.session.limits import Limits

sys.path.insert(0, str(Path(__file__).parent))
from page_visitor import PageVisitor
from scripted_model import noise, scripted, usual


def moody(episode) -> str:
    if "fail" in episode.sample.question:
        raise EngineError("the server is gone; start it again")
    return usual(episode) if episode.wants_box else f"\\boxed{{{episode.sample.question}}}"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    options = parser().parse_args([])
    options.port = free_port("127.0.0.1", 0)
    model = scripted(moody)
    with opened(lambda: [model], options, Limits(upload_mb=1)) as addresses:
        yield addresses[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    noise(400, 300).save(tmp_path / "boat.png")
    return tmp_path / "boat.png"


def box(*corners: int) -> dict:
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)) | {"label": "", "color": "rgb(0, 0, 0)"}


def test_visitors_have_images_looks_and_files_of_their_own(url: str, file: Path, tmp_path: Path) -> None:
    anna, bert = PageVisitor(url), PageVisitor(url)
    anna.upload(file)
    anna.press("run", "anna?", "")
    assert "anna?" in anna.shown["answer"] and "Done in" in anna.status
    bert.press("run", "bert?", "")
    assert "There is no image yet" in bert.status and "answer" not in bert.shown
    with pytest.raises(RuntimeError, match="press Run first"):
        bert.save_json()
    bert.choose(1)
    bert.press("run", "bert?", "")
    saved = anna.save_json(), bert.save_json()
    assert [data["ask"]["question"] for data in saved] == ["anna?", "bert?"]
    assert saved[0]["image"]["data"] != saved[1]["image"]["data"]
    assert not [value for value in map(str, bert.shown.values()) if "anna" in value or "boat" in value]


def test_the_same_file_of_two_visitors_is_there_for_both(url: str, file: Path) -> None:
    anna, bert = PageVisitor(url), PageVisitor(url)
    for visitor in (anna, bert):
        [path] = visitor.http.post("gradio_api/upload", files={"files": ("boat.png", file.read_bytes())}).json()
        assert Path(path).is_file()
    for visitor in (anna, bert):
        visitor.queued(visitor.event("upload", "upload"), [{"path": path, "meta": {"_type": "gradio.FileData"}}])
        assert "boat.png" in visitor.shown["caption"]


def test_a_box_is_answered_from_looked_into_undone_saved_and_opened_again(url: str, file: Path, tmp_path: Path) -> None:
    visitor = PageVisitor(url)
    visitor.upload(file)
    visitor.press("from-box", "mine", "", boxes=[])
    assert "There is no box yet" in visitor.status
    visitor.press("from-box", "mine", "", boxes=[box(100, 50, 300, 250)])
    visitor.press("closer", "mine", "", boxes=[box(100, 50, 300, 250)])
    assert visitor.shown["history"].count("<tr") == 3 and "inside [100, 50, 300, 250]" in visitor.shown["history"]
    visitor.click("undo")
    assert visitor.shown["history"].count("<tr") == 2
    saved = tmp_path / "looks.json"
    saved.write_text(json.dumps(visitor.save_json()))
    again = PageVisitor(url)
    again.upload(saved, to="open")
    assert again.status == "Opened." and again.shown["history"] == visitor.shown["history"]
    assert again.save_json() == visitor.save_json()


def test_the_image_that_a_browser_names_is_never_opened(url: str, file: Path) -> None:
    visitor = PageVisitor(url)
    visitor.upload(file)
    bomb = file.with_name("bomb.png")
    bomb.write_bytes(b"no image")
    [path] = visitor.http.post("gradio_api/upload", files={"files": ("bomb.png", bomb.read_bytes())}).json()
    visitor.press("from-box", "mine", "", boxes=[box(100, 50, 300, 250)], path=path)
    assert "Done in" in visitor.status
    with pytest.raises(AssertionError, match="error"):
        visitor.press("from-box", "mine", "", boxes=[box(100, 50, 300, 250)], path="/etc/passwd")


def test_a_page_that_stays_open_does_not_grow(url: str, file: Path) -> None:
    """Gradio keeps a component for each output of each event, with what it showed: Gradio 6.31, session_memory.py."""
    visitor = PageVisitor(url)
    visitor.upload(file)
    kept = []
    for _ in range(6):
        visitor.press("run", "again", "")
        kept.append(sum(type(thing) is gr.HTML for thing in gc.get_objects()))
    assert max(kept[1:]) - kept[0] < 10, kept


def test_a_model_that_fails_is_told_and_the_next_run_works(url: str, file: Path) -> None:
    visitor = PageVisitor(url)
    visitor.upload(file)
    visitor.press("run", "please fail", "")
    assert visitor.status == "The server is gone; start it again."
    visitor.press("run", "fine", "")
    assert "fine" in visitor.shown["answer"]


def test_a_file_that_cannot_be_opened_leaves_the_page_as_it_was(url: str, file: Path) -> None:
    visitor = PageVisitor(url)
    visitor.upload(file)
    visitor.press("run", "fine", "")
    before = visitor.save_json()
    bad = file.with_name("bad.json")
    bad.write_text('{"format": "mgpo-demo looks", "image": "/etc/passwd"}')
    visitor.upload(bad, to="open")
    assert "cannot be opened" in visitor.status
    assert visitor.save_json() == before
