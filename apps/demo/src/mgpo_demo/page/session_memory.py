"""Keeps a page that stays open from growing.

Gradio 6.31 creates a new component for every output that an event leaves as it is, and keeps all of them, with what
they showed, in the session until the page is closed: a tenth of a megabyte for each run.
Relies on `App.state_holder` and on `SessionState`'s `blocks_config.blocks` and `config_values`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["forget_copies"]


def forget_copies(request: Any) -> None:
    """Let go of all components of the request's session that are not the page's own."""
    app, session = request.request.app, request.session_hash
    if session not in app.state_holder.session_data:
        return
    state, own = app.state_holder.session_data[session], app.get_blocks().default_config.blocks
    for kept in (state.blocks_config.blocks, state.config_values):
        for key in [key for key in kept if key not in own]:
            del kept[key]
