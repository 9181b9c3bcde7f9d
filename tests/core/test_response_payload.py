"""An answer carries its trajectory through lmms-eval, and lmms-eval takes it off before a stock task scores."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mgpo_core import Episode, PixelBudget, Sample
from mgpo_core.errors import SampleError
from mgpo_core.runs.response_payload import ResponsePayload, decode_payload, encode_payload, kept_image

texts = st.text(st.characters(codec="utf-8"), max_size=40)


def strip_as_lmms_eval(text: str) -> str:
    """What 0.7.3 does with the default --reasoning_tags, for one pair of tags."""
    while "<think>" in text and "</think>" in text:
        start = text.find("<think>")
        end = text.find("</think>", start)
        if end < 0:
            break
        text = text[:start] + text[end + len("</think>") :]
    return text.strip()


@given(answer=texts.filter(lambda text: "think>" not in text), said=texts)
def test_whatever_was_said_the_answer_is_what_remains(answer: str, said: str) -> None:
    encoded = encode_payload(ResponsePayload(answer, {"trajectory": None, "said": said + "</think><think>"}))
    assert strip_as_lmms_eval(encoded) == answer.strip()
    opened = decode_payload(encoded)
    assert opened.answer == answer.strip()
    assert opened.record == {"trajectory": None, "said": said + "</think><think>"}


def test_a_model_that_thinks_in_the_same_tags_keeps_its_record() -> None:
    encoded = encode_payload(ResponsePayload("<think>hm</think> C", {"trajectory": None}))
    assert decode_payload(encoded).record == {"trajectory": None}
    assert strip_as_lmms_eval(encoded) == "C"


def test_any_other_text_is_an_answer() -> None:
    assert decode_payload(" C\n") == ResponsePayload("C")
    assert decode_payload("<think>a plan") == ResponsePayload("<think>a plan")
    assert decode_payload("<think>a plan</think>B") == ResponsePayload("<think>a plan</think>B")


def test_a_broken_record_is_named() -> None:
    with pytest.raises(SampleError, match=r"behind the answer 'C' is broken.*was the log edited"):
        decode_payload('C\n<think>{"run": </think>')


def test_a_trajectory_comes_back_with_grey_images_where_none_was_kept() -> None:
    episode = Episode(
        Sample.of("Which?", Image.new("RGB", (300, 200), "red"), choices=("a", "b")), budget=PixelBudget(784, 28_224)
    )
    episode.observe('```json\n[{"bbox_2d": [0, 0, 100, 80], "label": "x"}]\n```', tokens=7, prompt_tokens=30)
    episode.observe(r"\boxed{B}", tokens=3)
    record = {"run": "r", "trajectory": episode.trajectory.to_dict(), "images": {}}
    back = decode_payload(encode_payload(ResponsePayload("B", record))).trajectory()
    assert back is not None
    assert back.turns == episode.trajectory.turns
    assert (back.original_sizes, back.input_sizes) == (((300, 200),), episode.trajectory.input_sizes)
    assert back.originals[0].getpixel((0, 0)) == (200, 200, 200)


@pytest.mark.parametrize("key", ["images", "pictures"])
def test_kept_images_are_found_under_the_key_of_older_versions_too(key: str) -> None:
    payload = decode_payload(encode_payload(ResponsePayload("B", {"run": "r", "trajectory": None, key: {"a": "b"}})))
    assert payload.kept_images == {"a": "b"}
    assert ResponsePayload("B").kept_images == ResponsePayload("B", {"run": "r", "trajectory": None}).kept_images == {}


def test_a_log_pulls_in_no_file_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "run/images").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "run/images/kept.png")
    assert kept_image(tmp_path / "run", "images/kept.png") == tmp_path / "run/images/kept.png"
    for name in ("../secret.png", str(tmp_path / "secret.png"), "images/gone.png"):
        assert kept_image(tmp_path / "run", name) is None
