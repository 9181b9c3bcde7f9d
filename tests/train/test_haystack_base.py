"""The recipe of haystack's base checkpoint: its tokenizer, its lessons, and that a seed makes one model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mgpo_core import haystack, parse_boxes
from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.engines.loading import load_processor
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.haystack.world import make_scene
from mgpo_core.images.crop import CropRules, check_box
from mgpo_core.templates.single_image import TwoTurn
from mgpo_train.haystack import base, commands
from mgpo_train.haystack.architecture import build_processor, build_tokenizer
from mgpo_train.haystack.language_stage import NOISE, Teacher, box_text
from mgpo_train.haystack.pool import CROPS, LESSONS, Pool, make_pool, seen_box
from mgpo_train.haystack.vision_stage import cell_facts

SEEN = (168, 168)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(6, seed=3, workers=1)


@pytest.fixture(scope="module")
def teacher(pool) -> Teacher:
    tokens = TurnTokenizer(build_processor(build_tokenizer(base.protocol())))
    seen, crops = torch.zeros(6, 36, 128), torch.zeros(6, CROPS, 36, 128)
    return Teacher(pool, seen, crops, tokens, np.random.default_rng(0))


def test_the_shipped_tokenizer_is_the_recipe_s():
    built = build_tokenizer(base.protocol())
    shipped = load_processor("haystack:base").tokenizer
    assert built.get_vocab() == shipped.get_vocab()


def test_a_two_turn_conversation_is_short_and_its_text_survives():
    tokens = TurnTokenizer(load_processor("haystack:base"))
    sample = haystack.make("val", n=1)[0]
    messages = TwoTurn().opening(sample, [Image.new("RGB", SEEN)])
    ids = tokens.opening(messages)
    assert len(ids) < 80
    said = tokens.decode([i for i in ids if i != tokens.image_id])
    for message in messages:
        for part in message["content"]:
            if part["type"] == "text":
                assert part["text"] in said


def test_taught_boxes_parse_by_the_paper_s_strict_rule(teacher):
    scene = make_scene("train", 3, 0, LESSONS)
    teacher.clean = True
    for _ in range(20):
        box = teacher._taught_box(scene)
        assert parse_boxes(box_text(box), strict=True).boxes == (box,)
        assert box.contains(*seen_box(scene, 0).center)
        assert check_box(box, SEEN, space=CoordinateSpace.ABSOLUTE, rules=CropRules()) is None


def test_noise_is_mixed_as_stated_and_refused_boxes_are_refused(teacher):
    scene = make_scene("train", 3, 0, LESSONS)
    teacher.clean = False
    boxes = [teacher._taught_box(scene) for _ in range(2000)]
    refused = [b for b in boxes if check_box(b, SEEN, space=CoordinateSpace.ABSOLUTE, rules=CropRules()) is not None]
    assert abs(len(refused) / len(boxes) - NOISE["refused"]) < 0.04
    reasons = {check_box(b, SEEN, space=CoordinateSpace.ABSOLUTE, rules=CropRules()) for b in refused}
    assert reasons == {"reversed", "too_small", "outside"}


def test_what_is_printed_beside_the_figures_is_what_was_taught():
    for share in NOISE.values():
        assert f"{share:.0%}" in haystack.BASE_WAS_TAUGHT
    assert sum(NOISE.values()) == pytest.approx(1.0)


def test_cell_facts_say_where_the_target_is(pool):
    from mgpo_core.haystack.world import COLOURS

    for index, scene in enumerate(pool.scenes):
        facts = cell_facts(pool, index, -1)
        x, y = seen_box(scene, 0).center
        cell = int(y // 28) * 6 + int(x // 28)
        assert facts.colour[cell] == 1 + list(COLOURS).index(scene.target.colour)
        assert (facts.mark == -1).all()  # marks are asked of crops alone


@pytest.mark.slow
def test_a_seed_makes_one_base(tmp_path):
    states = []
    for name in ("first", "again"):
        folder = tmp_path / name
        options = ["--scenes", "8", "--vision_steps", "2", "--language_steps", "8", "--seed", "5"]
        assert commands.base([*options, "--output_dir", str(folder)]) == 0
        assert json.loads((folder / "base.json").read_text())["language_steps"] == 8
        shipped = EpisodeSettings.read(haystack.checkpoint("base"))
        assert EpisodeSettings.read(folder) == shipped, "played as the shipped one"
        states.append((folder / "model.safetensors").read_bytes())
    assert states[0] == states[1]
