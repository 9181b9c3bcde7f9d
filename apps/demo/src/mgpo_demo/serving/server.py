"""What the command starts: the models loaded in the background, the page served meanwhile; and how both end.

Relies on Gradio 6.31: `Blocks.launch`, and GRADIO_TEMP_DIR, which is read at every request: one server a process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from mgpo_core.errors import MGPOError
from mgpo_demo.session.limits import DemoError, Limits

if TYPE_CHECKING:
    from mgpo_demo.session.model import DemoModel

__all__ = ["free_port", "opened", "serve"]

EXAMPLES = 6


def serve(options: argparse.Namespace, limits: Limits, auth: tuple[str, str] | None, started: float) -> None:
    """Serve the page until interrupted; MGPOError for what cannot be loaded, as soon as that is known."""
    with _terminated_as_interrupted():
        models: Future[list[DemoModel]] = _in_background(lambda: _load(options))

        def check() -> None:
            """Raise what is known by now; a server is asked in a moment, a model may load for minutes."""
            if models.done() or options.server:
                models.result()

        try:
            with opened(models.result, options, limits, auth, before=check) as urls:
                print(f"page: {' and '.join(urls)}", flush=True)
                loaded = ", ".join(model.name for model in models.result())
                print(f"ready: {loaded}, {time.monotonic() - started:.1f} s after the command", flush=True)
                threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped", flush=True)


@contextlib.contextmanager
def opened(
    models: Callable[[], Sequence[DemoModel]],
    options: argparse.Namespace,
    limits: Limits,
    auth: tuple[str, str] | None = None,
    *,
    before: Callable[[], Any] = lambda: None,
) -> Iterator[list[str]]:
    """The page, served while the context lasts: its addresses. `before` is called when all is there to open it."""
    with _cache():
        from mgpo_core import haystack
        from mgpo_demo.page.actions import Actions
        from mgpo_demo.page.layout import build
        from mgpo_demo.session.visitors import Visitors

        visitors = Visitors(limits)
        actions = Actions(models, limits, haystack.make("val", n=EXAMPLES, seed=7))
        at_once = options.concurrency if options.server else 1
        demo = build(actions, visitors, root=options.root, at_once=at_once)
        demo.queue(max_size=limits.queue)
        before()
        try:
            yield _launch(demo, options, limits, auth)
        finally:
            demo.close(verbose=False)
            visitors.close()


def free_port(host: str, port: int) -> int:
    """`port`, or any free one for 0; DemoError where the server could not listen there."""
    try:
        if not 0 <= port <= 65535:
            raise OSError("ports go from 0 to 65535")
        [family, *_, address] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise DemoError(
            f"the page cannot be served at {host}:{port} ({error}); try another --port, or --port 0 for any free one"
        ) from error


def _launch(demo: Any, options: argparse.Namespace, limits: Limits, auth: tuple[str, str] | None) -> list[str]:
    """The addresses at which the page is open now."""
    from mgpo_demo.page.theme import page_style, theme
    from mgpo_demo.serving.mcp_login import let_mcp_in, mcp_guard

    login = auth if options.mcp else None
    try:
        _, local, public = demo.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            auth=auth,
            mcp_server=options.mcp,
            max_file_size=limits.saved_bytes,  # of images, `Limits.check_upload` says more kindly what is too much
            inbrowser=options.open,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            footer_links=["api"],
            theme=theme(),
            css=page_style(),
            state_session_capacity=limits.visitors,
            app_kwargs=mcp_guard(login) if login else None,
        )
    except (OSError, ValueError) as error:
        raise DemoError(f"the page cannot be served at {options.host}:{options.port} ({error})") from error
    if options.share and not public:
        raise DemoError("there is no public address: Gradio's relay was not reached; leave --share out, or use --host")
    if login:
        let_mcp_in(demo, login)
    return [local, public] if public else [local]


@contextlib.contextmanager
def _cache() -> Iterator[None]:
    """A folder of our own for what Gradio keeps of uploads and images, which goes when the server goes.

    Gradio's own default is one folder for all its servers on the machine, and each serves what lies in it.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing is sent anywhere
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="mgpo-demo-cache-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the server as Ctrl-C does, so that visitors' images are deleted."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_background(work: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="mgpo-demo-load", daemon=True).start()
    return future


def _load(options: argparse.Namespace) -> list[DemoModel]:
    """The models that were asked for; MGPOError, whatever the libraries raise."""
    from mgpo_demo.session.model import load_local, load_served

    asked = options.server or options.model or "haystack:mgpo"
    try:
        if options.server:
            models = [
                load_served(
                    options.server,
                    model=options.served_model,
                    settings=_served_settings(options),
                    patch_factor=options.patch_factor,
                    concurrency=options.concurrency,
                    timeout=options.max_seconds,
                )
            ]
        else:
            models = [load_local(asked, device=options.device, dtype=options.dtype)]
        if options.compare:
            asked = options.compare
            models.append(load_local(asked, device=options.device, dtype=options.dtype))
    except MGPOError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise DemoError(f"{asked!r} cannot be loaded ({type(error).__name__}: {reason:.200})") from error
    return models


def _served_settings(options: argparse.Namespace) -> Any:
    from mgpo_core.episodes.settings import EpisodeSettings

    given = {
        name: getattr(options, name)
        for name in ("min_pixels", "max_pixels", "coordinate_space")
        if getattr(options, name) is not None
    }
    return EpisodeSettings(**given)
