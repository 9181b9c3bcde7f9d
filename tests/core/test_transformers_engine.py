"""The transformers engine equals one-by-one generation without cache, and records what it sampled."""

from __future__ import annotations

import copy
import logging

import pytest
import torch

from mgpo_core.engines import Engine, load_engine
from mgpo_core.engines.sampling_options import SamplingOptions
from mgpo_core.engines.transformers.cached_sequence import CachedSequence, TurnPositions
from mgpo_core.engines.transformers.engine import TransformersEngine, _Generation
from mgpo_core.engines.transformers.kv_cache import BatchCache, RowCache
from mgpo_core.engines.transformers.sampling import Sampler
from mgpo_core.engines.transformers.vision import batched_vision_attention, patch_embed_as_matmul
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.episodes.episode import Episode
from mgpo_core.errors import EngineError, TokenAlignmentError
from mgpo_core.images.budget import PixelBudget
from mgpo_core.samples.sample import Sample
from mgpo_core.templates.base import message_images
from mgpo_core.templates.single_image import SingleTurn, TwoTurn

BUDGET = PixelBudget(min_pixels=28 * 28 * 4, max_pixels=168 * 168)
LIMIT = 40  # tokens of a response: a box turn takes about 35


def episodes(tiny):
    """Every habit on taught and foreign images, two templates, one sample of two images."""
    two_turn = [
        tiny.lesson(word, size, seed)
        for index, word in enumerate(tiny.habits)
        for size, seed in [(tiny.sizes[index % 3], index % 3), ((300 + 90 * index, 200), 7)]
    ]
    # the same question with the same image, another one of its size, and one with as many tokens in another shape
    two_turn += [tiny.lesson("Alpha", size, seed) for size, seed in [((112, 84), 0), ((112, 84), 8), ((84, 112), 0)]]
    pair = Sample.of("Alpha: which?", [tiny.lesson("Alpha", size, 3).image for size in tiny.sizes[:2]], id="pair")
    played = [Episode(sample, template=TwoTurn(), budget=BUDGET) for sample in [*two_turn, pair]]
    return played + [Episode(sample, template=SingleTurn(), budget=BUDGET) for sample in two_turn[:2]]


@torch.no_grad()
def next_logits(model, tokenizer, ids, images):
    """(tokens, vocabulary) logits of a whole sequence by transformers' own forward and positions, forbidden masked."""
    inputs = torch.tensor([ids])
    kinds = (inputs == tokenizer.image_id).int()
    model.model.rope_deltas = None
    logits = model(input_ids=inputs, mm_token_type_ids=kinds, use_cache=False, **tokenizer.pixels(images)).logits[0]
    return logits.masked_fill(torch.from_numpy(tokenizer.forbidden_mask(logits.shape[-1])), float("-inf"))


def play_by_brute_force(model, tokenizer, episode):
    """Greedy decoding, one token after the other, everything computed anew for each: ids, mask, log-probabilities."""
    ids = tokenizer.opening(episode.messages)
    mask, logprobs = [0] * len(ids), [0.0] * len(ids)
    while not episode.done:
        images, response, values = message_images(episode.messages), [], []
        turn = episode.turn
        while len(response) < LIMIT:
            scores = next_logits(model, tokenizer, ids + response, images)[-1].log_softmax(-1)
            response.append(int(scores.argmax()))
            values.append(float(scores.max()))
            if response[-1] == tokenizer.end_id:
                break
            if episode.wants_box and tokenizer.cut(response) is not None:
                break
        stopped = response[-1] == tokenizer.end_id
        said = response[:-1] if stopped else response
        episode.observe(tokenizer.decode(said))
        text = episode.trajectory.turns[turn].text
        if len(text) < len(tokenizer.decode(said)):  # the episode reads up to a box without a fence
            kept = next(n for n in range(len(said)) if len(tokenizer.decode(said[: n + 1])) >= len(text)) + 1
            response, stopped = response[:kept], stopped and kept == len(response)
        following = [] if episode.done else tokenizer.follow_up(episode.pending, stopped)
        ids += response + following
        mask += [1] * len(response) + [0] * len(following)
        logprobs += values[: len(response)] + [0.0] * len(following)
    return ids, mask, logprobs


