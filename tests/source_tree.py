"""Checks of how source is laid out, as functions of {module name: source text}: nothing is imported, only parsed."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

Sources = Mapping[str, str]


@dataclass(frozen=True)
class Import:
    """One imported module, or name of a module; `deferred` inside a function or for type checkers alone."""

    name: str
    line: int
    deferred: bool


@cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


@cache
def imports(source: str) -> tuple[Import, ...]:
    """Every absolute import of a module: `from a.b import c` is a.b.c. ValueError for a relative one."""
    return tuple(_imports(parsed(source), deferred=False))


def _imports(node: ast.AST, *, deferred: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, deferred) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            if child.level:
                raise ValueError(f"line {child.lineno}: a relative import; name the module in full")
            yield from (Import(f"{child.module}.{alias.name}", child.lineno, deferred) for alias in child.names)
        elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith("import_module"):
            constants = (word.value for word in child.args[:1] if isinstance(word, ast.Constant))
            yield from (Import(str(name), child.lineno, deferred) for name in constants)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from _imports(child, deferred=deferred or inside or typing)


def within(sources: Sources, name: str) -> str | None:
    """The module of `sources` that an imported name belongs to, itself or the module that defines it."""
    return next((part for part in (name, name.rpartition(".")[0]) if part in sources), None)


def edges(sources: Sources) -> Iterator[tuple[str, Import, str]]:
    """(importing module, import, imported module) of all imports between the modules of `sources`."""
    for module, source in sources.items():
        for found in imports(source):
            target = within(sources, found.name)
            if target is not None:
                yield module, found, target


def upward_imports(sources: Sources, rooms: Sequence[str]) -> list[str]:
    """Imports of a later room by an earlier one, and modules in no room; the longest matching name is the room."""

    def rank(module: str) -> int | None:
        fitting = [room for room in rooms if module == room or module.startswith(room + ".")]
        return rooms.index(max(fitting, key=len)) if fitting else None

    ranks = {module: rank(module) for module in sources}
    problems = [f"{module} is in no room" for module, at in ranks.items() if at is None]
    for module, found, target in edges(sources):
        here, there = ranks[module], ranks[target]
        if here is not None and there is not None and there > here:
            problems.append(f"{module}:{found.line} imports {target}")
    return problems


def forbidden_packages(sources: Sources, allowed: Mapping[str, Collection[str]]) -> list[str]:
    """Imports between packages that `allowed` (package: the others that it may import) does not name."""
    return [
        f"{module}:{found.line} imports {target}"
        for module, found, target in edges(sources)
        if (package := module.partition(".")[0]) != (other := target.partition(".")[0])
        and other not in allowed[package]
    ]


def import_cycles(sources: Sources) -> list[list[str]]:
    """The groups of modules that import each other, in functions too."""
    graph: dict[str, set[str]] = {module: set() for module in sources}
    for module, _, target in edges(sources):
        graph[module].add(target)
    while graph:  # take away what imports nothing that is left, then what is imported by nothing: cycles stay
        imported = set().union(*graph.values())
        ends = {module for module, targets in graph.items() if not targets or module not in imported}
        if not ends:
            break
        graph = {module: targets - ends for module, targets in graph.items() if module not in ends}
    groups: list[set[str]] = []
    for module in sorted(graph):
        mutual = {other for other in _reached(graph, module) if module in _reached(graph, other)}
        if module in mutual and mutual not in groups:
            groups.append(mutual)
    return [sorted(group) for group in groups]


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = set(graph[start])
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= graph[module] - reached
    return reached


def wide_folders(modules: Iterable[str], most: int) -> list[str]:
    """Packages with more than `most` modules and packages in them; `__main__` is not counted."""
    inside: dict[str, set[str]] = {}
    for module in modules:
        parent, _, name = module.rpartition(".")
        if parent and name != "__main__":
            inside.setdefault(parent, set()).add(name)
    return [f"{folder}: {len(names)} entries" for folder, names in inside.items() if len(names) > most]


def needed_distributions(
    sources: Sources, distributions: Mapping[str, str], builtin: Collection[str]
) -> dict[str, str]:
    """Distribution: a place that imports it, for all imports of one package but the standard library and itself."""
    needed: dict[str, str] = {}
    for module, source in sources.items():
        for found in imports(source):
            top = found.name.partition(".")[0]
            if top not in builtin and top != module.partition(".")[0]:
                needed.setdefault(distributions.get(top, top.replace("_", "-")), f"{module}:{found.line}")
    return needed


def imported_at_start(sources: Sources, start: Iterable[str]) -> set[str]:
    """The top-level packages that are imported with the modules of `start`, before any function is called."""
    outside: set[str] = set()
    seen: set[str] = set()
    waiting = {module for module in start if module in sources}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        for found in imports(sources[module]):
            if found.deferred:
                continue
            target = within(sources, found.name)
            if target is None:
                outside.add(found.name.partition(".")[0])
                continue
            parts = target.split(".")  # the packages around a module are imported before it
            around = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
            waiting |= {part for part in around if part in sources} - seen
    return outside


def internals(
    source: str, frameworks: Collection[str], unstable: Collection[str], public: Collection[str]
) -> list[str]:
    """What a source imports from below the top of a framework, and all that it imports from an `unstable` one.

    Modules of `public` are documented places to import from.
    """
    found = []
    for name in (each.name for each in imports(source)):
        top, _, rest = name.partition(".")
        inner = "." in rest or rest.startswith("_") or top in unstable
        if top in frameworks and inner and not any(f"{name}.".startswith(f"{module}.") for module in public):
            found.append(name)
    return found


def docstrings(source: str) -> Iterator[str]:
    """The docstring of the module and of every class and function in it."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


