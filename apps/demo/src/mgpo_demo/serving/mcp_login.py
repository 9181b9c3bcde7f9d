"""A login for the MCP tools: Gradio 6.31 guards its pages, API and files by `auth`, and leaves its MCP server open.

Relies on `Blocks.mcp_server_obj._client_instance`, the client through which Gradio's MCP server calls its own API.
"""

from __future__ import annotations

import base64
import secrets
from typing import Any

from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["McpLogin", "let_mcp_in", "mcp_guard"]

_PATH = "/gradio_api/mcp"


class McpLogin:
    """Refuses requests for MCP that do not carry user and password (HTTP's Basic authentication)."""

    def __init__(self, app: ASGIApp, auth: tuple[str, str]) -> None:
        self.app = app
        self._expected = b"Basic " + base64.b64encode(":".join(auth).encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] == "http" and _PATH in scope["path"] and not self._knows(scope):
            refused = PlainTextResponse(
                "MCP needs user and password here: send the header Authorization: Basic ...\n",
                status_code=401,
                headers={"WWW-Authenticate": 'Basic realm="mgpo-demo"'},
            )
            await refused(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return secrets.compare_digest(given, self._expected)


def mcp_guard(auth: tuple[str, str]) -> dict[str, Any]:
    """What `launch(app_kwargs=...)` needs to ask for the login."""
    return {"middleware": [Middleware(McpLogin, auth=auth)]}


def let_mcp_in(demo: Any, auth: tuple[str, str]) -> None:
    """Log Gradio's MCP server in at its own API, which would refuse it like anybody."""
    from gradio_client import Client

    demo.mcp_server_obj._client_instance = Client(
        demo.local_url,
        auth=auth,
        download_files=False,
        verbose=False,
        analytics_enabled=False,
        _skip_components=False,
        headers={"x-gradio-user": "mcp"},
    )
