"""Rollouts with vLLM for the trainer: TRL's `VLLMGeneration` owns vLLM and its weights, our engines run the episodes.

Relies on these names (TRL 1.16, vLLM 0.31); tests/train/test_vllm_contract.py fails when one moves:

- `trl.generation.vllm_generation.VLLMGeneration`: `_init_vllm`, `sync_weights`, `_iter_named_params`,
  `_llm_weights_sleeping`, `llm`, `vllm_client`, `tp_group`; its module's `LLM`, `VLLMClient` and `empty_cache`; the
  name `VLLMGeneration` in `trl.trainer.grpo_trainer`, which constructs it.
- `vllm.LLM`: `collective_rpc("reload_weights", kwargs={"weights_iterator": ...})`, `reset_prefix_cache`, `sleep`,
  `wake_up`, `llm_engine.reset_encoder_cache`; `vllm serve`: `/collective_rpc`, `/reset_encoder_cache`.

Its `generate` is not used: it hands vLLM prompts whose image tokens are already repeated, and vLLM repeats them again
(huggingface/trl pull requests 6718, 6719); and it waits for the slowest response of a batch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from trl.trainer import grpo_trainer

from mgpo_core import Trajectory
from mgpo_core.engines.vllm.requests import ON_CPU, RolloutCounts
from mgpo_core.errors import EngineError
from mgpo_train.output.folder import SYNC_FOLDER, writing
from mgpo_train.training.trl_grpo import generation_with_vllm

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig

vllm_generation = generation_with_vllm()
_Generation: Any = vllm_generation.VLLMGeneration
_Client: Any = vllm_generation.VLLMClient

_FORGET = ("reset_prefix_cache", "reset_encoder_cache")


class SyncedGeneration(_Generation):
    """`VLLMGeneration` that also synchronises weights where upstream cannot: on CPU builds of vLLM.

    After every synchronisation the visual features that vLLM keeps by image are forgotten, which upstream leaves
    (they were computed with the old weights).
    """

    options: dict[str, Any]
    """More arguments of `vllm.LLM`; over TRL's own."""
    folder: Path
    _llm_weights_sleeping: bool

    def _init_vllm(self) -> None:
        make, options = vllm_generation.LLM, self.options

        def make_llm(**ours: Any) -> Any:
            return make(**{**ours, **options})

        client = vllm_generation.VLLMClient if _has_cuda() else _DiskClient
        with (
            mock.patch.object(vllm_generation, "LLM", make_llm),
            mock.patch.object(vllm_generation, "VLLMClient", client),
        ):
            try:
                super()._init_vllm()
            except (RuntimeError, ValueError, ConnectionError) as error:
                left = "; a run that crashed left its memory behind: rm /dev/shm/*cpushm*" * ("shm" in str(error))
                raise EngineError(f"use_vllm: vLLM failed to start in {self.mode} mode: {error}{left}") from error

    def sync_weights(self) -> None:
        """Give vLLM the policy's weights, and have it forget what it computed with the old ones."""
        with unmerged_exactly(self.model):
            self._send_weights()
        forgotten = True
        if self.mode == "colocate":
            self.llm.llm_engine.reset_encoder_cache()
            forgotten = self.llm.reset_prefix_cache()
        elif self.accelerator.is_main_process:
            replies = [self.vllm_client.session.post(f"{self.vllm_client.base_url}/{path}") for path in _FORGET]
            forgotten = all(reply.status_code == 200 for reply in replies)
        if not forgotten:
            raise EngineError(
                "vLLM kept what it computed with older weights (its caches could not be reset): are there requests "
                "under way that are not this run's? A server needs VLLM_SERVER_DEV_MODE=1"
            )
        self.accelerator.wait_for_everyone()

    def _send_weights(self) -> None:
        if _has_cuda():
            super().sync_weights()
        elif self.mode == "colocate":
            # vLLM repacks weights for the CPU: they have to go through its loader again
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": self._iter_named_params()})
            self.llm.apply_model(_repack_tied_head)
        else:
            self._sync_by_disk()

    def _sync_by_disk(self) -> None:
        """Write the weights where the server can read them (it must see this file system), and have it reload them."""
        from safetensors.torch import save_file

        if self.model.config.get_text_config().tie_word_embeddings:
            raise EngineError(
                "vllm_mode=server without CUDA: a vLLM server on a CPU keeps its packed copy of an output layer that "
                "is tied to the embedding, whatever weights it is sent; use vllm_mode=colocate, or a checkpoint that "
                "is not tied"
            )
        weights = {name: value.detach().cpu().contiguous() for name, value in self._iter_named_params()}
        if not self.accelerator.is_main_process:
            return
        with writing(self.folder.parent, self.folder.name):
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(weights, self.folder / "model.safetensors", metadata={"format": "pt"})
        self.vllm_client.reload(self.folder.resolve())

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """vLLM with its weights and cache in memory; with sleep mode, both leave it afterwards (level 2)."""
        if self.mode != "colocate" or not self.enable_sleep_mode:
            yield
            return
        if self._llm_weights_sleeping:
            self.sync_weights()  # level 2 drops the weights: waking up brings back memory, not numbers
        vllm_generation.empty_cache()
        self.llm.wake_up(tags=["kv_cache"])
        try:
            yield
        finally:
            self.llm.sleep(level=2)
            self._llm_weights_sleeping = True


