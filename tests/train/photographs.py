"""Real photographs of 16 megapixels for the tests, from Debian's package `mate-backgrounds`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from patience import HANG
from PIL import Image

PACKAGE = "mate-backgrounds"
PHOTOS = ("LadyBird", "YellowFlower", "Garden", "TwoWings")
"""2560x1600 photographs; a 2x2 sheet of them is 5120x3200."""
QUESTIONS = (
    ("In which quarter of the sheet is the ladybird?", ("upper left", "upper right", "lower left", "lower right")),
    ("In which quarter of the sheet is the yellow flower?", ("upper left", "upper right", "lower left", "lower right")),
)


def fetch_photographs(folder: Path) -> list[Path]:
    """Unpack the package's photographs into `folder`, fetching it by name with apt where it is not installed.

    Raises FileNotFoundError when neither works.
    """
    installed = Path("/usr/share/backgrounds/mate/nature")
    if not all((installed / f"{name}.jpg").exists() for name in PHOTOS):
        if shutil.which("apt-get") is None:
            raise FileNotFoundError(f"no {PACKAGE} and no apt-get to fetch it")
        folder.mkdir(parents=True, exist_ok=True)
        for command in (["apt-get", "download", PACKAGE], ["apt-get", "update"], ["apt-get", "download", PACKAGE]):
            subprocess.run(command, cwd=folder, capture_output=True, timeout=HANG, check=False)
            if list(folder.glob("*.deb")):
                break
        else:
            raise FileNotFoundError(f"apt-get could not download {PACKAGE}")
        subprocess.run(["dpkg", "-x", str(next(folder.glob("*.deb"))), str(folder)], check=True)
        installed = folder / "usr/share/backgrounds/mate/nature"
    return [installed / f"{name}.jpg" for name in PHOTOS]


def make_photo_folder(folder: Path, photos: list[Path], sheets: int = 8) -> Path:
    """`sheets` contact sheets of 5120x3200 (JPEG) with a JSONL file of questions; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [Image.open(path).convert("RGB") for path in photos]
    lines = []
    for index in range(sheets):
        order = [(index + turn) % 4 for turn in range(4)]
        sheet = Image.new("RGB", (5120, 3200))
        for place, which in enumerate(order):
            sheet.paste(images[which], (2560 * (place % 2), 1600 * (place // 2)))
        sheet.save(folder / f"sheet{index}.jpg", quality=88)
        question, choices = QUESTIONS[index % 2]
        answer = "ABCD"[order.index(index % 2)]
        lines.append({"image": f"sheet{index}.jpg", "question": question, "choices": choices, "answer": answer})
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder
