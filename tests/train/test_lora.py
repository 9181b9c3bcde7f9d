"""LoRA: adapters alone move, the reference is the start model, runs resume exactly, and `model/` is merged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import warm_start

from mgpo_core import haystack
from mgpo_core.engines.loading import load_model, load_processor, load_settings
from mgpo_train.config import lora_checks
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import ConfigError
from mgpo_train.models import lora
from mgpo_train.models.lora import lora_config, write_merged
from mgpo_train.models.policy import load_policy, part_of
from mgpo_train.output.metrics import METRICS_FILE, read_metrics
from mgpo_train.output.model_card import is_ours
from mgpo_train.training.grpo import MGPOTrainer
from mgpo_train.training.sft import make_trainer

OPTIONS = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 24,
    "max_steps": 1,
    "learning_rate": 1e-2,
    "report_to": "none",
    "use_peft": True,
    "lora_r": 4,
}


def trained(tmp_path: Path, **options) -> tuple[MGPOTrainer, dict[str, torch.Tensor]]:
    """A trainer after its steps, and its parameters from before them."""
    config = MGPOConfig(output_dir=str(tmp_path), **{**OPTIONS, **options})
    model, processor = load_policy(config)
    samples = haystack.make("train", n=4, seed=5)
    if config.method == "sft":
        trainer = make_trainer(model, processor, config, samples)
    else:
        trainer = MGPOTrainer(model, processor, config, samples, peft_config=lora_config(config))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    return trainer, before


def moved(trainer, before) -> set[str]:
    return {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("method", ["mgpo", "grpo", "sft"])
def test_adapters_of_the_language_model_alone_move(tmp_path, method):
    # a reward that varies without luck: refused boxes and missing answers differ within a group
    heat = {} if method == "sft" else {"temperature": 1.5, "rewards": ["accuracy", "format"]}
    trainer, before = trained(tmp_path, method=method, **heat)
    changed = moved(trainer, before)
    assert changed and all("lora_" in name for name in changed)
    assert {part_of(name) for name, p in trainer.model.named_parameters() if p.requires_grad} == {"language"}
    layers = load_model("haystack:base").config.get_text_config().num_hidden_layers
    assert sum("lora_A" in name for name, _ in trainer.model.named_parameters()) == 7 * layers


def test_a_merger_may_be_trained_whole_beside_the_adapters(tmp_path):
    trainer, before = trained(tmp_path, method="sft", lora_modules_to_save=["visual.merger"])
    changed = moved(trainer, before)
    assert {part_of(name) for name in changed} == {"language", "merger"}
    assert not any("original_module" in name for name in changed)


def test_frozen_parts_get_no_adapters_even_where_layers_share_names(tmp_path):
    trainer, _ = trained(tmp_path, method="sft", freeze=["vision"], lora_target_modules=["gate_proj", "q_proj"])
    assert {part_of(name) for name, p in trainer.model.named_parameters() if "lora_" in name} == {"language"}
    config = MGPOConfig(**{**OPTIONS, "lora_target_modules": ["gate_proj"]})
    from peft import get_peft_model

    everywhere = get_peft_model(load_model("haystack:base"), lora_config(config))
    assert {part_of(name) for name, _ in everywhere.named_parameters() if "lora_" in name} == {"language", "vision"}


def test_a_fresh_adapter_s_loss_sees_policy_and_reference(tmp_path):
    trainer, _ = trained(tmp_path, beta=0.05)
    log = next(row for row in trainer.state.log_history if "kl" in row)
    assert trainer.ref_model is None
    assert abs(log["kl"]) < 1e-6, "the start model is the model without its adapters"
    assert log["logprob_gap_max/turn1"] < 1e-3 and log["logprob_gap_max/turn2"] < 1e-3
    with trainer.model.disable_adapter():
        start = trainer.model.get_base_model().model.language_model.layers[0].self_attn.q_proj.base_layer.weight
    assert torch.equal(start, load_model("haystack:base").model.language_model.layers[0].self_attn.q_proj.weight)


def test_checkpointing_reaches_the_adapters(tmp_path):
    """Checkpointed blocks give adapters gradients only when the embeddings ask for some."""
    options = {"method": "sft", "gradient_checkpointing": True}
    trainer, before = trained(tmp_path / "checkpointed", **options)
    assert any("layers.0." in name for name in moved(trainer, before))
    plain, _ = trained(tmp_path / "plain", **{**options, "gradient_checkpointing": False})
    expected = dict(plain.model.named_parameters())
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter, expected[name], msg=name)


def test_merged_weights_are_the_adapted_model(tmp_path):
    trainer, _ = trained(tmp_path, method="sft")
    trainer.save_model(str(tmp_path / "adapter"))
    write_merged(trainer_config(tmp_path), tmp_path / "adapter", tmp_path / "model")
    merged = load_model(tmp_path / "model")
    tokens = torch.arange(10, 40)[None]
    trainer.model.eval()
    with torch.no_grad():
        adapted, loaded = trainer.model(input_ids=tokens).logits, merged(input_ids=tokens).logits
        start = load_model("haystack:base")(input_ids=tokens).logits
    torch.testing.assert_close(loaded, adapted, rtol=1e-4, atol=1e-4)
    assert (loaded - start).abs().max() > 0.01


def trainer_config(tmp_path: Path) -> MGPOConfig:
    return MGPOConfig(output_dir=str(tmp_path), **OPTIONS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_r": 8}, "lora_r=8 has no effect without use_peft"),
        ({"load_in_4bit": True}, "load_in_4bit=True has no effect without use_peft"),
        ({"use_peft": True, "freeze": ["language"]}, "freeze names language, where LoRA's layers are"),
        ({"use_peft": True, "load_in_4bit": True, "load_in_8bit": True}, "choose one"),
    ],
)
def test_lora_options_that_clash_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        MGPOConfig(**options)


@pytest.mark.parametrize(
    ("options", "package", "words"),
    [
        ({"use_peft": True}, "peft", r"pip install -e 'packages/mgpo-train\[peft\]'"),
        ({"use_peft": True, "load_in_4bit": True}, "bitsandbytes", "pip install bitsandbytes"),
        ({"use_liger_kernel": True}, "liger_kernel", "pip install liger-kernel"),
    ],
)
def test_a_missing_package_is_named_with_its_command(monkeypatch, options, package, words):
    from mgpo_train.config import config as module

    for place in (lora_checks, module):
        found = place.find_spec
        monkeypatch.setattr(place, "find_spec", lambda name, found=found: None if name == package else found(name))
    with pytest.raises(ConfigError, match=words):
        MGPOConfig(**options)


def test_quantisation_is_trls_own(monkeypatch):
    monkeypatch.setattr(lora_checks, "find_spec", lambda name: name)
    config = MGPOConfig(use_peft=True, load_in_4bit=True, use_bnb_nested_quant=True)
    made = lora.quantisation(config)
    assert (made.load_in_4bit, made.bnb_4bit_quant_type, made.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert made.bnb_4bit_compute_dtype is torch.bfloat16
    assert lora.quantisation(MGPOConfig(use_peft=True)) is None


@pytest.mark.gpu
def test_qlora_trains_on_a_gpu(tmp_path):
    pytest.importorskip("bitsandbytes")
    trainer, before = trained(tmp_path, load_in_4bit=True, temperature=1.5, rewards=["accuracy", "format"])
    assert all("lora_" in name for name in moved(trainer, before))
    trainer.save_model(str(tmp_path / "adapter"))
    write_merged(trainer_config(tmp_path), tmp_path / "adapter", tmp_path / "model")
    load_model(tmp_path / "model")


def run(folder: Path, *more: str) -> None:
    words = [
        "--use_peft", "--lora_r", "4", "--learning_rate", "1e-2", "--max_steps", "4", "--save_steps", "2",
        "--train_data", "haystack:train?n=32&seed=1", "--eval_samples", "8", "--per_device_train_batch_size", "8",
        "--num_generations", "4", "--warmup_steps", "0", "--progress", "false", "--eval_ood_data", "none",
        "--eval_greedy", "false", "--output_dir", str(folder),
    ]  # fmt: skip
    warm_start.check(["-m", "mgpo_train", "haystack-mgpo", *words, *more])


@pytest.mark.slow
def test_a_lora_run_resumes_exactly_and_leaves_a_model_that_loads_alone(tmp_path):
    import shutil

    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run(whole)
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoint-4")
    shutil.rmtree(resumed / "model")
    (resumed / "summary.json").unlink()
    run(resumed, "--resume")

    def rows(folder):
        steps = read_metrics(folder / METRICS_FILE)
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in steps]

    assert rows(resumed) == rows(whole)
    assert (resumed / "model" / "model.safetensors").read_bytes() == (
        whole / "model" / "model.safetensors"
    ).read_bytes()
    assert (whole / "adapter" / "adapter_model.safetensors").stat().st_size < 200_000
    model = load_model(whole / "model")
    load_processor(whole / "model")
    start = load_model("haystack:base").state_dict()
    changed = {part_of(name) for name, tensor in model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert changed == {"language"}
    # the adapter and a checkpoint, named where a model can be: by a run, an evaluation and the demo
    from mgpo_demo.session.model import load_local
    from mgpo_eval.models import MGPO

    for folder in (whole / "adapter", whole / "checkpoint-4"):
        policy, _ = load_policy(MGPOConfig(model=str(folder), output_dir=str(tmp_path / "next")))
        evaluated = MGPO(pretrained=str(folder), device="cpu")
        for loaded in (policy, evaluated.engine.model, load_local(str(folder)).engine.model):
            for name, tensor in loaded.state_dict().items():
                torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-4, atol=1e-6, msg=name)
        assert all(parameter.requires_grad for parameter in policy.parameters())
        assert load_settings(folder) == load_settings(whole / "model")
        assert is_ours(folder / "README.md")
    with pytest.raises(ConfigError, match="the reference would be the base model, and model=.* name the merged model"):
        load_policy(MGPOConfig(model=str(whole / "adapter"), beta=0.01, output_dir=str(tmp_path / "next")))
    assert "after T=1" in (whole / "model" / "README.md").read_text().replace(",", "")
    # killed between the last step and the summary: the adapter comes back without another step
    (resumed / "summary.json").unlink()
    shutil.rmtree(resumed / "adapter")
    run(resumed, "--resume")
    assert rows(resumed) == rows(whole)
    assert (resumed / "adapter" / "adapter_model.safetensors").read_bytes() == (
        whole / "adapter" / "adapter_model.safetensors"
    ).read_bytes()


def test_base_weights_are_unchanged_after_the_merge_for_vllm():
    pytest.importorskip("vllm")
    from peft import LoraConfig, get_peft_model

    from mgpo_core.engines.loading import load_model
    from mgpo_train.training.vllm_rollouts import unmerged_exactly

    model = get_peft_model(
        load_model("haystack:base", dtype=torch.bfloat16), LoraConfig(r=4, target_modules=["q_proj"])
    )
    weight = model.get_base_model().model.language_model.layers[0].self_attn.q_proj
    torch.nn.init.normal_(weight.lora_B["default"].weight)
    before = weight.base_layer.weight.detach().clone()
    model.merge_adapter()
    model.unmerge_adapter()
    assert not torch.equal(weight.base_layer.weight, before), "bfloat16 forgets nothing here: the test shows nothing"
    with torch.no_grad():
        weight.base_layer.weight.copy_(before)
    with unmerged_exactly(model):
        model.merge_adapter()
        model.unmerge_adapter()
    assert torch.equal(weight.base_layer.weight, before)
