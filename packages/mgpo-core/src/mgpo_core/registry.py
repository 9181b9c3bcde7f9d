"""Named entries that users can add to: rewards, templates, data layouts and model families (no torch).

An entry is found by its registered name, or by where it is written: `package.module:name` or `PYTHON_FILE:name`.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, overload

from mgpo_core.errors import RegistryError
from mgpo_core.messages.shown import one_line, show
from mgpo_core.messages.suggest import nearest

__all__ = ["Registry", "anchored", "attribute_of", "import_plugins", "is_spec", "load_module", "named_file"]

T = TypeVar("T")
Entry = TypeVar("Entry")

_SPEC = re.compile(r"(?P<module>.+\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)", re.DOTALL)
_HOW = "or give your own as package.module:name or PYTHON_FILE:name"


class Registry(Generic[T]):
    """The entries of one kind by name, in the order in which they were registered.

    `kind` is the option that names an entry; it begins every message. `build` turns a registered or imported entry (an
    object, a class or a function) into what `get` returns, and gives None for one of the wrong kind; `wanted` says in
    words what the right kind is.
    """

    def __init__(self, kind: str, build: Callable[[Any], T | None], wanted: str) -> None:
        self.kind, self.wanted = kind, wanted
        self.entries: dict[str, Any] = {}
        self._build = build

    @overload
    def register(self, name: str) -> Callable[[Entry], Entry]: ...
    @overload
    def register(self, name: str, entry: Entry) -> Entry: ...
    def register(self, name: str, entry: Any = None) -> Any:
        """Add an entry: `register("name", entry)`, or as the decorator `@register("name")`.

        Raises RegistryError for a name that is taken, and for an entry of the wrong kind.
        """
        if entry is None:
            return lambda decorated: self.register(name, decorated)
        if self.entries.get(name, entry) is not entry:
            raise RegistryError(f"{self.kind}={name!r}: this name is already registered; choose another one")
        self._checked(name, entry)
        self.entries[name] = entry
        return entry

    def get(self, spec: str) -> T:
        """The entry registered as `spec`, or the one that `spec` locates.

        Raises RegistryError for an unknown name, a module or file that is missing or fails to import, a name that it
        does not define, and an entry of the wrong kind.
        """
        if not isinstance(spec, str):
            raise RegistryError(f"{self.kind}={show(spec)}: give a name, {_HOW}")
        if spec in self.entries:
            return self._checked(spec, self.entries[spec])
        if not is_spec(spec):
            raise RegistryError(f"{self.kind}={spec!r}: {self._hint(spec)}")
        try:
            return self._checked(spec, attribute_of(spec))
        except _ImportFailedError as failure:
            raise RegistryError(f"{self.kind}={spec!r}: {failure}") from failure.__cause__

    def _hint(self, name: str) -> str:
        """What to write instead of a name that is neither registered nor a spec."""
        if name.endswith(".py"):
            return f"name what it is in the file, as in {name}:name"
        hint = nearest(name, self.entries)
        return f"{hint} {_HOW}" if hint.endswith("?") else f"{hint}; {_HOW}"

    def is_available(self, spec: str) -> bool:
        """Whether `get` can return the entry without importing a module or file that is not imported yet."""
        found = _SPEC.fullmatch(spec)
        return spec in self.entries or (found is not None and _imported(found["module"]) is not None)

    def values(self) -> list[T]:
        """Every registered entry, built."""
        return [self.get(name) for name in self.entries]

    def items(self) -> list[tuple[str, T]]:
        """(name, entry) of every registered entry."""
        return list(zip(self.entries, self.values(), strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> T:
        return self.get(name)

    def _checked(self, name: str, entry: Any) -> T:
        try:
            built = self._build(entry)
        except Exception as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise RegistryError(f"{self.kind}={name!r}: creating it failed ({reason}); give {self.wanted}") from error
        if built is None:
            raise RegistryError(f"{self.kind}={name!r}: it is {_described(entry)}; give {self.wanted}")
        return built


def is_spec(text: str) -> bool:
    """Whether a text has the form `package.module:name` or `PYTHON_FILE:name`."""
    return _SPEC.fullmatch(text) is not None


def named_file(text: str) -> str | None:
    """The Python file that a spec, or a plugin, names, as it is written there; None where it names none."""
    found = _SPEC.fullmatch(text)
    path = found["module"] if found else text
    return path if path.endswith(".py") else None


def attribute_of(spec: str) -> Any:
    """The object that a spec locates; raises RegistryError naming what is missing."""
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise RegistryError(f"{show(spec)}: give package.module:name or PYTHON_FILE:name")
    module, name = found["module"], found["name"]
    value: Any = load_module(module)
    for part in name.split("."):
        if not hasattr(value, part):
            names = [one for one in vars(value) if not one.startswith("_")] if hasattr(value, "__dict__") else []
            hint = nearest(part, names, f"define {part} there, or name another object")
            raise _ImportFailedError(f"{module} has no {part!r}; {hint}")
        value = getattr(value, part)
    return value


def load_module(name: str) -> ModuleType:
    """The module `package.module`, or that of a Python file, which is loaded once for its absolute path.

    Paths are relative to the current directory. Raises RegistryError for one that is missing, or whose import raises;
    the error's cause is then what it raised.
    """
    if (known := _imported(name)) is not None:
        return known
    path = _file(name)
    if path is None:
        return _import(name)
    if not path.is_file():
        raise _ImportFailedError(f"no such file {name!r} (from {Path.cwd()}); correct the path")
    module_name = f"mgpo_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    located = spec_from_file_location(module_name, path)
    assert located is not None and located.loader is not None
    module = sys.modules[module_name] = module_from_spec(located)
    try:
        located.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise _ImportFailedError(_raised(name, error)) from error
    return module


def import_plugins(names: Iterable[str]) -> None:
    """Import modules or Python files, which register what they define; raises RegistryError as `load_module` does."""
    for name in names:
        try:
            load_module(name)
        except _ImportFailedError as failure:
            raise RegistryError(f"plugins={name!r}: {failure}") from failure.__cause__


def anchored(text: str, folder: Path) -> str:
    """A spec, or the path of a Python file, as named in a file of `folder`.

    Where the path is missing from the current directory but present in `folder`, that one is returned; else `text`.
    """
    found = _SPEC.fullmatch(text)
    path, name = (found["module"], f":{found['name']}") if found else (text, "")
    beside = folder / Path(path).expanduser()
    return f"{beside}{name}" if path.endswith(".py") and not Path(path).is_file() and beside.is_file() else text


class _ImportFailedError(RegistryError):
    """What is wrong with a spec, without the option that holds it."""


def _file(name: str) -> Path | None:
    """The absolute path of a Python file; None for the name of a module."""
    return Path(name).expanduser().resolve() if name.endswith(".py") else None


def _imported(name: str) -> ModuleType | None:
    """The module of that name or path, where it has been imported; a script that is running counts too."""
    path = _file(name)
    if path is None:
        return sys.modules.get(name)
    files = ((module, vars(module).get("__file__")) for module in list(sys.modules.values()) if module is not None)
    return next((module for module, file in files if isinstance(file, str) and file == str(path)), None)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise _ImportFailedError(
                f"there is no module {error.name!r}; install it, add its folder to PYTHONPATH, or name a Python file"
            ) from error
        raise _ImportFailedError(_raised(name, error)) from error
    except Exception as error:
        raise _ImportFailedError(_raised(name, error)) from error


def _raised(name: str, error: Exception) -> str:
    return f"importing {name} raised {type(error).__name__}: {one_line(error)}; correct it there"


def _described(entry: Any) -> str:
    if isinstance(entry, type):
        return f"the class {entry.__name__}"
    return f"of type {type(entry).__name__}"
