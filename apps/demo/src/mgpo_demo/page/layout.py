"""The page: Gradio's components, and which action each event calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_image_annotation import image_annotator

from mgpo_core import Box
from mgpo_demo.page import views
from mgpo_demo.page.actions import Actions, PageUpdate, error_html
from mgpo_demo.page.api import add_api
from mgpo_demo.page.runs_tab import add_runs_tab
from mgpo_demo.page.session_memory import forget_copies
from mgpo_demo.session import saved
from mgpo_demo.session.limits import DemoError
from mgpo_demo.session.steps import Question
from mgpo_demo.session.visitors import Visitor, Visitors

__all__ = ["build"]

_INTRO = """A vision-language model gets a large image shrunk to its pixel budget. It names the region that matters, \
receives that region **cut from the original** and enlarged, and answers. Choose an example or drop an image, ask, \
press Run."""
_SCRIPT = resources.files("mgpo_demo").joinpath("page.js").read_text(encoding="utf-8")
_BLUE = (47, 109, 246)


def build(actions: Actions, visitors: Visitors, *, root: Path | None, at_once: int) -> gr.Blocks:
    """The demo as Gradio's Blocks; up to `at_once` runs at a time, `root` is what the second tab may read."""
    with gr.Blocks(
        title="MGPO: look closer", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True
    ) as demo:
        gr.Markdown("# MGPO: look closer", elem_id="title")
        with gr.Tabs():
            with gr.Tab("Look"):
                parts = _layout(actions)
            add_runs_tab(root)
        _Events(actions, visitors, parts, at_once).connect()
        add_api(actions, at_once)
        demo.load(None, js=f"() => ({_SCRIPT})({actions.limits.upload_bytes})", api_visibility="private")
        demo.unload(_leave(visitors))
    return demo


def _leave(visitors: Visitors) -> Callable[[gr.Request], None]:
    def leave(request: gr.Request) -> None:
        visitors.leave(request.session_hash)

    return leave


def _layout(actions: Actions) -> dict[str, Any]:
    """The parts of the page by name."""
    parts: dict[str, Any] = {}
    gr.Markdown(_INTRO, elem_id="intro")
    with gr.Row(elem_id="main"):
        with gr.Column(scale=5, min_width=320):
            _image_layout(parts, actions)
        with gr.Column(scale=4, min_width=320, elem_id="talk"):
            _question_layout(parts)
            parts["status"] = _html("status")
            with gr.Row(elem_id="answers"):
                for name in ("answer", "single_turn"):
                    parts[name] = _html(name, min_width=150)
            for name in ("turn1", "crop", "turn2", "others"):
                parts[name] = _html(name)
    _history_layout(parts)
    return parts


def _html(name: str, **options: Any) -> Any:
    return gr.HTML(elem_id=name, **options)


def _image_layout(parts: dict[str, Any], actions: Actions) -> None:
    with gr.Row(elem_id="sources"):
        parts["examples"] = gr.Gallery(
            value=_thumbnails(actions), label="Examples", columns=len(actions.examples), rows=1, height="auto",
            allow_preview=False, object_fit="cover", buttons=[], interactive=False, scale=4, min_width=300,
            elem_id="examples",
        )  # fmt: skip
        parts["upload"] = gr.File(
            label="Your image", file_count="single", height=110, scale=1, min_width=150, elem_id="upload"
        )
    parts["image"] = image_annotator(
        label="The image: draw, move or resize the box", single_box=True, sources=[],
        disable_edit_boxes=True, boxes_alpha=0.12, box_thickness=3, box_selected_thickness=4, handle_size=10,
        show_clear_button=False, show_remove_button=False, show_download_button=False, show_share_button=False,
        image_type="filepath", enable_keyboard_shortcuts=False, label_list=["box"], label_colors=[_BLUE],
        use_default_label=True, elem_id="image",
    )  # fmt: skip
    # only its boxes are read: each press of a button would decode whatever image the browser names, and keep a copy
    parts["image"].preprocess_image = lambda image: None
    parts["caption"] = _html("caption")
    with gr.Row(elem_id="box"):
        parts["numbers"] = gr.Textbox(
            label="The box: x1, y1, x2, y2 in pixels of the original", max_lines=1, elem_id="numbers", scale=3,
            placeholder="draw it on the image, or type it here",
        )  # fmt: skip
        parts["draw"] = gr.Button("Draw it", size="md", elem_id="draw", scale=1, min_width=110)
    with gr.Row():
        parts["from_box"] = gr.Button("Answer from this box", size="md", elem_id="from-box", min_width=150)
        parts["closer"] = gr.Button("Look closer inside it", size="md", elem_id="closer", min_width=150)


