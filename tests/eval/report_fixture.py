"""Output folders of lmms-eval as the report finds them: result files, sample logs, envelopes, images, run.json.

The files have the form that lmms-eval 0.7.3 writes them in (`test_the_fixture_is_what_lmms_eval_writes` compares); the
trajectories are run by an `Episode` from texts that a model could have said.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mgpo_core import Episode, PixelBudget, Sample, SingleTurn, Trajectory, TwoTurn
from mgpo_core.images.encode import small_image
from mgpo_core.runs.response_payload import ResponsePayload, encode_payload

BUDGET = PixelBudget(min_pixels=4 * 28 * 28, max_pixels=168 * 168)
CHOICES = ("red", "green", "blue", "yellow")
GOOD_BOX, BAD_BOX, NO_BOX = "[40, 40, 100, 100]", "[100, 100, 40, 40]", ""


def run_json(run_id: str = "0123456789abcdef", **changed: Any) -> dict[str, Any]:
    """The settings of a run; `changed` replaces parts of them."""
    return {
        "id": run_id,
        "pretrained": "haystack:mgpo",
        "engine": "transformers",
        "mode": "two_turn",
        "template": "two_turn",
        "budget": {"min_pixels": BUDGET.min_pixels, "max_pixels": BUDGET.max_pixels, "factor": 28},
        "space": "absolute",
        "decoding": {"max_new_tokens": 1024, "temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 0},
        "weights": {"name": "haystack:mgpo", "identity": "feedfacefeedface"},
        "versions": {"mgpo-eval": "0.1.0", "torch": "2.13.0", "lmms-eval": "0.7.3"},
    } | changed


@dataclass
class Logged:
    """One sample as a task logs it."""

    doc_id: int | str
    ground_truth: str
    text: str
    "What the model returned."
    metrics: dict[str, Any]
    "What the task's process_results returned."
    stripped: bool = False
    "Whether lmms-eval took the envelope away before scoring, as it does for stock tasks."
    images: Trajectory | None = None
    asked: str | None = None
    "The task's prompt."

    def line(self) -> dict[str, Any]:
        """The line of the log, as evaluator.py makes it and evaluation_tracker.py writes it."""
        answer = self.text.partition("<think>")[0].strip() if self.stripped else self.text
        line: dict[str, Any] = {"doc_id": self.doc_id, "target": self.ground_truth}
        if answer != self.text:
            line["resps"] = self.text
        line |= {
            "filtered_resps": answer,
            "token_counts": [{"input_tokens": 90, "output_tokens": 30}],
            "doc_hash": hashlib.sha256(str(self.doc_id).encode()).hexdigest(),
        }
        return line | self.metrics | {"input": self.asked or f"What colour is mark {self.doc_id}?"}


@dataclass
class Evaluation:
    """One call of `lmms-eval eval --output_path FOLDER --log_samples`."""

    folder: Path
    tasks: Mapping[str, Sequence[Logged]]
    provenance: Mapping[str, Any] | None = field(default_factory=run_json)
    model: str = "haystack__mgpo"
    date: str = "20250101_120000"
    averages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    "Task -> what lmms-eval reports, instead of the means of the logged numbers."
    config: Mapping[str, Any] = field(default_factory=dict)
    lower_is_better: Sequence[str] = ()

    def write(self) -> Path:
        """Write every file; gives the output folder."""
        place = self.folder / self.model
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{self.date}_results.json").write_text(json.dumps(self.results(), indent=2), encoding="utf-8")
        for task, samples in self.tasks.items():
            lines = "".join(json.dumps(sample.line(), ensure_ascii=False) + "\n" for sample in samples)
            self.log(task).write_text(lines, encoding="utf-8")
        if self.provenance is not None:
            mine = self.folder / "mgpo" / str(self.provenance["id"])
            (mine / "images").mkdir(parents=True, exist_ok=True)
            (mine / "run.json").write_text(json.dumps(self.provenance, indent=2), encoding="utf-8")
            self._write_images()
        return self.folder

    def log(self, task: str) -> Path:
        """The sample log of a task."""
        return self.folder / self.model / f"{self.date}_samples_{task}.jsonl"

    def results(self) -> dict[str, Any]:
        """The content of the results file."""
        names = {
            task: list(dict.fromkeys(n for s in samples for n in s.metrics)) for task, samples in self.tasks.items()
        }
        names = {task: [name for name in found if name != "category"] for task, found in names.items()}
        return {
            "results": {
                task: {"alias": task, "samples": len(s)} | self._averages(task) for task, s in self.tasks.items()
            },
            "group_subtasks": {task: [] for task in self.tasks},
            "configs": {task: {"task": task} for task in self.tasks},
            "versions": dict.fromkeys(self.tasks, "Yaml"),
            "n-shot": dict.fromkeys(self.tasks, 0),
            "higher_is_better": {
                task: {name: name not in self.lower_is_better for name in found} for task, found in names.items()
            },
            "n-samples": {task: {"original": 500, "effective": len(samples)} for task, samples in self.tasks.items()},
            "config": {"model": "mgpo", "model_args": "pretrained=haystack:mgpo", "limit": None, "gen_kwargs": ""}
            | dict(self.config),
            "git_hash": "abc1234",
            "lmms_eval_version": "0.7.3",
            "date": self.date,
            "task_hashes": {},
            "model_source": "mgpo",
            "model_name": "haystack:mgpo",
            "model_name_sanitized": self.model,
            "total_evaluation_time_seconds": "12.5",
        }

    def _averages(self, task: str) -> dict[str, Any]:
        if task in self.averages:
            return dict(self.averages[task])
        values: dict[str, list[float]] = {}
        for sample in self.tasks[task]:
            for name, value in sample.metrics.items():
                if isinstance(value, (int, float)):
                    values.setdefault(name, []).append(value)
        found: dict[str, Any] = {}
        for name, column in values.items():
            average = sum(column) if name == "skipped" else sum(column) / len(column)
            found |= {f"{name},none": average, f"{name}_stderr,none": 0.01}
        return found

    def _write_images(self) -> None:
        for samples in self.tasks.values():
            for sample in samples:
                if sample.images is None:
                    continue
                kept = kept_image_names(str(self.provenance["id"]), sample.doc_id, sample.images)
                for name, image in sample.images.named_images().items():
                    (self.folder / kept[name]).write_bytes(small_image(image, 640)[1])


def kept_image_names(run_id: str, doc_id: int | str, trajectory: Trajectory) -> dict[str, str]:
    """Where the images of a sample are kept, relative to the output folder."""
    stem = hashlib.sha256(str(doc_id).encode()).hexdigest()[:8]
    return {name: f"mgpo/{run_id}/images/{stem}-{Path(name).stem}.img" for name in trajectory.named_images()}


def scene(seed: int, size: tuple[int, int] = (672, 504)) -> Image.Image:
    """An image with something to see in it."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(60, 200, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for color in CHOICES:
        x, y = rng.integers(0, size[0] - 60), rng.integers(0, size[1] - 60)
        pen.ellipse((x, y, x + 50, y + 50), fill=color)
    return image


