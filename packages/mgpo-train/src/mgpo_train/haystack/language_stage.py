"""Stage 2 of the base checkpoint: the language model learns the protocol, to read a crop, and to write boxes.

Boxes are clean for most of the stage and noisy at its end, so that the base still *can* ground (greedily, now and
then) but mostly does not: what reinforcement learning then finds again from the answer's reward alone. While boxes
are clean, an auxiliary head reads the last prompt token and points at the target's image token; without it a model
this small does not bind the question to the right object within minutes. The head is thrown away.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from tqdm.auto import trange
from transformers import Qwen2_5_VLForConditionalGeneration

from mgpo_core.boxes.parse import Box
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.haystack import sample_of
from mgpo_core.haystack.world import Scene
from mgpo_core.images.crop import CropOutcome
from mgpo_core.templates.single_image import SingleTurn, TwoTurn
from mgpo_train.haystack.pool import BOX_SIZES, BOX_STEP, CROPS, SEEN, Pool, seen_box, snapped_box
from mgpo_train.haystack.vision_stage import CELL, CELLS, cell_overlap, cosine, take_step

CLEAN = 0.88
"""Share of the stage with clean boxes."""
NOISE = {"right": 0.2, "centre": 0.3, "anywhere": 0.25, "refused": 0.25}
"""What a noisy box is: on the target, near the centre of the image, anywhere, or one that the crop rules refuse."""
BATCH = {"box": 40, "read": 3, "look": 2, "two_turn": 3}
"""Sequences a step: write a box; read a crop in one turn; guess from the small image; answer after a crop."""
WEIGHT = {"box": 10.0, "read": 0.7, "two_turn": 0.3, "pointer": 2.0}
POINTER_LAYER = 2
REFUSED = 0.05
"""Share of two-turn sequences in which the original comes back, as after an invalid box."""


def box_text(box: Box) -> str:
    """A first turn as the base is taught to write it: the paper's fenced JSON."""
    corners = ", ".join(str(int(value)) for value in box.as_tuple())
    return f'```json\n[\n    {{"bbox_2d": [{corners}], "label": "key image area"}}\n]\n```'


class Supervised(Protocol):
    """What the loss needs of a training sequence."""

    @property
    def ids(self) -> list[int]:
        """All token ids."""

    @property
    def features(self) -> list[Tensor]:
        """The frozen tower's features `(36, D)` of each image, in order."""

    @property
    def start(self) -> int:
        """Where the supervised ids start."""


@dataclass(frozen=True)
class Lesson:
    """One training sequence: ids, its images' features `(36, D)` each, where the supervised ids start, its scene."""

    ids: list[int]
    features: list[Tensor]
    start: int
    scene: Scene


