"""How many tokens the samples of a run come to, from image headers and, where it is at hand, the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from mgpo_core import Sample
from mgpo_core.boxes.parse import Rejection
from mgpo_core.engines.loading import load_processor
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.errors import EngineError
from mgpo_core.images.crop import CropOutcome
from mgpo_core.templates.base import Template, message_images, message_text
from mgpo_train.config.config import MGPOConfig
from mgpo_train.data.rows import check_image

PROBED = 64
"""Samples that are looked at, evenly spread over the data set."""

LETTERS_PER_TOKEN = 3.5
"""Of English under Qwen's tokenizer, on the low side: the estimate without a tokenizer errs towards more tokens."""

FIXED_FOLLOW_UP = 200
"""Tokens of a follow-up's fixed sentences, counted generously."""

ANSWER = 32
"""Tokens of a taught answer: the boxed letter or a few words, and the end of the turn."""

FIXED_ANSWER = 96
"""Tokens around a taught reasoning: its marks, and image, box and label in JSON."""

Spread = tuple[int, int, int]
"""Fewest, median and most."""


@dataclass(frozen=True)
class TrajectorySize:
    """Tokens of one trajectory, and of its pieces."""

    image: Spread
    """Of one image as the model sees it."""
    prompt: Spread
    """The opening, with its images."""
    follow_up: int
    """The largest turn inserted between two responses, its crop included; 0 with one turn."""
    longest: int
    """The longest trajectory possible: longest prompt, full responses, largest crops."""
    turns: int
    response_limit: int
    """Most tokens of one response."""
    note: str | None = None
    """How text was counted, if not with the model's tokenizer."""

    def response(self, assumed: int) -> int:
        """Tokens of a typical response, which cannot be over the limit."""
        return min(assumed, self.response_limit)

    def typical(self, assumed: int) -> int:
        """Tokens with the median prompt and responses of this length."""
        return self.prompt[1] + self.turns * self.response(assumed) + (self.turns - 1) * self.follow_up


def measure_trajectories(config: MGPOConfig, samples: Sequence[Sample]) -> TrajectorySize:
    """Measure up to `PROBED` samples; text is tokenised for the longest few, whose images must be decoded."""
    probed = [samples[i * len(samples) // min(PROBED, len(samples))] for i in range(min(PROBED, len(samples)))]
    count, opening, note = _counters(config)
    images = [config.budget.tokens(*image_size(sample, i)) for sample in probed for i in range(len(sample.images))]
    prompts = [opening(sample) for sample in _longest(probed, config)]
    template = config.make_template()
    turns, follow_up = template.max_turns, 0
    if turns > 1:
        text = max(count("\n".join([sample.question, *sample.choices])) for sample in probed)
        follow_up = _images_again(template, probed, config) + FIXED_FOLLOW_UP + text
    limit = _taught(probed, count) if config.method == "sft" else config.max_completion_length or 0
    longest = max(prompts) + turns * limit + (turns - 1) * follow_up
    if config.use_vllm and config.vllm_max_model_length:
        longest = min(longest, config.vllm_max_model_length)
    return TrajectorySize(spread(images), spread(prompts), follow_up, longest, turns, limit, note)


def _images_again(template: Template, samples: Sequence[Sample], config: MGPOConfig) -> int:
    """Most image tokens of a follow-up: the largest crop, or after a refused box whatever the template shows again."""
    crop = config.budget.max_pixels // config.budget.factor**2
    sample = max(samples, key=lambda sample: len(sample.images))
    images = [Image.new("1", (1, 1))] * len(sample.images)
    again = template.follow_up(sample, images, CropOutcome(None, None, Rejection.NO_JSON.value), 0)
    return crop * max(1, len(message_images([again])) if again else 0)


def _taught(samples: Sequence[Sample], count: Callable[[str], int]) -> int:
    """Tokens of the longest taught response."""
    solutions = [sample.solution for sample in samples if sample.solution is not None]
    return ANSWER + max((FIXED_ANSWER + count(solution.reasoning) for solution in solutions), default=0)


def _counters(config: MGPOConfig) -> tuple[Callable[[str], int], Callable[[Sample], int], str | None]:
    """(tokens of a text, tokens of a sample's opening, a note when they are estimates)."""

    try:
        tokens = TurnTokenizer(load_processor(config.model))
    except EngineError:

        def count(text: str) -> int:
            return round(len(text) / LETTERS_PER_TOKEN)

        def estimate(sample: Sample) -> int:
            messages = config.episode(sample).messages
            texts = [message_text(message) for message in messages]
            seen = sum(config.budget.tokens(*image.size) for image in message_images(messages))
            return seen + sum(map(count, texts)) + 10 * len(texts)

        return count, estimate, f"no tokenizer at hand: text is counted at {LETTERS_PER_TOKEN} letters a token"
    return (
        lambda text: len(tokens.tokenizer.encode(text, add_special_tokens=False)),
        lambda sample: len(tokens.opening(config.episode(sample).messages)),
        None,
    )


def image_size(sample: Sample, index: int) -> tuple[int, int]:
    """(width, height) of a sample's image in pixels, by its header where it has one."""
    source = sample.images[index]
    return check_image(source) if isinstance(source, str | bytes) else sample.load(index).size


def _longest(samples: Sequence[Sample], config: MGPOConfig, count: int = 4) -> list[Sample]:
    """The samples with the longest questions and the one with the most of images."""
    by_text = sorted(samples, key=lambda s: len(s.question) + sum(map(len, s.choices)), reverse=True)[: count - 1]

    def images(sample: Sample) -> int:
        return sum(config.budget.tokens(*image_size(sample, index)) for index in range(len(sample.images)))

    return [*by_text, max(samples, key=images)]


def spread(values: Sequence[int]) -> Spread:
    """(fewest, median, most)."""
    ordered = sorted(values)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]
