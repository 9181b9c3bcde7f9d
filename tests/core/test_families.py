"""Every model family runs: cache and reference agree, images enter as the family's own forward has them, boxes map."""

from __future__ import annotations

import copy
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import PATCH, budget_of, make_tiny, question

from mgpo_core import CoordinateSpace, Episode, PixelBudget
from mgpo_core.engines.families import FAMILIES, Qwen3VL, find_family, visual_factor
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_core.engines.transformers.engine import TransformersEngine
from mgpo_core.engines.transformers.vision import batched_vision_attention, patch_embed_as_matmul
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.errors import EngineError, TokenAlignmentError
from mgpo_core.templates.base import message_images

LIMIT = 30  # tokens of a response
SLOW = pytest.mark.slow  # a model of each family is taught; Qwen2.5-VL has test_transformers_engine.py besides


class Tiny:
    """A loaded checkpoint and its episodes."""

    def __init__(self, model_type, folder):
        make_tiny(model_type, folder)
        self.model_type = model_type
        self.model, self.processor = load_model(folder, device="cpu"), load_processor(folder)

    def episodes(self, copies=1):
        sizes = [(300, 200), (200, 400), (400, 400), (250, 150)]
        budget, space = budget_of(self.model_type), find_family(self.model_type).space
        first = [Episode(question(*size, seed), budget=budget, space=space) for seed, size in enumerate(sizes)]
        return [episode for one in first for episode in one.copies(copies)]

    def generate(self, episodes=None, **options):
        engine = TransformersEngine(self.model, self.processor, max_new_tokens=LIMIT, **options)
        return engine.run(episodes or self.episodes())


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    return Tiny("qwen3_vl", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="module", params=[pytest.param(t, marks=() if t == "qwen3_vl" else SLOW) for t in PATCH])
def tiny(request, tmp_path_factory):
    if request.param == "qwen3_vl":
        return request.getfixturevalue("qwen3")
    return Tiny(request.param, tmp_path_factory.mktemp(request.param))


def test_a_family_is_found_by_model_type_and_declares_its_space():
    spaces = {model_type: find_family(model_type).space for model_type in PATCH}
    relative = CoordinateSpace.RELATIVE_1000
    assert spaces == dict.fromkeys(PATCH, relative) | {"qwen2_5_vl": CoordinateSpace.ABSOLUTE}
    assert find_family(transformers.Qwen3VLConfig()).name == "Qwen3-VL"
    model_types = [model_type for family in FAMILIES.values() for model_type in family.model_types]
    assert sorted(model_types) == sorted(PATCH)  # each has a tiny model here


@pytest.mark.parametrize("config", ["llava", transformers.LlavaConfig(), None], ids=["name", "config", "nothing"])
def test_an_unknown_family_is_refused_with_the_known_ones_and_where_to_add_one(config):
    with pytest.raises(EngineError, match=r"Qwen2\.5-VL \(qwen2_5_vl\), Qwen3-VL \(qwen3_vl.*families\.py"):
        find_family(config)


def test_the_space_of_a_family_is_known_without_torch():
    program = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from mgpo_core.engines.families import find_family; print(find_family('qwen3_vl').space.value)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "0-1000\n"


@pytest.mark.parametrize(
    ("config", "factor"), [(transformers.Qwen2_5_VLConfig(), 28), (transformers.Qwen3VLConfig(), 32)]
)
def test_a_visual_token_covers_patch_times_merge_pixels(config, factor):
    assert visual_factor(config) == factor


def test_a_configuration_without_patches_to_merge_is_refused():
    with pytest.raises(EngineError, match=r"llava model.*spatial_merge_size.*14 and None"):
        visual_factor(transformers.LlavaConfig())


def test_the_cache_changes_no_token_and_no_log_probability(tiny):
    played, reference = tiny.generate(), tiny.generate(reuse_cache=False)
    for trajectory, expected in zip(played, reference, strict=True):
        assert trajectory.tokens.ids == expected.tokens.ids and trajectory.tokens.mask == expected.tokens.mask
        assert trajectory.tokens.logprobs == pytest.approx(expected.tokens.logprobs, abs=1e-4)
        assert len(trajectory.turns) == 2 and len(message_images(trajectory.messages)) == 2
    # the comparison is of what it should be: crops in the second turn, rows of several lengths, no sure thing
    assert any(trajectory.turns[0].box_original for trajectory in played)
    assert len({len(trajectory.tokens.ids) for trajectory in played}) > 1
    assert min(min(trajectory.tokens.logprobs) for trajectory in played) < -0.1


