"""Which template is for what: the mode, the checkpoint and the kind of answer decide, and results say what it was."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from oracle import CONFIG, THOUSANDTHS

from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.errors import MGPOError
from mgpo_eval.models.options import GenerationSettings, ModelOptions, OptionError
from mgpo_eval.models.provenance import Provenance, describe

TRAINED = (None, "two_turn", "single_turn", "plain", "multi_image", "multi_image_two_turn")


def settings(trained: str | None, config: Any = CONFIG, **model_args: Any) -> GenerationSettings:
    checkpoint = None if trained is None else EpisodeSettings(template=trained)
    return ModelOptions.read({"pretrained": "o"} | model_args, "transformers").settings(checkpoint, config)


def provenance(trained: str | None, **model_args: Any) -> Provenance:
    options = ModelOptions.read({"pretrained": "o"} | model_args, "transformers")
    return describe(options, settings(trained, **model_args), "weights", "cpu")


@pytest.mark.parametrize("trained", TRAINED)
def test_the_mode_says_whether_the_model_looks_and_the_task_how_it_answers(trained: str | None) -> None:
    for mode, words, box in (
        ("single_turn", "single_turn", "multi_image"),
        ("two_turn", "two_turn", "multi_image_two_turn"),
    ):
        found = settings(trained, mode=mode)
        assert (found.mode, found.templates.words.name, found.templates.box.name) == (mode, words, box)


def test_only_multi_image_checkpoints_default_to_single_turn() -> None:
    modes = {trained: settings(trained).mode for trained in TRAINED}
    assert modes == dict.fromkeys(TRAINED, "two_turn") | {"multi_image": "single_turn"}
    for trained in TRAINED:
        assert settings(trained).templates == settings(trained, mode=modes[trained]).templates


def test_no_mode_and_no_checkpoint_asks_for_words_with_the_words_for_boxes() -> None:
    for trained, mode, config in product(TRAINED, ("single_turn", "two_turn", None), (CONFIG, THOUSANDTHS)):
        templates = settings(trained, config, mode=mode).templates
        assert not templates.words.answers_with_box and templates.box.answers_with_box
        assert templates.words.max_turns == templates.box.max_turns


@pytest.mark.parametrize(
    ("config", "trained", "format", "published"),
    [
        (CONFIG, None, "auto", False),
        (CONFIG, "multi_image", "auto", False),
        (CONFIG, None, "published", True),
        (THOUSANDTHS, None, "auto", True),
        (THOUSANDTHS, "two_turn", "auto", True),
        (THOUSANDTHS, "multi_image", "auto", False),
        (THOUSANDTHS, "multi_image_two_turn", "auto", False),
        (THOUSANDTHS, None, "json", False),
        (THOUSANDTHS, "multi_image", "published", True),
    ],
)
@pytest.mark.parametrize("mode", ["single_turn", "two_turn"])
def test_mig_bench_is_asked_in_json_of_models_that_write_pixels_or_learnt_it(
    config: Any, trained: str | None, format: str, published: bool, mode: str
) -> None:
    templates = settings(trained, config, mode=mode, mig_format=format).templates
    assert templates.mig_bench.name == ("plain" if published else templates.box.name)


def test_what_a_run_depends_on_names_every_template_and_differs_with_each() -> None:
    about = provenance("multi_image")
    assert about.settings["mode"] == "single_turn"
    assert about.settings["template"] == {
        "words": "single_turn",
        "box": "multi_image",
        "mig_bench": "multi_image",
    }
    assert "words single_turn, box multi_image" in about.table()
    others = [
        provenance("multi_image", mode="single_turn"),
        provenance("multi_image", mode="two_turn"),
        provenance("multi_image", mig_format="published"),
        provenance("two_turn"),
    ]
    assert [other.id == about.id for other in others] == [True, False, False, False]
    assert provenance("two_turn").id == provenance("multi_image", mode="two_turn").id


def test_names_that_do_not_exist_are_refused_with_those_that_do() -> None:
    with pytest.raises(OptionError, match="mode='three_turn': known are single_turn, two_turn"):
        settings(None, mode="three_turn")
    with pytest.raises(OptionError, match="mig_format='relative': known are auto, json, published"):
        settings(None, mig_format="relative")
    with pytest.raises((MGPOError, ValueError), match="did you mean 'multi_image'"):
        settings("multi_imag")


def test_old_option_names_and_values_are_read_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="write keep_images=5"):
        options = ModelOptions.read({"pretrained": "o", "pictures": 5}, "transformers")
    assert options.keep_images == 5
    with pytest.warns(FutureWarning, match="mode=direct: .* write mode=single_turn") as warned:
        options = ModelOptions.read({"pretrained": "o", "mode": "direct"}, "transformers")
    assert options.mode == "single_turn" and len(warned) == 1
    with pytest.raises(OptionError, match="give keep_images alone"):
        ModelOptions.read({"pretrained": "o", "pictures": 5, "keep_images": 6}, "transformers")
