"""Each package builds, carries everything it needs, and installs and imports alone."""

from __future__ import annotations

import base64
import email.message
import email.parser
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from patience import HANG
from uv import find_uv_bin

pytestmark = [pytest.mark.packaging, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "mgpo-core": ROOT / "packages/mgpo-core",
    "mgpo-train": ROOT / "packages/mgpo-train",
    "mgpo-eval": ROOT / "packages/mgpo-eval",
    "mgpo-demo": ROOT / "apps/demo",
}
# What a new environment holds after installing the package, beside the package itself. None: too many to list.
INSTALLED = {"mgpo-core": {"jinja2", "markupsafe", "numpy", "pillow"}}
IMPORTS = {
    "mgpo-core": """
import mgpo_core.engines
from mgpo_core import haystack
haystack.make("train", 1, 0)[0].load()
for name in ("base", "mgpo"):
    assert (haystack.checkpoint(name) / "config.json").is_file()
from mgpo_core.render import trajectory_html
assert "<article" in trajectory_html(mgpo_core.Trajectory())
""",
    "mgpo-train": "from mgpo_train import MGPOConfig, MGPOTrainer; import mgpo_train.cli",
    "mgpo-eval": """
import sys
import mgpo_eval.cli
import mgpo_eval.plugin
assert "torch" not in sys.modules
assert (mgpo_eval.plugin.TASKS / "haystack.yaml").is_file()
""",
    "mgpo-demo": """
import sys
import mgpo_demo.cli
assert "torch" not in sys.modules and "gradio" not in sys.modules
import mgpo_demo.page
from mgpo_demo.page.theme import page_style
assert ".mgpo" in page_style()
""",
}

COMMANDS = {"mgpo-train": ["mgpo-train"], "mgpo-eval": ["mgpo-eval"], "mgpo-demo": ["mgpo-demo"]}
# What works right after the installation, with no flag and no variable, and what it prints.
EVALUATION = ["--model", "mgpo", "--model_args", "pretrained=haystack:mgpo", "--tasks", "haystack", "--limit", "4"]
RUNS = {"mgpo-eval": (["lmms-eval", "eval", *EVALUATION], "|haystack|none  |")}


def uv(*arguments: str | Path, cwd: Path = ROOT) -> str:
    """Run uv apart from the environment the tests run in, and return what it printed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH")
    }
    done = subprocess.run(
        [find_uv_bin(), *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def module_of(package: str) -> str:
    return package.replace("-", "_")


def wheel_of(dist: Path, package: str) -> Path:
    [wheel] = dist.glob(f"{module_of(package)}-*.whl")
    return wheel


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of each package and the wheel built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    for source in PACKAGES.values():
        uv("build", "--quiet", "--out-dir", folder, source)
    return folder


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_holds_every_file_of_the_package(package: str, dist: Path) -> None:
    source = PACKAGES[package] / "src"
    files = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert f"{module_of(package)}/py.typed" in files
    with zipfile.ZipFile(wheel_of(dist, package)) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        [licence] = [name for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
        assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert packed == files


@pytest.mark.parametrize("package", PACKAGES)
def test_sdist_holds_licence_readme_and_project_file(package: str, dist: Path) -> None:
    [sdist] = dist.glob(f"{module_of(package)}-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", f"src/{module_of(package)}/py.typed"} <= names


@pytest.mark.parametrize("package", PACKAGES)
def test_metadata_is_complete_and_names_no_address(package: str, dist: Path) -> None:
    with zipfile.ZipFile(wheel_of(dist, package)) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata: email.message.Message = email.parser.Parser().parsestr(wheel.read(name).decode())
    assert metadata["Name"] == package
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Summary"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert len(str(metadata.get_payload())) > 200
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata.get_all("Project-URL") is None
    assert metadata["Home-page"] is None
    assert not [requirement for requirement in metadata.get_all("Requires-Dist", []) if "://" in requirement]


@pytest.fixture(scope="module")
def for_the_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the demo's environment, which its extra is added to: torch in it is compiled once."""
    return tmp_path_factory.mktemp("demo")


def installed_alone(requirement: Path | str, dist: Path, folder: Path) -> Path:
    """The Python of an environment in the folder, a new one as a rule, that holds the requirement."""
    environment = folder / "environment"
    python = environment / "bin" / "python"
    if not python.exists():
        uv("venv", "--quiet", "--python", sys.executable, environment)
    # --no-config: outside the workspace, as a user would; our own packages come from the folder of wheels.
    uv(
        *("pip", "install", "--quiet", "--no-config", "--python", python),
        # uv would take wheels of the same name and place, built by an earlier run, out of its cache
        *(option for name in PACKAGES for option in ("--refresh-package", name)),
        *("--find-links", dist, requirement),
        cwd=folder,
    )
    return python


