"""Memory per device, from the shapes of a model and the layout of a run: the formulas of docs/training.md."""

from __future__ import annotations

from dataclasses import dataclass

from mgpo_train.config.config import MGPOConfig
from mgpo_train.distributed.sharding_plan import ShardingPlan
from mgpo_train.sizing.hardware import GIB, HardwareTarget
from mgpo_train.sizing.shapes import ModelShapes

GATHERED = 2 * 10**9
"""Bytes of whole layers that ZeRO-3 and FSDP hold at a time (DeepSpeed's `stage3_max_live_parameters`, in bfloat16)."""

KEPT = 20
"""Numbers that a layer keeps per token and hidden unit for the backward pass; one with checkpointing."""

TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
"""Logits are made in tiles of this size (TRL 1.16, `add_fused_lm_head`)."""


@dataclass(frozen=True)
class Memory:
    """Bytes by purpose, per device; `held` counts always, of `rollout` and `update` the larger."""

    held: dict[str, int]
    rollout: dict[str, int]
    update: dict[str, int]
    host: int = 0
    """Bytes that are offloaded to the memory of the machine, for all its devices together."""
    note: str | None = None

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        return sum(self.held.values()) + max(sum(self.rollout.values()), sum(self.update.values()))

    @property
    def parts(self) -> dict[str, int]:
        """What the peak is made of."""
        worst = self.update if sum(self.update.values()) >= sum(self.rollout.values()) else self.rollout
        return self.held | worst


def weight_bytes(config: MGPOConfig, plan: ShardingPlan) -> int:
    """Bytes of one stored number: DeepSpeed stores bfloat16 beside the optimiser's float32 copy."""
    return 2 if config.dtype == "bfloat16" or (plan.kind == "deepspeed" and config.bf16) else 4


def stored_bytes(config: MGPOConfig, shapes: ModelShapes, plan: ShardingPlan) -> float:
    """Bytes of the policy's weights, all devices' shares together; QLoRA's take 4 or 8 bits."""
    width = weight_bytes(config, plan)
    if not (config.load_in_4bit or config.load_in_8bit):
        return float(shapes.parameters * width)
    quantised = 0.5 if config.load_in_4bit else 1.0
    # embeddings and output head stay as they are
    whole = shapes.vocabulary * shapes.hidden + shapes.embedding + shapes.adapters
    return (shapes.parameters - whole) * quantised + whole * 2


def estimate_memory(config: MGPOConfig, shapes: ModelShapes, length: int, machine: HardwareTarget) -> Memory:
    """Bytes per device if every trajectory had `length` tokens."""
    plan = machine.plan
    held, host = _held(config, shapes, plan)
    rollout, note = _rollout(config, shapes, length, machine)
    update = _update(config, shapes, length, plan)
    if config.use_vllm and not config.vllm_enable_sleep_mode:
        held, rollout = held | rollout, {}
    return Memory(held, rollout, update, host, note)


def _held(config: MGPOConfig, shapes: ModelShapes, plan: ShardingPlan) -> tuple[dict[str, int], int]:
    """(weights, reference, gradients and optimiser per device, bytes offloaded)."""
    width, trained = weight_bytes(config, plan), shapes.trained_parameters
    weights = stored_bytes(config, shapes, plan) / plan.share(3)
    # AdamW: two numbers per trained one; DeepSpeed keeps a float32 copy of the weights as a third
    if config.use_peft:
        width = 4 if plan.kind != "deepspeed" else 2  # PEFT keeps adapters in float32
    optimiser = trained * (12 if plan.kind == "deepspeed" and config.bf16 else 2 * width) / plan.share(1)
    gradients = trained * width / plan.share(2)
    if plan.kind == "ddp":
        gradients *= 2  # and the buckets in which they travel
    held = {"weights": weights, "gradients": gradients, "optimiser": optimiser}
    if config.beta and config.method != "sft" and not config.use_peft:
        held["reference model"] = shapes.parameters * weight_bytes(config, plan) / plan.share(3)
    if plan.stage == 3:
        held["gathered layers"] = min(GATHERED, shapes.parameters * weight_bytes(config, plan))
    host = 0.0
    for name, offloaded in (("optimiser", plan.offload_optimiser), ("weights", plan.offload_weights)):
        if offloaded:
            host += held.pop(name) * plan.devices
    return {name: int(size) for name, size in held.items()}, int(host)


def _rollout(
    config: MGPOConfig, shapes: ModelShapes, length: int, machine: HardwareTarget
) -> tuple[dict[str, int], str | None]:
    """What the rollouts take on top of what is held."""
    if config.method == "sft":
        return {}, None
    if config.use_vllm:
        if config.vllm_mode != "colocate":
            return {}, "vLLM runs on devices of its own, which are not counted"
        if machine.gpu is None:
            return {}, "vLLM takes vllm_gpu_memory_utilization of the device on top: name it with --gpu"
        return {"vLLM": int(config.vllm_gpu_memory_utilization * machine.gpu.memory)}, None
    compute = 2 if config.in_bfloat16 else 4
    parts = {"rollout cache": decoded_together(config) * length * shapes.cache * compute}
    if machine.plan.stage == 3 and config.ds3_gather_for_generation:
        parts["gathered model"] = shapes.parameters * weight_bytes(config, machine.plan)
    return parts, None


def decoded_together(config: MGPOConfig) -> int:
    """Episodes that the transformers engine decodes at a time on one device."""
    made = config.per_device_train_batch_size * config.steps_per_generation
    return min(made, config.rollout_batch_size or made)


def _update(config: MGPOConfig, shapes: ModelShapes, length: int, plan: ShardingPlan) -> dict[str, int]:
    """Activations of one forward and backward pass, and the tiles of logits."""
    compute = 2 if config.in_bfloat16 else 4
    rows, kept = config.per_device_train_batch_size, 1 if config.gradient_checkpointing else KEPT
    activations = rows * length * shapes.hidden * compute * (shapes.layers * kept + KEPT)
    seen = rows * config.make_template().max_turns * 4 * config.budget.max_pixels // config.budget.factor**2
    layers = 0 if "vision" in config.freeze or config.use_peft else shapes.vision_layers
    activations += seen * shapes.vision_hidden * compute * (layers * kept + KEPT)
    tile = 2 * min(rows * length, TILE_TOKENS) * min(shapes.vocabulary, TILE_VOCABULARY) * 4
    head = 0 if config.use_peft or "language" in config.freeze else shapes.vocabulary * shapes.hidden * 4
    return {"activations": activations, "logits": tile + head}


def fits(memory: Memory, machine: HardwareTarget) -> str | None:
    """One line on whether it fits into the GPU; None when no GPU was named."""
    if machine.gpu is None:
        return None
    room = machine.gpu.memory / GIB
    share = memory.peak / machine.gpu.memory
    verdict = "fits" if share < 0.9 else "is tight" if share <= 1.0 else "does not fit"
    return f"{verdict}: {memory.peak / GIB:.1f} of {room:.1f} GiB of one {machine.gpu.name} ({share:.0%})"
