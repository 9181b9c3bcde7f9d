"""One row of every layout of data files: all of them ask the same question on `a.jpg`."""

from __future__ import annotations

from typing import Any

ASKED = "What colour is the car?"


def user(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def human(text: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]


LISTED = f"<image>{ASKED}\n(A) red\n(B) blue\nAnswer with the option's letter from the given choices directly."
CHOICES = ("red", "blue")

LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {"question": ASKED, "image": "a.jpg", "choices": list(CHOICES), "answer": "B"},
    "ms-swift": {"messages": user(LISTED), "images": ["a.jpg"], "solution": "B"},
    "llama-factory": {"conversations": human(LISTED, "B"), "images": ["a.jpg"]},
    "vlm-r1": {"id": 1, "image": "a.jpg", "conversations": human(LISTED, "B")},
    "verl": {
        "data_source": "vstar",
        "prompt": [{"role": "system", "content": "Think."}, *user(LISTED)],
        "images": [{"image": "a.jpg"}],
        "ability": "vl",
        "reward_model": {"style": "rule", "ground_truth": "B"},
        "extra_info": {"index": "7", "question": ASKED},
        "env_name": "visual_toolbox_v2",
    },
    "trl": {
        "prompt": user([{"type": "image"}, {"type": "text", "text": LISTED[7:]}]),
        "image": "a.jpg",
        "solution": "B",
    },
    "easyr1": {"problem": LISTED, "images": ["a.jpg"], "answer": "B"},
    "mini-o3": {"images": ["a.jpg"], "solution": "blue", "question": LISTED, "doc_id": "x1"},
    "vstar": {"image": "a.jpg", "text": LISTED, "label": "B", "question_id": "3", "category": "direct"},
    "mme-realworld": {
        "Question_id": "q/1",
        "Image": "a.jpg",
        "Text": ASKED,
        "Question Type": "Multiple Choice",
        "Answer choices": ["(A) red", "(B) blue"],
        "Ground truth": "B",
        "Category": "Color",
        "Subtask": "Monitoring",
    },
}
