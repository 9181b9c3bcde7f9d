"""The three back ends, vLLM and a real chat server among them: one model, one set of boxes and answers."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import warm_start

from mgpo_core import Episode, haystack
from mgpo_core.engines import load_engine
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import EngineError, TokenAlignmentError
from mgpo_core.templates.base import message_images

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from launching import serving
from requests_fixture import generate, haystack_table
from running import command, run, trajectories

pytestmark = pytest.mark.slow

N, LIMIT, NAME = 64, 64, "haystack-mgpo"
TIE = 1e-3
# on a CPU: no partly read prompts, whose seeds vLLM 0.31 cannot turn back there
SERVE = [
    *("--max-model-len", "1024", "--block-size", "32", "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "64"),
    *("--kv-cache-memory-bytes", str(2**28), "--limit-mm-per-prompt", '{"image":2}'),
    *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "16384"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(address, process) of vLLM's chat server for the tiny checkpoint."""
    named = ["--model", str(haystack.checkpoint("mgpo")), "--served-model-name", NAME]
    log = tmp_path_factory.mktemp("openai") / "serve.log"
    with serving([*named, *SERVE], log, VLLM_LOGGING_LEVEL="ERROR") as running:
        yield running


def load(server: Any, **options: Any) -> Any:
    return load_engine("openai", **({"model": NAME, "url": server[0], "max_new_tokens": LIMIT} | options))


def episodes(n: int, **options: Any) -> list[Episode]:
    return [Episode(sample, **({"budget": haystack.BUDGET} | options)) for sample in haystack.make("val", n, seed=7)]


def texts(trajectory: Trajectory) -> list[str]:
    return [turn.text for turn in trajectory.turns]


def two_best(engine: Any, reference: Trajectory, found: Trajectory) -> list[float]:
    """The two largest logits of the transformers engine in the place where the other's text first differs from its."""
    import torch

    assert reference.tokens is not None
    pairs = list(zip(texts(reference), texts(found), strict=True))
    turn = next(at for at, (ours, theirs) in enumerate(pairs) if ours != theirs)
    # as many characters agree: one text may be the other's beginning
    same = next((at for at, (a, b) in enumerate(zip(*pairs[turn], strict=False)) if a != b), min(map(len, pairs[turn])))
    start, end = reference.tokens.spans[turn]
    at = start + engine.tokenizer.covering(reference.tokens.ids[start:end], same + 1) - 1
    ids = torch.tensor([reference.tokens.ids])
    pixels = engine.tokenizer.pixels(message_images(reference.messages))
    kinds = (ids == engine.tokenizer.image_id).int()
    positions, _ = engine.model.model.get_rope_index(ids, kinds, image_grid_thw=pixels["image_grid_thw"])
    with torch.no_grad():
        logits = engine.model(input_ids=ids, position_ids=positions, **pixels).logits[0, at - 1]
    logits[list(engine.tokenizer.forbidden)] = -torch.inf
    return [float(logit) for logit in logits.topk(2).values]


@pytest.fixture(scope="module")
def reference():
    """(the transformers engine, its greedy trajectories of the samples)."""
    engine: Any = load_engine("transformers", model="haystack:mgpo", max_new_tokens=LIMIT, batch_size=N)
    return engine, engine.run(episodes(N))


def assert_alike(reference: Any, played: list[Trajectory], name: str) -> None:
    """At most one sample may differ, and that by a tie of the logits, which is printed."""
    engine, expected = reference
    differing = [(a, b) for a, b in zip(expected, played, strict=True) if texts(a) != texts(b)]
    print(f"{name}: {len(differing)} of {N} differ")
    assert len(differing) <= 1
    for ours, found in differing:
        best, second = two_best(engine, ours, found)
        print(f"{found.sample_id}: {texts(ours)} and {texts(found)}; the two best logits are {best} and {second}")
        assert best - second < TIE
    for ours, found in zip(expected, played, strict=True):
        if texts(ours) == texts(found):
            assert (found.answer, found.box_original) == (ours.answer, ours.box_original)


