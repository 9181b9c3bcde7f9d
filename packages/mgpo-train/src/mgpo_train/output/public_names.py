"""What may be published of a run's names: hub ids and made data in full, of anything on this machine its last part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mgpo_train.config.data_spec import DataSpec, is_hub_id, is_synthetic


def public_text(text: str) -> str:
    """A text that may be published: of a path on this machine its last part alone."""
    if is_synthetic(text) or is_hub_id(text) or not ("/" in text or "\\" in text or text.startswith("~")):
        return text
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1]


def public_source(spec: str | Mapping[str, Any]) -> str:
    """Where data came from, as it may be published: made data and hub ids in full, of anything local its name."""
    parsed = DataSpec.parse(spec)
    if not is_synthetic(parsed.path) and not is_hub_id(parsed.path):
        return f"`{public_text(parsed.path)}`, local"
    named = {name: getattr(parsed, name) for name in ("split", "name", "n", "seed", "schema")} | dict(parsed.options)
    made = is_synthetic(parsed.path)  # whose path ends with its split
    query = "&".join(f"{k}={v}" for k, v in named.items() if v is not None and not (made and k == "split"))
    return f"`{parsed.path}{'?' if query else ''}{query}`"
