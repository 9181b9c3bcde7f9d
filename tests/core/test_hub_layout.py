"""Checkpoints of the hub, tested on a local copy of the layout in which its cache keeps them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mgpo_core import haystack

pytestmark = pytest.mark.slow

REVISION = "0123456789abcdef0123456789abcdef01234567"
SCRIPT = """
import transformers
from mgpo_core import Episode, haystack
from mgpo_core.engines import load_engine
from mgpo_core.engines.loading import load_settings, resolve_model
name = "somebody/tiny-mgpo"
assert resolve_model(name) == name
settings = load_settings(name)
assert settings is not None and settings.budget(28) == haystack.BUDGET
assert load_settings("somebody/without") is None
print(transformers.AutoConfig.from_pretrained(name)._commit_hash)
engine = load_engine("transformers", model=name, max_new_tokens=64)
[run] = engine.run([Episode(haystack.make("val", 1, 7)[0], budget=haystack.BUDGET)])
print(run.answer)
"""


def cached(root: Path, name: str, *left_out: str) -> None:
    """The shipped checkpoint as the hub's cache would hold it under `name`."""
    folder = root / f"models--{name.replace('/', '--')}"
    shutil.copytree(haystack.checkpoint("mgpo"), folder / "snapshots" / REVISION)
    for file in left_out:
        (folder / "snapshots" / REVISION / file).unlink()
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(REVISION)


def test_a_model_of_the_hub_is_found_with_its_settings_and_its_revision(tmp_path: Path) -> None:
    cached(tmp_path, "somebody/tiny-mgpo")
    cached(tmp_path, "somebody/without", "mgpo.json")
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    revision, answer = done.stdout.split()
    assert revision == REVISION
    assert answer == haystack.make("val", 1, 7)[0].answer
