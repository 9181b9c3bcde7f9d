"""Command lines that suggest an option for an unknown one, and output that may be cut off by its reader (no torch)."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from mgpo_core.messages.suggest import nearest

__all__ = ["SuggestingParser", "reader_may_leave"]


class SuggestingParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose error for an unknown option names the nearest one."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """The arguments as a namespace; exits with status 2 where they cannot be read."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].partition("=")[0]
            self.error(f"unknown option {name}: {self._hint(name)}" if name[:1] == "-" else f"unexpected {name!r}")
        return found

    def _hint(self, name: str) -> str:
        spellings = [[text[2:] for text in action.option_strings if text[:2] == "--"] for action in self._actions]
        return nearest(name.lstrip("-"), [known[0] for known in spellings if known and known != ["help"]])


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """Around a command's output: it ends without an error when its reader does, as in `mgpo-train --list | head -1`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # what is still buffered would fail again when Python exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
