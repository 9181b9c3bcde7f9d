"""Text that a program keeps up to date inside a document: between `<!-- NAME:start -->` and `<!-- NAME:end -->`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_between_marks"]


def write_between_marks(document: Path, name: str, text: str) -> None:
    """Replace what stands between the marks called `name`; ValueError where the document has none."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, found, rest = document.read_text(encoding="utf-8").partition(start)
    _, also_found, after = rest.partition(end)
    if not found or not also_found:
        raise ValueError(f"{document} has no {start} ... {end}: put them where the text is to stand")
    document.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}", encoding="utf-8")
