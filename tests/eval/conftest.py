"""Pages of the report that several files read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from report_reader import page_of_one_run, page_of_two_runs


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return page_of_one_run(tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    return page_of_two_runs(tmp_path_factory.mktemp("double"))
