"""How to install what is missing. Our packages are on no index: they are installed from a clone of the repository."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution


def from_clone(package: str, extra: str = "") -> str:
    """What to do to have one of our packages, with one of its extras, in this environment: the end of an error message.

    An environment that uv made has no pip of its own, so there the command is uv's.
    """
    folder = "apps/demo" if package == "mgpo-demo" else f"packages/{package}"
    target = f"'{folder}[{extra}]'" if extra else folder
    try:
        distribution("pip")  # not find_spec: setuptools takes a look at the module for a start of pip, and steps aside
        pip = "pip"
    except PackageNotFoundError:
        pip = "uv pip"
    return f"in a clone of the repository, run {pip} install -e {target}"