_FILE = re.compile(r"(?<![\w/.:*}>-])((?:[\w.-]+/)*\w[\w.-]*\.(?:py|md|j2))(?![\w/*])")
_PACKAGE_PATH = re.compile(r"`(mgpo_(?:core|train|eval|demo)/[\w./-]*)`")
_DOTTED = re.compile(r"\bmgpo_(?:core|train|eval|demo)(?:\.\w+)+")


def missing_references(text: str, files: Collection[str], sources: Sources) -> list[str]:
    """The files, folders and dotted names of our packages that a text names and that do not exist.

    A file may be named by the end of its path (`formats/layout.py`). A dotted name is a module, or something that a
    module defines or imports.
    """
    ends = {"/".join(parts[start:]) for parts in (name.split("/") for name in files) for start in range(len(parts))}
    missing = [name for name in _FILE.findall(text) if re.sub(r"^(?:\.\.?/)+", "", name) not in ends]
    for name in _PACKAGE_PATH.findall(text):
        if not any(f"/{file}".endswith(f"/{name}") or f"/src/{name.rstrip('/')}/" in file for file in files):
            missing.append(name)
    return missing + [name for name in _DOTTED.findall(text) if not _exists(name, sources)]


def _exists(name: str, sources: Sources) -> bool:
    if name in sources:
        return True
    module, _, attribute = name.rpartition(".")
    while module and module not in sources:
        module, _, attribute = module.rpartition(".")
    return bool(module) and re.search(rf"\b{attribute}\b", sources[module]) is not None


OUTSIDE = re.compile(
    r"\b(?:DESIGN|REFERENCE|UPSTREAM|ROOMS|STYLE|PLAN|ROADMAP)(?:\.md\b|(?= (?:invariant|section|part|\d)))"
    r"|\b(?:issue|invariant|milestone) (?:#?\d+|part \d+)"
)
"""References to documents that are not in the repository: planning notes, and numbers of issues without a project."""


def tree_paths(block: str) -> dict[str, str]:
    """The folders and files of a commented tree (two spaces a level, `name  comment`): path -> comment."""
    paths: dict[str, str] = {}
    above: list[str] = []
    for line in filter(str.strip, block.splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, comment = line.strip().partition(" ")
        above = [*above[:depth], name.rstrip("/")]
        paths["/".join(above)] = comment.strip()
    return paths
