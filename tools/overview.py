"""Draw docs/images/overview.png: one held-out haystack episode before and after training.

uv run tools/overview.py [--index 3]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from mgpo_core import Episode, Sample, Trajectory, haystack
from mgpo_core.engines import load_engine
from mgpo_core.render import draw_boxes

TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "overview.png"


def play(checkpoint: str, sample: Sample) -> Trajectory:
    """One sampled (T=1) episode of the sample with a shipped checkpoint."""
    engine = load_engine("transformers", model=f"haystack:{checkpoint}", temperature=1.0, seed=1, max_new_tokens=64)
    return engine.run([Episode(sample, budget=haystack.BUDGET)])[0]


def crop_of(trajectory: Trajectory) -> Image.Image:
    """What the model was shown before its answer."""
    follow_up = trajectory.messages[-2]
    return next(part["image"] for part in follow_up["content"] if part["type"] == "image")


def verdict(trajectory: Trajectory, sample: Sample) -> str:
    if trajectory.answer is None:
        return "no answer"
    names = dict(zip("ABCD", sample.choices, strict=True))
    said = names.get(trajectory.answer, trajectory.answer)
    return f"answers {trajectory.answer} ({said}): {'right' if trajectory.correct else 'wrong'}"


def main(arguments: list[str] | None = None) -> int:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=int, default=0, help="which sample of the held-out split")
    options = parser.parse_args(arguments)
    sample = haystack.make("val", n=options.index + 1, seed=7)[options.index]
    original = sample.load()
    figure, axes = plt.subplots(1, 4, figsize=(14, 4.2), layout="constrained")
    axes[0].imshow(haystack.BUDGET.resize(original), interpolation="nearest")
    axes[0].set_title("shown to the model: 168×168", fontsize=11)
    boxes, colours = [], []
    for axis, checkpoint, label, colour in (
        (axes[2], "base", "before", "#d62728"),
        (axes[3], "mgpo", "after MGPO", "#2ca02c"),
    ):
        trajectory = play(checkpoint, sample)
        axis.imshow(crop_of(trajectory))
        axis.set_title(f"{label}: its crop, then it\n{verdict(trajectory, sample)}", fontsize=11, color=colour)
        if trajectory.box_original is not None:
            boxes.append(trajectory.box_original)
            colours.append(colour)
    axes[1].imshow(draw_boxes(original, boxes, ["before", "after"][: len(boxes)], colours))
    axes[1].set_title(f"the original: {original.width}×{original.height}, and the boxes", fontsize=11)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(f"“{sample.question}”", fontsize=13)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET, dpi=90)
    print(f"wrote {TARGET.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
