"""What tests/train/test_vllm.py asserts on, measured in processes of their own: vLLM takes over the one it starts in.

python vllm_runs.py engine OUT MODEL our engine on vLLM against our engine on transformers
python vllm_runs.py qwen3 OUT        the same on a tiny Qwen3-VL, whose boxes are in thousandths
python vllm_runs.py colocate OUT     five RL steps with vLLM in the trainer's process, and five without it
python vllm_runs.py server OUT MODEL URL   the engine on a running server, then RL steps against it
python vllm_runs.py tempted OUT      a copy of the checkpoint that would like to write image tokens
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from patience import HANG

from mgpo_core import CoordinateSpace, Episode, Stopped, TwoTurn, haystack
from mgpo_core.engines import load_engine
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.templates.base import message_images

N, SEED, LIMIT = 64, 5, 48
VLLM = {"max_model_len": 1024, "max_num_seqs": 64}
RUN = [
    *("--max_steps", "5", "--eval_samples", "0", "--per_device_train_batch_size", "48", "--progress", "false"),
    *("--plot_every", "0", "--report_every", "0", "--save_steps", "1000"),
]


def episodes(n: int = N) -> list[Episode]:
    return [Episode(sample, budget=haystack.BUDGET) for sample in haystack.make("val", n=n, seed=SEED)]


def records(trajectories: list[Any]) -> list[dict[str, Any]]:
    return [{"ids": t.tokens.ids, "mask": t.tokens.mask, "logprobs": t.tokens.logprobs} for t in trajectories]


@dataclass(frozen=True)
class LongFirst:
    """Sampling options under which the first turn of episode 0 does not end before the limit."""

    plain: Any

    @property
    def max_new_tokens(self) -> int:
        return int(self.plain.max_new_tokens)

    def request(self, tokenized: Any, index: int, *limits: int) -> dict[str, Any]:
        request: dict[str, Any] = self.plain.request(tokenized, index, *limits)
        if (index, tokenized.episode.turn) == (0, 0):
            request["min_tokens"] = request["max_tokens"]
        return request


class Silent(TwoTurn):
    """Two turns of which the first is not stopped at its fence."""

    def wants_box(self, turn: int) -> bool:
        return False


def finishing_order(engine: Any) -> dict[str, Any]:
    """When every episode ended (seconds), where the first one's first turn is ten times as long as the others'."""
    played = episodes(8)
    played[0] = Episode(played[0].sample, template=Silent(), budget=haystack.BUDGET)
    plain, ends, started = engine.options, {}, time.perf_counter()
    engine.options = LongFirst(replace(plain, max_new_tokens=600))
    if hasattr(engine, "url"):
        hold_the_first(engine, ends)
    for index, episode in enumerate(played):
        observe = episode.observe

        def noting(*args: Any, index: int = index, observe: Any = observe, **kwargs: Any) -> None:
            observe(*args, **kwargs)
            ends[f"{index}.{played[index].turn}"] = time.perf_counter() - started

        episode.observe = noting  # type: ignore[method-assign]
    trajectories = engine.run(played)
    vars(engine).pop("_respond", None)  # what `hold_the_first` put in its place
    engine.options = plain
    return {"ends": ends, "lengths": [t.turns[0].tokens for t in trajectories]}


def hold_the_first(engine: Any, ends: dict[str, float]) -> None:
    """Until all others have ended their second turns: a slow client must not decide the order."""
    respond = engine._respond

    async def holding(client: Any, images: Any, index: int, tokenized: Any) -> Any:
        response = await respond(client, images, index, tokenized)
        patience = time.perf_counter() + HANG / 2
        while (index, tokenized.episode.turn) == (0, 0) and time.perf_counter() < patience:
            if sum(name.endswith(".2") for name in ends) == 7:
                break
            await asyncio.sleep(0.05)
        return response

    engine._respond = holding


def compare(engine: Any, name: str) -> dict[str, Any]:
    """One engine against the transformers engine, greedily and hot."""
    found: dict[str, Any] = {
        "name": name,
        "greedy": records(engine.run(episodes())),
        "counts": engine.counts.hit_rates(),
    }
    # a group shares prompt and image: all but its first rollout find turn 1 in the cache
    engine.run([copy for episode in episodes(4) for copy in episode.copies(8)])
    found["group_counts"] = engine.counts.hit_rates()
    plain = engine.options
    engine.options = replace(plain, temperature=2.0, seed=1)
    found["hot"] = records(engine.run(episodes(16)))
    found["hot_again"] = records(engine.run(episodes(16)))
    engine.options = replace(plain, temperature=2.0, seed=2)
    found["hot_other_seed"] = records(engine.run(episodes(16)))
    engine.options = plain
    found["order"] = finishing_order(engine)
    found["watched"] = watching(engine)
    return found


def watching(engine: Any) -> dict[str, Any]:
    """What a watch is told of every turn, beside the turns' texts; then a run that a watch stops at its tenth call."""
    told: dict[str, list[str]] = {}
    played = engine.run(
        episodes(4),
        on_text=lambda episode, text: told.setdefault(f"{episode.sample.id}.{episode.turn}", []).append(text),
    )
    enough, calls = Stopped("enough"), []

    def stop(episode: Episode, text: str) -> None:
        calls.append(text)
        if len(calls) == 10:
            raise enough

    raised = None
    try:
        engine.run(episodes(4), on_text=stop)
    except Stopped as error:
        raised = error
    return {
        "told": told,
        "turns": {f"{t.sample_id}.{at}": (turn.text, turn.tokens) for t in played for at, turn in enumerate(t.turns)},
        "stopped": (raised is enough, len(calls)),
        "ids": [t.tokens.ids for t in played],
        "ids_afterwards": [t.tokens.ids for t in engine.run(episodes(4))],
    }


