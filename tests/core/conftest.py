"""A tiny Qwen2.5-VL with habits: which of five ways it answers depends on the first word of the question."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

# Both turns of each habit. First turns: a valid box, a reversed one, no box, prose without end, a box without a fence.
HABITS = {
    "Alpha": ('```json\n[{"bbox_2d": [7, 9, 83, 71], "label": "key image area"}]\n```', "So \\boxed{A}"),
    "Beta": ('Here.\n```json\n[{"bbox_2d": [83, 71, 7, 9], "label": "key image area"}]\n```', "Not seen, \\boxed{B}"),
    "Gamma": ("I see no area.", "\\boxed{C}"),
    "Delta": ("on and on and " * 12, "I said on and on, hence \\boxed{D}"),
    "Epsilon": ('[{"bbox_2d": [7, 9, 83, 71]}] is where it is.', "\\boxed{E}"),
}
SIZES = ((112, 84), (56, 140), (168, 168))  # of the images the habits are taught on
BUDGET = {"min_pixels": 28 * 28 * 4, "max_pixels": 168 * 168}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
SPECIAL += ["<|video_pad|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_processor():
    import tokenizers
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    from mgpo_core.samples.sample import Sample
    from mgpo_core.templates.single_image import SingleTurn, TwoTurn

    sample = Sample.of(f"{' '.join(HABITS)}: which?", noise(56, 56), choices=("one", "two"))
    messages = [m for t in (TwoTurn(), SingleTurn()) for m in t.opening(sample, [sample.image])]
    corpus = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
    corpus += [text for habit in HABITS.values() for text in habit] + ["system\n", "user\n", "assistant\n"]
    bpe = tokenizers.Tokenizer(models.BPE())
    words = Regex(r"""[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, min_frequency=1, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
            "im_start_token": "<|im_start|>",
        },
    )
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**BUDGET),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer, *, padded_vocabulary: int = 5):
    """A random model; its vocabulary is a little larger than the tokenizer's, as Qwen's is."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + padded_vocabulary,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 50.0, "mrope_section": [2, 3, 3]},
            "bos_token_id": ids("<|im_start|>"),
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    for name, weight in model.named_parameters():  # the stock scale is far too small for narrow layers
        if weight.ndim >= 2:
            scale = 0.1 if "embed_tokens" in name else 0.8 / math.sqrt(weight[0].numel())
            torch.nn.init.normal_(weight, 0, scale)
    return model.eval()


def noise(width: int, height: int, seed: int = 0):
    """An image of seeded noise in large cells, so that every size and seed looks different."""
    import numpy as np
    from PIL import Image

    cells = np.random.default_rng([seed, width, height]).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST)


def lesson(word: str, size: tuple[int, int], seed: int):
    """The sample that shows the habit of `word`; it is a taught one when (seed, size) is in `enumerate(SIZES)`."""
    from mgpo_core.samples.sample import Sample

    name = f"{word}-{size[0]}x{size[1]}-{seed}"
    return Sample.of(f"{word}: which?", noise(*size, seed=seed), choices=("one", "two"), answer="A", id=name)


def teach_habits(model, processor, *, steps: int = 110) -> None:
    """Overfit the habits, on whole conversations with images of several sizes."""
    import torch

    from mgpo_core.engines.turn_tokens import TurnTokenizer

    tokenizer = TurnTokenizer(processor)
    batches = [_lessons(tokenizer, size, seed) for seed, size in enumerate(SIZES)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    model.train()
    for step in range(steps):
        model(**batches[step % len(batches)]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()


def _lessons(tokenizer, size, seed):
    """One conversation per habit, padded on the right, with labels on the responses alone."""
    import torch

    from mgpo_core.episodes.episode import Episode
    from mgpo_core.images.budget import PixelBudget

    rows = []
    for word, responses in HABITS.items():
        episode = Episode(lesson(word, size, seed), budget=PixelBudget(**BUDGET))
        ids, labels, images = [], [], []
        for response in responses:
            before = tokenizer.follow_up(episode.pending, True) if ids else tokenizer.opening(episode.pending)
            images += [part["image"] for m in episode.pending for part in m["content"] if part["type"] == "image"]
            sampled = [*tokenizer.tokenizer.encode(response, add_special_tokens=False), tokenizer.end_id]
            ids += before + sampled
            labels += [-100] * len(before) + sampled
            episode.observe(response)
        rows.append((ids, labels, images))
    width = max(len(ids) for ids, _, _ in rows)
    pixels = tokenizer.pixels([image for _, _, images in rows for image in images])
    padded = torch.tensor([ids + [tokenizer.pad_id] * (width - len(ids)) for ids, _, _ in rows])
    return {
        "input_ids": padded,
        "labels": torch.tensor([labels + [-100] * (width - len(labels)) for _, labels, _ in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _, _ in rows]),
        "mm_token_type_ids": (padded == tokenizer.image_id).int(),
        **pixels,
    }


@pytest.fixture(scope="session")
def tiny_processor():
    pytest.importorskip("transformers")
    return build_processor()


@pytest.fixture(scope="session")
def tiny_model(tiny_processor):
    """Taught, in evaluation mode; shared, so a test that changes it works on a deep copy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = build_model(tiny_processor.tokenizer)
    teach_habits(model, tiny_processor)
    torch.set_num_threads(threads)
    return model


@pytest.fixture(scope="session")
def tiny(tiny_model, tiny_processor):
    """The taught model, its processor, and what it was taught: `lesson(word, size, seed)`, `habits`, `sizes`."""
    return SimpleNamespace(model=tiny_model, processor=tiny_processor, lesson=lesson, habits=HABITS, sizes=SIZES)
