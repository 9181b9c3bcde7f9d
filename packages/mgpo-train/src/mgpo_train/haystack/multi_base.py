"""`mgpo-train haystack-multi-base`: make the checkpoint for several images, from `haystack:mgpo` and a seed.

The vision tower is that checkpoint's, frozen; the language model goes on from its own with a vocabulary that holds the
protocol of several images. What comes out finds a named object in a row of images and reasons about one image at a
time; it knows nothing of haystack_multi's other tasks: the place that a pretrained model has in MIRG-RL. Same seed,
same file.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm, trange
from transformers import AutoModelForImageTextToText

from mgpo_core.boxes.plain_text import THINK
from mgpo_core.engines.loading import load_processor
from mgpo_core.engines.transformers.vision import batched_vision_attention, patch_embed_as_matmul
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.haystack import BUDGET, checkpoint, make_multi
from mgpo_core.haystack.world import COLOURS, SHAPES, Scene, make_scene
from mgpo_core.templates.base import message_text
from mgpo_core.templates.multi_image import MultiImage
from mgpo_train.haystack.architecture import build_model, build_processor, build_tokenizer, protocol_sentences
from mgpo_train.haystack.language_stage import (
    POINTER_LAYER,
    capture,
    make_optimizer,
    means,
    supervised_nll,
    target_cells,
)
from mgpo_train.haystack.multi_lessons import BATCH, LEVEL, MOST_IMAGES, MultiLesson, MultiTeacher
from mgpo_train.haystack.vision_stage import CELLS, cosine, take_step

SETTINGS = EpisodeSettings(
    template="multi_image",
    min_pixels=BUDGET.min_pixels,
    max_pixels=BUDGET.max_pixels,
    coordinate_space="absolute",
    max_new_tokens=160,
)
"""How the checkpoint's episodes are run: its `mgpo.json`."""

SCENES_SEED = 9_000
"""Seeds of the scenes lie apart from those of the training data."""

WEIGHT = {"find": 5.0, "describe": 8.0, "look_for": 5.0, "name": 4.0, "cells": 2.0, "image": 0.5, "number": 1.0}

NUMBER_LAYER = 1
"""After which layer of the language model an auxiliary head reads from every image token which image it is of."""

_ANSWER_PIECES = (THINK[0], f"{THINK[1]}\n", '```json\n[{"image": ', ', "bbox_2d": [', '], "label": "', '"}]\n```')
_WORDS = ("Image", " in image", " is in image", " no", "The", "Find the", " object", " every", " others")
_PHRASES = ("Which object is in every image? Find it in image", "What is in image 2 that is not in image 1?")


def protocol() -> list[str]:
    """Every fixed string of the template and of the answer, cut into sentences, longest first."""
    sample = make_multi("train", n=1, tasks="object_tracking")[0]
    text = message_text(MultiImage().opening(sample, [])[1]).removeprefix(f"Question: {sample.question} ")
    pieces = {*protocol_sentences(text), "You are a helpful assistant.", sample.question, *_PHRASES, *_ANSWER_PIECES}
    return sorted(pieces, key=lambda piece: (-len(piece), piece))


def vocabulary_texts() -> list[str]:
    """Texts from which the BPE learns whole words, after a space and after a quote."""
    names = [f"{colour} {shape}" for colour, shape in product(COLOURS, SHAPES)]
    lines = [f"Image 1: {name}, {name}. The {name} is in image 2. Image 3: no {name}.\n" for name in names]
    asked = [f"Find the {name}. Is there a {name} in image 2? What is at [1] of image 3?" for name in names]
    return lines * 4 + asked * 2 + [f'"label": "{name}"}}' for name in names] * 8 + list(_WORDS) * 20


def make_multi_base(*, seed: int, scenes: int, steps: int) -> tuple[Any, Any, dict[str, float]]:
    """Train the checkpoint; returns (model, processor, figures of the last 50 steps)."""
    tokenizer = build_tokenizer(protocol(), texts=vocabulary_texts(), vocabulary=600)
    processor = build_processor(tokenizer)
    tokens = TurnTokenizer(processor)
    model = build_model(tokenizer, seed=seed)
    _start_from_one_image(model, tokenizer)
    patch_embed_as_matmul(model)
    batched_vision_attention(model)
    drawn = [make_scene("train", SCENES_SEED + seed, index, LEVEL) for index in range(scenes)]
    features = _encode(model, processor, drawn)
    model.model.visual.requires_grad_(False)
    teacher = MultiTeacher(drawn, features, tokens, np.random.default_rng((3, seed)))
    figures = _train(model, teacher, steps=steps, seed=seed)
    model.requires_grad_(True)
    return model, processor, figures


def _start_from_one_image(model: Any, tokenizer: Any) -> None:
    """Copy the weights of `haystack:mgpo`, and the embeddings of the tokens that both vocabularies have."""
    base = AutoModelForImageTextToText.from_pretrained(checkpoint("mgpo"))
    own = load_processor(str(checkpoint("mgpo"))).tokenizer.get_vocab()
    weights = base.state_dict()
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        known = base.get_input_embeddings().weight
        for token, place in tokenizer.get_vocab().items():
            if token in own:
                embedding[place] = known[own[token]]
        mine = model.state_dict()
        model.load_state_dict(
            {name: mine[name] if "embed_tokens" in name or "lm_head" in name else weights[name] for name in mine}
        )