@pytest.fixture(scope="module")
def brute_force(tiny):
    tokenizer = TurnTokenizer(tiny.processor)
    return [play_by_brute_force(tiny.model, tokenizer, episode) for episode in episodes(tiny)]


def assert_plays_like(trajectories, expected):
    for trajectory, (ids, mask, logprobs) in zip(trajectories, expected, strict=True):
        assert trajectory.tokens.ids == ids, trajectory.sample_id
        assert trajectory.tokens.mask == mask, trajectory.sample_id
        assert trajectory.tokens.logprobs == pytest.approx(logprobs, abs=1e-4), trajectory.sample_id


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_greedy_batches_equal_brute_force_token_for_token(tiny, brute_force, batch_size):
    engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=LIMIT, batch_size=batch_size)
    assert_plays_like(engine.run(episodes(tiny)), brute_force)


def test_the_reference_path_without_cache_equals_brute_force(tiny, brute_force):
    engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=LIMIT, reuse_cache=False)
    few = slice(0, None, 3)
    assert_plays_like(engine.run(episodes(tiny)[few]), brute_force[few])


def test_the_equality_covers_every_way_a_turn_can_go(tiny):
    engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=LIMIT)
    trajectories = engine.run(episodes(tiny))
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    assert {turn.finish_reason for turn in turns} == {"stop", "cut", "length"}
    assert {"reversed", "no_json", None} <= {trajectory.turns[0].rejection for trajectory in trajectories}
    assert {len(trajectory.turns) for trajectory in trajectories} == {1, 2}
    assert len({turn.tokens for turn in turns}) > 5
    assert len({tuple(trajectory.input_sizes) for trajectory in trajectories}) > 4


def test_spans_masks_texts_and_turns_agree(tiny):
    engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=LIMIT, temperature=1.0)
    for trajectory in engine.run(episodes(tiny)):
        tokens = trajectory.tokens
        assert sum(tokens.mask) == sum(end - start for start, end in tokens.spans)
        assert tokens.mask[: tokens.prompt_length] == [0] * tokens.prompt_length
        assert tokens.prompt_length == tokens.spans[0][0]
        for turn, (start, end) in zip(trajectory.turns, tokens.spans, strict=True):
            assert set(tokens.mask[start:end]) == {1} and turn.tokens == end - start
            sampled = tokens.ids[start:end]
            ended = sampled[-1] == engine.tokenizer.end_id
            text = engine.tokenizer.decode(sampled[:-1] if ended else sampled)
            assert text.startswith(turn.text) and len(text) - len(turn.text) < 8
            assert len(tokens.texts[start:end]) == turn.tokens
            assert turn.seconds > 0
            if end < len(tokens.ids):  # the turn is closed once: by the model, or by us with mask 0
                assert [*sampled, tokens.ids[end]].count(engine.tokenizer.end_id) == 1
                assert ended or tokens.mask[end] == 0


