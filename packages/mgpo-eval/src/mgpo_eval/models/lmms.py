"""The models `mgpo`, `mgpo_vllm` and `mgpo_openai` of lmms-eval: one class, three engines of mgpo_core.

Relies on lmms-eval 0.7.3: a subclass of `lmms` with `is_simple = False`, `generate_until(requests)` for the requests of
all tasks at once, `GenerationResult`, `log_metrics`, and the command line's options as `task.args`, which a request
reaches through its `doc_to_messages`. tests/eval/test_command.py fails when one of these moves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.api.reasoning import parse_reasoning_tags_config
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger

from mgpo_core.boxes.plain_text import THINK
from mgpo_core.engines import Engine, load_engine
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.runs.evaluation_runs import FOLDER
from mgpo_core.runs.response_payload import decode_payload
from mgpo_eval.models.episode_runner import EpisodeRunner
from mgpo_eval.models.journal import CompletedSample, Journal, weights_identity
from mgpo_eval.models.options import ModelOptions, OptionError, local_folder
from mgpo_eval.models.provenance import Provenance, describe
from mgpo_eval.models.requests import EvalRequest, make_requests

__all__ = ["MGPO", "MGPOVLLM", "MGPOOpenAI"]


class MGPO(lmms):
    """Looks closer, then answers: MGPO's two turns (or one, `mode=single_turn`) on transformers.

    `--model_args` are the fields of `ModelOptions`. `engine` is an engine at hand, used instead of loading one, with
    `config` as transformers' configuration of its model. Raises OptionError for options that cannot be.
    """

    is_simple = False
    engine_name: ClassVar[str] = "transformers"

    def __init__(
        self,
        *,
        engine: Engine | None = None,
        config: Any = None,
        settings: EpisodeSettings | None = None,
        **model_args: Any,
    ) -> None:
        super().__init__()
        most = model_args.pop("max_batch_size", None)
        if self.engine_name != "transformers":
            model_args.pop("device", None)
        if most is not None and model_args.get("batch_size") == "auto":
            model_args["batch_size"] = most
        self.options = ModelOptions.read(model_args, self.engine_name)
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        self.batch_size = self.options.limit
        self._engine = engine
        self._live = engine is not None
        self._folder = None if self._live else local_folder(self.options.pretrained)
        self.config = config if config is not None else self._read_config()
        self.settings = self.options.settings(settings or self._saved_settings(), self.config)

    def _read_config(self) -> Any:
        if self.options.pretrained is None:
            return None
        from transformers import AutoConfig

        from mgpo_core.engines.loading import base_model

        try:
            return AutoConfig.from_pretrained(base_model(self.options.pretrained))
        except (OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise OptionError(
                f"pretrained={self.options.pretrained!r}: cannot be loaded: {reason:.300}; check the name and the "
                "network, log in for a private model (hf auth login), or name a folder that holds a copy"
            ) from error

    def _saved_settings(self) -> EpisodeSettings | None:
        if self._live or self.options.pretrained is None:
            return None
        from mgpo_core.engines.loading import load_settings

        return load_settings(self.options.pretrained)

    @property
    def engine(self) -> Engine:
        """The engine, loaded when it is first needed: an evaluation that only has to be scored needs none."""
        if self._engine is None:
            self._engine = load_engine(self.engine_name, **self._engine_options())
        return self._engine

    def _engine_options(self) -> dict[str, Any]:
        return {
            "model": self.options.pretrained,
            "device": self.options.device or self.device,
            "dtype": self.options.dtype,
            "batch_size": self.options.limit,
            **dataclasses.asdict(self.settings.sampling),
        }

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Play the requests of all tasks; an answer and, behind it, the trajectory for each, in their order."""
        eval_requests = make_requests(requests, self.task_dict, self.options, self.settings.templates)
        output = _output_path(requests)
        about = self._provenance()
        journal = self._open_journal(output, about)
        todo = [eval_request for eval_request in eval_requests if eval_request.key not in journal.finished]
        self._announce(eval_requests, todo, journal, about)
        started = time.perf_counter()
        if todo:
            runner = EpisodeRunner(
                self.engine,
                self.settings,
                self.options,
                journal,
                run_id=about.id,
                output=output,
                progress=self.rank == 0,
            )
            started = time.perf_counter()  # after loading, which takes as long for one sample as for thousands
            with self._others_told():
                runner.run(todo)
        self._report([journal.finished[eval_request.key] for eval_request in todo], time.perf_counter() - started)
        results = [GenerationResult("")] * len(requests)  # of padding, which nobody scores
        for eval_request in eval_requests:
            bare = self.options.response == "answer" or not _opens_payloads(requests[eval_request.place])
            results[eval_request.place] = _result(journal.finished[eval_request.key], bare=bare)
        return results

    @contextlib.contextmanager
    def _others_told(self) -> Iterator[None]:
        """End this process for good when it fails: lmms-eval would swallow the error, and the others wait for ever."""
        try:
            yield
        except BaseException:
            if self._world_size > 1 and not self._live:
                logger.exception("process {} failed; the others are ended too; run the same command again", self.rank)
                os._exit(1)
            raise

    def _provenance(self) -> Provenance:
        """What decides the results; hashed on the first process and handed to the others."""
        about = describe(self.options, self.settings, self._weights() if self.rank == 0 else "", str(self.device.type))
        return self._from_first(about)

    def _weights(self) -> str | None:
        """What identifies the weights: a hash of their files, or a hub's revision; None where nobody can tell."""
        if self._live:
            return None
        if self._folder is not None:
            logger.info("hashing the files of {}", self._folder)  # a second for each gigabyte or so
            return "+".join(weights_identity(folder) for folder in self._folders())
        from mgpo_core.engines.loading import adapter_base

        if self.options.pretrained is None or adapter_base(self.options.pretrained) is not None:
            return None  # the configuration at hand is that of the adapter's base
        revision = getattr(self.config, "_commit_hash", None)
        return None if revision is None else f"revision {revision}"

    def _folders(self) -> list[Path]:
        """The folders on this machine that the weights come from: of an adapter its base's too."""
        from mgpo_core.engines.loading import base_model

        assert self._folder is not None
        base = Path(base_model(self._folder))
        return [self._folder, base] if base != self._folder and base.is_dir() else [self._folder]

    def _open_journal(self, output: Path | None, about: Provenance) -> Journal:
        place = self.options.journal
        if place == "off" or self._live or (place == "auto" and output is None):
            return Journal(None)
        folder = (output / FOLDER if place == "auto" and output is not None else Path(place)) / about.id
        journal = Journal(folder, rank=self.rank, about=about.as_dict())
        self.accelerator.wait_for_everyone()  # everybody has read before anybody writes
        return journal

    def _announce(
        self, eval_requests: list[EvalRequest], todo: list[EvalRequest], journal: Journal, about: Provenance
    ) -> None:
        if self.rank != 0:
            return
        logger.info("{}", about.table())
        if len(todo) < len(eval_requests):
            logger.warning(
                "{} of {} samples were finished by an earlier run with the same weights and settings ({}): their "
                "results are used; to evaluate them again, delete that folder or set journal=off",
                len(eval_requests) - len(todo),
                len(eval_requests),
                journal.folder,
            )
        if journal.broken:
            logger.warning("{} lines of the journal were cut short: their samples are run again", journal.broken)
        if journal.folder is None and not self._live and self.options.journal != "off":
            logger.warning("without --output_path nothing is kept: a run that is killed starts again")

    def _report(self, played: Sequence[CompletedSample], seconds: float) -> None:
        """Throughput of all processes together, into the results; samples that were skipped are named."""
        mine = {
            "samples": len(played),
            "skipped": sum(entry.skipped for entry in played),
            "input_tokens": sum(entry.input_tokens for entry in played),
            "output_tokens": sum(entry.output_tokens for entry in played),
            "seconds": seconds,
        }
        everyone: list[dict[str, Any]] = self._gathered(mine)
        whole = {name: sum(part[name] for part in everyone) for name in mine if name != "seconds"}
        wall = max(part["seconds"] for part in everyone)
        if self.rank != 0 or not whole["samples"]:
            return
        log_metrics(
            total_elapsed_time=wall,
            total_gen_tokens=whole["output_tokens"],
            avg_speed=whole["output_tokens"] / wall,
            additional_metrics={
                "total_requests": whole["samples"],
                "samples_per_second": whole["samples"] / wall,
                "input_tokens": whole["input_tokens"],
                "skipped": whole["skipped"],
                "processes": len(everyone),
            },
        )
        if whole["skipped"]:
            logger.error("{} samples could not be read and count as wrong; their logs say why", whole["skipped"])

    def _gathered(self, mine: Any) -> list[Any]:
        if self._world_size == 1:
            return [mine]
        found: list[Any] = [None] * self._world_size
        torch.distributed.all_gather_object(found, mine)
        return found

    def _from_first(self, mine: Any) -> Any:
        return self._gathered(mine)[0]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not possible: the turns of a conversation are this model's own."""
        raise NotImplementedError("mgpo makes its own turns: choose a task with output_type generate_until")

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not possible: the model answers by generating."""
        raise NotImplementedError("mgpo answers by generating: choose a task with output_type generate_until")


class MGPOVLLM(MGPO):
    """MGPO on vLLM. One process per copy of the model: with `tensor_parallel_size`, vLLM starts the others itself."""

    engine_name = "vllm"

    def __init__(self, **model_args: Any) -> None:
        super().__init__(**model_args)
        copies = self.options.data_parallel_size
        if copies not in (1, self._world_size):
            raise OptionError(
                f"data_parallel_size={copies} wants as many processes, there are {self._world_size}: start them with "
                f"accelerate launch --num_processes {copies} -m lmms_eval ..., or leave it out"
            )

    @property
    def engine(self) -> Engine:
        """The engine, on the devices of this process's copy."""
        if self._engine is None:
            with _own_devices(self.accelerator.local_process_index, self.options.tensor_parallel_size):
                self._engine = super().engine
        return self._engine

    def _engine_options(self) -> dict[str, Any]:
        options, budget = self.options, self.settings.budget
        chosen = {
            "dtype": options.dtype,
            "max_model_len": options.max_model_len,
            "gpu_memory_utilization": options.gpu_memory_utilization,
            "tensor_parallel_size": options.tensor_parallel_size,
            # vLLM profiles its memory with the largest image that its processor lets through
            "mm_processor_kwargs": {"min_pixels": budget.min_pixels, "max_pixels": budget.max_pixels},
            "limit_mm_per_prompt": {"image": 16, "video": 0},
        }
        given: Mapping[str, Any] = options.vllm_options or {}
        return {
            "model": options.pretrained,
            **dataclasses.asdict(self.settings.sampling),
            **{name: value for name, value in chosen.items() if value is not None},
            **given,
        }