class _DiskClient(_Client):
    """TRL's client without NCCL: weights reach the server through a folder that both can read."""

    def init_communicator(self, device: Any = 0) -> None:
        """Nothing to open."""

    def get_server_info(self) -> dict[str, Any]:
        """What TRL asks for; our engine finds out by trying (and CPU builds cannot answer)."""
        return {"model_config": {"logprobs_mode": "processed_logprobs"}}

    def reload(self, folder: Path) -> None:
        """Have the server load the weights in `folder`; raises EngineError when it cannot."""
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        reply = self.session.post(f"{self.base_url}/collective_rpc", json=body)
        if reply.status_code != 200:
            raise EngineError(
                f"the vLLM server at {self.base_url} did not load the weights in {folder} (status {reply.status_code}: "
                f"{reply.text[:300]}): start it with VLLM_SERVER_DEV_MODE=1, on a machine that sees this folder"
            )


@contextlib.contextmanager
def unmerged_exactly(model: Any) -> Iterator[None]:
    """Put the weights under LoRA adapters back to the bit: merging and unmerging in bfloat16 leaves a little each time.

    Does nothing for a model without adapters, and for parameters that DeepSpeed has split (it keeps its own copy).
    """
    layers = [m for m in model.modules() if hasattr(m, "lora_A")] if hasattr(model, "peft_config") else []
    weights = [m.get_base_layer().weight for m in layers]
    kept = [None if hasattr(w, "ds_id") else w.detach().to("cpu", copy=True) for w in weights]
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, copy in zip(weights, kept, strict=True):
                if copy is not None:
                    weight.copy_(copy)


def _repack_tied_head(model: Any) -> None:
    """On CPUs vLLM (0.31) computes logits with a packed copy of the weights, which reloading a tied one leaves old."""
    for module in model.modules():
        if hasattr(module, "cpu_linear") and type(module).__name__ == "ParallelLMHead":
            module.quant_method.process_weights_after_loading(module)


def _has_cuda() -> bool:
    return torch.cuda.is_available()


@contextlib.contextmanager
def installed(config: MGPOConfig) -> Iterator[None]:
    """While TRL's constructor runs: its vLLM is ours, with the run's options."""
    if not config.use_vllm:
        yield
        return
    # the trainer reaches into the engine, which it cannot in another process
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    settings = {"options": llm_options(config), "folder": Path(str(config.output_dir)) / SYNC_FOLDER}
    with mock.patch.object(grpo_trainer, "VLLMGeneration", type("Generation", (SyncedGeneration,), settings)):
        yield


