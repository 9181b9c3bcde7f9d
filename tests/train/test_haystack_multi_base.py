"""The recipe of haystack's checkpoint for several images: its tokenizer, its lessons, and that a seed makes one."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from mgpo_core import Box, haystack, iou
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.haystack.multi import DIFFICULTY
from mgpo_core.haystack.world import make_scene
from mgpo_core.templates.multi_image import MultiImage, has_reasoning
from mgpo_train.haystack import commands, multi_base
from mgpo_train.haystack.architecture import build_tokenizer
from mgpo_train.haystack.multi_lessons import BATCH, MOST_IMAGES, MultiTeacher


@pytest.fixture(scope="module")
def tokens() -> TurnTokenizer:
    return TurnTokenizer(load_processor("haystack:multi"))


@pytest.fixture
def teacher(tokens: TurnTokenizer) -> MultiTeacher:
    scenes = [make_scene("train", 1, index, DIFFICULTY["train"]) for index in range(8)]
    features = torch.arange(8.0)[:, None, None].expand(8, 36, 128)
    teacher = MultiTeacher(scenes, features, tokens, np.random.default_rng(0))
    teacher.advance(1.0)
    return teacher


def test_the_shipped_tokenizer_is_the_recipe_s(tokens: TurnTokenizer) -> None:
    built = build_tokenizer(multi_base.protocol(), texts=multi_base.vocabulary_texts(), vocabulary=600)
    assert built.get_vocab() == tokens.tokenizer.get_vocab()


def test_a_conversation_over_three_images_is_short_and_its_text_survives(tokens: TurnTokenizer) -> None:
    for sample in haystack.make_multi("val", 5, 1):
        messages = Episode(sample, template=MultiImage(), budget=haystack.BUDGET).messages
        ids = tokens.opening(messages)
        assert len(ids) - 36 * len(sample.images) < 90
        said = tokens.decode([i for i in ids if i != tokens.image_id])
        for message in messages:
            for part in message["content"]:
                if part["type"] == "text":
                    assert part["text"] in said


@pytest.mark.parametrize("kind", list(BATCH))
def test_every_lesson_says_what_is_in_its_scenes(kind: str, teacher: MultiTeacher, tokens: TurnTokenizer) -> None:
    for _ in range(4):
        for lesson in teacher.lessons(kind):
            scenes = [teacher.scenes[int(features[0, 0])] for features in lesson.features]
            assert 2 <= len(scenes) <= MOST_IMAGES
            prompt = tokens.decode([i for i in lesson.ids[: lesson.start] if i != tokens.image_id])
            said = tokens.decode(lesson.ids[lesson.start : -1])
            question = re.search(r"Question: (.*?[.?]) Reason within", prompt)[1]
            if lesson.target is not None:
                assert tokens.decode(lesson.ids[lesson.before + 1 :]).startswith("```json")
            assert lesson.ids[-1] == tokens.end_id and lesson.ids.count(tokens.image_id) == 36 * len(scenes)
            _check(kind, question, said, scenes)


def _check(kind: str, question: str, said: str, scenes: list) -> None:
    words, _, box = said.partition("```json\n")
    answer = json.loads(box.removesuffix("\n```"))[0] if box else None
    if answer is not None:
        [shape] = [shape for shape in scenes[answer["image"] - 1].shapes if shape.name == answer["label"]]
        assert iou(Box(*answer["bbox_2d"]), shape.box.scaled(1 / 4, 1 / 4)) > 0.85
    if kind == "find":
        assert answer is not None and not words and question == f"Find the {answer['label']}."
        assert sum(shape.name == answer["label"] for scene in scenes for shape in scene.shapes) == 1
        return
    image = int(re.search(r"image (\d)\?", question)[1])
    here = {shape.name: shape for shape in scenes[image - 1].shapes}
    assert has_reasoning(words)
    line, _, where = words.strip().removeprefix("<think>").removesuffix("</think>").partition("\n")
    line = line.removeprefix(f"Image {image}: ").removesuffix(".")
    if answer is not None:
        assert where == f"The {answer['label']} is in image {image}." and answer["image"] == image
    if kind == "describe":
        assert sorted(line.split(", ")) == sorted(here) and answer is not None
    elif kind == "look_for":
        asked = re.search(r"a (\w+ \w+) in image", question)[1]
        assert line == (asked if asked in here else f"no {asked}")
        assert (answer is not None) == (asked in here)
        assert answer is None or answer["label"] == asked
    else:
        box = Box(*json.loads(re.search(r"\[.*\]", question)[0]))
        assert iou(box, here[line].box.scaled(1 / 4, 1 / 4)) > 0.85


def test_half_of_what_is_looked_for_is_not_there(teacher: MultiTeacher, tokens: TurnTokenizer) -> None:
    said = [tokens.decode(lesson.ids[lesson.start :]) for _ in range(60) for lesson in teacher.lessons("look_for")]
    assert 0.4 < np.mean([": no " in text for text in said]) < 0.6


def test_most_of_what_is_not_there_is_in_another_image(teacher: MultiTeacher) -> None:
    lessons = [lesson for _ in range(60) for lesson in teacher.lessons("look_for") if lesson.target is None]
    found = []
    for lesson in lessons:
        asked = re.search(r": no (\w+ \w+)\.", teacher.tokens.decode(lesson.ids[lesson.start :]))[1]
        scenes = [teacher.scenes[int(features[0, 0])] for features in lesson.features]
        found.append(any(shape.name == asked for scene in scenes for shape in scene.shapes))
    assert 0.6 < np.mean(found) < 0.9


def test_lessons_are_of_one_image_first(teacher: MultiTeacher) -> None:
    numbers = {}
    for share in (0.0, 0.2, 0.9):
        teacher.advance(share)
        numbers[share] = {len(teacher.find().features) for _ in range(60)}
    assert numbers == {0.0: {1}, 0.2: {1, 2}, 0.9: {2, 3}}


def test_the_checkpoint_starts_with_the_weights_of_one_image(tokens: TurnTokenizer) -> None:
    model = multi_base.build_model(tokens.tokenizer, seed=0)
    multi_base._start_from_one_image(model, tokens.tokenizer)
    base, old = load_model("haystack:mgpo"), load_processor("haystack:mgpo").tokenizer
    for name, weight in base.state_dict().items():
        if "embed_tokens" not in name and "lm_head" not in name:
            assert torch.equal(model.state_dict()[name], weight), name
    rows = [tokenizer.convert_tokens_to_ids("Ġsquare") for tokenizer in (tokens.tokenizer, old)]
    assert torch.equal(model.get_input_embeddings().weight[rows[0]], base.get_input_embeddings().weight[rows[1]])


@pytest.mark.slow
def test_a_seed_makes_one_checkpoint(tmp_path) -> None:
    states = []
    for name in ("first", "again"):
        folder = tmp_path / name
        assert commands.multi_base(["--scenes", "4", "--steps", "2", "--seed", "5", "--output_dir", str(folder)]) == 0
        assert json.loads((folder / "base.json").read_text())["steps"] == 2
        shipped = EpisodeSettings.read(haystack.checkpoint("multi"))
        assert EpisodeSettings.read(folder) == shipped, "played as the shipped one"
        states.append((folder / "model.safetensors").read_bytes())
    assert states[0] == states[1]
