"""One sample as it was run, in one line of text: the record of its trajectory, and the envelope that carries it.

A line of a training run's trajectories.jsonl is the record alone (trajectory_log.py). To lmms-eval a model returns the
answer, and behind it the record in a <think> block. lmms-eval's default `--reasoning_tags` takes the block away before
a stock task scores the answer; `--log_samples`, its response cache and its gathering over processes keep the text as
it is. Our own tasks set `reasoning_tags: none` and open the envelope themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mgpo_core.boxes.plain_text import THINK
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import SampleError
from mgpo_core.files.json_lines import MALFORMED_RECORD
from mgpo_core.files.safe_join import path_below
from mgpo_core.images.load import ImageSource

__all__ = ["ResponsePayload", "decode_payload", "encode_payload", "image_names", "kept_image"]

_OPEN, _CLOSE = THINK


@dataclass(frozen=True)
class ResponsePayload:
    """One sample as it was run: the `answer` that is scored and, unless it was left out, the `record`."""

    answer: str
    record: Mapping[str, Any] | None = None
    """{"run": id of weights and settings, "trajectory": Trajectory.to_dict(), in an envelope without tokens,
    "images": {image name in the trajectory: file relative to the output folder}}; with "skipped": the reason, where
    the sample could not be run (then "trajectory" is None)."""

    def trajectory(self, folder: Path | None = None) -> Trajectory | None:
        """The trajectory; images are read from below `folder`, and are blank where none was kept."""
        if self.record is None or self.record.get("trajectory") is None:
            return None
        data = self.record["trajectory"]
        return Trajectory.from_dict(data, _images(data, self.kept_images, folder))

    def trajectory_as_kept(self, folder: Path) -> tuple[Trajectory | None, str]:
        """The trajectory with its images, grey where they are not to be had, and why some are not."""
        data = None if self.record is None else self.record.get("trajectory")
        if self.record is None or data is None:
            return None, ""
        kept = self.kept_images
        wanted = image_names(data)
        missing = [name for name in wanted if name not in kept or kept_image(folder, kept[name]) is None]
        try:
            trajectory = self.trajectory(folder)
        except MALFORMED_RECORD as error:
            return self.trajectory(), f"cannot be read: {error}"
        if not missing:
            return trajectory, ""
        return trajectory, "not kept" if not kept else f"{len(missing)} of {len(wanted)} not found"

    @property
    def kept_images(self) -> Mapping[str, str]:
        """The files of the images that were kept; older versions called the key `pictures`."""
        record = self.record or {}
        return dict(record.get("images") or record.get("pictures") or {})

    @property
    def skipped(self) -> str | None:
        """Why the sample could not be run; None when it was."""
        return None if self.record is None else self.record.get("skipped")


def encode_payload(payload: ResponsePayload) -> str:
    """The text of an envelope; its JSON holds no angle bracket, so that no tag in it is taken for the block's."""
    if payload.record is None:
        return payload.answer
    text = json.dumps(payload.record, ensure_ascii=False, separators=(",", ":"))
    escaped = text.replace("<", "\\u003c").replace(">", "\\u003e")
    return f"{payload.answer}\n{_OPEN}{escaped}{_CLOSE}"


def decode_payload(text: str) -> ResponsePayload:
    """What `encode_payload` closed; any other text is an answer without a record. SampleError for a broken block."""
    answer, opening, rest = text.rpartition(_OPEN)
    if not opening or not rest.startswith("{") or not rest.endswith(_CLOSE):
        return ResponsePayload(text.strip())
    try:
        record = json.loads(rest.removesuffix(_CLOSE))
    except ValueError as error:
        raise SampleError(
            f"the trajectory behind the answer {answer.strip()!r:.40} is broken ({error}); was the log edited?"
        ) from error
    return ResponsePayload(answer.strip(), record)


def _images(data: Mapping[str, Any], kept: Mapping[str, str], folder: Path | None) -> dict[str, ImageSource]:
    """A source for every image that the trajectory names: the file that was kept, else a grey stand-in."""
    found: dict[str, ImageSource] = {}
    for name in image_names(data):
        file = None if folder is None or name not in kept else kept_image(folder, kept[name])
        found[name] = _blank if file is None else file
    return found


def image_names(data: Mapping[str, Any]) -> set[str]:
    """The names of all images in what `Trajectory.to_dict` gave: the originals, and those in its messages."""
    parts = [part for message in data["messages"] for part in message["content"]]
    return {*data["originals"], *(part["image"] for part in parts if part["type"] == "image")}


def kept_image(folder: Path, name: str) -> Path | None:
    """The file of a kept image; None where it is gone, or not below `folder` without a symbolic link on the way.

    A log must not pull other files in.
    """
    file = path_below(folder, name)
    return file if file is not None and file.is_file() else None


def _blank() -> Image.Image:
    return Image.new("RGB", (8, 8), (200, 200, 200))
