"""A visitor's looks as one JSON file with its pictures inside, which opens again; and as one HTML page.

A file that is opened may come from anywhere: it holds its pictures as data, names no file, and is read with the limits
of an upload.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from mgpo_core import Box, load_image
from mgpo_core.errors import MGPOError
from mgpo_core.render import write_report
from mgpo_core.sample import ImageSource
from mgpo_core.trajectory import Trajectory
from mgpo_demo.limits import DemoError, Limits
from mgpo_demo.looks import Ask, Look
from mgpo_demo.picture import Picture, keep_upload
from mgpo_demo.visitors import Visitor

__all__ = ["open_saved", "write_html", "write_json"]

_FORMAT = "mgpo-demo looks"
_VERSION = 1
_ORIGINAL = "original-0.png"


def write_json(visitor: Visitor, folder: Path) -> Path:
    """Write everything that the visitor has into `looks.json` of `folder`."""
    if visitor.picture is None or visitor.ask is None or not visitor.looks:
        raise DemoError("There is nothing to save yet: press Run first.")
    data = {
        "format": _FORMAT,
        "version": _VERSION,
        "picture": {
            "name": visitor.picture.name,
            "suffix": visitor.picture.path.suffix,
            "data": base64.b64encode(visitor.picture.path.read_bytes()).decode("ascii"),
        },
        "ask": asdict(visitor.ask),
        "looks": [_look_data(look) for look in visitor.looks],
    }
    path = folder / "looks.json"
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")
    return path


def write_html(visitor: Visitor, folder: Path) -> Path:
    """Write the looks, and what was compared, into `looks.html` of `folder`: one self-contained page."""
    if not visitor.looks:
        raise DemoError("There is nothing to save yet: press Run first.")
    shown = [
        replace(trajectory, sample_id=f"step {step}, {name}")
        for step, look in enumerate(visitor.looks, start=1)
        for name, trajectory in look.trajectories
    ]
    return write_report(folder / "looks.html", shown, "Looks", tiles=False)


def open_saved(path: Path, visitor: Visitor, limits: Limits) -> None:
    """Show a visitor what `write_json` wrote, in place of what they had; DemoError for any other file."""
    limits.check_upload(path.stat().st_size, "The file")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
            raise ValueError("it holds no looks")
        if data.get("version") != _VERSION:
            raise ValueError(f"it has version {data.get('version')!r}, and this one reads {_VERSION}")
        ask = _ask(data["ask"])
        visitor.show(lambda folder: _read_picture(data["picture"], folder, limits))
        assert visitor.picture is not None
        looks = [_look(look, visitor.picture, visitor.folder, limits) for look in data["looks"][: limits.looks]]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, UnicodeError) as error:
        if isinstance(error, MGPOError) and not isinstance(error, DemoError):
            raise DemoError(f"The file holds a picture that cannot be used: {error}") from error
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DemoError(
            f"The file cannot be opened ({reason:.200}); open a looks.json that this page saved."
        ) from error
    visitor.ask, visitor.looks = ask, looks


def _look_data(look: Look) -> dict[str, Any]:
    return {
        "by": look.by,
        "area": None if look.area is None else asdict(look.area),
        "confidence": look.confidence,
        "trajectory": _trajectory_data(look.trajectory),
        "direct": None if look.direct is None else _trajectory_data(look.direct),
        "others": [[name, _trajectory_data(other)] for name, other in look.others],
    }


def _trajectory_data(trajectory: Trajectory) -> dict[str, Any]:
    """The trajectory with the images it was shown; its original is the picture, or a part of it."""
    shown = trajectory.named_images(originals=())
    return {"trajectory": trajectory.to_dict(), "images": {name: _png(image) for name, image in shown.items()}}


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _ask(data: Mapping[str, Any]) -> Ask:
    question, choices, answer = data["question"], tuple(data["choices"]), data["answer"]
    if not all(isinstance(text, str) for text in (question, *choices, answer or "")):
        raise ValueError("question, choices and answer must be texts")
    return Ask(question, choices, answer, tuple(_box(box) for box in data["boxes"]))


def _box(data: Mapping[str, Any]) -> Box:
    box = Box(**data)
    if not all(isinstance(value, int | float) for value in box.as_tuple()) or box.image != 0:
        raise ValueError(f"{dict(data)!r:.80} is no box")
    return box


def _read_picture(data: Mapping[str, Any], folder: Path, limits: Limits) -> Picture:
    upload = folder / f"saved{Path(str(data['suffix'])).suffix[:8]}"
    upload.write_bytes(_bytes(data["data"]))
    picture = keep_upload(upload, str(data["name"])[:200], folder, limits)
    upload.unlink()
    return picture


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"a picture is no base64 ({error})") from error


def _look(data: Mapping[str, Any], picture: Picture, folder: Path, limits: Limits) -> Look:
    area = None if data["area"] is None else _box(data["area"])
    if data["by"] not in ("model", "person", "closer"):
        raise ValueError(f"nobody called {data['by']!r:.40} looks")
    if area is not None and area.clipped(*picture.size) != area:
        raise ValueError("a part lies outside the picture")
    path = picture.path if area is None else picture.part(area, folder)
    confidence = data["confidence"]
    return Look(
        by=data["by"],
        area=area,
        trajectory=_trajectory(data["trajectory"], path, limits),
        direct=None if data["direct"] is None else _trajectory(data["direct"], path, limits),
        others=tuple((str(name)[:200], _trajectory(other, path, limits)) for name, other in data["others"]),
        confidence=None if confidence is None else {str(name): float(value) for name, value in confidence.items()},
    )


def _trajectory(data: Mapping[str, Any], original: Path, limits: Limits) -> Trajectory:
    """The trajectory; its pictures are data in the file, and the original is the one at hand."""
    images: dict[str, ImageSource] = {
        name: load_image(_bytes(text), max_pixels=limits.pixels, name=name) for name, text in data["images"].items()
    }
    trajectory = Trajectory.from_dict(data["trajectory"], images | {_ORIGINAL: original})
    _ = trajectory.metrics(), trajectory.to_dict()  # what is no trajectory fails here, not in the page
    return trajectory
