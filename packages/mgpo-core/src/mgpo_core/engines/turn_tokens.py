"""How a conversation becomes tokens: one implementation for every engine and for the trainer.

A turn is tokenised once, on its own, and appended; ids that a model sampled are never decoded and encoded again.
No torch here: the processor that is handed in brings its own tensors.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mgpo_core.boxes.parse import parse_boxes
from mgpo_core.boxes.plain_text import REASONING_TAG, THINK
from mgpo_core.errors import EngineError, TokenAlignmentError
from mgpo_core.templates.base import Message, message_images

__all__ = ["FenceScanner", "TurnTokenizer"]

_END = "<|im_end|>"
_FENCE = b"```"
_TAG = re.compile(REASONING_TAG.encode())
_MARK = "\u241f"  # stands for an assistant's text while the chat template is taken apart; never reaches a model


class FenceScanner:
    """Follows sampled ids and tells at which one the decoded text first closes a json fence that holds boxes.

    Fences pair up as parse_boxes pairs them; those inside a reasoning block count for nothing, unless `strict`. Linear
    in the number of bytes: the text between two neighbouring fences is parsed once. Bytes, not characters, so that a
    token which splits a UTF-8 character needs no care.
    """

    def __init__(self, token_bytes: TokenBytes, *, strict: bool = False) -> None:
        self._token_bytes = token_bytes
        self._strict = strict
        self._text = bytearray()
        self._last: tuple[int, int] | None = None  # where the last fence starts and ends
        self._fence: tuple[int, int] | None = None  # the last one outside the reasoning
        self._inside = False  # whether the fence before it opened a block ("json" behind a fence always opens one)
        self._reasoning = False  # whether a reasoning is open at the last fence
        self._tagged = False  # whether there was any tag of one
        self._tagged_before = False  # whether there was one before the last fence outside the reasoning

    def push(self, token: int) -> bool:
        """Take one more sampled id; True when it closes the fence."""
        piece = self._token_bytes[token]
        self._text += piece
        return b"`" in piece and self._closed(len(self._text) - len(piece))

    def _closed(self, new_from: int) -> bool:
        start = self._next_fence(new_from)
        while start >= 0:
            end = start + len(_FENCE)
            if not self._strict:
                self._follow_reasoning(0 if self._last is None else self._last[1], start)
            if not self._reasoning:
                if self._fence is not None:
                    opened, after = self._fence
                    self._inside = self._text.startswith(b"json", after) or not self._inside
                    if self._inside and self._holds_boxes(opened, end):
                        return True
                self._fence, self._tagged_before = (start, end), self._tagged
            self._last = (start, end)
            start = self._next_fence(new_from)
        return False

    def _follow_reasoning(self, start: int, end: int) -> None:
        """Take note of the reasoning tags between two fences (a tag has no back-tick in it)."""
        for tag in _TAG.finditer(self._text, start, end):
            if tag[1] and not self._tagged:  # the prompt held the opening one: all so far was reasoning
                self._fence, self._inside = None, False
            self._reasoning, self._tagged = not tag[1], True

    def _next_fence(self, new_from: int) -> int:
        """Where the next fence starts, -1 if there is none; it may have begun up to two bytes before the new piece."""
        if self._last is None:
            return self._text.find(_FENCE, max(0, new_from - 2))
        start, end = self._last
        while self._text.startswith(b"`", end):  # a run of back-ticks is one fence, however long
            end += 1
        if self._fence == self._last:
            self._fence = (start, end)
        self._last = (start, end)
        return self._text.find(_FENCE, max(end, new_from - 2))

    def _holds_boxes(self, start: int, end: int) -> bool:
        block = self._text[start:end].decode("utf-8", errors="replace")
        if self._tagged_before:  # a closing tag in the block is then not the first: it ends nothing that began before
            block = "".join(THINK) + block
        return bool(parse_boxes(block, strict=self._strict).boxes)


class TokenBytes:
    """The bytes behind each token id of a byte-level BPE tokenizer, looked up on demand."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = {int(i): str(token) for i, token in tokenizer.added_tokens_decoder.items()}
        self._alphabet = _byte_alphabet()
        self._known: dict[int, bytes] = {}
        probe = 'é`[{"bbox_2d": [1, 2]}]'
        ids = tokenizer.encode(probe, add_special_tokens=False)
        try:
            intact = b"".join(self[i] for i in ids).decode() == probe
        except (KeyError, UnicodeDecodeError):
            intact = False
        if not intact:
            raise EngineError(
                f"the tokenizer {type(tokenizer).__name__} is not byte-level BPE, which the engines need to see where "
                "a turn's fence closes; use a Qwen-style tokenizer"
            )

    def __getitem__(self, token: int) -> bytes:
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._look_up(token)
        return found

    def _look_up(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        text = self._tokenizer.convert_ids_to_tokens(token)
        if text is None:  # an id of the padded vocabulary that no text belongs to
            return b""
        return bytes(self._alphabet[character] for character in text)


class TurnTokenizer:
    """Tokenises turns with a processor's chat template; image tokens are expanded to one per visual feature.

    `processor` is a Qwen-VL style processor: `tokenizer`, `image_processor`, `image_token_id`, a chat template.
    """

    def __init__(self, processor: Any) -> None:
        tokenizer = processor.tokenizer
        self.processor = processor
        self.tokenizer = tokenizer
        self.token_bytes = TokenBytes(tokenizer)
        self.end_id: int = self._special(_END)
        self.pad_id: int = self.end_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.image_id: int = int(processor.image_token_id)
        self._patch = int(processor.image_processor.patch_size)
        self._merge = int(processor.image_processor.merge_size)
        self._sentences: dict[Any, list[int]] = {}
        self._pieces: dict[int, str] = {}

    def _special(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        if found is None or found == self.tokenizer.unk_token_id:
            raise EngineError(f"the tokenizer has no token {token!r}; use a checkpoint with Qwen's chat format")
        return int(found)

    @property
    def forbidden(self) -> tuple[int, ...]:
        """Ids a policy may never sample: every special token (image, video, vision marks, ...) but the end of turn."""
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        special.update(self.tokenizer.all_special_ids)
        special.add(self.image_id)
        return tuple(sorted(int(i) for i in special if i != self.end_id))

    def forbidden_mask(self, vocab_size: int) -> np.ndarray:
        """(vocab_size,) bool, True on `forbidden` and on ids past the tokenizer's last one (a padded vocabulary).

        Sampler and loss have to apply the same mask, or their log-probabilities differ by the masked mass.
        """
        mask = np.zeros(vocab_size, dtype=bool)
        mask[[i for i in self.forbidden if i < vocab_size]] = True
        mask[len(self.tokenizer) :] = True
        return mask

    def image_tokens(self, image: Image.Image) -> int:
        """How many tokens `image` (already resized) takes; raises TokenAlignmentError on a size off the grid."""
        factor = self._patch * self._merge
        if image.width % factor or image.height % factor or not image.width or not image.height:
            raise TokenAlignmentError(
                f"an image of {image.width}x{image.height} pixels does not fit the grid of {factor} pixels; "
                f"resize it with PixelBudget(..., factor={factor}).resize first"
            )
        return (image.width // factor) * (image.height // factor)

    def grid(self, image: Image.Image) -> tuple[int, int, int]:
        """The image's `image_grid_thw` entry: frames, rows and columns of patches."""
        return (1, image.height // self._patch, image.width // self._patch)

    def opening(self, messages: Sequence[Message], *, name: str = "") -> list[int]:
        """Ids of the conversation's opening, ready for the first response; `name` is the sample's, for errors."""
        key = ("opening", _outline(messages))
        if key not in self._sentences:
            text = self._render(messages)
            self._sentences[key] = self._encode(text, messages, name)
        return self._expand(self._sentences[key], message_images(messages))

    def follow_up(self, pending: Sequence[Message], ended: bool, *, name: str = "") -> list[int]:
        """Ids to append after a response: the end of turn unless it was sampled (`ended`), then the pending turn."""
        key = ("follow_up", _outline(pending))
        if key not in self._sentences:
            before = [{"role": "user", "content": _text("?")}, {"role": "assistant", "content": _text(_MARK)}]
            head = self._render(before, generation_prompt=False)
            whole = self._render([*before, *pending])
            if not whole.startswith(head) or head.count(_MARK) != 1:
                raise EngineError(
                    "the chat template changes earlier turns when a turn is added, so a turn cannot be appended to "
                    "sampled tokens; use a template whose rendering only grows (Qwen2.5-VL's does)"
                )
            tail = whole[head.index(_MARK) + len(_MARK) :]
            ids = self._encode(tail, pending, name)
            if ids[0] != self.end_id:
                raise EngineError(f"the chat template does not end a response with {_END}")
            self._sentences[key] = ids
        ids = self._expand(self._sentences[key], message_images(pending))
        return ids[1:] if ended else ids

    def _render(self, messages: Sequence[Message], *, generation_prompt: bool = True) -> str:
        rendered = self.processor.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=generation_prompt
        )
        return str(rendered)

    def _encode(self, text: str, messages: Sequence[Message], name: str) -> list[int]:
        """Ids with one image token per image; text that smuggles in an image token is refused."""
        ids = [int(i) for i in self.tokenizer.encode(text, add_special_tokens=False)]
        images = len(message_images(messages))
        if ids.count(self.image_id) != images:
            raise TokenAlignmentError(
                f"sample {name!r}: the turn renders to {ids.count(self.image_id)} image tokens for {images} images; "
                "remove image tokens from its text, or check the chat template"
            )
        return ids

    def _expand(self, ids: Sequence[int], images: Sequence[Image.Image]) -> list[int]:
        counts = iter([self.image_tokens(image) for image in images])
        expanded: list[int] = []
        for token in ids:
            expanded.extend([token] * (next(counts) if token == self.image_id else 1))
        return expanded

    def pixels(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """`pixel_values` (patches, features) and `image_grid_thw` (images, 3) of resized images, not resized again.

        Empty without images.
        """
        if not images:
            return {}
        for image in images:
            self.image_tokens(image)
        inputs = self.processor.image_processor(images=list(images), do_resize=False, return_tensors="pt")
        return {"pixel_values": inputs["pixel_values"], "image_grid_thw": inputs["image_grid_thw"]}

    def check(self, ids: Sequence[int], images: Sequence[Image.Image], *, name: str = "") -> None:
        """Raise TokenAlignmentError unless `ids` hold exactly one image token per visual feature of `images`."""
        features = sum(self.image_tokens(image) for image in images)
        tokens = sum(1 for token in ids if token == self.image_id)
        if tokens != features:
            raise TokenAlignmentError(
                f"sample {name!r}: {tokens} image tokens but {features} visual features of {len(images)} images; "
                "the conversation and its images have come apart"
            )

    def scanner(self, *, strict: bool = False) -> FenceScanner:
        """A fresh scanner for one response."""
        return FenceScanner(self.token_bytes, strict=strict)

    def cut(self, ids: Sequence[int], *, strict: bool = False) -> int | None:
        """How many leading sampled ids to keep so that their text first closes a json fence that holds boxes.

        None when it never closes. A token that runs past the fence is kept whole: sampled tokens are not split.
        """
        scanner = self.scanner(strict=strict)
        return next((count for count, token in enumerate(ids, start=1) if scanner.push(token)), None)

    def covering(self, ids: Sequence[int], characters: int) -> int:
        """How many leading ids it takes for their text to be at least `characters` long."""
        return bisect.bisect_left(range(len(ids)), characters, key=lambda count: len(self.decode(ids[:count])))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens included, spaces untouched."""
        return b"".join(self.token_bytes[token] for token in ids).decode("utf-8", errors="replace")

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each id by itself, for display."""
        for token in set(ids) - self._pieces.keys():
            self._pieces[token] = self.token_bytes[token].decode("utf-8", errors="replace")
        return [self._pieces[token] for token in ids]


def _text(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _outline(messages: Sequence[Message]) -> tuple[Any, ...]:
    """What of `messages` decides their rendering: roles and texts, and where images stand (not which)."""
    return tuple(
        (
            message["role"],
            tuple((part["type"], part.get("text")) for part in message["content"]),
        )
        for message in messages
    )


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE's printable stand-in of each byte -> the byte (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    stand_ins = {chr(byte): byte for byte in printable}
    stand_ins.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return stand_ins
