"""The API through Gradio's own client, and what it gives away to nobody; on a real server with a scripted model."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import io
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import httpx
import pytest
from patience import HANG
from PIL import Image

pytest.importorskip("gradio")

from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError, AuthenticationError

from mgpo_core import Box, crop, haystack
from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.errors import EngineError
from mgpo_demo.cli import parser
from mgpo_demo.serving.server import free_port, opened
from mgpo_demo.session.limits import Limits
from mgpo_demo.session.model import DemoModel

sys.path.insert(0, str(Path(__file__).parent))
from scripted_model import BUDGET, noise, scripted, usual

LIMITS = Limits(upload_mb=1, megapixels=2, question=200, seconds=HANG)
AUTH = ("anna", "secret")


def moody(episode) -> str:
    """Fails when it is asked to, else answers with the number in the question."""
    if "fail" in episode.sample.question:
        raise EngineError("the server is gone; start it again")
    if "burst" in episode.sample.question:
        raise ZeroDivisionError("a secret path: /srv/models")
    return usual(episode) if episode.wants_box else f"\\boxed{{{episode.sample.question}}}"


@contextlib.contextmanager
def running(model: DemoModel, auth: tuple[str, str] | None = None, limits: Limits = LIMITS) -> Iterator[str]:
    options = parser().parse_args([])
    options.port = free_port("127.0.0.1", 0)
    with opened(lambda: [model], options, limits, auth) as addresses:
        yield addresses[0]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(scripted(moody)) as address:
        yield address


@pytest.fixture
def guarded() -> Iterator[str]:
    with running(scripted(moody), AUTH) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "boat.png"
    noise(400, 300).save(file)
    return file


def test_a_look_gives_answer_box_and_crop(client: Client, photo: Path) -> None:
    outcome, seen = client.predict(handle_file(photo), "B", "red\nblue", api_name="/look")
    assert outcome["answer"] == "B" and outcome["choice"] == "B: blue" and outcome["single_turn"]["answer"] == "B"
    assert outcome["original_size"] == [400, 300] and outcome["input_size"] == list(BUDGET.smart_resize(400, 300))
    expected = crop(Image.open(photo), Box(56, 28, 140, 112), budget=BUDGET, space=CoordinateSpace.ABSOLUTE)
    assert expected.image is not None and expected.box_original is not None
    assert outcome["box"] == list(expected.box_original.as_tuple())
    with Image.open(seen) as image:
        assert image.convert("RGB").tobytes() == expected.image.tobytes()
    assert outcome["crop_size"] == list(expected.image.size)
    assert [turn["finish_reason"] for turn in outcome["turns"]] == ["stop", "stop"]


def test_a_box_of_ones_own_is_answered_from(client: Client, photo: Path) -> None:
    outcome, _ = client.predict(handle_file(photo), "free", "", "100, 50, 300, 250", api_name="/answer_from_box")
    assert outcome["answer"] == "free" and outcome["choice"] is None and "single_turn" not in outcome
    assert all(abs(a - b) <= 3 for a, b in zip(outcome["box"], (100, 50, 300, 250), strict=True))


def test_the_same_image_can_be_sent_again_and_again(client: Client, photo: Path) -> None:
    sent = handle_file(photo)
    for number in range(3):
        assert client.predict(sent, f"{number}", "", api_name="/look")[0]["answer"] == f"{number}"


@pytest.mark.parametrize(
    ("question", "choices", "said"),
    [
        ("", "", "the question is empty"),
        ("x" * 201, "", "201 characters; at most 200"),
        ("x", "one", "one choice is no choice"),
        ("please fail", "", r"the server is gone; start it again"),
        ("burst", "", r"something went wrong \(ZeroDivisionError\)"),
    ],
)
def test_errors_come_back_as_sentences_and_the_next_call_works(
    client: Client, photo: Path, question: str, choices: str, said: str
) -> None:
    with pytest.raises(AppError, match=said) as told:
        client.predict(handle_file(photo), question, choices, api_name="/look")
    assert "/srv" not in str(told.value)
    assert client.predict(handle_file(photo), "fine", "", api_name="/look")[0]["answer"] == "fine"


@pytest.mark.parametrize(
    "box",
    ["", "1, 2, 3", "a, b, c, d", "nan, 0, 50, 50", "0, 0, inf, 50", "0, 0, 401, 300", "50, 50, 10, 90", "1e999,0,1,1"],
)
def test_a_box_that_is_none_is_refused(client: Client, photo: Path, box: str) -> None:
    with pytest.raises(AppError, match="box="):
        client.predict(handle_file(photo), "x", "", box, api_name="/answer_from_box")


def test_large_images_are_refused_with_the_limit(url: str, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    Image.new("1", (2000, 1001)).save(file)
    with pytest.raises(AppError, match=r"2,000×1,001 = 2 million pixels; at most 2 million"):
        client.predict(handle_file(file), "x", "", api_name="/look")
    file.write_bytes(os.urandom(1_000_001))
    with pytest.raises(AppError, match=r"has 1\.0 MB; at most 1 MB"):
        client.predict(handle_file(file), "x", "", api_name="/look")
    assert upload(url, "larger.png", os.urandom(LIMITS.saved_bytes + 100_000)).status_code == 413


def test_a_run_ends_after_its_time(photo: Path) -> None:
    limits = dataclasses.replace(LIMITS, seconds=1.0)
    endless = scripted(lambda episode: "I look. " * 100_000, pause=0.1)
    with running(endless, limits=limits) as address, pytest.raises(AppError, match="after 1 s, the most"):
        Client(address, verbose=False).predict(handle_file(photo), "x", "", api_name="/look")


def test_who_finds_the_queue_full_is_told_so(photo: Path) -> None:
    held = threading.Event()

    def holding(episode) -> str:
        held.wait(HANG)
        return moody(episode)

    with running(scripted(holding), limits=dataclasses.replace(LIMITS, queue=1)) as address:
        client = Client(address, verbose=False)
        jobs = [client.submit(handle_file(photo), "x", "", api_name="/look") for _ in range(6)]
        # whoever is answered while the first run is held is refused
        refused = next(as_completed([job.future for job in jobs], timeout=HANG)).exception()
        held.set()
        for job in jobs:
            job.exception(timeout=HANG)
    assert "queue is full" in str(refused).lower(), refused


def secret_file() -> Path:
    """A file of the server's where Gradio itself would let a function read: the folder for temporary files."""
    handle, name = tempfile.mkstemp(suffix=".png", prefix="mgpo-secret-")
    os.close(handle)
    Image.new("RGB", (40, 40), "red").save(name)
    return Path(name)


