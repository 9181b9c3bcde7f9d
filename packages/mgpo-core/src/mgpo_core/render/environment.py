"""The one Jinja2 environment of all pages: whatever goes into a template is escaped."""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment, Template

__all__ = ["environment", "read_asset", "template"]

_INVISIBLE = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(55296, 57344)), 65533)
"Control characters and lone surrogates, which HTML and UTF-8 cannot hold; a page shows that something was there."


def template(name: str) -> Template:
    """The template called `package/file`, from the folder `templates` of that package.

    Its macros are attributes of `.module`. Raises jinja2's TemplateNotFound.
    """
    return environment().get_template(name)


def read_asset(name: str) -> str:
    """The text of a style sheet, a script or a template, named `package/file` as in `template`."""
    package, _, file = name.partition("/")
    return resources.files(package).joinpath("templates", file).read_text(encoding="utf-8")


@functools.cache
def environment() -> Environment:
    """The environment; Jinja2 is imported on first use, so that commands that write no page start fast."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(lambda name: (read_asset(name), name, None)),
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _visible(value: Any) -> Any:
    """A value as text without characters that no page can hold; what a macro returned is so already."""
    return value if hasattr(value, "__html__") else str(value).translate(_INVISIBLE)