class MGPOOpenAI(MGPO):
    """MGPO on an OpenAI-compatible server at `url`."""

    engine_name = "openai"

    def _engine_options(self) -> dict[str, Any]:
        options = self.options
        return {
            "model": options.model,
            "url": options.url,
            "api_key": options.api_key,
            "concurrency": options.concurrency,
            "retries": options.retries,
            "timeout": options.timeout,
            **dataclasses.asdict(self.settings.sampling),
        }

    def _weights(self) -> str | None:
        return self.options.weights_name


def _result(finished: CompletedSample, *, bare: bool) -> GenerationResult:
    text = decode_payload(finished.text).answer if bare else finished.text
    return GenerationResult(text, TokenCounts(finished.input_tokens, finished.output_tokens))


def _opens_payloads(request: Any) -> bool:
    """Whether the trajectory behind the answer is taken off before a request's task scores it, or by the task itself.

    It is not where lmms-eval is called from Python without its command line's `--reasoning_tags`.
    """
    task = getattr(request.args[1], "__self__", None)
    config = getattr(task, "config", None)
    if getattr(getattr(config, "process_results", None), "__module__", "").startswith("mgpo_eval."):
        return True
    tags = parse_reasoning_tags_config(
        cli_value=getattr(getattr(task, "args", None), "reasoning_tags", None),
        task_value=getattr(config, "reasoning_tags", None),
    )
    return any(tuple(pair) == THINK for pair in tags or ())


@contextlib.contextmanager
def _own_devices(copy: int, size: int) -> Iterator[None]:
    """While vLLM starts its processes: they see the `size` devices of this copy, and nothing of the launcher."""
    hidden = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = dict(os.environ)
    visible = kept.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(",")
    try:
        for name in hidden:
            os.environ.pop(name, None)
        if torch.cuda.is_available() and len(visible) >= (copy + 1) * size:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[copy * size : (copy + 1) * size])
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _output_path(requests: Sequence[Any]) -> Path | None:
    """`--output_path`, which lmms-eval does not tell its models: its tasks know it."""
    for request in requests:
        task = getattr(request.args[1], "__self__", None)
        path = getattr(getattr(task, "args", None), "output_path", None)
        if path:
            return Path(path)
    return None