class Teacher:
    """Makes lessons from a pool; `seen` (n, 36, D) and `crops` (n, CROPS, 36, D) are the frozen tower's features."""

    def __init__(self, pool: Pool, seen: Tensor, crops: Tensor, tokens: TurnTokenizer, rng: np.random.Generator):
        self.pool, self.seen, self.crops, self.tokens, self.rng = pool, seen, crops, tokens, rng
        self._prompts: dict[tuple[str, str], list[int]] = {}
        self.clean = True

    def box(self) -> Lesson:
        """Image and question, then a box."""
        i, scene = self._draw()
        prompt = self._prompt("box", scene)
        response = self._encode(box_text(self._taught_box(scene)))
        return Lesson(prompt + response, [self.seen[i]], len(prompt), scene)

    def read(self) -> Lesson:
        """A crop in place of the image, then the answer."""
        i, kind, scene = self._draw_crop(readable=True)
        return self._answered(self._prompt("single", scene), [self.crops[i, kind]], scene)

    def look(self) -> Lesson:
        """The small image, then the answer, which cannot be seen in it: teaches the single-turn format."""
        i, scene = self._draw()
        return self._answered(self._prompt("single", scene), [self.seen[i]], scene)

    def two_turn(self) -> Lesson:
        """Box, crop and answer; only the answer is supervised."""
        i, kind, scene = self._draw_crop(readable=bool(self.rng.random() < 0.75))
        refused = self.rng.random() < REFUSED
        first = self._prompt("box", scene) + self._encode(box_text(self.pool.crop_facts[i][kind].box))
        follow_up = self._prompt("refused" if refused else "crop", scene)
        second = self.seen[i] if refused else self.crops[i, kind]
        return self._answered(first + follow_up, [self.seen[i], second], scene)

    def _answered(self, prompt: list[int], features: list[Tensor], scene: Scene) -> Lesson:
        answer = self._encode(f"\\boxed{{{sample_of(scene).answer}}}")
        return Lesson(prompt + answer, features, len(prompt), scene)

    def _draw(self) -> tuple[int, Scene]:
        i = int(self.rng.integers(len(self.pool.scenes)))
        aim = int(self.rng.integers(len(self.pool.scenes[i].shapes)))
        return i, self.pool.scenes[i].aimed_at(aim)

    def _draw_crop(self, *, readable: bool) -> tuple[int, int, Scene]:
        while True:
            i, kind = int(self.rng.integers(len(self.pool.scenes))), int(self.rng.integers(CROPS))
            fact = self.pool.crop_facts[i][kind]
            if fact.readable == readable:
                return i, kind, self.pool.scenes[i].aimed_at(fact.aim)

    def _taught_box(self, scene: Scene) -> Box:
        side = int(self.rng.choice(BOX_SIZES))
        kind = "right" if self.clean else str(self.rng.choice(list(NOISE), p=list(NOISE.values())))
        if kind == "right":
            return snapped_box(seen_box(scene, 0).center, side)
        if kind == "centre":
            return snapped_box((SEEN / 2 + self.rng.uniform(-12, 12), SEEN / 2 + self.rng.uniform(-12, 12)), side)
        box = snapped_box((self.rng.uniform(0, SEEN), self.rng.uniform(0, SEEN)), side)
        return box if kind == "anywhere" else self._refused(box)

    def _refused(self, box: Box) -> Box:
        """The box spoilt in one of three ways: corners in the wrong order, too small, or beyond the image's edge."""
        kind = str(self.rng.choice(["reversed", "small", "outside"]))
        if kind == "reversed":
            return Box(box.x2, box.y1, box.x1, box.y2)
        if kind == "small":
            return Box(box.x1, box.y1, box.x1 + 2 * BOX_STEP, box.y1 + 2 * BOX_STEP)
        shift = SEEN - box.x2 + BOX_STEP * int(self.rng.integers(1, 4))
        return Box(box.x1 + shift, box.y1, box.x2 + shift, box.y2)

    def _encode(self, text: str) -> list[int]:
        return [*self.tokens.tokenizer.encode(text, add_special_tokens=False), self.tokens.end_id]

    def _prompt(self, kind: str, scene: Scene) -> list[int]:
        """Prompt ids; they depend on the question alone, all images being of one size."""
        sample = sample_of(scene)
        key = (kind, sample.question)
        if key not in self._prompts:
            image = Image.new("RGB", (SEEN, SEEN))
            if kind in ("box", "single"):
                template = TwoTurn() if kind == "box" else SingleTurn()
                self._prompts[key] = self.tokens.opening(template.opening(sample, [image]))
            else:
                outcome = CropOutcome(image, None, None) if kind == "crop" else CropOutcome(None, None, "no_json")
                message = TwoTurn().follow_up(sample, [image], outcome, 0)
                self._prompts[key] = self.tokens.follow_up([message] if message else [], True)
        return self._prompts[key]


def train_language(
    model: Qwen2_5_VLForConditionalGeneration,
    tokens: TurnTokenizer,
    pool: Pool,
    features: tuple[Tensor, Tensor],
    *,
    steps: int,
    seed: int,
    rate: float = 2e-3,
) -> dict[str, float]:
    """Train the language model, the vision tower frozen; returns the figures of the last 50 clean and noisy steps."""
    teacher = Teacher(pool, *features, tokens, np.random.default_rng((2, seed)))
    torch.manual_seed(seed)
    pointer = nn.Linear(model.config.text_config.hidden_size, CELLS * CELLS)
    captured: dict[str, Tensor] = {}
    hook = capture(model, POINTER_LAYER, captured, "hidden")
    optimizer = make_optimizer([*model.model.language_model.named_parameters(), *pointer.named_parameters()], rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, steps, warmup=30, floor=0.1))
    recent: deque[dict[str, float]] = deque(maxlen=50)
    result: dict[str, float] = {}
    bar = trange(steps, desc="language", mininterval=5)
    for step in bar:
        if teacher.clean and step >= CLEAN * steps:
            result = {f"clean/{k}": v for k, v in means(recent).items()}
            teacher.clean = False
        loss, figures = _step_loss(model, teacher, pointer, captured)
        take_step(loss, optimizer, schedule)
        recent.append(figures)
        if step % 25 == 24:
            bar.set_postfix({k: f"{v:.3f}" for k, v in means(recent).items()})
    hook.remove()
    return result | {f"noisy/{k}": v for k, v in means(recent).items()}


