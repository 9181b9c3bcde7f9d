"""What can be wrong with a trajectory, each kind under a name of its own."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Problem", "Reason"]


class Reason(enum.StrEnum):
    """Why a trajectory is not kept."""

    # the form of the response
    NO_REASONING = "no_reasoning"
    EMPTY_REASONING = "empty_reasoning"
    SEVERAL_REASONINGS = "several_reasonings"
    TEXT_BEFORE_REASONING = "text_before_reasoning"
    NO_ANSWER = "no_answer"
    SEVERAL_ANSWERS = "several_answers"
    TEXT_AROUND_ANSWER = "text_around_answer"
    NO_IMAGE_NUMBER = "no_image_number"
    NO_SUCH_IMAGE = "no_such_image"
    BAD_BOX = "bad_box"
    MARKER_LEFT = "marker_left"
    # the answer
    WRONG_LABEL = "wrong_label"
    WRONG_IMAGE = "wrong_image"
    WRONG_BOX = "wrong_box"
    # what the reasoning says
    UNKNOWN_IMAGE = "unknown_image"
    FALSE_PRESENCE = "false_presence"
    FALSE_ABSENCE = "false_absence"
    FALSE_COUNT = "false_count"
    FALSE_COMPARISON = "false_comparison"
    FALSE_RELATION = "false_relation"
    FALSE_ATTRIBUTE = "false_attribute"
    FALSE_POSITION = "false_position"
    FALSE_BOX = "false_box"
    SPEAKS_OF_ANNOTATIONS = "speaks_of_annotations"
    # how the reasoning goes
    RUNS_ON = "runs_on"
    IMAGE_NOT_WEIGHED = "image_not_weighed"
    IMAGES_OUT_OF_ORDER = "images_out_of_order"
    OBJECT_BEFORE_IMAGES = "object_before_images"
    NO_CONCLUSION = "no_conclusion"
    CONTRADICTS_ANSWER = "contradicts_answer"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where."""

    reason: Reason
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
