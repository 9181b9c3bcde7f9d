"""The names of vLLM 0.31 and of TRL's vLLM classes that ours stand on; each failure says which file to mend."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from patience import HANG

pytestmark = pytest.mark.slow  # imports vLLM

ENGINE = "mend packages/mgpo-core/src/mgpo_core/engines/vllm/engine.py"
SERVER = "mend packages/mgpo-core/src/mgpo_core/engines/vllm/server.py"
ROLLOUTS = "mend packages/mgpo-train/src/mgpo_train/training/vllm_rollouts.py"


def parameters(function):
    return set(inspect.signature(function).parameters)


def test_the_engine_is_driven_request_by_request():
    from vllm import LLM
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.llm_engine import LLMEngine

    assert {"prompts"} <= parameters(LLM._preprocess_cmpl), ENGINE
    assert {"request_id", "prompt", "params"} <= parameters(LLMEngine.add_request), ENGINE
    assert {"request_ids"} <= parameters(LLMEngine.abort_request), ENGINE
    assert hasattr(LLMEngine, "step"), ENGINE
    names = {"num_cached_tokens", "prompt_token_ids", "finished", "outputs"}
    assert names <= parameters(RequestOutput.__init__), ENGINE


def test_sampling_parameters_have_their_names_and_the_bias_its_bounds():
    from vllm import SamplingParams

    names = {"max_tokens", "temperature", "top_p", "top_k", "seed", "logprobs", "detokenize", "ignore_eos"}
    names |= {"stop_token_ids", "logit_bias", "output_kind"}
    assert names <= set(SamplingParams.__struct_fields__), ENGINE
    assert SamplingParams(logit_bias={0: -100.0}).logit_bias == {0: -100.0}, ENGINE


def test_weights_are_reloaded_and_caches_forgotten_by_these_names():
    from vllm import LLM
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    assert {"weights_iterator", "weights_path"} <= parameters(GPUModelRunner.reload_weights), ROLLOUTS
    for name in ("collective_rpc", "apply_model", "reset_prefix_cache", "sleep", "wake_up"):
        assert hasattr(LLM, name), f"vllm.LLM has no {name}: {ROLLOUTS}"
    assert hasattr(LLMEngine, "reset_encoder_cache"), ROLLOUTS


def test_the_server_speaks_tokens_and_images():
    from vllm.entrypoints.scale_out.token_in_token_out import api_router
    from vllm.entrypoints.scale_out.token_in_token_out.protocol import GenerateRequest
    from vllm.entrypoints.serve.dev.rpc import api_router as rpc_router

    fields = {"token_ids", "content_parts", "sampling_params", "return_token_ids", "stream", "stream_options", "model"}
    assert fields <= set(GenerateRequest.model_fields), SERVER
    assert "/inference/v1/generate" in inspect.getsource(api_router), SERVER
    assert "/collective_rpc" in inspect.getsource(rpc_router), ROLLOUTS


def test_trl_owns_vllm_by_these_names():
    from trl.generation.vllm_client import VLLMClient
    from trl.trainer import grpo_trainer

    from mgpo_train.training.trl_grpo import generation_with_vllm

    vllm_generation = generation_with_vllm()
    generation = vllm_generation.VLLMGeneration
    for name in ("_init_vllm", "sync_weights", "_iter_named_params"):
        assert hasattr(generation, name), f"VLLMGeneration has no {name}: {ROLLOUTS}"
    for name in ("LLM", "VLLMClient", "empty_cache"):
        assert hasattr(vllm_generation, name), f"trl.generation.vllm_generation has no {name}: {ROLLOUTS}"
    for name in ("init_communicator", "get_server_info", "reset_prefix_cache"):
        assert hasattr(VLLMClient, name), f"VLLMClient has no {name}: {ROLLOUTS}"
    source = inspect.getsource(grpo_trainer.GRPOTrainer.__init__)
    assert "self.vllm_generation = VLLMGeneration(" in source, ROLLOUTS
    source = inspect.getsource(generation._init_vllm)
    assert "self.llm = LLM(" in source and "VLLMClient(" in source, ROLLOUTS
    assert 'logprobs_mode="processed_logprobs"' in source and "self._llm_weights_sleeping" in source, ROLLOUTS
    assert "self.tp_group" in source, ROLLOUTS


def test_trl_is_imported_without_vllm_until_a_run_wants_it():
    code = (
        "import sys, mgpo_train.training.grpo; assert 'vllm' not in sys.modules; "
        "from mgpo_train.training.trl_grpo import generation_with_vllm; assert hasattr(generation_with_vllm(), 'LLM')"
    )
    mend = "mend packages/mgpo-train/src/mgpo_train/training/trl_grpo.py"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG, check=False)
    assert finished.returncode == 0, f"{finished.stderr[-2000:]}{mend}"
