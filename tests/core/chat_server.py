"""A chat server on loopback that says what a test wants it to say."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BOX = '```json\n[{"bbox_2d": [7, 9, 83, 71], "label": "key image area"}]\n```'
FORGET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection
RESET, BREAK = "reset", "break"


@dataclass
class Reply:
    """What the server answers: an error's JSON, RESET (no answer at all), or pieces of text and how they end."""

    pieces: Iterable[str] = ()
    end: str | None = "stop"
    "The finish reason; None: the stream just ends; BREAK: the connection is reset in the middle of it."
    status: int = 200
    message: str = ""
    usage: dict[str, int] | None = None
    fault: str = ""
    "Sent as an error event after the pieces."


def pieces(text: str) -> list[str]:
    return re.findall(r"`+|\w+|\s+|[^\w\s`]", text)


def usual(body: dict[str, Any], number: int) -> Reply:
    """A box at the first turn; at the second, what is in the place of the sample's number in the question."""
    if len(body["messages"]) == 2:
        return Reply(pieces(BOX))
    return Reply(["So \\boxed{", re.findall(r"number (\d+)", json.dumps(body["messages"]))[0], "}"])


@dataclass
class ChatServer:
    """A server of one model, "tiny": every request's body is kept, and answered by `script(body, its number)`."""

    script: Callable[[dict[str, Any], int], Reply | str] = usual
    models: list[dict[str, str]] = field(default_factory=lambda: [{"id": "tiny", "owned_by": "somebody"}])
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    closed_by_client: threading.Event = field(default_factory=threading.Event)
    refuse_models: Reply | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, body: dict[str, Any]) -> int:
        with self._lock:
            self.bodies.append(body)
            return len(self.bodies) - 1


def handler_of(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.keys.append(self.headers["Authorization"])
            assert self.path == "/v1/models"
            if server.refuse_models is not None:
                return self.refuse(server.refuse_models)
            return self.say(200, {"object": "list", "data": [entry | {"object": "model"} for entry in server.models]})

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.keys.append(self.headers["Authorization"])
            reply = server.script(body, server.take(body))
            if isinstance(reply, str):
                return self.reset()
            return self.refuse(reply) if reply.status != 200 else self.stream(reply)

        def stream(self, reply: Reply) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                for piece in reply.pieces:
                    self.event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
            except OSError:
                return server.closed_by_client.set()
            if reply.end == BREAK:
                return self.reset()
            if reply.fault:
                return self.event({"error": {"message": reply.fault}})
            if reply.end:
                self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reply.end}]})
            if reply.usage:
                self.event({"choices": [], "usage": reply.usage})
            return None

        def event(self, data: dict[str, Any]) -> None:
            self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
            self.wfile.flush()

        def refuse(self, reply: Reply) -> None:
            self.say(reply.status, {"error": {"message": reply.message, "code": reply.status}})

        def say(self, status: int, data: dict[str, Any]) -> None:
            text = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, FORGET)
            self.close_connection = True
            for end in (self.rfile, self.wfile, self.connection):
                end.close()

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().finish()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(OSError):
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):  # a closed connection, as some tests want it
            super().handle_error(request, client_address)


@contextlib.contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address at which requests are handled by `handler`."""
    listener = Listener(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.server_port}"
    listener.shutdown()
    listener.server_close()
    thread.join()


@contextlib.contextmanager
def chatting(monkeypatch: Any) -> Iterator[ChatServer]:
    """A server that has begun, without pauses between the attempts of an engine."""
    import openai._base_client

    from mgpo_core.engines.chat import engine as engine_module

    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.0)
    monkeypatch.setattr(engine_module, "_PAUSE", 0.0)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    chat = ChatServer()
    with listening(handler_of(chat)) as chat.url:
        yield chat
