"""PixelBudget agrees with the image processor that real checkpoints ship with."""

import random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from mgpo_core import ImageError, PixelBudget

BUDGETS = [
    PixelBudget(),
    PixelBudget(min_pixels=56 * 56, max_pixels=14 * 14 * 4 * 1280),
    PixelBudget(min_pixels=28 * 28 * 4, max_pixels=168 * 168),
    PixelBudget(min_pixels=1, max_pixels=28 * 28),
    PixelBudget(min_pixels=256 * 256, max_pixels=1280 * 32 * 32, factor=32),
]


def sizes(count: int) -> list[tuple[int, int]]:
    """(width, height): everyday images, tiny and huge ones, and strips of every aspect ratio up to the limit."""
    rng = random.Random(0)
    found = [(1, 1), (1, 200), (200, 1), (28, 28), (14, 42), (70, 70), (30_000, 150), (27, 5400)]
    while len(found) < count:
        long = round(10 ** rng.uniform(0, 4.5))
        short = max(1, -(-long // 200), round(long / rng.choice([1, 1.3, 3, 20, 199, rng.uniform(1, 200)])))
        found.append(rng.choice([(long, short), (short, long)]))
    return found


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_smart_resize_is_the_qwen2_vl_processors(budget: PixelBudget) -> None:
    theirs = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl").smart_resize
    limits = {"factor": budget.factor, "min_pixels": budget.min_pixels, "max_pixels": budget.max_pixels}
    for width, height in sizes(1000):
        expected = theirs(height, width, **limits)[::-1]
        assert budget.smart_resize(width, height) == expected, (width, height)
        assert budget.tokens(width, height) == expected[0] * expected[1] // budget.factor**2


@pytest.mark.parametrize("size", [(201, 1), (1, 201), (40_001, 200), (7, 100_000)])
def test_an_aspect_ratio_that_the_processor_refuses_is_refused(size: tuple[int, int]) -> None:
    theirs = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl").smart_resize
    with pytest.raises(ValueError):
        theirs(size[1], size[0])
    with pytest.raises(ImageError, match=f"{size[0]}x{size[1]} pixels is more than 200 times .* cut or pad"):
        PixelBudget().smart_resize(*size)


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (-3, 5)])
def test_an_empty_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="is empty"):
        PixelBudget().smart_resize(*size)


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.sampled_from(BUDGETS))
def test_everyday_sizes_land_on_the_grid_and_within_the_budget(width: int, height: int, budget: PixelBudget) -> None:
    # strips and budgets of a few tokens are rounded up beyond the limits, as the processor does
    assume(max(width, height) <= 4 * min(width, height) and budget.max_pixels >= 100 * budget.factor**2)
    new_width, new_height = budget.smart_resize(width, height)
    assert new_width % budget.factor == new_height % budget.factor == 0
    assert budget.min_pixels <= new_width * new_height <= budget.max_pixels


def test_resize_is_bicubic_and_leaves_a_fitting_image_alone() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8)
    image, budget = Image.fromarray(noise), PixelBudget()
    resized = budget.resize(image)
    assert resized.size == budget.smart_resize(500, 300)
    assert resized.tobytes() == image.resize(resized.size, Image.Resampling.BICUBIC).tobytes()
    fitting = Image.new("RGB", (560, 560))
    assert budget.resize(fitting) is fitting


@pytest.mark.parametrize(
    "limits",
    [
        {"factor": 0},
        {"min_pixels": 0},
        {"min_pixels": 5000, "max_pixels": 4000},
        {"min_pixels": 1, "max_pixels": 783},
    ],
)
def test_a_budget_that_no_image_fits_is_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="is no budget"):
        PixelBudget(**limits)
