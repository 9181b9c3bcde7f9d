"""A small copy of MIG-Bench as the hub has it: one JSON and a zip of images; every task, both defects of ground truth.

The questions are ours; their forms (ordinals, embedded boxes, what `additional_info` says) are those of the benchmark.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image

from mgpo_core import CoordinateSpace, Episode, PixelBudget, Sample
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.templates.base import Template
from mgpo_core.templates.multi_image import MultiImage
from mgpo_eval.mig_bench import Record

INVERTED, CLIPPED = 3, 3
"""How many of the true boxes below have each defect."""


def _record(task: str, images: int, question: str, answer: list[float], target: int, info: str = "", ask: bool = True):
    names = [f"./MIG-Bench/images/{task}/{images}_{number}.png" for number in range(1, images + 1)]
    record = {"task": task, "images": names, "question": question, "answer": answer}
    return record | {"additional_info": info, "need_format": ask}, target


CASES: list[tuple[dict[str, Any], int]] = [
    _record(
        "region", 3, "Here is a picture and parts of it. Where is the 2th region picture? ", [0.1, 0.2, 0.4, 0.6], 0
    ),
    _record("region", 4, "Where in the source image is the 3th region picture? ", [0.5, 0.8, 0.9, 0.3], 0),
    _record("common_object", 4, "What is in all of them? Find it in the 1th image. ", [0.0, 0.15, 0.999, 0.545], 0),
    _record("common_object", 4, "What is in all of them? Find it in the 4th image. ", [0.118, 0.377, 0.491, 1.0004], 3),
    _record(
        "object_tracking",
        6,
        "The object in the first image(<|box_start|>(570,481),(690,706)<|box_end|>): locate it in the 5th image. ",
        [0.371, 0.481, 0.514, 0.725],
        4,
        ask=False,
    ),
    _record(
        "object_tracking",
        6,
        "It starts at (93, 222), (750, 663). Locate it in the sixth frame. ",
        [0.214, 0.663, 0.862, 0.397],
        5,
        ask=False,
    ),
    _record(
        "multi_view",
        4,
        "The same thing from four sides (red in the first image(<|box_start|>(439,57),(689,999)<|box_end|>). "
        "Locate it in the 2nd picture. ",
        [0.403, 0.022, 0.647, 0.707],
        1,
    ),
    _record(
        "multi_view",
        5,
        "In Image-2 the thing is at [100, 200, 300, 400]. Locate it in image 4. ",
        [0.9, 0.1, 0.2, 0.6],
        3,
    ),
    _record(
        "group_grounding",
        5,
        "Give the box of: <|object_ref_start|>a red bus<|object_ref_end|>.",
        [0.747, 0.0, 0.999, 0.518],
        3,
        "It is in the fourth image. <|box_start|>(747,0),(999,518)<|box_end|>. ",
        ask=False,
    ),
    _record(
        "group_grounding",
        3,
        "Give the box of: <|object_ref_start|>the sky<|object_ref_end|>.",
        [-0.01, 0.0, 1.002, 0.6],
        2,
        "Third",
        ask=False,
    ),
    _record("diff", 2, "How do the two differ? ", [0.126, 0.456, 0.528, 0.932], 1),
    _record("diff", 2, "What has changed between these? ", [0.0, 0.0, 0.998, 0.724], 1),
    _record("correspondence", 2, "Which part here serves as the one in the first image? ", [0.6, 0.5, 0.7, 0.9], 1),
    _record("correspondence", 2, "Find what answers to the red box of Image-1. ", [0.275, 0.103, 0.675, 0.356], 1),
    _record("reasoning", 2, "Which thing of Image-2 would help him? ", [0.418, 0.391, 0.595, 0.546], 1, "Which?"),
    _record("reasoning", 2, "What made Image-1 so wet? Find it in Image-2. ", [0.0, 0.584, 0.197, 0.905], 1),
    _record("refer_grounding", 2, "Where in image-2 is the object of image-1?", [0.26, 0.473, 0.428, 0.93], 1),
    _record("refer_grounding", 2, "Find it there.", [0.5, 0.5, 0.75, 1.5], 1),
    _record("view_diff", 2, "What is really different in the second image? ", [0.51, 0.347, 0.819, 0.472], 1),
    _record("view_diff", 2, "Find what is new. ", [0.485, 0.16, 0.692, 0.348], 1),
]
"""Records of the JSON, each with the image (0-based) that the answer lies on."""

EMBEDDED = 4
"""How many of the questions hold a box."""

RECORDS = [Record.from_row({**row, "index": index}) for index, (row, _) in enumerate(CASES)]


SINGLE_TURN = MultiImage()


def generate(
    record: Record, text: str, space: str = "absolute", template: Template = SINGLE_TURN, **parts: Any
) -> Trajectory:
    """A record answered in a single turn, its images having the sizes of `wide`; `parts` are the question's."""
    blank = [Image.new("RGB", size) for size in wide(record)]
    sample = Sample(parts.pop("question", record.question), tuple(blank), **parts)
    budget = PixelBudget(min_pixels=784, max_pixels=40_000)  # images are shown smaller than they are
    episode = Episode(sample, template=template, space=CoordinateSpace.parse(space), budget=budget)
    episode.observe(text)
    return episode.trajectory


def wide(record: Record) -> list[tuple[int, int]]:
    """Sizes that a record's images might have; no two agree, so that the use of the wrong one shows."""
    return [(280 + 84 * place, 560 - 28 * place) for place in range(len(record.images))]


def image_bytes(name: str) -> bytes:
    """The image of that name, as a PNG; its size tells images of one record apart."""
    task, file = Path(name).parts[-2:]
    images, number = (int(part) for part in Path(file).stem.split("_"))
    buffer = io.BytesIO()
    Image.new("RGB", image_size(images, number), (len(task) * 10, images * 30, number * 30)).save(buffer, "PNG")
    return buffer.getvalue()


def image_size(images: int, number: int) -> tuple[int, int]:
    """(width, height) of the `number`-th (from 1) of so many images."""
    return 60 + 20 * number + images, 40 + 10 * number


def write_mig_bench(folder: Path, *, prefix: str = "images/", unpacked: bool = False, leave_out: str = "") -> Path:
    """Write the copy into a folder and give it back; `prefix`: the path inside the zip that tasks' folders lie in."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MIG_data.json").write_text(json.dumps([record for record, _ in CASES], indent=4))
    (folder / "README.md").write_text("# MIG-Bench\n")
    names = sorted({name for record, _ in CASES for name in record["images"]} - {leave_out})
    files = {prefix + "/".join(Path(name).parts[-2:]): image_bytes(name) for name in names}
    if unpacked:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return folder
