"""Stage 1 of the base checkpoint: the vision tower learns what lies in each image token, by dense supervision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import trange

from mgpo_core.haystack.world import COLOURS, MARKS, SHAPES
from mgpo_train.haystack.pool import SEEN, Pool, seen_box

Pixels = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(n, S, S, 3) uint8 images -> pixel values and grid of the vision tower."""

CELL = 28
"""Side of an image token, in pixels."""
CELLS = SEEN // CELL
WEIGHTS = {"colour": 1.0, "shape": 1.0, "mark": 4.0, "centre": 2.0, "column": 0.2, "row": 0.2}


@dataclass
class CellFacts:
    """What each of the `CELLS * CELLS` tokens of one image shows; -1 (or NaN) where there is nothing to learn."""

    colour: np.ndarray
    shape: np.ndarray
    mark: np.ndarray
    centre: np.ndarray


def cell_facts(pool: Pool, index: int, kind: int) -> CellFacts:
    """Facts of the downsized image (`kind` -1) or of crop number `kind` of a scene.

    A token belongs to the shape that overlaps it most (over 100 square pixels). Marks are asked of crops alone, where
    the bright half of the striped disc overlaps the token by as much.
    """
    scene = pool.scenes[index]
    box = None if kind < 0 else pool.crop_facts[index][kind].box
    left, top, zoom = (0.0, 0.0, 1.0) if box is None else (box.x1, box.y1, SEEN / box.width)
    y, x = np.mgrid[0:CELLS, 0:CELLS] * CELL
    best = np.full((CELLS, CELLS), 100.0)
    colour = np.zeros((CELLS, CELLS), dtype=np.int64)
    shape, mark = np.full_like(colour, -1), np.full_like(colour, -1)
    centre = np.full((CELLS, CELLS, 2), np.nan, dtype=np.float32)
    for i, item in enumerate(scene.shapes):
        true = seen_box(scene, i)
        x1, x2 = (true.x1 - left) * zoom, (true.x2 - left) * zoom
        y1, y2 = (true.y1 - top) * zoom, (true.y2 - top) * zoom
        overlap = cell_overlap(x, y, (x1, y1, x2, y2))
        here = overlap > best
        best[here] = overlap[here]
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        colour[here] = 1 + list(COLOURS).index(item.colour)
        shape[here] = SHAPES.index(item.shape)
        if kind >= 0:
            bright = scene.difficulty.mark / 4 / scene.difficulty.period * zoom
            disc = cell_overlap(x, y, (cx - bright, cy - bright, cx + bright, cy + bright))
            mark[here & (disc > 100)] = MARKS.index(item.mark)
        centre[here] = (cx / SEEN, cy / SEEN)
    return CellFacts(colour.ravel(), shape.ravel(), mark.ravel(), centre.reshape(-1, 2))


def cell_overlap(x: np.ndarray, y: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Area in pixels that the box shares with each token whose upper left corner is (x, y)."""
    wide = np.clip(np.minimum(box[2], x + CELL) - np.maximum(box[0], x), 0, None)
    high = np.clip(np.minimum(box[3], y + CELL) - np.maximum(box[1], y), 0, None)
    return wide * high


def train_vision(
    vision: Any, pixels: Pixels, pool: Pool, *, steps: int, seed: int, batch: int = 64, rate: float = 1.5e-3
) -> dict[str, float]:
    """Train the vision tower on `batch` images a step, a quarter of them downsized scenes, the others crops.

    `pixels` turns (n, S, S, 3) uint8 images into the tower's inputs. Returns the accuracies of the last 50 steps.
    """
    rng = np.random.default_rng((1, seed))
    width = vision.config.out_hidden_size
    sizes = {
        "colour": 1 + len(COLOURS),
        "shape": len(SHAPES),
        "mark": len(MARKS),
        "centre": 2,
        "column": CELLS,
        "row": CELLS,
    }
    heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
    parameters = [*vision.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, steps, warmup=40, floor=0.05))
    history: list[dict[str, float]] = []
    bar = trange(steps, desc="vision", mininterval=5)
    for _ in bar:
        chosen = rng.integers(len(pool.scenes), size=batch)
        kinds = np.where(np.arange(batch) < batch // 4, -1, rng.integers(pool.crops.shape[1], size=batch))
        images = [pool.seen[i] if k < 0 else pool.crops[i, k] for i, k in zip(chosen, kinds, strict=True)]
        inputs, grid = pixels(torch.stack(images))
        features = vision(inputs, grid_thw=grid).pooler_output
        loss, figures = _losses(heads, features, [cell_facts(pool, i, k) for i, k in zip(chosen, kinds, strict=True)])
        take_step(loss, optimizer, schedule)
        history.append(figures)
        if len(history) % 25 == 0:
            bar.set_postfix({k: f"{np.nanmean([h[k] for h in history[-25:]]):.3f}" for k in figures})
    return {k: float(np.nanmean([h[k] for h in history[-50:]])) for k in history[-1]}


def take_step(loss: Tensor, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
    """Step the optimiser, gradients clipped to a norm of 1, and the schedule of its learning rate."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    schedule.step()


def cosine(step: int, steps: int, *, warmup: int, floor: float) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine down to `floor`."""
    return min(1.0, (step + 1) / warmup) * (
        floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    )


def _losses(heads: nn.ModuleDict, features: Tensor, facts: list[CellFacts]) -> tuple[Tensor, dict[str, float]]:
    count = len(facts)
    column = torch.arange(CELLS).repeat(CELLS).repeat(count)
    row = torch.arange(CELLS).repeat_interleave(CELLS).repeat(count)
    whole = torch.tensor([fact.mark.max() < 0 for fact in facts]).repeat_interleave(CELLS * CELLS)
    targets = {
        name: torch.from_numpy(np.concatenate([getattr(f, name) for f in facts]))
        for name in ("colour", "shape", "mark")
    }
    targets |= {"column": torch.where(whole, column, -1), "row": torch.where(whole, row, -1)}
    centre = torch.from_numpy(np.concatenate([f.centre for f in facts]))
    there = ~centre[:, 0].isnan()
    error = (heads["centre"](features[there]) - centre[there]).abs().mean()
    total = WEIGHTS["centre"] * error
    figures = {"centre_px": error.item() * SEEN}
    for name, target in targets.items():
        scores = heads[name](features)
        total = total + WEIGHTS[name] * F.cross_entropy(scores, target, ignore_index=-1)
        asked = target >= 0 if name != "colour" else target > 0
        figures[name] = (scores.argmax(-1)[asked] == target[asked]).float().mean().item()
    return total, figures