def played(
    doc_id: int | str,
    answer: str,
    *,
    box: str = GOOD_BOX,
    single_turn: bool = False,
    question: str | None = None,
    image: Image.Image | None = None,
) -> Trajectory:
    """A trajectory whose last response boxes `answer`; with an empty `box` the model gives none."""
    sample = Sample.of(
        question or f"What colour is mark {doc_id}?",
        scene(hash(str(doc_id)) % 1000 if isinstance(doc_id, str) else doc_id) if image is None else image,
        choices=CHOICES,
        id=f"task/{doc_id}",
    )
    episode = Episode(sample, template=SingleTurn() if single_turn else TwoTurn(), budget=BUDGET)
    if not single_turn:
        episode.observe(
            f'It is here.\n```json\n[\n    {{"bbox_2d": {box}, "label": "mark"}}\n]\n```'
            if box
            else "I see it at once.",
            tokens=20,
            seconds=0.5,
        )
    episode.observe(f"The mark is {answer}. \\boxed{{{answer}}}", tokens=9, seconds=0.2)
    return episode.trajectory


def payload_text(trajectory: Trajectory, run_id: str, images: Mapping[str, str] | None = None) -> str:
    """What the model returns for a trajectory."""
    record = {"run": run_id, "trajectory": trajectory.to_dict(), "images": dict(images or {})}
    return encode_payload(ResponsePayload(trajectory.answer or "Z", record))


