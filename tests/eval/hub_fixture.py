"""Small local copies of the hub data sets that the stock tasks of lmms-eval read, in exactly their layout.

A folder of a data set's name under the working folder is what `datasets.load_dataset` reads in place of the hub.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

QUESTIONS = [
    # (question, choices, index of the right one): parentheses, letters and "Based on" where extractors stumble
    ("What is the material of the (left) glove?", ["rubber", "cotton (woven)", "kevlar", "leather"], 1),
    ("Based on the image, what is on sign A?", ["a (B)", "an A", "Based on it, nothing", "the letter D"], 0),
    ("Is the cup on the left or right side of the plate (B)?", ["(right)", "left", "D or B", "behind it (A)"], 2),
    ("Which option is written on the door?", ["Answer: C", "Option B", "The best answer is A", "E."], 3),
    ("Is there a BAD cab in the picture (see A)?", ["yes", "no (none)", "A", "Bad"], 1),
    ("How many dogs, cats and Cabbages are there?", ["1", "2 (two)", "A dozen", "C"], 2),
]
"""Questions of four choices whose answers cover every letter from A to D."""

FIFTH = "The image does not feature the object"


def image(seed: int, width: int = 240, height: int = 180) -> Image.Image:
    """An image of seeded colour cells."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST)


def in_base64(image: Image.Image) -> str:
    """The image as a base64 text, as MME-RealWorld and HR-Bench keep theirs."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def write_vstar(root: Path) -> dict[str, str]:
    """V* (`lmms-lab-encoder/vstar-bench`); gives the right choice's text for every question."""
    rows = []
    for index, (question, choices, right) in enumerate(QUESTIONS):
        lines = "\n".join(f"({letter}) {choice}" for letter, choice in zip("ABCD", choices, strict=True))
        rows.append(
            {
                "image": image(index),
                "text": f"{question}\n{lines}\nAnswer with the option's letter from the given choices directly.",
                "category": "direct_attributes" if index % 2 else "relative_position",
                "label": "ABCD"[right],
                "question_id": str(index),
            }
        )
    features = datasets.Features(
        {"image": datasets.Image()}
        | {name: datasets.Value("string") for name in ("text", "category", "label", "question_id")}
    )
    _write(root / "lmms-lab-encoder/vstar-bench", {"test": rows}, features)
    return _answers()


def spoil_image(root: Path, index: int) -> None:
    """Cut an image of V* in half."""
    file = root / "lmms-lab-encoder/vstar-bench/data/test.parquet"
    rows = datasets.Dataset.from_parquet(str(file), cache_dir=str(root / "spoiling"))
    spoiled = [dict(row) for row in rows.cast_column("image", datasets.Image(decode=False))]
    whole = spoiled[index]["image"]["bytes"]
    spoiled[index]["image"] = {"bytes": whole[: len(whole) // 2], "path": None}
    datasets.Dataset.from_list(spoiled, features=rows.features).to_parquet(file)


def write_mme_realworld(root: Path, name: str = "MME-RealWorld-lite-lmms-eval") -> dict[str, str]:
    """MME-RealWorld (`yifanzhang114/...`), five choices; the last question's answer is the fifth."""
    kinds = ["Perception/OCR with Complex Context", "Reasoning/Monitoring", "Perception/Remote Sensing"]
    rows = []
    for index, (question, choices, right) in enumerate([*QUESTIONS, ("Where is the yak?", ["a", "b", "c", "d"], 4)]):
        options = [f"({letter}) {choice}" for letter, choice in zip("ABCDE", [*choices, FIFTH], strict=True)]
        rows.append(
            {
                "index": str(index),
                "bytes": in_base64(image(10 + index)),
                "question": question,
                "multi-choice options": options,
                "answer": "ABCDE"[right],
                "category": kinds[index % 3],
                "l2-category": ["scene/attribute", "vehicle/counting", "position"][index % 3],
            }
        )
    _write(root / "yifanzhang114" / name, {"train": rows})
    return _answers() | {"Where is the yak?": FIFTH}


def write_hr_bench(root: Path) -> dict[str, str]:
    """HR-Bench (`DreamMr/HR-Bench`), both resolutions, under the configuration that the tasks name."""
    rows = []
    for index, (question, choices, right) in enumerate(QUESTIONS):
        rows.append(
            {
                "index": index,
                "question": question,
                "image": in_base64(image(20 + index)),
                "answer": "ABCD"[right],
                "category": "single" if index % 2 else "cross",
                "cycle_category": str(index % 3),
                **dict(zip("ABCD", choices, strict=True)),
            }
        )
    folder = root / "DreamMr/HR-Bench"
    _write(folder, {"hrbench_4k": rows, "hrbench_8k": rows})
    listed = "".join(
        f"      - split: {split}\n        path: data/{split}.parquet\n" for split in ("hrbench_4k", "hrbench_8k")
    )
    text = f"---\nconfigs:\n  - config_name: hrbench_version_split\n    data_files:\n{listed}---\n"
    (folder / "README.md").write_text(text)
    return _answers()


def _write(folder: Path, splits: dict[str, list[dict[str, Any]]], features: datasets.Features | None = None) -> None:
    (folder / "data").mkdir(parents=True)
    for split, rows in splits.items():
        datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "data" / f"{split}.parquet")
    names = "".join(f"      - split: {split}\n        path: data/{split}.parquet\n" for split in splits)
    text = f"---\nconfigs:\n  - config_name: default\n    data_files:\n{names}---\n"
    (folder / "README.md").write_text(text)


def _answers() -> dict[str, str]:
    return {question: choices[right] for question, choices, right in QUESTIONS}