def test_recorded_log_probabilities_of_groups_equal_the_models_own_forward(tiny):
    played = tiny.generate(tiny.episodes(copies=4), temperature=1.0, seed=1, batch_size=16)
    assert len({tuple(trajectory.tokens.ids) for trajectory in played}) > 8
    tokens = TurnTokenizer(tiny.processor)
    for trajectory in played[::3]:
        ids = torch.tensor([trajectory.tokens.ids])
        kinds = (ids == tokens.image_id).int()
        pixels = tokens.pixels(message_images(trajectory.messages))
        tiny.model.model.rope_deltas = None
        with torch.no_grad():
            logits = tiny.model(input_ids=ids, mm_token_type_ids=kinds, use_cache=False, **pixels).logits[0, :-1]
        logits[:, torch.from_numpy(tokens.forbidden_mask(logits.shape[1]))] = -math.inf
        own = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        sampled = torch.tensor(trajectory.tokens.mask[1:]) > 0
        recorded = torch.tensor(trajectory.tokens.logprobs[1:])
        torch.testing.assert_close(recorded[sampled], own[sampled], atol=1e-4, rtol=0)


def test_crops_are_where_the_written_numbers_say(tiny):
    cropped = 0
    for trajectory in tiny.generate(tiny.episodes(copies=4), temperature=0.6, seed=2):
        box = trajectory.turns[0].box_original
        if box is None:
            continue
        cropped += 1
        x1, y1, x2, y2 = (int(number) for number in re.findall(r"\d+", trajectory.turns[0].text)[1:])
        (width, height), (across, down) = trajectory.original_sizes[0], trajectory.input_sizes[0]
        if find_family(tiny.model_type).space is CoordinateSpace.RELATIVE_1000:
            across = down = 1000
        exact = (x1 * width / across, y1 * height / down, x2 * width / across, y2 * height / down)
        assert box.as_tuple() == pytest.approx(exact, abs=1)
    assert cropped > 1


def test_deepstack_features_are_given_with_the_image_tokens_and_never_again(qwen3, monkeypatch):
    given = []
    core = qwen3.model.model.language_model
    hook = core.register_forward_pre_hook(lambda module, args, kwargs: given.append(kwargs), with_kwargs=True)
    played = qwen3.generate()
    hook.remove()
    fed = [kwargs for kwargs in given if "deepstack_visual_embeds" in kwargs]
    assert len(fed) == 2 < len(given)  # the opening and the crop, and no step of decoding
    factor = visual_factor(qwen3.model.config)
    for turn, kwargs in enumerate(fed):
        shown = [message_images(trajectory.messages)[turn] for trajectory in played]
        tokens = sum(image.width * image.height // factor**2 for image in shown)
        assert int(kwargs["visual_pos_masks"].sum()) == tokens
        assert [len(level) for level in kwargs["deepstack_visual_embeds"]] == [tokens, tokens]
    monkeypatch.setattr(Qwen3VL, "language_inputs", lambda self, image_mask, features: {})
    first = slice(played[0].tokens.prompt_length, played[0].tokens.prompt_length + 3)
    assert qwen3.generate()[0].tokens.logprobs[first] != pytest.approx(played[0].tokens.logprobs[first], abs=1e-3)


def test_the_vision_rewrites_change_no_feature_gradient_or_weight_name(qwen3):
    tokens = TurnTokenizer(qwen3.processor)
    budget = budget_of("qwen3_vl")
    for sizes in ([(200, 200)] * 3, [(300, 100), (200, 200)]):
        pixels = tokens.pixels([budget.resize(question(*size, seed).image) for seed, size in enumerate(sizes)])
        results = []
        for rewritten in (False, True):
            model = transformers.Qwen3VLForConditionalGeneration(qwen3.model.config)
            model.load_state_dict(qwen3.model.state_dict())
            if rewritten:
                assert patch_embed_as_matmul(model) == 1 and batched_vision_attention(model) == 3
            features = torch.cat(find_family(model.config).encode(model.model, *pixels.values()), dim=1)
            features.square().mean().backward()
            results.append((features.detach(), {name: p.grad for name, p in model.model.visual.named_parameters()}))
        (plain, plain_grads), (fast, fast_grads) = results
        assert plain.shape[0] == 3  # the merger and two deepstack levels
        torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-4)
        assert list(fast_grads) == list(plain_grads)
        for name, gradient in plain_grads.items():
            torch.testing.assert_close(fast_grads[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_a_budget_of_another_factor_is_refused_with_the_right_one(qwen3):
    episode = Episode(question(300, 200), budget=PixelBudget(4 * 28**2, 36 * 28**2))
    with pytest.raises(TokenAlignmentError, match="factor=32"):
        qwen3.generate([episode])


def test_the_engine_refuses_a_model_of_no_known_family(qwen3, monkeypatch):
    stranger = copy.copy(qwen3.model.config)
    stranger.model_type = "stranger"
    monkeypatch.setattr(qwen3.model.model, "config", stranger)
    with pytest.raises(EngineError, match=r"model_type='stranger'"):
        qwen3.generate()
