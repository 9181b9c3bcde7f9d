"""vLLM runs the same policy as transformers: in the trainer's process, and on a server of its own."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import warm_start

from mgpo_core.engines.loading import load_processor
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_train.output.metrics import METRICS_FILE, read_metrics

sys.path.insert(0, str(Path(__file__).parent))
from launching import launch, serving

pytestmark = pytest.mark.slow

RUNS = Path(__file__).with_name("vllm_runs.py")
# on a CPU: no partly read prompts, whose seeds vLLM 0.31 cannot turn back there
SERVE = [
    *("--enable-scale-out", "--logprobs-mode", "processed_logprobs", "--enable-prompt-tokens-details"),
    *("--max-model-len", "1024", "--block-size", "32", "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "64"),
    *("--kv-cache-memory-bytes", str(2**28), "--limit-mm-per-prompt", '{"image":2}'),
    *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "16384"),
]


def run(*arguments: object) -> None:
    warm_start.check([str(RUNS), *map(str, arguments)])


@pytest.fixture(scope="module")
def tempted(tmp_path_factory):
    """A checkpoint that would like to write image tokens."""
    folder = tmp_path_factory.mktemp("tempted")
    run("tempted", folder)
    return folder / "tempted"


@pytest.fixture(scope="module")
def engine(tmp_path_factory, tempted):
    folder = tmp_path_factory.mktemp("engine")
    run("engine", folder, tempted)
    return json.loads((folder / "engine.json").read_text())


@pytest.fixture(scope="module")
def server(tmp_path_factory, tempted):
    """What the engine found on a real `vllm serve`, and the folder of the RL steps against it."""
    folder = tmp_path_factory.mktemp("server")
    with serving(["--model", str(tempted), *SERVE], folder / "serve.log") as (url, process):
        run("server", folder, tempted, url)
        yield json.loads((folder / "server.json").read_text()), folder, url, process


@pytest.fixture(scope="module", params=["engine", "server"])
def found(request):
    value = request.getfixturevalue(request.param)
    return value if request.param == "engine" else value[0]


def test_greedy_rollouts_are_equal_token_for_token_on_64_samples(found):
    assert len(found["greedy"]) == 64
    for ours, theirs in zip(found["greedy"], found["reference"], strict=True):
        assert ours["ids"] == theirs["ids"] and ours["mask"] == theirs["mask"]
        np.testing.assert_allclose(ours["logprobs"], theirs["logprobs"], atol=1e-4)


def test_greedy_rollouts_of_qwen3_vl_are_equal_token_for_token(tmp_path):
    run("qwen3", tmp_path)
    found = json.loads((tmp_path / "qwen3.json").read_text())
    assert found["images"] == [2] * 16
    for ours, theirs in zip(found["greedy"], found["reference"], strict=True):
        assert ours["ids"] == theirs["ids"] and ours["mask"] == theirs["mask"]
        np.testing.assert_allclose(ours["logprobs"], theirs["logprobs"], atol=1e-4)


def test_the_second_turn_finds_the_first_in_the_prefix_cache(found):
    # cached in blocks of 32 tokens: of some 165 tokens, the first turn's 96 at most
    assert found["counts"]["prefix_cache_hit_rate/turn2"] > 0.35
    # rollouts of one sample share prompt and image
    assert found["group_counts"]["prefix_cache_hit_rate/turn2"] > 0.8


def test_image_tokens_are_never_sampled_even_by_a_model_that_would_like_to(engine, found):
    assert engine["tempted"] > 0.3
    tokens = TurnTokenizer(load_processor("haystack:base"))
    for rows in (found["greedy"], found["hot"]):
        sampled = {i for row in rows for i, said in zip(row["ids"], row["mask"], strict=True) if said}
        assert sampled and not sampled & set(tokens.forbidden)


def test_the_seed_decides_what_is_sampled(found):
    assert found["hot"] == found["hot_again"]
    assert found["hot"] != found["hot_other_seed"]


def test_finished_rollouts_do_not_wait_for_the_slowest_first_turn(found):
    order = found["order"]
    assert order["lengths"][0] == 600 and max(order["lengths"][1:]) < 40
    slow_first_turn = order["ends"]["0.1"]
    assert all(order["ends"][f"{index}.2"] < slow_first_turn for index in range(1, 8))


def test_a_watch_is_told_every_token_and_what_it_raises_leaves_vllm_as_it_was(found):
    watched = found["watched"]
    assert watched["told"].keys() == watched["turns"].keys() and len(watched["told"]) == 8
    for name, (text, tokens) in watched["turns"].items():
        told = watched["told"][name]
        assert told[-1] == text and len(told) == tokens
        assert all(after.startswith(before) for before, after in itertools.pairwise(told))
    assert watched["stopped"] == [True, 10]
    assert watched["ids_afterwards"] == watched["ids"]


def test_an_image_that_vllm_resizes_is_refused_by_name(engine):
    assert engine["resized"].startswith("TokenAlignmentError: sample 'haystack-val-0-0': vLLM read")
    assert "mm_processor_kwargs" in engine["resized"]


def test_a_conversation_that_fills_the_context_ends_at_its_limit(engine):
    assert engine["full"] == [[["length", 7]]] * 2


def test_log_probabilities_before_the_mask_are_refused(engine):
    assert "logprobs_mode='processed_logprobs'" in engine["raw_logprobs"]


def metrics(folder: Path) -> list[dict[str, float]]:
    return list(read_metrics(folder / METRICS_FILE))


def test_colocate_mode_learns_as_with_transformers(tmp_path):
    run("colocate", tmp_path)
    ours, theirs = metrics(tmp_path / "colocate"), metrics(tmp_path / "transformers")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(1, 6))
    for row in ours:
        # also after the weights have moved: they are synchronised every step
        assert 0 < row["logprob_gap/turn1"] < 1e-5 and 0 < row["logprob_gap/turn2"] < 1e-5
        assert abs(row["sampling/importance_sampling_ratio/mean"] - 1) < 1e-4
        assert row["prefix_cache_hit_rate/turn2"] > 0.3
    reward = [np.mean([row["reward"] for row in rows]) for rows in (ours, theirs)]
    # 240 rollouts each: three standard errors of the difference of two shares near 0.4
    assert abs(reward[0] - reward[1]) < 3 * np.sqrt(2 * 0.4 * 0.6 / 240)


def test_two_processes_share_one_vllm_by_tensor_parallelism(tmp_path):
    options = ["--use_vllm", "true", "--vllm_tensor_parallel_size", "2", "--max_steps", "2", "--warmup_steps", "0"]
    # the vision tower has three heads: each process keeps it whole
    options += ["--vllm_options", '{"mm_encoder_tp_mode": "data"}', "--eval_samples", "0", "--progress", "false"]
    # the same images at every step, under a vision tower that learns: features of the old weights would not fit
    options += ["--train_data", "haystack:train?n=4&seed=1", "--freeze", "merger", "--learning_rate", "1e-3"]
    options += ["--per_device_train_batch_size", "16", "--output_dir", str(tmp_path / "run")]
    finished = launch("zero2", 2, "-m", "mgpo_train", "haystack-mgpo", *options)
    assert finished.returncode == 0, finished.stderr[-6000:]
    rows = metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2]
    # each keeps its own rollouts, of its own samples: the other's would not fit the trainer's log-probabilities
    assert all(row["logprob_gap/turn1"] < 1e-5 and row["logprob_gap/turn2"] < 1e-5 for row in rows)


def test_server_mode_trains_on_synchronised_weights(server):
    _, folder, _, _ = server
    rows = metrics(folder / "server")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["logprob_gap/turn1"] < 1e-5 and row["logprob_gap/turn2"] < 1e-5 for row in rows)
    assert all(row["vllm_retries"] == 0 for row in rows)
    # the weights did move in between
    assert all(row["grad_norm"] > 0 and row["learning_rate"] > 0 for row in rows)


def test_a_server_that_died_is_named_with_the_remedy(server, tempted):
    from mgpo_core import Episode, haystack
    from mgpo_core.engines import load_engine
    from mgpo_core.errors import EngineError

    _, _, url, process = server
    alive = load_engine("vllm-server", model=tempted, url=url, retries=1)
    warm_start.kill_group(process)
    with pytest.raises(EngineError, match=f"{url} did not answer turn 1 after 2 attempts.*--resume"):
        alive.run([Episode(haystack.make("val", 1, 0)[0], budget=haystack.BUDGET)])
    assert alive.retried == 1
    with pytest.raises(EngineError, match="vllm serve MODEL --enable-scale-out"):
        load_engine("vllm-server", model="haystack:base", url=url)
