"""How the page looks: system fonts (nothing is fetched), and the style sheet of core's reports for its dark mode."""

from __future__ import annotations

from importlib import resources
from typing import Any

import gradio as gr

from mgpo_core.render import report_style

__all__ = ["page_style", "theme"]

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")


def theme() -> Any:
    """Gradio's plain theme in the fonts of the reader's machine."""
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=_FONTS, font_mono=("ui-monospace", "Menlo", "monospace")
    )


def page_style() -> str:
    """The page's CSS: core's, dark where Gradio is dark (a switch of its own, not the system's), then the demo's."""
    own = resources.files("mgpo_demo").joinpath("style.css").read_text(encoding="utf-8")
    return report_style(dark_class="dark") + own
