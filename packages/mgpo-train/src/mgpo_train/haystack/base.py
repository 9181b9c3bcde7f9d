"""`mgpo-train haystack-base`: make the base checkpoint of the haystack world from nothing but a seed.

Two supervised stages on two cores: the vision tower alone (vision_stage.py), then the language model on the frozen
tower's features (language_stage.py). What comes out speaks the two-turn format, reads a good crop nearly always, and
grounds poorly. Same seed, same machine, same file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from mgpo_core.engines.transformers.vision import batched_vision_attention, patch_embed_as_matmul
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.haystack import BUDGET, make
from mgpo_core.images.crop import CropOutcome
from mgpo_core.templates.base import message_text
from mgpo_core.templates.single_image import SingleTurn, TwoTurn
from mgpo_train.haystack.architecture import build_model, build_processor, build_tokenizer, protocol_sentences
from mgpo_train.haystack.checkpoint_folder import checkpoint_folder
from mgpo_train.haystack.language_stage import train_language
from mgpo_train.haystack.pool import Pool, make_pool
from mgpo_train.haystack.vision_stage import Pixels, train_vision

SETTINGS = EpisodeSettings(
    min_pixels=BUDGET.min_pixels, max_pixels=BUDGET.max_pixels, coordinate_space="absolute", max_new_tokens=64
)
"""How the checkpoint's episodes are run: its `mgpo.json`."""

_BOX_HEAD, _BOX_TAIL = '```json\n[\n    {"bbox_2d": [', '], "label": "key image area"}\n]\n```'


def protocol() -> list[str]:
    """Every fixed string of the two templates and of the box format, cut into sentences, longest first."""
    sample = make("train", n=1)[0]
    image = Image.new("RGB", (28, 28))
    crop, refused = CropOutcome(image, None, None), CropOutcome(None, None, "no_json")
    messages = [*TwoTurn().opening(sample, [image]), *SingleTurn().opening(sample, [image])]
    follow_ups = [TwoTurn().follow_up(sample, [image], outcome, 0) for outcome in (crop, refused)]
    messages += [message for message in follow_ups if message is not None]
    texts = [message_text(message).replace(f"Question: {sample.question}", "\n") for message in messages]
    sentences = {piece for text in texts for line in text.split("\n\n") for piece in protocol_sentences(line)}
    return sorted(sentences | {_BOX_HEAD, _BOX_TAIL} - {"\n", " "}, key=lambda text: (-len(text), text))


def make_base(*, seed: int, scenes: int, vision_steps: int, language_steps: int) -> tuple[Any, Any, dict[str, float]]:
    """Train a base checkpoint; returns (model, processor, figures of both stages)."""
    tokenizer = build_tokenizer(protocol())
    processor = build_processor(tokenizer)
    tokens = TurnTokenizer(processor)
    model = build_model(tokenizer, seed=seed)
    patch_embed_as_matmul(model)
    batched_vision_attention(model)
    pool = make_pool(scenes, seed)

    def pixels(images: Tensor) -> tuple[Tensor, Tensor]:
        inputs = processor.image_processor(
            images=list(images.permute(0, 3, 1, 2)),
            do_resize=False,
            return_tensors="pt",
            input_data_format="channels_first",
        )
        return inputs["pixel_values"], inputs["image_grid_thw"]

    started = time.perf_counter()
    figures = {
        f"vision/{k}": v
        for k, v in train_vision(model.model.visual, pixels, pool, steps=vision_steps, seed=seed).items()
    }
    figures["vision/seconds"] = time.perf_counter() - started
    model.model.visual.requires_grad_(False)
    features = _encode(model.model.visual, pixels, pool)
    started = time.perf_counter()
    language = train_language(model, tokens, pool, features, steps=language_steps, seed=seed)
    model.requires_grad_(True)
    figures |= {f"language/{k}": v for k, v in language.items()} | {"language/seconds": time.perf_counter() - started}
    return model, processor, figures


@torch.no_grad()
def _encode(vision: Any, pixels: Pixels, pool: Pool) -> tuple[Tensor, Tensor]:
    """The frozen tower's features of all images of the pool: (n, 36, D) and (n, CROPS, 36, D)."""

    def encode(images: Tensor, name: str) -> Tensor:
        chunks = []
        for chunk in tqdm(images.split(128), desc=f"encoding {name}", mininterval=5):
            inputs, grid = pixels(chunk)
            chunks.append(
                vision(inputs, grid_thw=grid).pooler_output.view(len(chunk), -1, vision.config.out_hidden_size)
            )
        return torch.cat(chunks)

    crops = encode(pool.crops.flatten(0, 1), "crops")
    return encode(pool.seen, "scenes"), crops.view(*pool.crops.shape[:2], *crops.shape[1:])


def write_checkpoint(
    folder: Path,
    model: Any,
    processor: Any,
    played: EpisodeSettings,
    settings: Mapping[str, int],
    figures: Mapping[str, float],
    started: float,
) -> None:
    """Write a made checkpoint with its `mgpo.json`, and `base.json`: how it was made, and in how many seconds."""
    measured = {**figures, "seconds": time.perf_counter() - started}
    record = {**settings, "figures": {name: round(value, 4) for name, value in measured.items()}}
    with checkpoint_folder(folder, settings):
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        played.write(folder)
        (folder / "base.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))