def run_engine(out: Path, model: str) -> None:
    reference: Any = load_engine("transformers", model=model, max_new_tokens=LIMIT, batch_size=N)
    engine: Any = load_engine("vllm", model=model, max_new_tokens=LIMIT, **VLLM)
    played = reference.run(episodes())
    found = {"reference": records(played), "tempted": temptation(reference, played[:8]), **compare(engine, "vllm")}
    found["resized"] = _error(lambda: engine.run([Episode(s, budget=_wide()) for s in haystack.make("val", 1, 0)]))
    # a prompt of 73 tokens: room for 7 of the first turn, and no second one
    longest, engine.llm.model_config.max_model_len = engine.llm.model_config.max_model_len, 80
    full = engine.run(episodes(2))
    engine.llm.model_config.max_model_len = longest
    found["full"] = [[(turn.finish_reason, turn.tokens) for turn in t.turns] for t in full]
    found["raw_logprobs"] = _error(lambda: type(engine)(_raw(engine.llm), engine.tokenizer.processor))
    (out / "engine.json").write_text(json.dumps(found))


def run_qwen3(out: Path) -> None:
    from tiny_models import budget_of, make_tiny, question

    model = make_tiny("qwen3_vl", out / "model")

    def played(engine: Any) -> list[Any]:
        budget, space = budget_of("qwen3_vl"), CoordinateSpace.RELATIVE_1000
        samples = [question(150 + 20 * index, 400 - 10 * index, index) for index in range(16)]
        trajectories: list[Any] = engine.run([Episode(sample, budget=budget, space=space) for sample in samples])
        return trajectories

    reference = played(load_engine("transformers", model=model, max_new_tokens=LIMIT))
    found = played(load_engine("vllm", model=model, max_new_tokens=LIMIT, **VLLM))
    shown = [len(message_images(trajectory.messages)) for trajectory in found]
    report = {"reference": records(reference), "greedy": records(found), "images": shown}
    (out / "qwen3.json").write_text(json.dumps(report))


def temptation(engine: Any, trajectories: list[Any]) -> float:
    """The share of sampled tokens in whose place the model itself would rather have written a forbidden one."""
    wanted = []
    for trajectory in trajectories:
        ids = torch.tensor([trajectory.tokens.ids])
        pixels = engine.tokenizer.pixels(message_images(trajectory.messages))
        kinds = (ids == engine.tokenizer.image_id).int()
        positions, _ = engine.model.model.get_rope_index(ids, kinds, image_grid_thw=pixels["image_grid_thw"])
        best = engine.model(input_ids=ids, position_ids=positions, **pixels).logits[0].argmax(dim=-1)
        said = [at for at, mask in enumerate(trajectory.tokens.mask) if mask]
        wanted += [int(best[at - 1]) in engine.tokenizer.forbidden for at in said]
    return sum(wanted) / len(wanted)


def _wide() -> Any:
    """A budget that the checkpoint's own processor, inside vLLM, would shrink images out of."""
    return replace(haystack.BUDGET, max_pixels=4 * haystack.BUDGET.max_pixels)


def _raw(llm: Any) -> Any:
    from types import SimpleNamespace

    config = SimpleNamespace(logprobs_mode="raw_logprobs", model=llm.model_config.model)
    return SimpleNamespace(model_config=config)


def _error(call: Any) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def train(out: Path, *options: str) -> None:
    from mgpo_train.cli import main

    status = main(["haystack-mgpo", *RUN, "--output_dir", str(out), *options])
    if status:
        sys.exit(status)


def run_server(out: Path, model: str, url: str) -> None:
    reference = load_engine("transformers", model=model, max_new_tokens=LIMIT, batch_size=N)
    engine = load_engine("vllm-server", model=model, max_new_tokens=LIMIT, url=url)
    found = {"reference": records(reference.run(episodes())), **compare(engine, "server")}
    (out / "server.json").write_text(json.dumps(found))
    train(
        out / "server",
        *("--model", model, "--min_pixels", str(haystack.BUDGET.min_pixels)),
        *("--max_pixels", str(haystack.BUDGET.max_pixels), "--warmup_steps", "0", "--max_steps", "3"),
        *("--use_vllm", "true", "--vllm_mode", "server", "--vllm_server_base_url", url),
    )


@torch.no_grad()
def write_tempted(out: Path) -> None:
    """Output rows of forbidden tokens are those of common ones, and larger; untied, as servers on a CPU want it."""
    model, processor = load_model("haystack:base"), load_processor("haystack:base")
    weight = model.lm_head.weight.detach().clone()
    tokens = TurnTokenizer(processor)
    common = [tokens.end_id, *tokens.tokenizer.encode("0123456789", add_special_tokens=False)]
    for index, token in enumerate(tokens.forbidden):
        weight[token] = 1.2 * weight[common[index % len(common)]]
    model.lm_head.weight = torch.nn.Parameter(weight)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    model.save_pretrained(out / "tempted")
    processor.save_pretrained(out / "tempted")


if __name__ == "__main__":
    what, folder, *rest = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]
    if what == "engine":
        run_engine(folder, *rest)
    elif what == "qwen3":
        run_qwen3(folder)
    elif what == "colocate":
        train(folder / "colocate", "--use_vllm", "true")
        train(folder / "transformers")
    elif what == "server":
        run_server(folder, *rest)
    elif what == "tempted":
        write_tempted(folder)
