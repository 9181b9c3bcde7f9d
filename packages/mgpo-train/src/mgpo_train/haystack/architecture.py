"""The tiny Qwen2.5-VL of the haystack world: tokenizer, processor and freshly initialised model.

Everything is an ordinary transformers object of the Qwen2.5-VL classes; only the sizes are small. The one concession
to two cores is in the tokenizer: the protocol's fixed sentences (templates.py) are single tokens, so that a two-turn
conversation is about 140 tokens long.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import product

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from mgpo_core.haystack import BUDGET
from mgpo_core.haystack.world import COLOURS, MARKS, SHAPES

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# Qwen's chat format: a default system turn, images as one placeholder between vision marks.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def protocol_sentences(text: str) -> list[str]:
    """Split a fixed text of the protocol into sentences; joined, they are the text again."""
    return [piece for piece in re.split(r"(?<=[.!?:]) (?=[A-Z])|(?<=\n)", text) if piece]


def build_tokenizer(
    protocol: list[str], *, texts: Sequence[str] = (), vocabulary: int = 400
) -> PreTrainedTokenizerFast:
    """A byte-level BPE with Qwen's special tokens, single digits, and each string of `protocol` as one token.

    `texts` are learnt from as well as the questions of the world of one image; `vocabulary` is the size without the
    protocol.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*_vocabulary_texts(), *texts], trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in dict.fromkeys(protocol)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        model_max_length=4096,
    )


def _vocabulary_texts() -> list[str]:
    """Texts from which the BPE learns whole words: questions, roles and answers of the world."""
    questions = [f"Question: Which stripes are on the {c} {s}? " for c, s in product(COLOURS, SHAPES)]
    answers = [f"\\boxed{{{letter}}}" for letter in "ABCDE"] * 8
    roles = ["system\n", "user\n", "assistant\n"] * 50
    return (
        questions * 4 + answers + roles + [f"({letter}) {mark}\n" for letter, mark in zip("ABCD", MARKS, strict=True)]
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """The processor that belongs to the tokenizer, with haystack's pixel budget."""
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=BUDGET.min_pixels, max_pixels=BUDGET.max_pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A new Qwen2.5-VL of about 1.2 million parameters (4 layers of width 128; vision: 3 layers of width 96).

    `rope_theta` is 20 because the usual 1e4 leaves the width section of M-RoPE almost constant over 6 cells, and
    weights start with a standard deviation of 0.8/sqrt(fan-in) because transformers' 0.02 is far too small here.
    """
    torch.manual_seed(seed)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 20.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": ids["<|im_start|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_heads": 3,
            "out_hidden_size": 128,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [0, 1, 2],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name:
            nn.init.normal_(parameter, 0.0, 0.1)
        elif parameter.ndim >= 2 and "lm_head" not in name:
            gain = 1.0 if "patch_embed" in name else 0.8
            nn.init.normal_(parameter, 0.0, gain / math.sqrt(parameter[0].numel()))
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    return model
