"""Crops: the paper's rules at their limits, and pixels cut from the original, never from the small image."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mgpo_core import Box, CoordinateSpace, CropRules, PixelBudget, crop
from mgpo_core.images.crop import check_box

ABSOLUTE, RELATIVE = CoordinateSpace.ABSOLUTE, CoordinateSpace.RELATIVE_1000
SMALL_BUDGET = PixelBudget(min_pixels=28 * 28 * 4, max_pixels=168 * 168)
ANY_SIZE = CropRules(min_side=0, max_aspect=1e9)


def coordinates(width: int, height: int) -> Image.Image:
    """An image whose every pixel says where it is: red is x mod 256, green is y mod 256, blue the tiles of 256."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x % 256, y % 256, x // 256 * 16 + y // 256], axis=-1).astype(np.uint8))


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (Box(0, 0, 280, 140), None),
        (Box(10, 10, 39, 39), None),
        (Box(10, 10, 38, 60), "too_small"),  # exactly 28 is not more than 28
        (Box(10, 10, 60, 38), "too_small"),
        (Box(10, 10, 10, 60), "reversed"),
        (Box(60, 10, 10, 60), "reversed"),
        (Box(10, 60, 60, 10), "reversed"),
        (Box(-1, 0, 100, 100), "outside"),
        (Box(0, -0.5, 100, 100), "outside"),
        (Box(0, 0, 280.5, 100), "outside"),
        (Box(0, 0, 100, 141), "outside"),
        (Box(5000, 5000, 6000, 6000), "outside"),
        (Box(1e300, 0, 1e301, 5), "outside"),
        (Box(0, 0, math.nan, 100), "not_four_numbers"),
        (Box(0, 0, math.inf, 100), "not_four_numbers"),
    ],
)
def test_rules_of_the_paper(box: Box, reason: str | None) -> None:
    assert check_box(box, (280, 140), space=ABSOLUTE, rules=CropRules()) == reason
    relative = ABSOLUTE.to_input(Box(box.x1 / 0.28, box.y1 / 0.14, box.x2 / 0.28, box.y2 / 0.14), (280, 140))
    if reason != "too_small":  # its limit is not exact in thousandths
        assert check_box(relative, (280, 140), space=RELATIVE, rules=CropRules()) == reason


def test_aspect_limit_is_exclusive() -> None:
    rules = CropRules(min_side=0.5)
    assert check_box(Box(0, 0, 1, 100), (200, 200), space=ABSOLUTE, rules=rules) == "too_elongated"
    assert check_box(Box(0, 0, 100, 1), (200, 200), space=ABSOLUTE, rules=rules) == "too_elongated"
    assert check_box(Box(0, 0, 1, 99.5), (200, 200), space=ABSOLUTE, rules=rules) is None


def test_a_refused_box_gives_no_image_and_the_reason() -> None:
    outcome = crop(coordinates(400, 400), Box(0, 0, 5, 5), budget=SMALL_BUDGET, space=ABSOLUTE)
    assert (outcome.image, outcome.box_original, outcome.reason) == (None, None, "too_small")


@settings(max_examples=60)
@given(st.integers(40, 900), st.integers(40, 900), st.sampled_from(CoordinateSpace), st.data())
def test_crop_is_the_smallest_cut_of_the_original_that_covers_the_box(
    width: int, height: int, space: CoordinateSpace, data: st.DataObject
) -> None:
    image = coordinates(width, height)
    extent = SMALL_BUDGET.smart_resize(width, height) if space is ABSOLUTE else (1000, 1000)
    x1, x2 = sorted(data.draw(st.tuples(*[st.floats(0, extent[0])] * 2)))
    y1, y2 = sorted(data.draw(st.tuples(*[st.floats(0, extent[1])] * 2)))
    outcome = crop(image, Box(x1, y1, x2, y2), budget=SMALL_BUDGET, space=space, rules=ANY_SIZE)
    if outcome.reason is not None:
        assert x1 == x2 or y1 == y2 or outcome.reason == "too_elongated"
        return
    whole = outcome.box_original
    assert whole is not None and outcome.image is not None
    exact = (x1 * width / extent[0], y1 * height / extent[1], x2 * width / extent[0], y2 * height / extent[1])
    assert all(number == int(number) for number in whole.as_tuple())
    assert 0 <= whole.x1 <= exact[0] < whole.x1 + 1 and 0 <= whole.y1 <= exact[1] < whole.y1 + 1
    assert width >= whole.x2 >= exact[2] > whole.x2 - 1 and height >= whole.y2 >= exact[3] > whole.y2 - 1
    cut = image.crop((int(whole.x1), int(whole.y1), int(whole.x2), int(whole.y2)))
    assert outcome.image.tobytes() == SMALL_BUDGET.resize(cut).tobytes()
    assert outcome.image.size == SMALL_BUDGET.smart_resize(*cut.size)


def test_crop_shows_detail_that_the_small_image_has_lost() -> None:
    canvas = np.full((1344, 1344, 3), 128, np.uint8)
    canvas[400:560, 400:560] = np.where(np.arange(160) % 8 < 4, 0, 255)[:, None, None]  # stripes of 8 pixels
    image = Image.fromarray(canvas)
    seen = np.asarray(SMALL_BUDGET.resize(image))[52:68, 52:68]
    outcome = crop(image, Box(50, 50, 70, 70), budget=SMALL_BUDGET, space=ABSOLUTE, rules=CropRules(min_side=0))
    assert outcome.box_original == Box(400, 400, 560, 560)
    assert np.ptp(seen) < 40 < 200 < np.ptp(np.asarray(outcome.image))


def test_the_whole_image_as_box_is_the_whole_original() -> None:
    image = coordinates(1001, 701)
    outcome = crop(image, Box(0, 0, 1000, 1000), budget=SMALL_BUDGET, space=RELATIVE)
    assert outcome.box_original == Box(0, 0, 1001, 701)


def test_a_box_on_an_enlarged_tiny_image_keeps_at_least_a_pixel() -> None:
    outcome = crop(coordinates(5, 5), Box(200, 200, 230, 230), budget=PixelBudget(), space=ABSOLUTE)
    assert outcome.box_original == Box(2, 2, 3, 3)


def test_a_cut_too_long_for_the_budget_is_refused_not_raised() -> None:
    image = Image.new("RGB", (3000, 100))
    outcome = crop(image, Box(0, 0, 1000, 0.5), budget=PixelBudget(), space=RELATIVE, rules=ANY_SIZE)
    assert outcome.reason == "too_elongated"


def test_the_image_index_of_the_box_survives() -> None:
    outcome = crop(coordinates(300, 300), Box(0, 0, 900, 900, image=1), budget=SMALL_BUDGET, space=RELATIVE)
    assert outcome.box_original == Box(0, 0, 270, 270, image=1)


def test_pillows_own_limit_does_not_stop_a_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    outcome = crop(coordinates(300, 300), Box(0, 0, 900, 900), budget=SMALL_BUDGET, space=RELATIVE)
    assert outcome.reason is None
    assert Image.MAX_IMAGE_PIXELS == 100