def group(tiny, word="Alpha", size=(300, 200), copies=8):
    return Episode(tiny.lesson(word, size, 5), budget=BUDGET).copies(copies)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_recorded_logprobs_of_sampled_groups_equal_one_forward_pass_over_each(tiny, temperature):
    engine = TransformersEngine(
        tiny.model, tiny.processor, max_new_tokens=LIMIT, temperature=temperature, batch_size=24, seed=3
    )
    trajectories = engine.run([*group(tiny), *group(tiny, "Beta", (168, 168)), *group(tiny, "Delta", (100, 300))])
    assert len({tuple(trajectory.tokens.ids) for trajectory in trajectories}) > 12
    for trajectory in trajectories[::3]:
        tokens = trajectory.tokens
        images = message_images(trajectory.messages)
        logits = next_logits(tiny.model, engine.tokenizer, tokens.ids, images) / temperature
        picked = logits[:-1].log_softmax(-1).gather(-1, torch.tensor(tokens.ids[1:])[:, None])[:, 0]
        expected = [0.0, *(picked * torch.tensor(tokens.mask[1:])).nan_to_num(0.0).tolist()]
        assert tokens.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_group_is_prefilled_once_and_each_image_is_encoded_once(tiny):
    model = copy.deepcopy(tiny.model)
    encoded, rows = [], []
    model.model.visual.register_forward_pre_hook(
        lambda module, args, kwargs: encoded.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    engine = TransformersEngine(model, tiny.processor, max_new_tokens=LIMIT, temperature=1.0, batch_size=16)
    trajectories = engine.run([*group(tiny), *group(tiny, "Gamma")])
    assert encoded[0] == 2 and rows[0][0] == 2 and rows[1] == (16, 1)
    crops = sum(trajectory.turns[0].box_original is not None for trajectory in trajectories)
    # a refused box shows the original again, whose features are known
    assert sum(encoded) == 2 + crops
    # of the second turn, only what the cache lacks is fed: the last sampled token and the follow-up
    follow_ups = [t.tokens.spans[1][0] - t.tokens.spans[0][1] for t in trajectories]
    assert max(width for _, width in rows[1:]) == max(follow_ups) + 1


def test_the_same_seed_gives_the_same_rollouts_and_another_seed_others(tiny):
    def rollouts(seed):
        engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=12, temperature=2.0, seed=seed)
        return [trajectory.tokens.ids for trajectory in engine.run(group(tiny))]

    assert rollouts(1) == rollouts(1) != rollouts(2)


def test_without_a_seed_torchs_global_generator_decides(tiny):
    engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=12, temperature=2.0, seed=None)

    def rollouts():
        return [trajectory.tokens.ids for trajectory in engine.run(group(tiny))]

    torch.manual_seed(5)
    first, second = rollouts(), rollouts()
    torch.manual_seed(5)
    assert rollouts() == first != second


def test_forbidden_tokens_are_never_sampled_however_much_the_model_wants_them(tiny):
    model = copy.deepcopy(tiny.model)
    forbidden = torch.from_numpy(TurnTokenizer(tiny.processor).forbidden_mask(model.lm_head.weight.shape[0]))
    model.lm_head.register_forward_hook(lambda module, args, output: output + 100.0 * forbidden)
    engine = TransformersEngine(model, tiny.processor, max_new_tokens=LIMIT)
    for trajectory in engine.run(episodes(tiny)[:4]):
        tokens = trajectory.tokens
        sampled = [token for token, trained in zip(tokens.ids, tokens.mask, strict=True) if trained]
        assert not forbidden[sampled].any()


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-6}], ids=str)
def test_sampling_from_one_token_is_greedy(tiny, brute_force, options):
    engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=LIMIT, **({"temperature": 1.0} | options))
    few = slice(0, 3)
    trajectories = engine.run(episodes(tiny)[few])
    assert [trajectory.tokens.ids for trajectory in trajectories] == [ids for ids, _, _ in brute_force[few]]


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.75), (4, 0.6)])
def test_draws_follow_the_truncated_distribution_and_logprobs_the_whole_one(top_k, top_p):
    logits = torch.tensor([2.0, -1.0, 0.5, 1.5, 9.0, 0.0])
    forbidden = torch.tensor([False, False, False, False, True, False])
    whole = (logits.masked_fill(forbidden, float("-inf")) / 0.8).softmax(0)
    kept = sorted(range(6), key=lambda i: -whole[i])[: top_k or 6]
    mass, nucleus = 0.0, []
    for index in kept:
        if mass / float(whole[kept].sum()) < top_p:
            nucleus.append(index)
        mass += float(whole[index])
    expected = torch.zeros(6)
    expected[nucleus] = whole[nucleus] / whole[nucleus].sum()
    options = SamplingOptions(temperature=0.8, top_k=top_k, top_p=top_p)
    sampler = Sampler(forbidden, options, torch.Generator().manual_seed(0))
    tokens, logprobs = sampler(logits.expand(20_000, -1))
    assert torch.allclose(tokens.bincount(minlength=6) / 20_000, expected, atol=0.015)
    assert torch.allclose(logprobs, whole.log()[tokens], atol=1e-5)


