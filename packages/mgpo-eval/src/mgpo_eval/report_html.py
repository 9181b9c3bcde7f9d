"""What the tables of a results report are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mgpo_core.token_view import escape

__all__ = ["MOST_CATEGORIES", "category_html", "folded", "run_html", "table_html"]

MOST_CATEGORIES = 12
"Beyond so many, a task's categories are folded away."


def table_html(head: Sequence[str], rows: Iterable[str], kind: str, *, numbers: int = 99, last: int = 99) -> str:
    """A table that scrolls by itself where it is too wide; columns from `numbers` to before `last` hold numbers."""
    heads = "".join(
        f'<th scope="col"{" class=num" if numbers <= place < last else ""}>{escape(text).replace("_", "_<wbr>")}</th>'
        for place, text in enumerate(head)
    )
    return (
        f'<div class="scroll"><table class="results {kind}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def folded(summary: str, content: str) -> str:
    """Content that is shown when its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def run_html(short: str) -> str:
    """The short name of a run as a mark."""
    return f'<span class="run">{escape(short)}</span>'


def category_html(category: tuple[str, str]) -> str:
    """A (kind, category) in a cell."""
    return f"<small>{escape(category[0].replace('_', ' '))}</small> {escape(category[1])}"
