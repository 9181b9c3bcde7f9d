"""The models that mgpo-eval adds to lmms-eval, their options, and how they run requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgpo_eval.models.lmms import MGPO, MGPOVLLM, MGPOOpenAI

__all__ = ["MGPO", "MGPOVLLM", "MGPOOpenAI"]


def __getattr__(name: str) -> Any:
    # lmms-eval and torch take seconds to import: the options are read without them
    if name in __all__:
        from mgpo_eval.models import lmms

        return getattr(lmms, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