def call(url: str, image: Any, **more: Any) -> httpx.Response:
    """One call of /look, as a program would make it that does not use the client."""
    with httpx.Client(base_url=url, timeout=HANG, **more) as http:
        started = http.post("gradio_api/call/look", json={"data": [image, "x", ""]})
        if started.status_code != 200:
            return started
        return http.get(f"gradio_api/call/look/{started.json()['event_id']}")


FILE = {"meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("kind", ["plain", "url", "both", "uri", "dots", "name"])
@pytest.mark.parametrize("place", ["/etc/passwd", "temporary", "working"])
def test_no_call_reads_a_path_of_the_server(url: str, kind: str, place: str) -> None:
    secret = secret_file()
    try:
        path = {"temporary": str(secret), "working": os.path.abspath("pyproject.toml")}.get(place, place)
        image = {
            "plain": {"path": path},
            "url": {"path": path, "url": f"{url}gradio_api/file={path}"},
            "both": {"path": f"{url}gradio_api/file={path}"},
            "uri": {"path": f"file://{path}"},
            "dots": {"path": f"{tempfile.gettempdir()}/gradio/../../..{path}"},
            "name": path,
        }[kind]
        answer = call(url, image if isinstance(image, str) else image | FILE)
        assert answer.status_code >= 400 or "event: error" in answer.text, answer.text
        assert (
            "event: complete" not in answer.text and "root:" not in answer.text and "[build-system]" not in answer.text
        )
    finally:
        secret.unlink()


def visitors_files() -> list[Path]:
    return [path for folder in Path(tempfile.gettempdir()).glob("mgpo-demo-*") for path in folder.rglob("*")]


def test_no_address_serves_a_path_of_the_server(url: str) -> None:
    secret = secret_file()
    try:
        for path in ("/etc/passwd", "../../../etc/passwd", "//etc/passwd", "%2e%2e/%2e%2e/etc/passwd", str(secret),
                     os.path.abspath("pyproject.toml"), "pyproject.toml", "/proc/self/environ",
                     os.environ.get("GRADIO_TEMP_DIR", "/nothing")):  # fmt: skip
            for route in ("gradio_api/file=", "file=", "gradio_api/file/", "static/", "assets/", "gradio_api/proxy=",
                          "gradio_api/file=file://", "static/../../", "custom_component/x/client/component/",
                          "gradio_api/stream/", "gradio_api/deep_link?path="):  # fmt: skip
                answer = httpx.get(f"{url}{route}{path}", timeout=HANG)
                told = answer.text[:200]
                assert answer.status_code >= 400, f"{route}{path}: {answer.status_code} {told}"
    finally:
        secret.unlink()


def custom_component_route(url: str) -> str:
    config = httpx.get(f"{url}config", timeout=HANG).json()
    [component] = [part for part in config["components"] if part["type"] == "image_annotator"]
    return f"{url}custom_component/{component['component_class_id']}/client/component/"


@pytest.mark.parametrize(
    "path", ["../../../../../../../../etc/passwd", "%2e%2e/%2e%2e/%2e%2e/image_annotator.py", "/etc/passwd"]
)
def test_the_annotators_files_are_all_that_its_address_serves(url: str, path: str) -> None:
    assert httpx.get(f"{custom_component_route(url)}{path}", timeout=HANG).status_code >= 400


def test_the_folder_of_a_visitor_is_served_to_nobody(url: str, photo: Path) -> None:
    from mgpo_demo.session.image import keep_upload
    from mgpo_demo.session.visitors import Visitors

    visitors = Visitors(LIMITS)
    anna = visitors.of("anna")
    kept = anna.show(lambda folder: keep_upload(photo, "boat.png", folder, LIMITS))
    for path in (kept.path, kept.shown, anna.folder):
        assert httpx.get(f"{url}gradio_api/file={path}", timeout=HANG).status_code == 403
        answer = call(url, {"path": str(path)} | FILE)
        assert "event: complete" not in answer.text
    visitors.close()


def test_what_was_uploaded_can_be_used_and_read_by_who_knows_its_name(url: str, photo: Path) -> None:
    """What the tests around this one refuse is refused for its place: this is not."""
    [path] = upload(url, "boat.png", photo.read_bytes()).json()
    assert httpx.get(f"{url}gradio_api/file={path}", timeout=HANG).content == photo.read_bytes()
    assert "event: complete" in call(url, {"path": path} | FILE).text


def test_the_server_asks_no_other_for_an_image(url: str, photo: Path) -> None:
    """Addresses of this machine or its network could be services that trust whoever is inside."""
    asked: list[str] = []

    class Inner(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            self.wfile.write(photo.read_bytes())

        def do_HEAD(self) -> None:
            asked.append(self.path)

        def log_message(self, *_: Any) -> None:
            pass

    inner = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Inner)
    threading.Thread(target=inner.serve_forever, daemon=True).start()
    try:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"):
            address = f"http://{host}:{inner.server_address[1]}/a.png"
            answer = call(url, {"path": address, "url": address} | FILE)
            assert "event: complete" not in answer.text, address
            for route in ("gradio_api/file=", "gradio_api/proxy="):
                assert httpx.get(f"{url}{route}{address}", timeout=HANG).status_code >= 400, (route, address)
        assert asked == []
    finally:
        inner.shutdown()


def upload(url: str, name: str, content: bytes, **more: Any) -> httpx.Response:
    return httpx.post(f"{url}gradio_api/upload", files={"files": (name, io.BytesIO(content))}, timeout=HANG, **more)


def test_an_uploads_name_leads_nowhere(url: str, photo: Path) -> None:
    cache = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
    for name in ("../../../outside.png", "/etc/outside.png", "..", "a/../../b.png", "x\\..\\y.png", ".hidden.png"):
        answer = upload(url, name, photo.read_bytes())
        if answer.status_code == 200:
            [path] = answer.json()
            assert Path(path).resolve().is_relative_to(cache), (name, path)
    assert not Path("/etc/outside.png").exists() and not (cache.parent / "outside.png").exists()


def test_a_page_that_was_uploaded_is_downloaded_and_never_shown(url: str) -> None:
    """Else it could act in the name of whoever opens its address."""
    for name in ("a.html", "a.svg"):
        [path] = upload(url, name, b"<script>alert(1)</script>").json()
        answer = httpx.get(f"{url}gradio_api/file={path}", timeout=HANG)
        assert answer.headers["content-disposition"].startswith("attachment"), name


def test_events_of_the_page_are_no_api(client: Client) -> None:
    api = client.view_api(return_format="dict", print_info=False)
    assert set(api["named_endpoints"]) == {"/look", "/answer_from_box"} and not api["unnamed_endpoints"]
    described = api["named_endpoints"]["/look"]["parameters"]
    assert [parameter["parameter_name"] for parameter in described] == ["image", "question", "choices"]


def test_the_documented_example_runs(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/demo.md").read_text()
    [example] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "gradio_client" in block]
    assert "http://127.0.0.1:7860" in example
    haystack.make("val", 1, 0)[0].load().save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example.replace("http://127.0.0.1:7860", url), "docs/demo.md", "exec"), names)
    assert names["outcome"]["choice"] is None and Image.open(names["crop"]).size[0] > 0