def test_the_model_comes_back_as_it_was(tiny):
    model = copy.deepcopy(tiny.model).train()
    model.model.visual.eval()
    flags = [module.training for module in model.modules()]
    attention = model.model.language_model.config._attn_implementation
    TransformersEngine(model, tiny.processor, max_new_tokens=2).run(episodes(tiny)[:1])
    assert [module.training for module in model.modules()] == flags
    assert model.model.language_model.config._attn_implementation == attention
    assert torch.is_grad_enabled() and not any(weight.grad is not None for weight in model.parameters())


def test_a_batch_that_does_not_fit_into_memory_is_halved(tiny, brute_force, monkeypatch, caplog):
    respond = _Generation._respond

    def small_memory(self, rows):
        if len(rows) > 3:
            raise torch.OutOfMemoryError("no memory")
        return respond(self, rows)

    monkeypatch.setattr(_Generation, "_respond", small_memory)
    engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=LIMIT, batch_size=8)
    with caplog.at_level(logging.WARNING):
        assert_plays_like(engine.run(episodes(tiny)[:8]), brute_force[:8])
    assert engine.memory_splits == 6 and "out of memory with 8 rows" in caplog.text  # 3 in each turn


def test_a_single_row_that_does_not_fit_says_so_and_other_errors_pass(tiny, monkeypatch):
    engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=2)

    def fail_with(error):
        def fail(self, rows):
            raise error

        monkeypatch.setattr(_Generation, "_respond", fail)

    fail_with(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    with pytest.raises(EngineError, match=r"Alpha-112x84-0.*max_pixels"):
        engine.run(episodes(tiny)[:1])
    fail_with(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        engine.run(episodes(tiny)[:2])


@pytest.mark.parametrize("lengths", [[3], [2, 5, 2], [4, 4], [1, 7]], ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_joined_row_caches_split_unchanged_and_stay_separate(lengths, padded):
    def states(length):
        return tuple(torch.randn(2, length, 3) for _ in range(2))  # of two layers: (heads, length, size)

    rows = [RowCache(states(length), states(length)) for length in lengths]
    batch = BatchCache.join(rows, torch.device("cpu"))
    past, new = max(lengths), torch.tensor([[index != 1 or not padded, True] for index in range(len(rows))])
    mask = batch.extend(new)
    for index, length in enumerate(lengths):
        visible = [False] * (past - length) + [True] * length
        own = new[index].tolist()
        assert mask[index, 0].tolist() == [[*visible, True, False], [*visible, own[0], True]]
    step = batch.extend(torch.ones(len(rows), 1, dtype=torch.bool))
    if len(set(lengths)) == 1 and new.all():
        assert step is None  # nothing to hide
    else:
        assert step[:, 0, 0].sum(-1).tolist() == [
            length + sum(own) + 1 for length, own in zip(lengths, new.tolist(), strict=True)
        ]
    for layer in range(2):
        grown = torch.randn(len(rows), 2, 3, 3)
        keys, _ = batch.cache.update(grown, grown, layer)
        assert keys.shape == (len(rows), 2, past + 3, 3)
    batch.select(torch.arange(len(rows) - 1, -1, -1))
    for index, row in enumerate(reversed(rows)):
        apart = batch.row(index, row.length)
        assert all(torch.equal(a, b) for a, b in zip(apart.keys + apart.values, row.keys + row.values, strict=True))
        assert all(torch.equal(a, b[:, :1]) for a, b in zip(apart.first(1).keys, row.keys, strict=True))


def test_an_episode_that_somebody_began_is_played_on(tiny, brute_force):
    ids, _, _ = brute_force[0]
    engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=LIMIT)
    episode, whole = episodes(tiny)[0], engine.run(episodes(tiny)[:1])[0]
    episode.observe(whole.turns[0].text)
    begun = engine.run([episode])[0]
    assert begun.turns[1].text == whole.turns[1].text
    assert begun.tokens.ids == ids and sum(begun.tokens.mask) == whole.turns[1].tokens
    assert engine.run([episode]) == [begun]  # a finished one is handed back


def test_text_that_the_episode_does_not_read_is_left_out_of_the_tokens(tiny):
    tokenizer = TurnTokenizer(tiny.processor)
    row = CachedSequence(
        Episode(tiny.lesson("Alpha", (168, 168), 2), budget=BUDGET),
        tokenizer,
        turn_positions=TurnPositions(tiny.model.model, tokenizer),
    )
    box = '[{"bbox_2d": [7, 9, 83, 71]}]'
    response = row.response(99)
    for token in [*tokenizer.tokenizer.encode(f"Here {box} is it", add_special_tokens=False), tokenizer.end_id]:
        response.push(token, -1.0, tokenizer.end_id)
    row.commit(response)
    start, end = row.spans[0]
    assert tokenizer.decode(row.ids[start:end]) == f"Here {box}" == row.episode.trajectory.turns[0].text
    assert row.ids[end] == tokenizer.end_id and row.mask[end] == 0
    positions, _ = tiny.model.model.get_rope_index(
        torch.tensor([row.ids]),
        (torch.tensor([row.ids]) == tokenizer.image_id).int(),
        image_grid_thw=tokenizer.pixels(row.images)["image_grid_thw"],
    )
    assert torch.equal(row.positions, positions[:, 0])


def test_an_image_outside_the_budget_is_refused_by_name(tiny):
    class Unresized(TwoTurn):
        def opening(self, sample, images):
            return super().opening(sample, [image.resize((336, 336)) for image in images])

    episode = Episode(tiny.lesson("Alpha", (168, 168), 0), template=Unresized(), budget=BUDGET)
    with pytest.raises(TokenAlignmentError, match=r"Alpha-168x168-0.*336x336.*28224"):
        TransformersEngine(tiny.model, tiny.processor, max_new_tokens=2).run([episode])


def test_the_longest_image_that_smart_resize_makes_is_within_the_budget(tiny):
    sample = tiny.lesson("Alpha", (4000, 21), 0)  # one cell high: longer than max_pixels allows
    engine = TransformersEngine(tiny.model, tiny.processor, max_new_tokens=2)
    assert engine.run([Episode(sample, template=SingleTurn(), budget=BUDGET)])[0].done


def test_a_saved_model_loads_and_plays_the_same(tiny, brute_force, tmp_path):
    tiny.model.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    engine = load_engine("transformers", model=tmp_path, max_new_tokens=LIMIT, device="cpu")
    assert isinstance(engine, Engine)
    assert_plays_like(engine.run(episodes(tiny)[:4]), brute_force[:4])


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("transformers", "no/such/model/folder", "no model folder"),
        ("transformers", "{tmp}", "no config.json"),
        ("transformers", "nobody/knows-this-model", "could not load 'nobody/knows-this-model'"),
        ("transformer", "x", "did you mean 'transformers'"),
    ],
)
def test_what_cannot_be_loaded_says_what_to_do(tmp_path, name, model, message):
    with pytest.raises(EngineError, match=message):
        load_engine(name, model=model.replace("{tmp}", str(tmp_path)))


@pytest.mark.parametrize(
    "sizes", [[(112, 112)] * 3, [(56, 140), (168, 168), (84, 28), (168, 168)]], ids=["same", "mixed"]
)
def test_the_vision_rewrites_change_no_feature_gradient_or_weight_name(tiny, sizes):
    plain = copy.deepcopy(tiny.model).train()
    fast = copy.deepcopy(plain)
    assert patch_embed_as_matmul(fast) == 1 and batched_vision_attention(fast) == 2
    pixels = TurnTokenizer(tiny.processor).pixels([tiny.lesson("Alpha", size, 1).image for size in sizes])
    results = []
    for model in (plain, fast, copy.deepcopy(fast)):
        features = torch.cat(model.model.get_image_features(**pixels).pooler_output)
        features.square().mean().backward()
        results.append((features.detach(), [weight.grad for weight in model.model.visual.parameters()]))
    for features, gradients in results[1:]:
        assert torch.allclose(features, results[0][0], atol=1e-5)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients, results[0][1], strict=True))
    assert list(fast.state_dict()) == list(plain.state_dict())
