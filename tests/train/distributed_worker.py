"""Trains on scripted rollouts, and writes what it logged: `distributed_worker.py OUT PER_DEVICE STAGE [CHECKPOINT]`.

STAGE is the stage of DeepSpeed's ZeRO that the run must have, 0 without DeepSpeed. Not a test: test_distributed.py
starts it in one process and in two.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sys
from pathlib import Path

from transformers import set_seed

from mgpo_core import haystack
from mgpo_core.engines.tokenized_episode import TokenizedEpisode
from mgpo_core.engines.transformers.engine import TransformersEngine
from mgpo_train.config.config import MGPOConfig
from mgpo_train.distributed.checkpoint_layout import is_whole
from mgpo_train.models.policy import load_policy
from mgpo_train.models.universal_checkpoint import load_universal_if_needed
from mgpo_train.training.grpo import MGPOTrainer

BOX = '```json\n[{"bbox_2d": [%d, %d, %d, %d], "label": "key image area"}]\n```'
GROUP = 4
SECOND = os.environ.get("RANK", "0") != "0"


def scripted_by(responses):
    """In place of `TransformersEngine.run`: a function of the sample and of the place in its group alone.

    Of a group that lies on both processes the first process has the first places, the second one the last.
    """

    def run(engine, episodes):
        tokens = engine.tokenizer
        for place, episode in places(episodes):
            tokenized = TokenizedEpisode(episode, tokens)
            for text in responses(episode.sample, place):
                response = tokenized.response(200)
                for token in [*tokens.tokenizer.encode(text, add_special_tokens=False), tokens.end_id]:
                    if response.push(token, 0.0, tokens.end_id):
                        break
                tokenized.commit(response)
            episode.trajectory.tokens = tokenized.tokens()
        return [episode.trajectory for episode in episodes]

    return run


def places(episodes):
    """(place in its group, episode) of neighbours that run the same sample."""
    for _, group in itertools.groupby(episodes, key=lambda episode: episode.sample.id):
        members = list(group)
        yield from enumerate(members, start=GROUP - len(members) if SECOND else 0)


def responses(sample, place):
    x = 5 + 3 * place + len(sample.id)
    box = (90, 80, 10, 5) if sample.metadata.get("invalid") else (x, x, x + 40, x + 30)
    right = not sample.metadata.get("hopeless") and place in (0, int(sample.id) % GROUP)
    wrong = chr(ord(sample.answer) + 1)
    letter = sample.answer if right else wrong if place else "the letter is missing"
    return "So " * place + BOX % box, "It is " * place + f"\\boxed{{{letter}}}"


def samples():
    """Three per step: one for each of two processes, and one between them, which both run half of.

    Those that the second process runs are odd in the later steps; one that both run is never answered rightly.
    """
    plain = haystack.make("train", 24, seed=3)
    made = []
    for number, sample in enumerate(plain[:15]):
        step, second = number // 3, number % 3 >= 1
        changes = {"id": f"{number}"}
        if number == 1:
            changes["metadata"] = {"hopeless": True}
        elif second and step == 1:
            changes["metadata"] = {"invalid": True}
        elif second and step == 2:
            changes["images"] = (*sample.images, plain[20].images[0])
        elif (second and step == 3) or (step == 4 and number % 3 == 2):
            changes |= {"images": (), "boxes": ()}
        made.append(dataclasses.replace(sample, **changes))
    return made


def main():
    out, per_device, stage = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    checkpoint = Path(sys.argv[4]) if len(sys.argv) > 4 else None
    config = MGPOConfig(
        method="mgpo",
        model="haystack:base",
        train_data="haystack:train?n=24&seed=3",
        output_dir=str(out),
        per_device_train_batch_size=per_device,
        num_generations=GROUP,
        dynamic_sampling=1,
        max_steps=10,
        max_logprob_gap=0,  # the scripted responses were not sampled by the model
        num_iterations=2,  # the second step on the same rollouts has a loss that depends on the weights
        learning_rate=3e-5,
        lr_scheduler_type="constant",
        warmup_steps=0,
        shuffle_dataset=False,
        save_steps=6,
        save_total_limit=2,
        logging_steps=1,
        report_to=[],
        max_grad_norm=1.0,
        disable_tqdm=True,
        weight_decay=1.0,  # of matrices alone: a resumed run must not decay the others
    )
    set_seed(0)
    model, processor = load_policy(config)
    trainer = MGPOTrainer(model, processor, config, samples())
    TransformersEngine.run = scripted_by(responses)
    if checkpoint is not None:
        assert is_whole(checkpoint)
        load_universal_if_needed(checkpoint, trainer, config)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    assert (trainer.deepspeed.zero_optimization_stage() if trainer.is_deepspeed_enabled else 0) == stage
    trainer.save_model(str(out / "model"))
    if config.process_index == 0:
        (out / "log.json").write_text(json.dumps(trainer.state.log_history))


if __name__ == "__main__":
    main()