def _question_layout(parts: dict[str, Any]) -> None:
    parts["question"] = gr.Textbox(
        label="Question", placeholder="What is written on the hull of the red boat?", lines=1, max_lines=4,
        elem_id="question",
    )  # fmt: skip
    parts["choices"] = gr.Textbox(
        label="Choices (one a line; leave empty for a free answer)", lines=2, max_lines=6, elem_id="choices"
    )
    with gr.Row():
        parts["run"] = gr.Button("Run", variant="primary", elem_id="run", min_width=140, scale=3)
        parts["stop"] = gr.Button("Stop", variant="secondary", elem_id="stop", min_width=90, scale=1)


def _history_layout(parts: dict[str, Any]) -> None:
    parts["history"] = _html("history")
    with gr.Row(elem_id="steps"):
        parts["undo"] = gr.Button("Undo the last step", size="sm", elem_id="undo", min_width=140)
        parts["save_html"] = gr.Button("Save as HTML", size="sm", elem_id="save-html", min_width=120)
        parts["save_json"] = gr.Button("Save as JSON", size="sm", elem_id="save-json", min_width=120)
        parts["open"] = gr.UploadButton(
            "Open a saved JSON", size="sm", file_types=[".json"], elem_id="open", min_width=140
        )
    for name in ("html", "json"):
        parts[f"file_{name}"] = gr.DownloadButton(name, elem_id=f"file-{name}", elem_classes="unseen")
    parts["too_large"] = gr.Button("too large", elem_id="too-large", elem_classes="unseen")
    parts["refused"] = gr.JSON(visible=False)
    with gr.Accordion("Explain: tokens, mask, time, confidence", open=False, elem_id="explain-box"):
        parts["explain"] = _html("explain")


def _thumbnails(actions: Actions) -> list[tuple[Any, str]]:
    thumbnails = []
    for sample in actions.examples:
        image = sample.load().copy()
        image.thumbnail((240, 240))
        thumbnails.append((image, f"{sample.metadata['colour']} {sample.metadata['shape']}"))
    return thumbnails