def test_greedy_results_equal_the_transformers_engine_s(server, reference):
    played = load(server).run(episodes(N))
    assert_alike(reference, played, "chat server")
    for ours, theirs in zip(played, reference[1], strict=True):
        assert ours.tokens is None
        for turn, expected in zip(ours.turns, theirs.turns, strict=True):
            if texts(ours) != texts(theirs):
                continue
            assert (turn.finish_reason, turn.prompt_tokens) == (expected.finish_reason, expected.prompt_tokens)
            # vLLM may send several tokens at once, so that some behind the fence have been sampled
            is_cut = turn.finish_reason == "cut"
            assert turn.tokens >= expected.tokens if is_cut else turn.tokens == expected.tokens
    assert sum(turn.finish_reason == "cut" for trajectory in played for turn in trajectory.turns) > N // 2
    assert sum(bool(trajectory.correct) for trajectory in played) > N // 4


def test_lmms_evals_models_on_a_chat_server_and_on_vllm_give_the_same(server, reference, tmp_path):
    from mgpo_core.runs.response_payload import decode_payload
    from mgpo_eval.models import MGPOOpenAI

    model = MGPOOpenAI(pretrained="haystack:mgpo", url=server[0])
    assert_alike(
        reference, [decode_payload(text).trajectory() for text in generate(model, haystack_table(N))], "mgpo_openai"
    )
    given = ["--model_args", "pretrained=haystack:mgpo,max_model_len=1024", "--tasks", "haystack", "--limit", str(N)]
    done = run(command("mgpo-eval", "--model", "mgpo_vllm", *given), tmp_path, VLLM_LOGGING_LEVEL="ERROR")
    assert done.returncode == 0, done.stderr[-3000:]
    found = [trajectory for _, trajectory in sorted(trajectories(tmp_path / "outputs/eval").items())]
    assert_alike(reference, found, "mgpo_vllm")


def test_the_seed_decides_what_is_sampled(server):
    hot, again, other = (
        [texts(played) for played in load(server, temperature=2.0, seed=seed).run(episodes(16))] for seed in (1, 1, 2)
    )
    assert hot == again and hot != other
    # copies of one sample differ too: every response has a seed of its own
    group = load(server, temperature=2.0).run(episodes(1)[0].copies(8))
    assert len({tuple(texts(played)) for played in group}) > 1


def test_without_a_name_the_served_model_plays_and_an_unknown_one_is_refused(server):
    [played] = load(server, model=None).run(episodes(1))
    assert played.done
    with pytest.raises(EngineError, match=f"does not serve 'haystack:mgpo': did you mean '{NAME}'"):
        load(server, model="haystack:mgpo")


def test_images_that_vllm_shrinks_are_refused(server):
    wide = replace(haystack.BUDGET, max_pixels=4 * haystack.BUDGET.max_pixels)
    with pytest.raises(
        TokenAlignmentError, match=r"sample 'haystack-val-7-0': .* --mm-processor-kwargs '\{\"min_pixels\""
    ):
        load(server).run(episodes(1, budget=wide))


def test_what_vllm_refuses_is_told_in_its_words(server):
    for limit, words in ((2000, "max_model_len=1024"), (1000, "maximum context length is 1024")):
        with pytest.raises(EngineError, match=f"turn 1 .status 400: .*{words}.*lower max_new_tokens.*--max-model-len"):
            load(server, max_new_tokens=limit).run(episodes(1))
    two_copies = replace(haystack.make("val", 1, seed=7)[0], images=haystack.make("val", 3, seed=7)[0].images * 3)
    with pytest.raises(EngineError, match=r"status 400: At most 2 image.*--limit-mm-per-prompt '\{\"image\":6\}'"):
        load(server).run([Episode(two_copies, budget=haystack.BUDGET)])


def test_a_server_that_dies_in_the_middle_of_a_run_is_named(server):
    url, process = server
    killed: list[str] = []

    def kill(episode: Episode) -> None:
        if not killed:
            warm_start.kill_group(process)
        killed.append(episode.sample.id)

    played = episodes(N, on_done=kill)
    with pytest.raises(EngineError, match=rf"sample 'haystack-val-7-\d+': .* {url}/v1 did not answer turn \d .*'s log"):
        load(server, concurrency=4, retries=1).run(played)
    assert killed and not all(episode.done for episode in played)
    with pytest.raises(EngineError, match=f"{url}/v1 cannot be used .Connection error"):
        load(server, retries=0)
