"""Folders that hold a LoRA adapter load like models, or say what to name in their place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mgpo_core import haystack
from mgpo_core.engines import load_engine, loading
from mgpo_core.engines.loading import (
    base_model,
    load_model,
    load_processor,
    load_settings,
    load_weights,
    resolve_model,
    whole_model,
)
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.errors import EngineError

BASE = haystack.checkpoint("base")
PARTS = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The output folder of a LoRA run, as far as a reader sees it: adapter/, checkpoint-2/ and the merged model/."""
    peft = pytest.importorskip("peft")
    out = tmp_path_factory.mktemp("run")
    model = peft.get_peft_model(load_model(BASE), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    for folder in ("adapter", "checkpoint-2"):
        model.save_pretrained(out / folder)
        (out / folder / "README.md").unlink()
        load_processor(BASE).save_pretrained(out / folder)
        EpisodeSettings(max_pixels=28224, min_pixels=3136, max_new_tokens=9).write(out / folder)
    model.merge_and_unload().save_pretrained(out / "model")
    return out


def other_base(adapter: Path, to: Path, base: object) -> Path:
    shutil.copytree(adapter, to)
    described = json.loads((to / "adapter_config.json").read_text())
    (to / "adapter_config.json").write_text(json.dumps(described | {"base_model_name_or_path": base}))
    return to


def same(model, other) -> bool:
    theirs = other.state_dict()
    return all(torch.allclose(tensor, theirs[name], atol=1e-6) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("folder", ["adapter", "checkpoint-2"])
def test_an_adapter_is_loaded_merged_into_its_base(trained: Path, folder: str) -> None:
    merged, base = load_model(trained / "model"), load_model(BASE)
    engine = load_engine("transformers", model=trained / folder)
    assert same(engine.model, merged) and not same(engine.model, base)
    assert base_model(trained / folder) == str(BASE) and resolve_model(trained / folder) == str(trained / folder)
    settings = load_settings(trained / folder)
    assert settings is not None and settings.max_new_tokens == 9
    assert all(parameter.requires_grad for parameter in load_weights(trained / folder).parameters())


def test_an_adapter_alone_takes_the_rest_from_its_base(trained: Path, tmp_path: Path) -> None:
    bare = other_base(trained / "adapter", tmp_path / "bare", "haystack:base")
    for path in bare.iterdir():
        if path.name not in PARTS:
            path.unlink()
    assert same(load_model(bare), load_model(trained / "model"))
    assert load_settings(bare) == load_settings(BASE)
    assert load_processor(bare).tokenizer.get_vocab() == load_processor(BASE).tokenizer.get_vocab()


def test_an_adapter_of_an_adapter_is_merged_into_both(trained: Path, tmp_path: Path) -> None:
    second = other_base(trained / "adapter", tmp_path / "second", str(trained / "adapter"))
    once, twice, base = (load_model(name).state_dict() for name in (trained / "adapter", second, BASE))
    name = next(name for name in base if name.endswith("layers.0.self_attn.q_proj.weight"))
    assert not torch.equal(once[name], base[name])
    torch.testing.assert_close(twice[name] - base[name], 2 * (once[name] - base[name]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("gone/away/base", "was trained on the model 'gone/away/base', which is not there; put it there, or name"),
        ("haystack:bass", "was trained on the model 'haystack:bass'"),
        (None, "does not name a base model"),
        ("ITSELF", "names itself as its base model"),
    ],
)
@pytest.mark.parametrize("load", [load_model, load_settings, base_model])
def test_a_base_that_is_not_there_is_named_in_one_line(trained: Path, tmp_path: Path, base, words: str, load) -> None:
    out = tmp_path / "out"
    lost = other_base(trained / "adapter", out / "adapter", str(out / "adapter") if base == "ITSELF" else base)
    if load is load_settings:
        (lost / "mgpo.json").unlink()
    with pytest.raises(EngineError, match=words) as raised:
        load(lost)
    assert "\n" not in str(raised.value) and "OUT/model" in str(raised.value)
    (out / "model").symlink_to(trained / "model")
    with pytest.raises(EngineError, match=f"name the merged model .*{out.name}/model$"):
        load(lost)


def test_without_peft_the_merged_model_is_named(trained: Path, monkeypatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(
        EngineError, match=rf"pip install -e 'packages/mgpo-core\[peft\]', or name the merged model {trained}/model$"
    ):
        load_model(trained / "checkpoint-2")
    load_model(trained / "model")


@pytest.mark.parametrize("folder", ["adapter", "checkpoint-2"])
def test_vllm_is_told_to_take_the_merged_model(trained: Path, folder: str) -> None:
    with pytest.raises(EngineError, match=f"vLLM takes whole models; name the merged model {trained}/model$"):
        whole_model(trained / folder, "vLLM")
    assert whole_model(trained / "model", "vLLM") == str(trained / "model")


def test_the_server_engine_refuses_an_adapter(trained: Path) -> None:
    with pytest.raises(EngineError, match="name the merged model"):
        load_engine("vllm-server", model=trained / "adapter", url="http://127.0.0.1:9")


def test_an_adapter_that_does_not_fit_is_told_in_one_line(trained: Path, tmp_path: Path) -> None:
    wrong = other_base(trained / "adapter", tmp_path / "wrong", "haystack:base")
    described = json.loads((wrong / "adapter_config.json").read_text())
    (wrong / "adapter_config.json").write_text(json.dumps(described | {"r": 3}))
    with pytest.raises(EngineError, match="cannot be merged into its base model") as raised:
        load_model(wrong)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 600


@pytest.mark.parametrize(
    ("below", "named"),
    [
        (["model/config.json", "checkpoint-9/config.json"], "model"),
        (["best/config.json"], "best"),
        (["checkpoint-9/adapter_config.json", "checkpoint-10/adapter_config.json"], "checkpoint-10"),
        (["adapter/adapter_config.json", "checkpoint-10/config.json"], "adapter"),
    ],
)
def test_an_output_folder_names_the_model_below_it(tmp_path: Path, below: list[str], named: str) -> None:
    for name in [*below, "checkpoint-old/config.json"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(EngineError, match=f"holds no config.json and no adapter_config.json; name {tmp_path}/{named}$"):
        resolve_model(tmp_path)


def test_a_folder_without_any_model_says_what_to_look_for(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="name the folder that save_pretrained wrote"):
        resolve_model(tmp_path)