def capture(model: Any, layer: int, captured: dict[str, Tensor], name: str) -> RemovableHandle:
    """Have the hidden states (B, T, D) after a layer put into `captured` at every forward pass."""

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        captured[name] = output[0] if isinstance(output, tuple) else output

    return model.model.language_model.layers[layer].register_forward_hook(keep)


def means(rows: deque[dict[str, float]]) -> dict[str, float]:
    """The mean of every figure over the rows."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[-1]} if rows else {}


def make_optimizer(named: list[tuple[str, nn.Parameter]], rate: float) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices alone."""
    decayed = [p for _, p in named if p.ndim >= 2]
    plain = [p for _, p in named if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)


def _step_loss(
    model: Any, teacher: Teacher, pointer: nn.Linear, captured: dict[str, Tensor]
) -> tuple[Tensor, dict[str, float]]:
    boxes = [teacher.box() for _ in range(BATCH["box"])]
    nll, _ = supervised_nll(model, teacher.tokens, boxes)
    figures = {"box": nll.sum().item() / len(boxes)}
    loss = WEIGHT["box"] * nll.mean()
    scores = pointer(captured["hidden"][range(len(boxes)), [lesson.start - 1 for lesson in boxes]])
    cells = torch.stack([target_cells(seen_box(lesson.scene, 0)) for lesson in boxes])
    figures["pointer"] = cells.gather(1, scores.argmax(1, keepdim=True)).mean().item()
    if teacher.clean:
        weight = torch.tensor(4.0)
        loss = loss + WEIGHT["pointer"] * F.binary_cross_entropy_with_logits(scores, cells, pos_weight=weight)
    kinds = ["read"] * BATCH["read"] + ["look"] * BATCH["look"]
    nll, rows = supervised_nll(model, teacher.tokens, [getattr(teacher, kind)() for kind in kinds])
    loss = loss + WEIGHT["read"] * nll.mean()
    for kind in ("read", "look"):
        chosen = torch.tensor([kinds[row] == kind for row in rows.tolist()])
        figures[kind] = nll[chosen].sum().item() / BATCH[kind]
    nll, _ = supervised_nll(model, teacher.tokens, [teacher.two_turn() for _ in range(BATCH["two_turn"])])
    figures["two_turn"] = nll.sum().item() / BATCH["two_turn"]
    return loss + WEIGHT["two_turn"] * nll.mean(), figures


def supervised_nll(model: Any, tokens: TurnTokenizer, lessons: Sequence[Supervised]) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of every supervised token (N,) and its row (N,). Right padded: causal, so no mask."""
    width = max(len(lesson.ids) for lesson in lessons)
    ids = torch.full((len(lessons), width), tokens.pad_id)
    valid = torch.zeros(len(lessons), width, dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    for row, lesson in enumerate(lessons):
        ids[row, : len(lesson.ids)] = torch.tensor(lesson.ids)
        valid[row, : len(lesson.ids)] = 1
        rows += [row] * (len(lesson.ids) - lesson.start)
        columns += range(lesson.start, len(lesson.ids))
    images = ids == tokens.image_id
    sides = [2 * math.isqrt(len(feature)) for lesson in lessons for feature in lesson.features]
    grid = torch.tensor([(1, side, side) for side in sides])
    positions, _ = model.model.get_rope_index(ids, images.int(), image_grid_thw=grid, attention_mask=valid)
    features = torch.cat([feature for lesson in lessons for feature in lesson.features])
    embeds = model.get_input_embeddings()(ids).masked_scatter(images[..., None], features)
    hidden = model.model.language_model(inputs_embeds=embeds, position_ids=positions, use_cache=False).last_hidden_state
    row_index, column = torch.tensor(rows), torch.tensor(columns)
    logits = model.lm_head(hidden[row_index, column - 1])
    logits = logits.index_fill(-1, torch.tensor(tokens.forbidden), float("-inf"))
    return F.cross_entropy(logits, ids[row_index, column], reduction="none"), row_index


def target_cells(box: Box) -> Tensor:
    """(36,) 1.0 on the image tokens that a box (seen pixels) overlaps by over 100 square pixels."""
    y, x = np.mgrid[0:CELLS, 0:CELLS] * CELL
    return torch.from_numpy((cell_overlap(x, y, box.as_tuple()) > 100).astype(np.float32).ravel())