@torch.no_grad()
def _encode(model: Any, processor: Any, scenes: list[Scene], *, workers: int = 2) -> Tensor:
    """The frozen tower's features (n, 36, D) of the scenes as the model sees them."""
    chunks = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        images = list(tqdm(executor.map(_seen, scenes, chunksize=50), total=len(scenes), desc="drawing scenes"))
    for start in range(0, len(images), 128):
        inputs = processor.image_processor(images=images[start : start + 128], do_resize=False, return_tensors="pt")
        found = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        chunks.append(found.view(len(inputs["image_grid_thw"]), CELLS * CELLS, -1))
    return torch.cat(chunks)


def _seen(scene: Scene) -> Any:
    return BUDGET.resize(scene.render())


def _train(model: Any, teacher: MultiTeacher, *, steps: int, seed: int, rate: float = 1e-3) -> dict[str, float]:
    torch.manual_seed(seed)
    width = model.config.text_config.hidden_size
    sizes = {"cells": CELLS * CELLS, "image": MOST_IMAGES, "number": MOST_IMAGES}
    heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
    captured: dict[str, Tensor] = {}
    hooks = [capture(model, layer, captured, name) for layer, name in ((POINTER_LAYER, "end"), (NUMBER_LAYER, "early"))]
    optimizer = make_optimizer([*model.model.language_model.named_parameters(), *heads.named_parameters()], rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, steps, warmup=30, floor=0.02))
    recent: deque[dict[str, float]] = deque(maxlen=50)
    bar = trange(steps, desc="language", mininterval=5)
    for step in bar:
        teacher.advance(step / steps)
        loss, figures = _step_loss(model, teacher, heads, captured)
        take_step(loss, optimizer, schedule)
        recent.append(figures)
        if step % 25 == 24:
            bar.set_postfix({name: f"{value:.3f}" for name, value in means(recent).items()})
    for hook in hooks:
        hook.remove()
    return means(recent)


def _step_loss(
    model: Any, teacher: MultiTeacher, heads: nn.ModuleDict, captured: dict[str, Tensor]
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a step: what is said; of what a box is written, its image and its cells, right before the box; and of
    every image token, the number of its image."""
    kinds = [(kind, lesson) for kind in BATCH for lesson in teacher.lessons(kind)]
    everything = [lesson for _, lesson in kinds]
    nll, rows = supervised_nll(model, teacher.tokens, everything)
    figures, loss = _spoken_losses(nll, [kinds[row][0] for row in rows.tolist()])
    shown = [place for place, lesson in enumerate(everything) if lesson.target is not None]
    lessons = [everything[place] for place in shown]
    hidden = captured["end"][shown, [lesson.before for lesson in lessons]]
    cells, images = _targets(lessons)
    scores, places = heads["cells"](hidden), heads["image"](hidden)
    figures["pointer"] = cells.gather(1, scores.argmax(1, keepdim=True)).mean().item()
    figures["image"] = (places.argmax(1) == images).float().mean().item()
    loss = loss + WEIGHT["cells"] * F.binary_cross_entropy_with_logits(scores, cells, pos_weight=torch.tensor(4.0))
    loss = loss + WEIGHT["image"] * F.cross_entropy(places, images)
    number = _number_loss(heads["number"], captured["early"], everything, teacher.tokens.image_id)
    return loss + WEIGHT["number"] * number, figures


def _spoken_losses(nll: Tensor, kinds: list[str]) -> tuple[dict[str, float], Tensor]:
    """(nats of a lesson by its kind, weighted loss) of the supervised tokens (N,), each of a lesson of a kind."""
    figures, loss = {}, torch.zeros(())
    for kind, count in BATCH.items():
        chosen = torch.tensor([other == kind for other in kinds])
        figures[kind] = nll[chosen].sum().item() / count
        loss = loss + WEIGHT[kind] * nll[chosen].mean()
    return figures, loss


def _number_loss(head: nn.Module, hidden: Tensor, lessons: list[MultiLesson], image_id: int) -> Tensor:
    """Cross-entropy of the number (from 0) of the image that each image token is of."""
    found, targets = [], []
    for row, lesson in enumerate(lessons):
        places = [place for place, token in enumerate(lesson.ids) if token == image_id]
        found.append(hidden[row, places])
        targets += [number for number, features in enumerate(lesson.features) for _ in range(len(features))]
    return F.cross_entropy(head(torch.cat(found)), torch.tensor(targets))


def _targets(lessons: list[MultiLesson]) -> tuple[Tensor, Tensor]:
    """(n, 36) the cells of what each lesson's box is of (`target_cells`), and (n,) the image that it is in."""
    scale = 1 / LEVEL.period
    boxes = [lesson.target.box for lesson in lessons if lesson.target is not None]
    return torch.stack([target_cells(box.scaled(scale, scale)) for box in boxes]), torch.tensor(
        [b.image for b in boxes]
    )