def llm_options(config: MGPOConfig) -> dict[str, Any]:
    """What `vllm.LLM` is given beside TRL's own arguments: images as the episodes resize them, one precision."""
    budget = config.budget
    options: dict[str, Any] = {
        # "auto" would run float32 checkpoints in half precision
        "dtype": "bfloat16" if config.in_bfloat16 else "float32",
        "enable_prefix_caching": True,
        # vLLM profiles its memory with the largest image that its processor lets through
        "mm_processor_kwargs": {"min_pixels": budget.min_pixels, "max_pixels": budget.max_pixels},
        "limit_mm_per_prompt": {"image": 16, "video": 0},
    }
    if not _has_cuda():
        options = ON_CPU | options
    return options | (config.vllm_options if isinstance(config.vllm_options, dict) else {})


class VLLMRollouts:
    """Plays a batch with vLLM: weights first when the policy has moved, then our engine on TRL's vLLM or its server."""

    def __init__(self, trainer: Any, config: MGPOConfig, processor: Any) -> None:
        self.trainer, self.config = trainer, config
        self.generation = trainer.vllm_generation
        self.process = trainer.accelerator.process_index
        self.shared_by = config.vllm_tensor_parallel_size if config.vllm_mode == "colocate" else 1
        self._synced_at = -1
        self._counts = RolloutCounts()
        self.engine = self._colocated(processor) if config.vllm_mode == "colocate" else self._server()

    def _colocated(self, processor: Any) -> Any:
        from mgpo_core.engines.vllm.engine import VLLMEngine

        return VLLMEngine(self.generation.llm, processor, **self.config.sampling)

    def _server(self) -> Any:
        from mgpo_core.engines.vllm.server import VLLMServerEngine

        config = self.config
        url = config.vllm_server_base_url or f"http://{config.vllm_server_host}:{config.vllm_server_port}"
        return VLLMServerEngine(self.trainer.model.name_or_path, url=url, **config.sampling)

    def sync(self, step: int) -> None:
        """Bring vLLM's weights to those of `step`, unless it has them; on every process. A new batch is counted."""
        self._counts = RolloutCounts()
        if step != self._synced_at:
            self.generation.sync_weights()
            self._synced_at = step

    def awake(self) -> contextlib.AbstractContextManager[None]:
        """vLLM in memory for a batch and what replaces parts of it: with sleep mode, waking up takes all weights."""
        waking: contextlib.AbstractContextManager[None] = self.generation.awake()
        return waking

    def run(self, make_episodes: Any, indices: Sequence[int], seed: int) -> list[Trajectory]:
        """Trajectories of the samples at `indices` (B,), this process's; `seed` differs between steps.

        Processes that share one vLLM (tensor parallelism) give it the same requests in the same order: each runs
        the episodes of all of them, and keeps its own.
        """
        everyone, mine = self._of_all_sharing(list(indices))
        # seeds count episodes over all processes: two of them must not sample the same numbers
        self.engine.options = self.engine.options.seeded(seed, self.process // self.shared_by)
        trajectories: list[Trajectory] = self.engine.run(make_episodes(everyone))
        self._counts.merge(self.engine.counts)
        return trajectories[mine]

    def _of_all_sharing(self, indices: list[int]) -> tuple[list[int], slice]:
        if self.shared_by == 1:
            return indices, slice(0, len(indices))
        gathered: list[Any] = [None] * self.shared_by
        torch.distributed.all_gather_object(gathered, indices, group=self.generation.tp_group)
        rank = torch.distributed.get_rank(group=self.generation.tp_group)
        start = sum(len(part) for part in gathered[:rank])
        return [index for part in gathered for index in part], slice(start, start + len(indices))

    def metrics(self) -> dict[str, float]:
        """`prefix_cache_hit_rate/turnN` of the last batch, from vLLM's own counts; `vllm_retries` of a server."""
        retried = getattr(self.engine, "retried", None)
        return self._counts.hit_rates() | ({} if retried is None else {"vllm_retries": float(retried)})
