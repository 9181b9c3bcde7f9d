"""What can be wrong with a trace, each kind under a name of its own."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Problem", "Reason"]


class Reason(enum.StrEnum):
    """Why a trace is not kept."""

    # a teacher's reply
    REPLY_NOT_JSON = "reply_not_json"
    REPLY_MISSING_KEY = "reply_missing_key"
    REPLY_INVALID_VALUE = "reply_invalid_value"
    # the answer
    NO_ANSWER = "no_answer"
    WRONG_LABEL = "wrong_label"
    WRONG_IMAGE = "wrong_image"
    WRONG_BOX = "wrong_box"
    # the claims
    NO_SUCH_IMAGE = "no_such_image"
    INVALID_BOX = "invalid_box"
    FALSE_PRESENCE = "false_presence"
    FALSE_ABSENCE = "false_absence"
    FALSE_COUNT = "false_count"
    FALSE_BOX = "false_box"
    FALSE_ATTRIBUTE = "false_attribute"
    FALSE_RELATION = "false_relation"
    # the prose
    EMPTY_REASONING = "empty_reasoning"
    RESERVED_TEXT = "reserved_text"
    RUNS_ON = "runs_on"
    MENTIONS_ANNOTATIONS = "mentions_annotations"
    UNCLAIMED_BOX = "unclaimed_box"
    IMAGE_NOT_WEIGHED = "image_not_weighed"
    IMAGES_OUT_OF_ORDER = "images_out_of_order"
    NO_CONCLUSION = "no_conclusion"
    CONTRADICTS_ANSWER = "contradicts_answer"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where."""

    reason: Reason
    detail: str
