r"""How sure a model is of its answer: a probability for each choice of a finished trajectory.

Every choice is put in the place of the answer, behind the sampled tokens, and scored by the log-probability of its own.
Relies on transformers' forward with `past_key_values`, 3-row `position_ids` and `logits_to_keep` (5.17).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mgpo_core.engines.families import inner_model
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.episodes.trajectory import Tokens, Trajectory
from mgpo_core.samples.grading import choice_letter, normalise
from mgpo_core.templates.base import message_images

__all__ = ["choice_probabilities"]

_BOX = "\\boxed{"


@torch.no_grad()
def choice_probabilities(model: Any, tokenizer: TurnTokenizer, trajectory: Trajectory) -> dict[str, float]:
    r"""The probability of each choice by its letter, in the choices' order; they sum to 1.

    The last response is kept up to its last `\boxed{`, as it was sampled (without one: whole, and a box is begun on a
    new line). Each choice goes on from there as this model answers: with the text of the choice if that is how the
    trajectory's own answer reads, else with its letter, and `}`. Where a sampled token holds both the end of `\boxed{`
    and the beginning of an answer ("{A"), it is left out and re-tokenised together with the choice. A choice's score is
    the sum of its tokens' log-probabilities at temperature 1, forbidden tokens masked; the scores are softmaxed.

    Raises ValueError for a trajectory that has not ended, has no tokens, or fewer than two choices.
    """
    name = f"the trajectory of sample {trajectory.sample_id!r}"
    if not trajectory.done or not trajectory.tokens or not trajectory.tokens.spans:
        raise ValueError(f"{name} has no tokens: let an engine that handles tokens run its episode to the end first")
    if len(trajectory.choices) < 2:
        raise ValueError(f"{name} has {len(trajectory.choices)} choices: confidence is between at least two")
    prefix, rest = _split(tokenizer, trajectory.tokens)
    texts = [rest + answer + "}" for answer in _answers(trajectory)]
    endings = [tokenizer.tokenizer.encode(text, add_special_tokens=False) for text in texts]
    pixels = tokenizer.pixels(message_images(trajectory.messages))
    scores = _scores(model, tokenizer, prefix, endings, pixels)
    letters = [choice_letter(index) for index in range(len(endings))]
    return dict(zip(letters, torch.tensor(scores, dtype=torch.float64).softmax(0).tolist(), strict=True))


def _split(tokenizer: TurnTokenizer, tokens: Tokens) -> tuple[list[int], str]:
    r"""The ids that stay as they are, and what is missing behind them to the end of `\boxed{`."""
    start, end = tokens.spans[-1]
    said = tokens.ids[start:end]
    if said and said[-1] == tokenizer.end_id:
        said = said[:-1]
    text = tokenizer.decode(said)
    found = text.rfind(_BOX)
    if found < 0:
        return tokens.ids[:start] + said, f"\n{_BOX}"
    until = found + len(_BOX)
    kept = tokenizer.covering(said, until)
    if len(tokenizer.decode(said[:kept])) > until:
        kept -= 1
    return tokens.ids[:start] + said[:kept], text[len(tokenizer.decode(said[:kept])) : until]


def _answers(trajectory: Trajectory) -> list[str]:
    """What the model would write for each choice: texts if its own answer is one (and no letter), else letters."""
    letters = [choice_letter(index) for index in range(len(trajectory.choices))]
    answer = normalise(trajectory.answer or "")
    in_words = answer.upper() not in letters and answer in {normalise(choice) for choice in trajectory.choices}
    return list(trajectory.choices) if in_words else letters


def _scores(
    model: Any, tokenizer: TurnTokenizer, prefix: list[int], endings: Sequence[Sequence[int]], pixels: dict[str, Any]
) -> list[float]:
    """The log-probability of each ending behind the prefix, which is computed once for all."""
    device = model.get_input_embeddings().weight.device
    pixels = {name: value.to(device) for name, value in pixels.items()}
    ids = torch.tensor([prefix], device=device)
    kinds = (ids == tokenizer.image_id).int()
    positions, _ = inner_model(model).get_rope_index(ids, kinds, image_grid_thw=pixels.get("image_grid_thw"))
    output = model(input_ids=ids, position_ids=positions, use_cache=True, logits_to_keep=1, **pixels)
    forbidden = torch.from_numpy(tokenizer.forbidden_mask(output.logits.shape[-1])).to(device)

    def logprobs(logits: Tensor) -> Tensor:
        return logits.float().masked_fill(forbidden, float("-inf")).log_softmax(-1)

    first = logprobs(output.logits[0, -1])
    # padding follows the endings, where no token of theirs sees it
    width = max(map(len, endings))
    padded = torch.tensor([[*ending, *[tokenizer.pad_id] * (width - len(ending))] for ending in endings], device=device)
    following = (int(positions.max()) + 1 + torch.arange(width, device=device)).expand(3, len(endings), -1)
    cache = output.past_key_values
    cache.batch_repeat_interleave(len(endings))
    later = logprobs(model(input_ids=padded, position_ids=following, past_key_values=cache, use_cache=True).logits)
    scores = []
    for index, ending in enumerate(endings):
        own = later[index, torch.arange(len(ending) - 1), padded[index, 1 : len(ending)]]
        scores.append(float(first[ending[0]]) + float(own.sum()))
    return scores
