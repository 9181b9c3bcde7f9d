"""How to install what is missing. Our packages are on no index: they are installed from a clone of the repository."""

from __future__ import annotations

from importlib.util import find_spec


def from_clone(package: str, extra: str = "") -> str:
    """What to do to have one of our packages, with one of its extras, in this environment: the end of an error message.

    An environment that uv made has no pip of its own, so there the command is uv's.
    """
    folder = "apps/demo" if package == "mgpo-demo" else f"packages/{package}"
    target = f"'{folder}[{extra}]'" if extra else folder
    pip = "uv pip" if find_spec("pip") is None else "pip"
    return f"in a clone of the repository, run {pip} install -e {target}"
