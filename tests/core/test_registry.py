"""Registries: entries by name, by module and by file, and what is said when there is none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mgpo_core.engines.families import FAMILIES, ModelFamily, find_family
from mgpo_core.errors import RegistryError
from mgpo_core.registry import Registry, anchored, import_plugins
from mgpo_core.templates.registry import TEMPLATES, load_template


def registry() -> Registry[int]:
    made: Registry[int] = Registry("number", lambda entry: entry if isinstance(entry, int) else None, "a whole number")
    made.register("one", 1)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("loads = []\nloads.append(1)\nseven = 7\nclass Box:\n    eight = 8\ntext = 'x'\n")
    Path("broken.py").write_text("raise KeyError('nothing\\nthere')\n")
    Path("needs.py").write_text("import no_such_package\n")
    return tmp_path


def test_an_entry_is_found_by_name_by_file_and_by_module(folder: Path) -> None:
    numbers = registry()
    assert numbers.register("two")(2) == 2
    assert list(numbers) == ["one", "two"] and numbers.items() == [("one", 1), ("two", 2)]
    assert [numbers.get(name) for name in ("two", "mine.py:seven", "mine.py:Box.eight")] == [2, 7, 8]
    assert numbers.get("mgpo_core.images.budget:PixelBudget.min_pixels") == 200704


def test_a_file_is_loaded_once_however_its_path_is_written(folder: Path) -> None:
    classes: Registry[Any] = Registry("class", lambda entry: entry, "anything")
    found = {id(classes.get(f"{path}:Box")) for path in ("mine.py", "./mine.py", folder / "mine.py")}
    assert len(found) == 1 and classes.get("mine.py:loads") == [1]
    assert classes.is_available("./mine.py:Box") and not classes.is_available("broken.py:Box")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("onne", "number='onne': did you mean 'one'.*PYTHON_FILE:name"),
        ("hundred", "number='hundred': known are one; or give your own"),
        ("mine.py", "number='mine.py': name what it is in the file, as in mine.py:name"),
        ("mine.py:sevn", "number='mine.py:sevn': mine.py has no 'sevn'; did you mean 'seven'"),
        ("gone.py:seven", "no such file 'gone.py'.*correct the path"),
        ("no_such_package.sub:f", "there is no module 'no_such_package'; install it"),
        ("broken.py:x", "importing broken.py raised KeyError: 'nothing.*there'; correct it"),
        ("needs.py:x", "importing needs.py raised ModuleNotFoundError: No module named 'no_such_package'"),
        ("mine.py:text", "it is of type str; give a whole number"),
        ("mine.py:Box", "it is the class Box; give a whole number"),
        (7, "number=7: give a name"),
    ],
)
def test_an_error_names_the_spec_and_the_remedy(spec: Any, message: str, folder: Path) -> None:
    with pytest.raises(RegistryError) as caught:
        registry().get(spec)
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value)
    assert ("broken" in str(spec)) == isinstance(caught.value.__cause__, KeyError)


def test_a_name_is_registered_once() -> None:
    numbers = registry()
    numbers.register("one", 1)
    with pytest.raises(RegistryError, match="already registered"):
        numbers.register("one", 3)
    with pytest.raises(RegistryError, match="give a whole number"):
        numbers.register("half", 0.5)


def test_a_template_class_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(RegistryError, match="template='mine.py:Box': it is the class Box; give a template"):
        load_template("mine.py:Box")
    Path("args.py").write_text("class Needs:\n    def __init__(self, words): pass\n")
    with pytest.raises(RegistryError, match="creating it failed .TypeError"):
        load_template("args.py:Needs")


def test_a_plugin_registers_a_family(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FAMILIES, "entries", dict(FAMILIES.entries))
    Path("family.py").write_text(
        "from mgpo_core.engines.families import FAMILIES, Qwen25VL\n"
        "@FAMILIES.register('Other-VL')\n"
        "class OtherVL(Qwen25VL):\n    name = 'Other-VL'\n    model_types = ('other_vl',)\n"
    )
    import_plugins(["family.py", "family.py"])
    assert isinstance(find_family("other_vl"), ModelFamily) and find_family("other_vl").name == "Other-VL"
    with pytest.raises(RegistryError, match=r"plugins='gone.py': no such file"):
        import_plugins(["gone.py"])


def test_a_path_in_a_file_is_relative_to_its_folder_too(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "near.py").write_text("")
    assert anchored("near.py:f", Path("sub")) == "sub/near.py:f" and anchored("near.py", Path("sub")) == "sub/near.py"
    assert anchored("mine.py:f", Path("sub")) == "mine.py:f" and anchored("accuracy", Path("sub")) == "accuracy"


def test_every_shipped_template_is_registered_by_its_name() -> None:
    assert {name: template.name for name, template in TEMPLATES.items()} == {name: name for name in TEMPLATES}
