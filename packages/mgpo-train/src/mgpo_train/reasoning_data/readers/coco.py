"""COCO-style annotations (images, annotations with `bbox` as x, y, width, height, categories), grouped into sets."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mgpo_core.boxes.parse import Box
from mgpo_core.errors import ImageError, SampleError
from mgpo_train.data.rows import check_image
from mgpo_train.reasoning_data.readers.annotations import Annotations
from mgpo_train.reasoning_data.readers.coco_sets import CocoImage, pose_sets

__all__ = ["read_coco"]

_PARTS = ("images", "annotations", "categories")


def read_coco(path: Path, folder: Path, *, n: int | None, seed: int, set_images: int, tasks: str | None) -> Annotations:
    """Sets of `set_images` images drawn by `seed`, with questions that the annotations answer with certainty.

    A crowd, or a box without area, makes its category uncertain in its image: no question asks for it there. Images
    that are missing, unreadable or of another size than stated are left out. All of it is counted.
    """
    data = _parsed(path)
    reader = _Reader(data, folder)
    images = reader.images()
    found = Annotations(str(path), pose_sets(images, n=n, seed=seed, set_images=set_images, tasks=tasks))
    found.left_out, found.messages = reader.left_out, reader.messages
    if n is not None and len(found.sets) < n:
        found.left_out["sets_that_could_not_be_posed"] = n - len(found.sets)
    return found


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise SampleError(f"{path} is not JSON ({error}): give COCO's annotation file, or a .jsonl file") from error
    for part in _PARTS:
        if not isinstance(data, dict) or not isinstance(data.get(part), list):
            raise SampleError(f"{path} has no list {part!r}: COCO's annotations have {', '.join(_PARTS)}")
    return data


@dataclass
class _Reader:
    """Images with their objects; what cannot be used is counted in `left_out` and described in `messages`."""

    data: Mapping[str, Any]
    folder: Path
    left_out: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)

    def images(self) -> list[CocoImage]:
        """The images that have annotations and can be opened, in the order of the file."""
        categories = {key: str(entry.get("name") or "").strip() for key, entry in self._by_id("categories").items()}
        entries = self._by_id("images")
        annotations = self._annotations(entries, categories)
        found = []
        for key, entry in tqdm(entries.items(), desc="images", mininterval=2, disable=None):
            if key not in annotations:
                self._leave("image_without_annotations", f"image {key}")
                continue
            image = self._image(entry)
            if image is not None:
                for annotation in annotations[key]:
                    self._add(image, annotation, categories[str(annotation["category_id"])])
                found.append(image)
        return found

    def _by_id(self, part: str) -> dict[str, Mapping[str, Any]]:
        """The entries of a part by their ids, as texts; the first of several with one id."""
        found: dict[str, Mapping[str, Any]] = {}
        for entry in self._entries(part):
            if str(entry.get("id")) in found:
                self._leave(f"id_given_twice_in_{part}", f"{part}: {entry.get('id')}")
            found.setdefault(str(entry.get("id")), entry)
        return found

    def _annotations(
        self, images: Collection[str], categories: Mapping[str, str]
    ) -> dict[str, list[Mapping[str, Any]]]:
        """The annotations of each image."""
        found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for entry in self._entries("annotations"):
            image, category = str(entry.get("image_id")), str(entry.get("category_id"))
            if image not in images:
                self._leave("annotation_of_unknown_image", f"annotation {entry.get('id')}: image {image}")
            elif not categories.get(category):
                self._leave("annotation_of_unknown_category", f"annotation {entry.get('id')}: category {category}")
            else:
                found[image].append(entry)
        return found

    def _entries(self, part: str) -> Iterator[Mapping[str, Any]]:
        for number, entry in enumerate(self.data[part]):
            if isinstance(entry, dict):
                yield entry
            else:
                self._leave(f"bad_entry_of_{part}", f"{part}[{number}] is {entry!r:.60}, no object")

    def _leave(self, reason: str, message: str) -> None:
        self.left_out[reason] += 1
        self.messages.append(f"{reason}: {message}")

    def _image(self, entry: Mapping[str, Any]) -> CocoImage | None:
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            self._leave("image_without_file_name", f"image {entry.get('id')}")
            return None
        path = self.folder / name
        try:
            size = check_image(str(path))
        except FileNotFoundError:
            self._leave("missing_image", f"{path}: give the folder by --images")
        except (ImageError, OSError, ValueError, SyntaxError) as error:
            self._leave("unreadable_image", f"{path}: {error}")
        else:
            stated = entry.get("width", size[0]), entry.get("height", size[1])
            if stated == size:
                return CocoImage(str(path), size)
            self._leave("image_of_another_size", f"{path} is {size}, the annotations say {stated}")
        return None

    def _add(self, image: CocoImage, entry: Mapping[str, Any], label: str) -> None:
        """Add an annotation to its image: as a box, or its label as uncertain."""
        who = f"annotation {entry.get('id')} ({label}) of {image.path}"
        box = _box(entry.get("bbox"))
        if entry.get("iscrowd"):
            self._leave("crowd", who)
        elif box is None or not box.clipped(*image.size).area > 0:
            self._leave("box_without_area", f"{who}: {entry.get('bbox')!r}")
        else:
            clipped = box.clipped(*image.size)
            if clipped != box:
                self.left_out["box_cut_to_its_image"] += 1
            image.boxes[label].append(clipped)
            return
        image.doubtful.add(label)


def _box(value: Any) -> Box | None:
    """A Box of x, y, width and height; None of anything else."""
    if not isinstance(value, list) or len(value) != 4 or not all(type(number) in (int, float) for number in value):
        return None
    if not all(map(math.isfinite, value)):
        return None
    x, y, width, height = map(float, value)
    return Box(x, y, x + width, y + height)
