"""A tiny model of each family with the haystack tokenizer, taught to write boxes of its space and to answer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from mgpo_core import Episode, PixelBudget, Sample
from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.engines.families import find_family
from mgpo_core.engines.loading import load_processor
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.templates.base import message_images

PATCH = {"qwen2_vl": 14, "qwen2_5_vl": 14, "qwen3_vl": 16, "qwen3_vl_moe": 16}
"""The families by `model_type`, with the sides of their patches in pixels."""

_NAMES = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL", "qwen3_vl_moe": "Qwen3VLMoe"}
_PROCESSORS = {"qwen3_vl_moe": "Qwen3VLProcessor"}  # the dense family's
_VIDEO = {"qwen3_vl": "Qwen3VLVideoProcessor", "qwen3_vl_moe": "Qwen3VLVideoProcessor"}


def budget_of(model_type: str) -> PixelBudget:
    """4 to 36 tokens per image."""
    factor = 2 * PATCH[model_type]
    return PixelBudget(4 * factor**2, 36 * factor**2, factor=factor)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image of seeded noise in large cells."""
    cells = np.random.default_rng([seed, width, height]).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST)


def question(width: int, height: int, seed: int = 0, **fields: Any) -> Sample:
    """A question with four choices on an image of noise."""
    fields = {"id": f"{width}x{height}-{seed}", "answer": "ABCD"[seed % 4]} | fields
    choices = ("horizontal", "vertical", "rising", "falling")
    return Sample.of("Which stripes are on the black circle?", noise(width, height, seed), choices=choices, **fields)


def make_tiny(model_type: str, folder: Path, *, steps: int = 60) -> Path:
    """Build, teach and save a model with its processor; returns `folder`."""
    processor = build_processor(model_type)
    model = build_model(model_type, processor.tokenizer)
    teach(model, processor, model_type, steps=steps)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_processor(model_type: str) -> Any:
    """The family's processor around the tokenizer and the chat template of haystack's checkpoints."""
    shipped, budget = load_processor("haystack:base"), budget_of(model_type)
    make = getattr(transformers, _PROCESSORS.get(model_type, f"{_NAMES[model_type]}Processor"))
    images = transformers.Qwen2VLImageProcessor(
        min_pixels=budget.min_pixels, max_pixels=budget.max_pixels, patch_size=PATCH[model_type]
    )
    return make(
        image_processor=images,
        tokenizer=shipped.tokenizer,
        video_processor=getattr(transformers, _VIDEO.get(model_type, "Qwen2VLVideoProcessor"))(),
        chat_template=shipped.chat_template,
    )


def build_model(model_type: str, tokenizer: Any) -> Any:
    """A random model of width 64, three layers in each part."""
    torch.manual_seed(0)
    ids = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 50.0, "mrope_section": [2, 3, 3]}
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 5,  # padded, as Qwen's is
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": rope,
        "bos_token_id": ids("<|im_start|>"),
        "eos_token_id": ids("<|im_end|>"),
        "pad_token_id": ids("<|endoftext|>"),
    }
    vision: dict[str, Any] = {"depth": 3, "num_heads": 2, "patch_size": PATCH[model_type]}
    if model_type == "qwen2_vl":
        vision |= {"embed_dim": 48, "hidden_size": 64, "mlp_ratio": 2}
    else:
        vision |= {"hidden_size": 48, "intermediate_size": 96, "out_hidden_size": 64}
    if model_type == "qwen2_5_vl":
        vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
    if model_type.startswith("qwen3"):
        vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
        # vLLM's attention on CPUs wants heads of 32
        text |= {"head_dim": 32, "rope_parameters": rope | {"mrope_section": [4, 6, 6], "mrope_interleaved": True}}
    if model_type == "qwen3_vl_moe":
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    config = getattr(transformers, f"{_NAMES[model_type]}Config")(
        text_config=text,
        vision_config=vision,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = getattr(transformers, f"{_NAMES[model_type]}ForConditionalGeneration")(config)
    for name, weight in model.named_parameters():  # the stock scale is far too small for narrow layers
        if weight.ndim >= 2:
            fan_in = weight.shape[-1] if weight.ndim == 3 else weight[0].numel()  # 3-D: experts
            torch.nn.init.normal_(weight, 0, 0.1 if "embed_tokens" in name else 0.8 / math.sqrt(fan_in))
    return model.eval()


def teach(model: Any, processor: Any, model_type: str, *, steps: int) -> None:
    """A few steps on conversations whose boxes are drawn at random, mostly valid ones."""
    tokens, rng = TurnTokenizer(processor), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(steps):
        model(**_lessons(tokens, model_type, rng)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()


def _lessons(tokens: TurnTokenizer, model_type: str, rng: np.random.Generator, count: int = 4) -> dict[str, Any]:
    """Conversations on one image, padded on the right, with labels on the responses alone."""
    space, budget, end = find_family(model_type).space, budget_of(model_type), tokens.end_id
    width, height = (int(side) for side in rng.integers(150, 500, 2))
    rows, images = [], []
    for index in range(count):
        episode = Episode(question(width, height, int(rng.integers(100))), budget=budget, space=space)
        ids, labels = [], []
        for response in (_box(rng, space, reverse=index == 0), f"\\boxed{{{'ABCD'[int(rng.integers(4))]}}}"):
            before = tokens.follow_up(episode.pending, True) if ids else tokens.opening(episode.pending)
            images += message_images(episode.pending)
            sampled = [*tokens.tokenizer.encode(response, add_special_tokens=False), end]
            ids += before + sampled
            labels += [-100] * len(before) + sampled
            episode.observe(response)
        rows.append((ids, labels))
    longest = max(len(ids) for ids, _ in rows)
    padded = torch.tensor([ids + [tokens.pad_id] * (longest - len(ids)) for ids, _ in rows])
    return {
        "input_ids": padded,
        "labels": torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]),
        "mm_token_type_ids": (padded == tokens.image_id).int(),
        **tokens.pixels(images),
    }


def _box(rng: np.random.Generator, space: CoordinateSpace, *, reverse: bool) -> str:
    """A box of about half the image (in pixels: of the smallest that is shown), of few numbers, learnt soon."""
    relative = space is CoordinateSpace.RELATIVE_1000
    low, high = ((125, 250, 340), (640, 785, 910)) if relative else ((2, 5, 8), (46, 50, 53))
    first, last = rng.choice(low, 2), rng.choice(high, 2)
    box = ", ".join(str(number) for number in ([*last, *first] if reverse else [*first, *last]))
    return '```json\n[\n    {"bbox_2d": [' + box + '], "label": "key image area"}\n]\n```'
