"""The command: what it refuses, in one line, and what it does not load to do so."""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from patience import HANG

from mgpo_demo import cli
from mgpo_demo.cli import main, parser
from mgpo_demo.serving.server import free_port
from mgpo_demo.session.limits import DemoError

sys.path.insert(0, str(Path(__file__).parent))
from demo_process import demo

HEAVY = "torch", "transformers", "gradio", "mgpo_demo.page.layout"


@pytest.fixture(autouse=True)
def nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that should have been refused fails here instead of serving for ever."""
    import mgpo_demo.serving.server

    def serve(*_: object) -> None:
        raise AssertionError("it would have been served")

    monkeypatch.setattr(mgpo_demo.serving.server, "serve", serve)
    monkeypatch.delenv("MGPO_DEMO_AUTH", raising=False)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115 (no terminal, and pytest closes it)


@pytest.mark.parametrize(
    "program",
    ["import mgpo_demo.cli, mgpo_demo.serving.server",
     "import mgpo_demo.cli as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass",
     "import mgpo_demo.cli as cli; assert cli.main(['--model', 'no such']) == 2",
     "import mgpo_demo.cli as cli; assert cli.main(['--root', 'no such']) == 2"],
)  # fmt: skip
def test_nothing_heavy_is_imported_before_the_options_are_right(program: str) -> None:
    program += f"\nimport sys; heavy = [name for name in {HEAVY} if name in sys.modules]; assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--root", "nowhere"], "--root nowhere: not a directory; name one that holds runs"),
        (["--model", "no such model"], "no model folder 'no such model'; give an existing folder, a hub id"),
        (["--compare", "no such model"], "no model folder 'no such model'"),
        (["--model", "haystack:bse"], "no checkpoint 'bse': did you mean 'base'"),
        (["--model", "a", "--server", "http://127.0.0.1:1"], "--model or --server, not both"),
        (["--server", "http://127.0.0.1:1"], "--server needs --coordinate-space: absolute for Qwen2.5-VL"),
        (["--auth", "anna"], "--auth: give USER:PASSWORD"),
        (["--auth", ":secret"], "--auth: give USER:PASSWORD"),
        (["--auth", "anna:"], "--auth: give USER:PASSWORD"),
        (["--share"], "give --auth USER:PASSWORD"),
        (["--host", "0.0.0.0"], "give --auth USER:PASSWORD"),
        (["--host", "::"], "give --auth USER:PASSWORD"),
        (["--host", ""], "give --auth USER:PASSWORD"),
        (["--host", "example.invalid", "--auth", "a:b"], "cannot be served at example.invalid"),
        (["--port", "99999"], "cannot be served at 127.0.0.1:99999"),
        (["--concurrency", "0"], "--concurrency 0"),
        (["--max-seconds", "0"], "seconds=0"),
        (["--max-seconds", "nan"], "seconds=nan"),
        (["--max-upload-mb", "-1"], "upload_mb=-1"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("mgpo-demo: ") and said in captured.err


def test_a_mistyped_folder_is_not_looked_for_on_the_hub(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "haystack").mkdir(parents=True)
    assert main(["--model", "outputs/haystak"]) == 2
    assert "no model folder outputs/haystak: did you mean 'haystack'?" in capsys.readouterr().err
    cli._check_model("Qwen/Qwen2.5-VL-7B-Instruct")


def test_a_port_in_use_is_told_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 2
        assert f"127.0.0.1:{port} ([Errno 98]" in (told := capsys.readouterr().err) and "--port 0" in told
        assert free_port("127.0.0.1", 0) not in (0, port)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost", "::1"])
def test_this_machine_alone_needs_no_login(host: str) -> None:
    assert cli._auth(parser().parse_args(["--host", host])) is None


def test_a_login_comes_from_the_option_the_environment_or_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parser().parse_args([]).host == "127.0.0.1"
    open_to_others = ["--host", "0.0.0.0"]
    assert cli._auth(parser().parse_args([*open_to_others, "--auth", "anna:a:b"])) == ("anna", "a:b")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "bert")
    monkeypatch.setattr("getpass.getpass", lambda _: "typed")
    assert cli._auth(parser().parse_args(open_to_others)) == ("bert", "typed")
    monkeypatch.setattr("getpass.getpass", lambda _: "")
    with pytest.raises(DemoError, match="neither of them empty"):
        cli._auth(parser().parse_args(open_to_others))
    monkeypatch.setenv("MGPO_DEMO_AUTH", "carl:kept")
    assert cli._auth(parser().parse_args(open_to_others)) == cli._auth(parser().parse_args([])) == ("carl", "kept")


def test_mcp_without_its_package_is_told_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("mcp.server.sse", "mcp.server", "mcp"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["--mcp"]) == 2
    assert "pip install -e 'apps/demo[mcp]'" in capsys.readouterr().err


def test_mcp_2_is_refused_though_it_imports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("mcp", "mcp.server", "mcp.server.sse"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.3.0")
    assert main(["--mcp"]) == 2
    assert re.search(
        r"needs mcp 1.x \(2.3.0 is installed\); .* pip install -e 'apps/demo\[mcp\]'", capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no such"}')
    with demo("--model", str(tmp_path)) as server:
        assert server.wait(HANG) == 2
        assert re.search(r"^mgpo-demo: could not load .*check the name", server.written, re.MULTILINE)
        assert "Traceback" not in server.written and "ready:" not in server.written


@pytest.mark.slow
def test_a_dead_server_opens_no_page() -> None:
    with demo("--server", "http://127.0.0.1:9", "--coordinate-space", "absolute") as server:
        assert server.wait(HANG) == 2
        assert re.search(
            r"^mgpo-demo: the server at http://127\.0\.0\.1:9/v1 cannot be used", server.written, re.MULTILINE
        )
        assert "Traceback" not in server.written and "page:" not in server.written


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_behind_when_it_is_stopped(sign: signal.Signals, tmp_path: Path) -> None:
    with demo(TMPDIR=str(tmp_path)) as server:
        server.wait_for(r"(ready): haystack:mgpo")
        assert list(tmp_path.glob("mgpo-demo-*"))
        server.send_signal(sign)
        assert server.wait(HANG) == 0
        assert not list(tmp_path.glob("mgpo-demo-*")) and "Traceback" not in server.written
