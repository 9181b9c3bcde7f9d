"""Trains over several images, and writes what it logged: `mirg_worker.py OUT PER_DEVICE STAGE METHOD`.

STAGE is the stage of DeepSpeed's ZeRO that the run must have, 0 without DeepSpeed; METHOD is sft or mirg, which runs
scripted rollouts. Not a test: test_mirg_distributed.py starts it in one process and in two.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from distributed_worker import GROUP, scripted_by
from transformers import set_seed

from mgpo_core import Sample
from mgpo_core.engines.transformers.engine import TransformersEngine
from mgpo_core.haystack.multi import make_sets
from mgpo_core.templates.multi_image import THINK
from mgpo_train.config.config import MGPOConfig
from mgpo_train.models.policy import load_policy
from mgpo_train.reasoning_data.writers import write_trace

IMAGES = ((2, 2, 5, 5), (6, 2, 2, 3), (3, 3, 2, 6))
"""How many images the four samples of each step have; two processes take two of them each."""


def samples() -> list[Sample]:
    """The samples of all steps, in order."""
    made = []
    for number, images in enumerate(count for step in IMAGES for count in step):
        [one] = make_sets("train", 1, seed=100 + number, images=images, tasks="group_grounding")
        made.append(one.sample(solution=write_trace(one).solution))
    return made


def responses(sample: Sample, place: int) -> tuple[str]:
    """Overlaps, images and forms that vary over a group; the third answer cannot be read."""
    box = sample.boxes[0]
    image = box.image if place in (0, 2) else (box.image + place) % len(sample.images)
    shift = 4 * place
    numbers = [round(value / 4) + shift for value in box.as_tuple()]
    thought = f"{THINK[0]}{'Image 1: no red square. ' * place}{THINK[1]}\n" if place else ""
    end = "" if place == 3 else "}]"
    return (f'{thought}[{{"image": {image + 1}, "bbox_2d": {numbers}, "label": "red square"{end}',)


def main() -> None:
    out, per_device, stage, method = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    rollouts = {"num_generations": GROUP, "difficulty_weighting": True, "reward_weights": [1.0, 0.5, 0.1]}
    config = MGPOConfig(
        method=method,
        template="multi_image",
        model="haystack:multi",
        train_data="haystack_multi:train?n=12&solutions=true",
        output_dir=str(out),
        per_device_train_batch_size=per_device * (GROUP if method == "mirg" else 1),
        max_steps=len(IMAGES),
        max_completion_length=128,
        max_logprob_gap=None if method == "sft" else 0,  # the scripted responses were not sampled by the model
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        warmup_steps=0,
        shuffle_dataset=False,
        save_steps=100,
        logging_steps=1,
        report_to=[],
        max_grad_norm=1.0,
        disable_tqdm=True,
        **(rollouts if method == "mirg" else {}),
    )
    set_seed(0)
    model, processor = load_policy(config)
    if method == "sft":
        from mgpo_train.training.sft import make_trainer

        trainer = make_trainer(model, processor, config, samples())
    else:
        from mgpo_train.training.grpo import MGPOTrainer

        trainer = MGPOTrainer(model, processor, config, samples())
        TransformersEngine.run = scripted_by(responses)
    trainer.train()
    assert (trainer.deepspeed.zero_optimization_stage() if trainer.is_deepspeed_enabled else 0) == stage
    trainer.save_model(str(out / "model"))
    if config.process_index == 0:
        (out / "log.json").write_text(json.dumps(trainer.state.log_history))


main()