def test_without_the_login_everything_is_refused(guarded: str, photo: Path) -> None:
    with pytest.raises((AuthenticationError, ValueError)):
        Client(guarded, verbose=False)
    with pytest.raises((AuthenticationError, ValueError, Exception), match=r"(?i)login|credential|incorrect|auth"):
        Client(guarded, auth=("anna", "wrong"), verbose=False)
    with httpx.Client(base_url=guarded, timeout=HANG) as http:
        for path in ("config", "gradio_api/info", "gradio_api/file=/etc/passwd", "gradio_api/queue/status",
                     "gradio_api/queue/data?session_hash=a", "gradio_api/call/look/abc", "monitoring"):  # fmt: skip
            assert http.get(path).status_code == 401, path
        for path in ("gradio_api/call/look", "gradio_api/queue/join", "gradio_api/run/look", "gradio_api/api/look",
                     "gradio_api/component_server"):  # fmt: skip
            body = {"data": [None, "x", ""], "fn_index": 0, "session_hash": "a", "component_id": 1, "fn_name": "x"}
            assert http.post(path, json=body).status_code in (401, 404), path
        assert upload(guarded, "a.png", photo.read_bytes()).status_code == 401


def test_with_the_login_all_of_it_works(guarded: str, photo: Path) -> None:
    client = Client(guarded, auth=AUTH, verbose=False)
    assert client.predict(handle_file(photo), "mine", "", api_name="/look")[0]["answer"] == "mine"
