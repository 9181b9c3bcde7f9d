"""A visitor of the page without a browser: the same events with the same data, over HTTP."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path
from typing import Any

import httpx
from patience import HANG

JSON = dict[str, Any]


class PageVisitor:
    """One page: it has a session of its own, and shows what the server last sent of each part (by `elem_id`)."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=HANG)
        self.session = secrets.token_hex(6)
        self.config = self.http.get("config").json()
        self.parts = {part["id"]: part["props"].get("elem_id") for part in self.config["components"]}
        self.shown: dict[str, Any] = {}

    def upload(self, file: Path, *, to: str = "upload") -> None:
        """Drop a file on a part."""
        [path] = self.http.post("gradio_api/upload", files={"files": (file.name, file.read_bytes())}).json()
        self.queued(self.event(to, "upload"), [file_data(path, file.name)])

    def press(self, button: str, question: str, choices: str, boxes: list[JSON] | None = None, path: str = "") -> None:
        """Press a button that runs something, and wait until it is over.

        `boxes` are on the image that is shown, or that at `path`.
        """
        image = None
        if boxes is not None:
            path = path or self.shown["image"]["image"]["path"]
            image = {"image": file_data(path, "a.png"), "boxes": boxes, "orientation": 0}
        begin = self.event(button, "click")
        self.at_once(begin, [question, choices, image])
        [then] = [event for event in self.config["dependencies"] if event.get("trigger_after") == begin["id"]]
        self.queued(then, [])

    def choose(self, number: int) -> None:
        """Click on an example."""
        self.at_once(self.event("examples", "select"), [], {"index": number, "value": None})

    def click(self, button: str) -> None:
        """Press a button that does something at once."""
        self.at_once(self.event(button, "click"), [])

    def save_json(self) -> JSON:
        """What "Save as JSON" downloads; RuntimeError with the page's sentence where there is nothing to save."""
        self.queued(self.event("save-json", "click"), [])
        if self.shown["file-json"] is None:
            raise RuntimeError(self.status)
        return self.http.get(self.shown["file-json"]["url"]).json()

    @property
    def status(self) -> str:
        """The words of the status line."""
        return re.sub(r"<[^>]+>", "", self.shown.get("status") or "")

    def event(self, part: str, kind: str) -> JSON:
        for event in self.config["dependencies"]:
            for target, name in event["targets"]:
                if name == kind and self.parts.get(target) == part:
                    return event
        raise AssertionError(f"nothing happens at {kind} of {part}")

    def body(self, event: JSON, data: list[Any], event_data: JSON | None = None) -> JSON:
        body = {"data": data, "fn_index": event["id"], "session_hash": self.session, "event_data": event_data}
        return body | {"trigger_id": event["targets"][0][0] if event["targets"] else None}

    def at_once(self, event: JSON, data: list[Any], event_data: JSON | None = None) -> None:
        assert event["queue"] is False
        answer = self.http.post("gradio_api/run/predict", json=self.body(event, data, event_data))
        assert answer.status_code == 200, answer.text
        self.show(event, answer.json()["data"])

    def queued(self, event: JSON, data: list[Any]) -> None:
        joined = self.http.post("gradio_api/queue/join", json=self.body(event, data))
        assert joined.status_code == 200, joined.text
        completed = None
        with self.http.stream("GET", "gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():  # to its end, as a browser reads
                message = json.loads(line[5:]) if line.startswith("data:") else {"msg": ""}
                if message["msg"] == "process_completed":
                    completed = message
        assert completed is not None, "the stream ended before the event did"
        if not completed["success"]:
            raise RuntimeError(completed["output"].get("error"))
        self.show(event, completed["output"]["data"])

    def show(self, event: JSON, data: list[Any]) -> None:
        for part, value in zip(event["outputs"], data, strict=True):
            if isinstance(value, dict) and value.get("__type__") == "update":
                if "value" not in value:
                    continue
                value = value["value"]
            self.shown[self.parts[part] or str(part)] = value


def file_data(path: str, name: str) -> JSON:
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
