"""`mgpo-demo`: the command. Gradio and torch are imported only when the options have been understood and checked."""

from __future__ import annotations

import argparse
import getpass
import importlib.metadata
import ipaddress
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mgpo_core.errors import MGPOError
from mgpo_core.messages.command_line import SuggestingParser
from mgpo_core.messages.install import from_clone
from mgpo_core.messages.suggest import nearest
from mgpo_core.registry import import_plugins
from mgpo_demo.session.limits import DemoError, Limits

__all__ = ["main", "parser"]

_EPILOG = """\
examples:
  mgpo-demo                                             the tiny checkpoint that ships, offline
  mgpo-demo --compare haystack:base                     before and after training, side by side
  mgpo-demo --model outputs/haystack-mgpo/model --root outputs
  mgpo-demo --model Qwen/Qwen2.5-VL-7B-Instruct --device cuda --dtype bfloat16
  mgpo-demo --server http://localhost:8000/v1 --coordinate-space absolute
  mgpo-demo --host 0.0.0.0 --auth anna:PASSWORD         for others; or MGPO_DEMO_AUTH=anna:PASSWORD
"""


def parser() -> argparse.ArgumentParser:
    """The options of `mgpo-demo`."""
    made = SuggestingParser(
        prog="mgpo-demo",
        description="See a vision-language model look closer, and look for it, in the browser.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    model = made.add_argument_group("model")
    model.add_argument("--model", help="checkpoint folder, hub id or haystack:NAME (default: haystack:mgpo)")
    model.add_argument("--compare", metavar="MODEL", help="a second model that answers the same beside it")
    model.add_argument("--device", help="cuda, cuda:0 or cpu (default: the GPU if there is one)")
    model.add_argument("--dtype", help="float32, bfloat16 (default: the checkpoint's)")
    model.add_argument(
        "--plugins", nargs="+", default=[], metavar="FILE", help="modules or Python files that register model families"
    )
    server = made.add_argument_group("model on a server, instead of --model")
    server.add_argument("--server", metavar="URL", help="an OpenAI-compatible server, http://HOST:PORT/v1")
    server.add_argument("--served-model", metavar="NAME", help="default: the first that the server lists")
    server.add_argument("--coordinate-space", choices=("absolute", "0-1000"), help="what its boxes are written in")
    server.add_argument("--patch-factor", type=int, default=28, help="pixels of a visual token's side (Qwen3-VL: 32)")
    server.add_argument("--min-pixels", type=int, help="its pixel budget (default: the paper's)")
    server.add_argument("--max-pixels", type=int)
    server.add_argument("--concurrency", type=int, default=8, help="runs at a time on the server [%(default)s]")
    page = made.add_argument_group("page")
    page.add_argument("--root", type=Path, help="folder below which the second tab may open runs")
    page.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s: this machine only]")
    page.add_argument("--port", type=int, default=7860, help="[%(default)s]; 0: any free one")
    page.add_argument("--share", action="store_true", help="a public address through Gradio's relay; needs --auth")
    page.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for it; the environment's MGPO_DEMO_AUTH")
    page.add_argument("--mcp", action="store_true", help="offer the API as MCP tools too (needs the extra mcp)")
    page.add_argument("--open", action="store_true", help="open the page in a browser")
    limits = made.add_argument_group("limits")
    given = Limits()
    limits.add_argument("--max-upload-mb", type=int, default=given.upload_mb, help="of a file [%(default)s]")
    limits.add_argument("--max-megapixels", type=int, default=given.megapixels, help="of an image [%(default)s]")
    limits.add_argument("--max-question", type=int, default=given.question, help="characters [%(default)s]")
    limits.add_argument("--max-queue", type=int, default=given.queue, help="visitors that may wait [%(default)s]")
    limits.add_argument("--max-seconds", type=float, default=given.seconds, help="of one run [%(default)s]")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo until it is interrupted; gives the exit status."""
    started = time.monotonic()
    options = parser().parse_args(arguments)
    try:
        limits = Limits(
            options.max_upload_mb, options.max_megapixels, options.max_question, options.max_queue, options.max_seconds
        )
        auth = _auth(options)
        import_plugins(options.plugins)
        _check(options)
        from mgpo_demo.serving.server import free_port, serve

        options.port = free_port(options.host, options.port)
        serve(options, limits, auth, started)
    except MGPOError as error:
        print(f"mgpo-demo: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.server and options.model:
        raise DemoError("give --model or --server, not both (--compare takes a second model)")
    if options.server and options.coordinate_space is None:
        raise DemoError(
            "--server needs --coordinate-space: absolute for Qwen2.5-VL, 0-1000 for Qwen3-VL and Qwen2-VL; a server "
            "does not tell how its model counts"
        )
    for name in (options.model, options.compare):
        if name is not None:
            _check_model(name)
    if options.concurrency < 1:
        raise DemoError(f"--concurrency {options.concurrency}: give at least 1")
    if options.root is not None and not options.root.is_dir():
        raise DemoError(f"--root {options.root}: not a directory; name one that holds runs, for example outputs")
    if options.mcp:
        try:
            import mcp.server.sse  # noqa: F401

            # mcp 2 imports as well, and then lacks what Gradio calls
            if not (version := importlib.metadata.version("mcp")).startswith("1."):
                raise ImportError(f"{version} is installed")
        except ImportError as error:
            raise DemoError(
                f"--mcp needs mcp 1.x ({error}); {from_clone('mgpo-demo', 'mcp')}, in an environment without vLLM, "
                "which wants mcp 2"
            ) from error


def _check_model(name: str) -> None:
    """Raise MGPOError for a name that is not a model, as far as can be checked without the hub."""
    from mgpo_core.engines.loading import resolve_model

    resolve_model(name)
    path = Path(name)
    if len(path.parts) > 1 and path.parent.is_dir() and not path.is_dir():  # it could be a hub id, but for its folder
        siblings = [other.name for other in path.parent.iterdir()]
        raise DemoError(f"there is no model folder {name}: {nearest(path.name, siblings)}")


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _auth(options: argparse.Namespace) -> tuple[str, str] | None:
    """(user, password), asked for at the terminal where others can reach the page; DemoError without one there."""
    given = options.auth or os.environ.get("MGPO_DEMO_AUTH")
    open_to_others = options.share or not _is_loopback(options.host)
    if not given and open_to_others and sys.stdin.isatty():
        user = input("Others can reach this page. User name for it: ").strip()
        given = f"{user}:{getpass.getpass('Password: ')}"
    if not given:
        if open_to_others:
            raise DemoError(
                "others could reach this page: give --auth USER:PASSWORD (or MGPO_DEMO_AUTH in the environment) with "
                "--share and --host"
            )
        return None
    user, _, password = given.partition(":")
    if not user or not password:
        raise DemoError("--auth: give USER:PASSWORD, neither of them empty")
    return user, password
