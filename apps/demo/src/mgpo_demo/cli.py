"""`mgpo-demo`: the command. Gradio and torch are imported only when the options have been understood."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgpo_core.errors import MGPOError
from mgpo_demo.limits import DemoError, Limits

if TYPE_CHECKING:
    from mgpo_demo.model import DemoModel

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
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
EXAMPLES = 6


def parser() -> argparse.ArgumentParser:
    """The options of `mgpo-demo`."""
    made = argparse.ArgumentParser(
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
    page.add_argument("--mcp", action="store_true", help="offer the API as MCP tools too (pip install mgpo-demo[mcp])")
    page.add_argument("--open", action="store_true", help="open the page in a browser")
    limits = made.add_argument_group("limits")
    given = Limits()
    limits.add_argument("--max-upload-mb", type=int, default=given.upload_mb, help="of a file [%(default)s]")
    limits.add_argument("--max-megapixels", type=int, default=given.megapixels, help="of a picture [%(default)s]")
    limits.add_argument("--max-question", type=int, default=given.question, help="characters [%(default)s]")
    limits.add_argument("--max-queue", type=int, default=given.queue, help="visitors that may wait [%(default)s]")
    limits.add_argument("--max-seconds", type=float, default=given.seconds, help="of one run [%(default)s]")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo until it is interrupted; gives the exit status."""
    started = time.monotonic()
    options = parser().parse_args(arguments)
    try:
        auth = _auth(options)
        _check(options)
        serve(options, auth, started)
    except MGPOError as error:
        print(f"mgpo-demo: {error}", file=sys.stderr)
        return 2
    return 0


def serve(options: argparse.Namespace, auth: tuple[str, str] | None, started: float) -> None:
    """Build the page while the models are loaded, serve it, and wait; MGPOError for what cannot be had."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere
    models: Future[list[DemoModel]] = _in_background(lambda: _load(options))

    from mgpo_core import haystack
    from mgpo_demo.actions import Actions
    from mgpo_demo.page import build
    from mgpo_demo.theme import page_style, theme
    from mgpo_demo.visitors import Visitors

    limits = Limits(
        options.max_upload_mb, options.max_megapixels, options.max_question, options.max_queue, options.max_seconds
    )
    at_once = options.concurrency if options.server else 1
    visitors = Visitors(limits)
    actions = Actions(models.result, limits, haystack.make("val", n=EXAMPLES, seed=7))
    demo = build(actions, visitors, root=options.root, at_once=at_once)
    demo.queue(max_size=limits.queue)
    try:
        _, local, public = demo.launch(
            server_name=options.host,
            server_port=None if options.port == 0 else options.port,
            share=options.share,
            auth=auth,
            mcp_server=options.mcp,
            max_file_size=limits.upload_bytes,
            inbrowser=options.open,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            footer_links=["api"],
            theme=theme(),
            css=page_style(),
            state_session_capacity=limits.visitors,
        )
        print(f"page: {local}" + (f" and {public}" if public else ""), flush=True)
        loaded = ", ".join(model.name for model in models.result())
        print(f"ready: {loaded}, {time.monotonic() - started:.1f} s after the command", flush=True)
        demo.block_thread()
    except OSError as error:
        raise DemoError(
            f"The page cannot be served at {options.host}:{options.port} ({error}); try --port 0."
        ) from error
    finally:
        demo.close(verbose=False)
        visitors.close()


def _in_background(work: Any) -> Future[Any]:
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="mgpo-demo-load", daemon=True).start()
    return future


def _load(options: argparse.Namespace) -> list[DemoModel]:
    from mgpo_demo.model import load_local, load_served

    if options.server:
        models = [load_served(options.server, model=options.served_model, settings=_served_settings(options),
                              patch_factor=options.patch_factor, concurrency=options.concurrency,
                              timeout=options.max_seconds)]  # fmt: skip
    else:
        models = [load_local(options.model or "haystack:mgpo", device=options.device, dtype=options.dtype)]
    if options.compare:
        models.append(load_local(options.compare, device=options.device, dtype=options.dtype))
    return models


def _served_settings(options: argparse.Namespace) -> Any:
    from mgpo_core.episode_settings import EpisodeSettings

    given = {
        name: getattr(options, name)
        for name in ("min_pixels", "max_pixels", "coordinate_space")
        if getattr(options, name) is not None
    }
    return EpisodeSettings(**given)


def _check(options: argparse.Namespace) -> None:
    if options.server and options.model:
        raise DemoError("Give --model or --server, not both (--compare takes a second model).")
    if options.server and options.coordinate_space is None:
        raise DemoError(
            "--server needs --coordinate-space: absolute for Qwen2.5-VL, 0-1000 for Qwen3-VL and Qwen2-VL. A server "
            "does not tell how its model counts."
        )
    if options.root is not None and not options.root.is_dir():
        raise DemoError(f"--root {options.root} is no folder; name one that holds runs, for example outputs.")
    if options.mcp:
        try:
            import mcp.server.sse  # noqa: F401  (what gradio.mcp stands on; gone in mcp 2)
        except ImportError as error:
            raise DemoError(
                f"--mcp needs mcp 1.x ({error}); run pip install 'mgpo-demo[mcp]' in an environment without vLLM, "
                "which wants mcp 2."
            ) from error


def _auth(options: argparse.Namespace) -> tuple[str, str] | None:
    """(user, password), asked for at the terminal where others can reach the page; DemoError without one there."""
    given = options.auth or os.environ.get("MGPO_DEMO_AUTH")
    open_to_others = options.share or options.host not in _LOOPBACK
    if not given and open_to_others and sys.stdin.isatty():
        user = input("Others can reach this page. User name for it: ").strip()
        given = f"{user}:{getpass.getpass('Password: ')}"
    if not given:
        if open_to_others:
            raise DemoError(
                "Others could reach this page: give --auth USER:PASSWORD (or MGPO_DEMO_AUTH in the environment) with "
                "--share and --host."
            )
        return None
    user, _, password = given.partition(":")
    if not user or not password:
        raise DemoError("--auth is USER:PASSWORD, neither of them empty.")
    return user, password