def ours(
    doc_id: int | str,
    right: bool,
    *,
    box: str = GOOD_BOX,
    hit: bool | None = True,
    iou: float = 0.4,
    category: str = "colour",
    run_id: str = "0123456789abcdef",
    images: bool = True,
    **generate: Any,
) -> Logged:
    """A sample of a task of ours, as tasks/scoring.py returns it; `hit` None leaves out what needs true boxes."""
    trajectory = played(doc_id, "A" if right else "B", box=box, **generate)
    kept = kept_image_names(run_id, doc_id, trajectory) if images else {}
    metrics = {name: value for name, value in trajectory.metrics().items() if name != "accuracy"}
    names = ("accuracy", "accuracy_low", "accuracy_high", f"accuracy/{category}")
    metrics = dict.fromkeys(names, float(right)) | {"skipped": 0.0, "category": category} | metrics
    if hit is not None and not generate.get("single_turn"):
        metrics |= {"hit_rate": float(hit and box == GOOD_BOX), "mean_iou": iou if hit and box == GOOD_BOX else 0.0}
    text = payload_text(trajectory, run_id, kept)
    return Logged(doc_id, "A", text, metrics, images=trajectory if images else None)


SKIPPED_METRICS = {"accuracy": 0.0, "accuracy/colour": 0.0, "skipped": 1.0, "category": "colour", "answered_rate": 0.0}


def skipped(doc_id: int | str, reason: str, run_id: str = "0123456789abcdef") -> Logged:
    """A sample that could not be run; the task scores the stand-in answer as wrong."""
    text = encode_payload(ResponsePayload("Z", {"run": run_id, "trajectory": None, "images": {}, "skipped": reason}))
    return Logged(doc_id, "A", text, SKIPPED_METRICS)


def stock(
    doc_id: int, right: bool, metrics: Mapping[str, Any], run_id: str = "0123456789abcdef", **generate: Any
) -> Logged:
    """A sample of a stock task, whose scorer saw the bare answer."""
    trajectory = played(doc_id, "A" if right else "B", **generate)
    return Logged(doc_id, "A", payload_text(trajectory, run_id), dict(metrics), stripped=True)


def vstar(doc_id: int, right: bool, category: str = "direct_attributes", **generate: Any) -> Logged:
    """A sample of `vstar_bench`, as tasks/vstar_bench/utils.py returns it."""
    value = {
        "question_id": doc_id,
        "category": category,
        "score": float(right),
        "prediction": "A" if right else "B",
        "ground_truth": "A",
    }
    return stock(doc_id, right, {f"vstar_{category}_acc": value, "vstar_overall_acc": value}, **generate)


def mme_realworld(doc_id: int, pred: str, sub_category: str = "Monitoring", **generate: Any) -> Logged:
    """A sample of `mmerealworld`, as tasks/mme_realworld/utils.py returns it; the answer is A."""
    value = {
        "question_id": f"q{doc_id}",
        "category": "Perception",
        "sub_category": sub_category,
        "task_category": "vehicle/count",
        "pred_answer": pred,
        "answer": "A",
    }
    return stock(doc_id, pred == "A", {"mme_realworld_score": value}, **generate)


def hrbench(
    doc_id: int, right: bool, category: str = "single", cycle: str = "0", *, asked: str | None = None, **generate: Any
) -> Logged:
    """A sample of `hrbench4k`, as tasks/hrbench/utils.py returns it."""
    value = {"index": doc_id, "cycle_category": cycle, "gpt_score": int(right)}
    sample = stock(doc_id, right, {category: value, "average": value}, **generate)
    sample.asked = asked
    return sample


def rotated(question: str, rotation: int, choices: Sequence[str] = CHOICES) -> str:
    """The prompt of `hrbench4k` for a rotation of the choices, as tasks/hrbench/utils.py writes it."""
    turned = [*choices[rotation:], *choices[:rotation]]
    lines = "".join(f"{letter}. {choice}\n" for letter, choice in zip("ABCD", turned, strict=True))
    return f"{question}\n{lines}Answer the option letter directly."