@pytest.mark.parametrize("package", PACKAGES)
def test_installs_alone_into_a_new_environment_imports_and_has_its_commands(
    package: str, dist: Path, for_the_demo: Path, tmp_path: Path
) -> None:
    python = installed_alone(wheel_of(dist, package), dist, for_the_demo if package == "mgpo-demo" else tmp_path)
    environment = python.parent.parent
    installed = {line.partition("==")[0] for line in uv("pip", "freeze", "--python", python).splitlines()}
    installed = {line.partition(" @ ")[0] for line in installed}
    assert package in installed
    if package in INSTALLED:
        assert installed - {package} == INSTALLED[package]
    else:
        assert "torch" in installed
        assert installed.isdisjoint(set(PACKAGES) - {package, "mgpo-core"})
    isolated = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", IMPORTS[package]], cwd=tmp_path, env=isolated, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if package in RUNS:
        (command, *arguments), printed = RUNS[package]
        isolated |= {"HF_HOME": str(tmp_path / "hub")}
        done = subprocess.run(
            [environment / "bin" / command, *arguments],
            cwd=tmp_path,
            env=isolated,
            capture_output=True,
            text=True,
            check=False,
        )
        assert printed in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    for command in COMMANDS.get(package, ()):
        done = subprocess.run(
            [environment / "bin" / command, "--help"],
            cwd=tmp_path,
            env=isolated,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert command in done.stdout


def test_the_demos_documented_examples_run_where_it_is_installed_with_mcp(
    dist: Path, for_the_demo: Path, tmp_path: Path
) -> None:
    """Not in the tests' environment: Gradio's MCP server needs mcp 1.x, and vLLM, where it is installed, 2.x."""
    python = installed_alone(f"mgpo-demo[mcp] @ {wheel_of(dist, 'mgpo-demo').as_uri()}", dist, for_the_demo)
    isolated = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONUNBUFFERED": "1"}
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs/demo.md").read_text(), flags=re.DOTALL)
    assert [("gradio_client" in example, "ClientSession" in example) for example in examples] == [
        (True, False),
        (False, True),
    ]
    drawn = "from mgpo_core import haystack; haystack.make('val', 1, 0)[0].load().save('image.png')"
    subprocess.run([python, "-c", drawn], cwd=tmp_path, env=isolated, check=True)
    log = tmp_path / "log"
    for login in ([], ["--auth", "anna:secret"]):
        with log.open("wb") as file:
            server = subprocess.Popen(
                [python.parent / "mgpo-demo", "--mcp", "--port", "0", *login],
                cwd=tmp_path,
                env=isolated,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            url = address_in(log, server)
            for example in examples:
                program = example.replace("http://127.0.0.1:7860", url)
                refused = run_example(python, program, tmp_path, isolated) if login else None
                if refused is not None:
                    assert refused.returncode != 0, refused.stdout
                    program = with_login(program)
                done = run_example(python, program, tmp_path, isolated)
                assert done.returncode == 0, done.stderr[-3000:] + log.read_text()[-3000:]
                if "ClientSession" in example:
                    assert "['look', 'answer_from_box']" in done.stdout
                    assert re.search(r"^\[\d+, \d+, \d+, \d+\]$", done.stdout, re.MULTILINE), done.stdout
        finally:
            server.terminate()
            server.wait(HANG)


def run_example(
    python: Path, program: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=HANG
    )


def with_login(example: str) -> str:
    """The example with what its comments say of a login."""
    words = base64.b64encode(b"anna:secret").decode()
    logged_in = re.sub(r'Client\(("[^"]+")\)', r'Client(\1, auth=("anna", "secret"))', example)
    logged_in = logged_in.replace("client(URL)", f'client(URL, headers={{"Authorization": "Basic {words}"}})')
    assert logged_in != example
    return logged_in


def address_in(log: Path, server: subprocess.Popen[bytes]) -> str:
    """The address that the demo prints, without its last slash, once the model is loaded too."""
    deadline = time.monotonic() + HANG
    while "ready: " not in log.read_text():
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)
    return re.findall(r"^page: (\S+)/$", log.read_text(), flags=re.MULTILINE)[0]
