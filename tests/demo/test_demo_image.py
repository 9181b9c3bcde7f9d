"""A visitor's image: what is taken, and boxes between the original and the copy in the browser."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from mgpo_core import Box
from mgpo_core.errors import ImageError, MGPOError
from mgpo_demo.session.image import DISPLAY_SIDE, FORMATS, DemoImage, decode, keep_image, keep_upload
from mgpo_demo.session.limits import DemoError, Limits

SIDES = st.integers(1, 30_000)


def shown(size: tuple[int, int]) -> tuple[int, int]:
    """The copy's size: `Image.thumbnail` keeps the proportions as well as whole pixels let it."""
    factor = min(1.0, DISPLAY_SIDE / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


@st.composite
def images(draw: st.DrawFn) -> DemoImage:
    size = draw(st.tuples(SIDES, SIDES))
    return DemoImage(Path("a.png"), "a", size, Path("b.png"), shown(size))


@given(images(), st.tuples(*[st.floats(-0.5, 1.5)] * 4))
def test_a_drawn_box_is_inside_the_image_from_any_corner(
    demo_image: DemoImage, shares: tuple[float, float, float, float]
) -> None:
    width, height = demo_image.shown_size
    drawn = Box(shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height)
    box = demo_image.to_original(drawn)
    assert 0 <= box.x1 <= box.x2 <= demo_image.size[0] and 0 <= box.y1 <= box.y2 <= demo_image.size[1]
    assert demo_image.to_original(Box(drawn.x2, drawn.y2, drawn.x1, drawn.y1)) == box


@example(DemoImage(Path("a.png"), "a", (99, 99), Path("b.png"), (99, 99)), (1.0, 1.0, 0.0, 0.5))
@given(images(), st.tuples(*[st.floats(0, 1)] * 4))
def test_a_box_is_drawn_where_it_is_to_half_a_pixel_of_the_copy(
    demo_image: DemoImage, shares: tuple[float, float, float, float]
) -> None:
    (x1, x2), (y1, y2) = sorted(shares[:2]), sorted(shares[2:])
    box = Box(x1 * demo_image.size[0], y1 * demo_image.size[1], x2 * demo_image.size[0], y2 * demo_image.size[1])
    drawn = demo_image.to_shown(box)
    width, height = demo_image.shown_size
    assert all(value == int(value) for value in drawn.as_tuple())
    assert 0 <= drawn.x1 < drawn.x2 <= width and 0 <= drawn.y1 < drawn.y2 <= height
    across, down = demo_image.scale
    back = demo_image.to_original(drawn)
    # a box that is too thin to be seen is made a pixel wide
    bound = 0.5 if box.width >= across and box.height >= down else 1.5
    for was, now, pixel in zip(box.as_tuple(), back.as_tuple(), (across, down, across, down), strict=True):
        assert abs(was - now) <= (bound + 1e-6) * pixel


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_that_is_named_is_taken(kind: str, tmp_path: Path) -> None:
    if kind not in Image.registered_extensions().values():
        pytest.skip(f"Pillow was built without {kind}")
    file = tmp_path / f"sent.{kind.lower()}"
    Image.new("RGB", (60, 40), "red").save(file, kind)
    kept = tmp_path / "kept"
    kept.mkdir()
    assert keep_upload(file, file.name, kept, Limits()).size == (60, 40)


def test_the_original_is_kept_to_the_byte_and_the_copy_is_small(tmp_path: Path) -> None:
    file = tmp_path / "harbour.jpg"
    Image.linear_gradient("L").resize((4000, 1000)).save(file)
    kept = tmp_path / "kept"
    kept.mkdir()
    demo_image = keep_upload(file, "harbour.jpg", kept, Limits())
    assert demo_image.path.read_bytes() == file.read_bytes()
    assert demo_image.size == (4000, 1000) and demo_image.shown_size == (1600, 400)
    assert demo_image.path.parent == demo_image.shown.parent == kept


def test_images_of_telephones_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    file = tmp_path / "a.jpg"
    Image.new("RGB", (80, 40)).save(file, exif=exif)
    kept = tmp_path / "kept"
    kept.mkdir()
    demo_image = keep_upload(file, "a.jpg", kept, Limits())
    assert demo_image.size == demo_image.shown_size == (40, 80)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    file = tmp_path / "bomb.png"
    file.write_bytes(buffer.getvalue()[:-20])  # would be corrupt, if it were decoded
    with pytest.raises(DemoError, match=r"'bomb.png' has 30,000×30,000 = 900 million pixels; at most 120 million"):
        keep_upload(file, "bomb.png", tmp_path, Limits())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"root:x:0:0:root",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%pipe%id) (r) file\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        b"P6 1 1 255 aaa",
    ],
)
def test_what_is_no_usual_image_is_never_decoded(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "sent.png"
    file.write_bytes(content)
    with pytest.raises(DemoError, match="not an image that can be opened"):
        keep_upload(file, "sent.png", tmp_path, Limits())


def test_broken_animated_and_endless_images_are_refused_in_words(tmp_path: Path) -> None:
    whole, file = tmp_path / "whole.png", tmp_path / "sent.png"
    Image.effect_noise((64, 64), 50).save(whole)
    file.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(ImageError, match=r"'sent.png'.*truncated or corrupt"):
        keep_upload(file, "sent.png", tmp_path, Limits())
    Image.new("L", (8, 8)).save(file, "GIF", save_all=True, append_images=[Image.new("L", (8, 8), 255)])
    with pytest.raises(ImageError, match="2 frames"):
        keep_upload(file, "sent.png", tmp_path, Limits())
    Image.new("L", (2010, 10)).save(file)
    with pytest.raises(ImageError, match="200 times"):
        keep_upload(file, "sent.png", tmp_path, Limits())


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a" * 5000, "", "<b>x</b>.png"])
def test_a_name_is_only_a_name(name: str, tmp_path: Path) -> None:
    file = tmp_path / "sent.png"
    Image.new("L", (8, 8)).save(file)
    kept = tmp_path / "kept"
    kept.mkdir()
    demo_image = keep_upload(file, name, kept, Limits())
    assert {path.parent for path in (demo_image.path, demo_image.shown)} == {kept}
    assert os.sep not in demo_image.name and 0 < len(demo_image.name) <= 100


def test_a_budget_of_pixels_is_shared_by_several_images() -> None:
    buffer = io.BytesIO()
    Image.new("L", (1000, 1000)).save(buffer, "PNG")
    limits = Limits(megapixels=2)
    assert decode(buffer.getvalue(), "It", limits, taken=1_000_000).size == (1000, 1000)
    with pytest.raises(MGPOError, match="together"):
        decode(buffer.getvalue(), "It", limits, taken=1_000_001)


def test_a_part_has_the_pixels_of_the_original(tmp_path: Path) -> None:
    image = Image.effect_noise((300, 200), 90).convert("RGB")
    demo_image = keep_image(image, "a", tmp_path)
    part = Image.open(demo_image.part(Box(10, 20, 110, 70), tmp_path))
    assert part.tobytes() == image.crop((10, 20, 110, 70)).tobytes()