class _Events:
    """Connects the parts with the actions."""

    def __init__(self, actions: Actions, visitors: Visitors, parts: dict[str, Any], at_once: int) -> None:
        self.actions, self.visitors, self.parts = actions, visitors, parts
        self.queue: dict[str, Any] = {"concurrency_limit": at_once, "concurrency_id": "model"}
        self._waiting: dict[str, tuple[str, Question, Box | None]] = {}
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Every event of the first tab; none of them is an API, `add_api` makes those."""
        parts = self.parts
        private: dict[str, Any] = {"api_visibility": "private"}
        shown = [part for name, part in parts.items() if name in _SHOWN]
        light: dict[str, Any] = {"outputs": shown, "show_progress": "hidden", **private}
        parts["examples"].select(self._choose, None, queue=False, **light)
        taken = light | {"outputs": [*shown, parts["upload"]]}
        parts["upload"].upload(self._upload, [parts["upload"]], concurrency_limit=2, **taken)
        parts["open"].upload(self._open, [parts["open"]], concurrency_limit=2, **light)
        parts["too_large"].click(
            self._too_large, [parts["refused"]], js="() => [window.mgpoRefused]", queue=False, **light
        )
        parts["image"].change(
            self._drawn, [parts["image"], parts["numbers"]], parts["numbers"], queue=False, show_progress="hidden",
            trigger_mode="always_last", **private,
        )  # fmt: skip
        parts["undo"].click(self._undo, None, queue=False, **light)
        gr.on([parts["draw"].click, parts["numbers"].submit], self._draw, [parts["numbers"]], queue=False, **light)
        asked = [parts["question"], parts["choices"], parts["image"]]
        for wish, triggers in (
            ("run", [parts["run"].click, parts["question"].submit]),
            ("from_box", [parts["from_box"].click]),
            ("closer", [parts["closer"].click]),
        ):
            begin = gr.on(triggers, self._begin(wish), asked, queue=False, trigger_mode="multiple", **light)
            begin.then(self._run, None, trigger_mode="multiple", **light, **self.queue)
        parts["stop"].click(self._stop, None, queue=False, **light)
        for kind, write in (("html", saved.write_html), ("json", saved.write_json)):
            file = parts[f"file_{kind}"]
            parts[f"save_{kind}"].click(
                self._save(write, file), None, [file, parts["status"]], show_progress="hidden", concurrency_limit=2,
                **private,
            ).then(
                None, [file], js=f"(file) => {{ if (file) document.querySelector('#file-{kind}').click(); }}", **private
            )  # fmt: skip

    def _show(self, update: PageUpdate) -> dict[Any, Any]:
        """The update as values of components; Gradio wants at least one."""
        shown = {self.parts[name]: _annotated(*value) if name == "image" else value for name, value in update.items()}
        return shown or {self.parts["status"]: gr.skip()}

    def _answer(self, request: gr.Request, act: Callable[[Visitor], PageUpdate]) -> dict[Any, Any]:
        """What an action tells, or the error that it raised as a sentence in the page."""
        forget_copies(request)
        try:
            return self._show(act(self.visitors.of(request.session_hash)))
        except Exception as error:
            return self._show({"status": error_html(error)})

    def _choose(self, event: gr.SelectData, request: gr.Request) -> dict[Any, Any]:
        return self._answer(request, lambda visitor: self.actions.choose_example(visitor, int(event.index)))

    def _upload(self, file: str | None, request: gr.Request) -> dict[Any, Any]:
        if file is None:
            return self._show({})
        path = Path(file)
        shown = self._answer(request, lambda visitor: self.actions.upload(visitor, path, path.name))
        return {**shown, self.parts["upload"]: None}

    def _too_large(self, refused: dict[str, Any], request: gr.Request) -> dict[Any, Any]:
        def refuse(_: Visitor) -> PageUpdate:
            self.actions.limits.check_upload(int(refused["size"]), repr(str(refused["name"])[:80]))
            return {}

        return self._answer(request, refuse)

    def _drawn(self, image: dict | None, numbers: str, request: gr.Request) -> Any:
        visitor = self.visitors.of(request.session_hash)
        if visitor.image is None or not (image or {}).get("boxes"):
            return gr.skip()
        box = _box_of(image, visitor)
        if min(box.width, box.height) <= 0:  # the mouse has only just been pressed
            return gr.skip()
        return self.actions.drawn(visitor, box, numbers).get("numbers", gr.skip())

    def _open(self, file: str | None, request: gr.Request) -> dict[Any, Any]:
        return self._answer(request, lambda visitor: self.actions.open(visitor, Path(file or "")))

    def _undo(self, request: gr.Request) -> dict[Any, Any]:
        return self._answer(request, self.actions.undo)

    def _draw(self, numbers: str, request: gr.Request) -> dict[Any, Any]:
        return self._answer(request, lambda visitor: self.actions.draw(visitor, numbers))

    def _stop(self, request: gr.Request) -> dict[Any, Any]:
        def stop(visitor: Visitor) -> PageUpdate:
            visitor.stop.set()
            return {}

        return self._answer(request, stop)

    def _begin(self, wish: str) -> Callable[..., dict[Any, Any]]:
        """Checks a wish at once, however long the queue is, and puts it down for `_run`."""

        def begin(question: str, choices: str, image: dict | None, request: gr.Request) -> dict[Any, Any]:
            def put_down(visitor: Visitor) -> PageUpdate:
                asked = self.actions.check(visitor, question, choices)
                box = None if wish == "run" else _box_of(image, visitor)
                visitor.start()
                with self._lock:
                    self._waiting[str(request.session_hash)] = (wish, asked, box)
                return {"status": views.note("Waiting for the model …", "busy")}

            return self._answer(request, put_down)

        return begin

    def _run(self, request: gr.Request) -> Iterator[dict[Any, Any]]:
        with self._lock:
            wish, question, box = self._waiting.pop(str(request.session_hash), (None, None, None))
        if wish is None or question is None:
            yield {self.parts["status"]: gr.skip()}
            return
        visitor = self.visitors.of(request.session_hash)
        stop, image = visitor.stop, visitor.image
        try:
            stop.check()
            if box is None:
                updates = self.actions.run(visitor, question)
            else:
                updates = (self.actions.from_box if wish == "from_box" else self.actions.closer)(visitor, question, box)
            for update in updates:
                if update:
                    yield self._show(update)
        except Exception as error:
            if visitor.stop is stop:  # else the page is the next run's by now
                yield self._show(self.actions.broken_off(visitor, image, error))

    def _save(self, write: Callable[[Visitor, Path], Path], file: Any) -> Callable[[gr.Request], Any]:
        def save(request: gr.Request) -> dict[Any, Any]:
            try:
                visitor = self.visitors.of(request.session_hash)
                return {file: str(write(visitor, visitor.folder)), self.parts["status"]: views.note("Saved.")}
            except Exception as error:
                return {file: None, self.parts["status"]: error_html(error)}

        return save


_SHOWN = (
    "image", "caption", "question", "choices", "numbers", "status", "answer", "turn1", "crop", "turn2", "single_turn",
    "others", "history", "explain",
)  # fmt: skip
"""Parts that actions update."""


def _annotated(shown: Path, box: Box | None, label: str) -> dict[str, Any]:
    """The annotator's value: the copy, and the box on it."""
    boxes = []
    if box is not None:
        x1, y1, x2, y2 = (int(value) for value in box.as_tuple())
        boxes.append({"xmin": x1, "ymin": y1, "xmax": x2, "ymax": y2, "label": label or "box", "color": _BLUE})
    return {"image": str(shown), "boxes": boxes}


def _box_of(value: dict | None, visitor: Visitor) -> Box:
    """The box in the annotator, in pixels of the original; DemoError when none is drawn."""
    boxes = (value or {}).get("boxes") or []
    if not boxes or visitor.image is None:
        raise DemoError("there is no box yet: draw one on the image, type its numbers, or press Run first")
    box = boxes[-1]
    return visitor.image.to_original(Box(box["xmin"], box["ymin"], box["xmax"], box["ymax"]))
