"""Text that would run a script where a page does not escape it, in every field that a template shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from html.parser import HTMLParser
from typing import Any

HOSTILE = "</pre><script>alert('x')</script><img src=https://evil.example/a.png onerror=alert(1)>\"' onclick=\"a()&lt;"


def poisoned(value: Any, keep: Collection[str] = ()) -> Any:
    """The value with hostile text in place of every string in it, but for keys and the values of those in `keep`.

    Fails for a string that is marked as safe: Python has no business with markup.
    """
    assert not hasattr(value, "__html__"), value
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, dict):
        return {key: item if key in keep else poisoned(item, keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(poisoned(item, keep) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(value, **poisoned(fields, keep))
    return value


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.text += "".join(value or "" for _, value in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_shown_as_text(html: str, *, scripts: int = 0, handlers: Collection[str] = ()) -> None:
    """Fail unless hostile text is in the HTML, and in it as text: no element or handler but those named is its own."""
    page = _Elements()
    page.feed(html)
    page.close()
    assert HOSTILE in page.text
    assert sum(tag == "script" for tag, _ in page.found) == scripts
    assert not [attrs["src"] for _, attrs in page.found if str(attrs.get("src")).startswith("https:")]
    assert {name for _, attrs in page.found for name in attrs if name.startswith("on")} <= set(handlers)
