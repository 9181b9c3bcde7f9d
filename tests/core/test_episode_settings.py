"""A checkpoint carries how its episodes are run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgpo_core import PixelBudget, haystack
from mgpo_core.engines.loading import resolve_model
from mgpo_core.episodes.settings import SETTINGS_FILE, EpisodeSettings
from mgpo_core.errors import EngineError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    settings = EpisodeSettings(max_pixels=640 * 28 * 28, coordinate_space="0-1000", strict_boxes=True)
    settings.write(tmp_path)
    assert EpisodeSettings.read(tmp_path) == settings


def test_defaults_are_the_papers_and_a_folder_without_the_file_says_nothing(tmp_path: Path) -> None:
    assert EpisodeSettings().budget(28) == PixelBudget()
    assert EpisodeSettings.read(tmp_path) is None


@pytest.mark.parametrize("name", haystack.CHECKPOINTS)
def test_shipped_checkpoints_carry_their_settings(name: str) -> None:
    settings = EpisodeSettings.read(resolve_model(f"haystack:{name}"))
    assert settings is not None
    assert settings.budget(28) == haystack.BUDGET
    expected = ("multi_image", "absolute", 160) if name == "multi" else ("two_turn", "absolute", 64)
    assert (settings.template, settings.coordinate_space, settings.max_new_tokens) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "Expecting"), ("[1]", "no JSON object"), ('{"max_pixel": 3}', "'max_pixel' is none of")],
)
def test_a_broken_file_is_named_with_the_remedy(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / SETTINGS_FILE).write_text(text)
    with pytest.raises(EngineError, match=reason) as raised:
        EpisodeSettings.read(tmp_path)
    assert str(tmp_path / SETTINGS_FILE) in str(raised.value) and "delete it" in str(raised.value)


def test_an_unknown_space_is_refused(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text(json.dumps({"coordinate_space": "absolut"}))
    with pytest.raises(EngineError, match="did you mean 'absolute'"):
        EpisodeSettings.read(tmp_path)
