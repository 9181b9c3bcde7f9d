"""Samples and their images: every kind of file becomes upright RGB, and what cannot is refused by name."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mgpo_core import Box, ImageError, Sample, SampleError, load_image
from mgpo_core.images.load import MAX_PIXELS, ImageSource

RED = (255, 0, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int = 60, height: int = 40) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


# ---------------------------------------------------------------- sources


class Render:
    def __init__(self, image: Image.Image) -> None:
        self.image = image

    def __call__(self) -> Image.Image:
        return self.image


def test_every_kind_of_source_gives_the_same_image(tmp_path: Path) -> None:
    image = photo()
    path, data = tmp_path / "a.png", encoded(image)
    path.write_bytes(data)
    sources: list[ImageSource] = [
        image,
        str(path),
        path,
        data,
        {"bytes": data, "path": None},
        {"path": str(path)},
        lambda: image,
        Render(image),
    ]
    for source in [*sources, {"bytes": data, "path": "no/such/file.png"}]:
        assert load_image(source).tobytes() == image.tobytes()


def test_images_in_memory_are_not_copied_and_files_lose_metadata(tmp_path: Path) -> None:
    image = photo()
    assert load_image(image) is image
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(encoded(image, "JPEG", exif=exif))
    loaded = load_image(tmp_path / "a.jpg")
    assert type(loaded) is Image.Image and not loaded.info and not dict(loaded.getexif())


def test_pixels_outlive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photo().save(path, quality=95)
    loaded = load_image(path)
    path.unlink()
    assert np.ptp(pixels(loaded)) > 0


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_exactly_once(orientation: int, kind: str) -> None:
    upright = Image.new("RGB", (64, 32), "white")
    upright.paste("red", (0, 0, 32, 16))
    upright.paste("blue", (32, 16, 64, 32))
    stored = {
        1: upright, 2: ImageOps.mirror(upright), 3: upright.rotate(180), 4: ImageOps.flip(upright),
        5: upright.transpose(Image.Transpose.TRANSPOSE), 6: upright.rotate(90, expand=True),
        7: upright.transpose(Image.Transpose.TRANSVERSE), 8: upright.rotate(-90, expand=True),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    once = load_image(data)
    for image in (once, load_image(once), load_image(Image.open(io.BytesIO(data))), load_image(lambda: once)):
        assert image.size == (64, 32)
        # far from the edges, where JPEG is exact to a few steps
        difference = np.abs(pixels(image) - pixels(upright))[4:12, 4:28].max(initial=0)
        assert difference < 12
        assert np.abs(pixels(image) - pixels(upright))[20:28, 36:60].max() < 12


def test_a_callers_image_is_not_changed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encoded(photo(), "JPEG", exif=exif)))
    assert load_image(image).size == (40, 60)
    assert image.size == (60, 40) and image.getexif()[0x0112] == 6


# ---------------------------------------------------------------- modes


def test_grey_one_bit_and_palette_keep_their_colours() -> None:
    grey = photo().convert("L")
    assert (pixels(load_image(encoded(grey))) == np.asarray(grey)[..., None]).all()
    one_bit = grey.convert("1")
    assert (pixels(load_image(encoded(one_bit))) == np.asarray(one_bit.convert("L"))[..., None]).all()
    palette = photo().quantize(16)
    assert (pixels(load_image(encoded(palette))) == pixels(palette.convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    colour = photo().convert("RGB")
    if mode == "LA":
        colour = colour.convert("L").convert("RGB")
    alpha = Image.linear_gradient("L").resize(colour.size)
    image = colour.copy()
    image.putalpha(alpha)
    if mode == "PA":
        base = Image.new("P", colour.size, 3)
        base.putpalette([10, 20, 30] * 256)
        colour, image = base.convert("RGB"), base.copy()
        image.putalpha(alpha)
    image = image if image.mode == mode else image.convert(mode)
    share = np.asarray(alpha)[..., None] / 255
    expected = pixels(colour) * share + 255 * (1 - share)
    assert np.abs(pixels(load_image(image)) - expected).max() <= 1.01


def test_a_transparent_colour_of_a_palette_grey_or_rgb_png_turns_white() -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0] + [0] * 762)
    palette.putpixel((0, 0), 1)
    loaded = pixels(load_image(encoded(palette, transparency=0)))
    assert tuple(loaded[0, 0]) == (0, 255, 0) and tuple(loaded[1, 1]) == (255, 255, 255)
    rgb = Image.new("RGB", (4, 4), RED)
    assert (pixels(load_image(encoded(rgb, transparency=RED))) == 255).all()
    grey = Image.new("L", (4, 4), 7)
    assert (pixels(load_image(encoded(grey, transparency=7))) == 255).all()


def test_cmyk_and_ycbcr_become_rgb() -> None:
    image = Image.new("RGB", (32, 32), (200, 100, 50))
    for data in (encoded(image.convert("CMYK"), "TIFF"), encoded(image.convert("CMYK"), "JPEG", quality=95)):
        assert np.abs(pixels(load_image(data)) - (200, 100, 50)).max() < 6
    assert np.abs(pixels(load_image(image.convert("YCbCr"))) - (200, 100, 50)).max() < 3
    assert np.abs(pixels(load_image(image.convert("HSV"))) - (200, 100, 50)).max() < 4


@pytest.mark.parametrize("how", ["PNG", "TIFF", "I;16", "I;16B", "I"])
def test_sixteen_bit_grey_is_scaled_not_clipped(how: str) -> None:
    values = np.linspace(0, 65535, 48 * 16).astype(np.uint16).reshape(16, 48)
    image = Image.fromarray(values)
    if how == "I":
        image = Image.fromarray(values.astype(np.int32))
    elif how == "I;16B":
        image = Image.frombytes("I;16B", (48, 16), values.astype(">u2").tobytes())
    elif how in ("PNG", "TIFF"):
        image = Image.open(io.BytesIO(encoded(image, how)))
    loaded = pixels(load_image(image))
    assert (loaded == np.round(values / 257).astype(int)[..., None]).all()


def test_numbers_without_a_known_range_are_refused() -> None:
    with pytest.raises(ImageError, match="floating-point .* save it as"):
        load_image(Image.new("F", (4, 4)))
    with pytest.raises(ImageError, match="beyond 16 bits"):
        load_image(Image.new("I", (4, 4), 70_000))
    with pytest.raises(ImageError, match="mode La, .* save it as RGB"):
        load_image(Image.new("La", (4, 4)))


# ---------------------------------------------------------------- what is refused


def refuse(tmp_path: Path, name: str, data: bytes, match: str, max_pixels: int = MAX_PIXELS) -> None:
    """The error names the file and says `match`, given as a path, and as bytes with a name."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ImageError, match=match) as error:
        load_image(path, max_pixels=max_pixels)
    assert name in str(error.value)
    with pytest.raises(ImageError, match=match) as error:
        load_image(data, name="row 7", max_pixels=max_pixels)
    assert "row 7" in str(error.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str, keep: float) -> None:
    data = encoded(photo(300, 200), kind)
    refuse(tmp_path, "cut.img", data[: int(len(data) * keep)], "truncated or corrupt|cannot be read as an image")


def test_a_corrupt_file_is_refused(tmp_path: Path) -> None:
    data = bytearray(encoded(photo(300, 200)))
    data[200:4000] = bytes(3800)
    refuse(tmp_path, "corrupt.png", bytes(data), "truncated or corrupt.* replace the file or drop")
    refuse(tmp_path, "empty.png", b"", "cannot be read as an image")
    refuse(tmp_path, "text.jpg", b"I am no image", "cannot be read as an image.* convert it to PNG or JPEG")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_or_several_pages_are_refused(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    refuse(tmp_path, "moving.img", data, "3 frames .* save the one you mean")


def test_a_still_gif_and_a_phones_mpo_are_images() -> None:
    still = Image.new("RGB", (20, 20), "red")
    assert tuple(pixels(load_image(encoded(still, "GIF")))[0, 0]) == RED
    preview = Image.new("RGB", (10, 10), "blue")
    phone = load_image(encoded(still, "MPO", save_all=True, append_images=[preview]))
    assert phone.size == (20, 20) and abs(pixels(phone)[0, 0] - RED).max() < 6


def test_an_image_over_the_limit_is_refused(tmp_path: Path) -> None:
    data = encoded(Image.new("L", (101, 100)))
    refuse(tmp_path, "big.png", data, "101x100 = 10,100 pixels, over the limit of 10,000; scale", max_pixels=10_000)
    assert load_image(data, max_pixels=10_100).size == (101, 100)
    with pytest.raises(ImageError, match="over the limit"):
        load_image(Image.new("RGB", (101, 100)), max_pixels=10_000)


def test_the_limit_is_checked_before_anything_is_decoded(tmp_path: Path) -> None:
    """A header that promises 100,000 x 100,000 pixels with next to no data behind it."""
    data = bytearray(encoded(Image.new("L", (8, 8))))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    refuse(tmp_path, "bomb.png", bytes(data), "10,000,000,000 pixels, over the limit")


@pytest.mark.filterwarnings("error")
def test_pillows_own_limit_gives_way_to_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for kind in ("PNG", "GIF", "TIFF", "WEBP", "JPEG"):
        assert load_image(encoded(photo(), kind)).size == (60, 40)
    assert Image.MAX_IMAGE_PIXELS == 50


def test_an_empty_image_is_refused() -> None:
    for size in ((0, 5), (5, 0)):
        with pytest.raises(ImageError, match="row 7 is empty .* drop the sample"):
            load_image(Image.new("RGB", size), name="row 7")


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("no/such/photo.png", "'no/such/photo.png' does not exist; check the path"),
        ("https://example.org/a.png", "is a URL; download"),
        (lambda: "a string", "the function returned str; return a PIL.Image.Image"),
        (42, "is not an image; give a PIL image, a path"),
        ({"bytes": None, "path": None}, "cannot be read as an image"),
        (b"", "cannot be read as an image"),
    ],
)
def test_what_is_no_image_at_all_is_refused(source: object, match: str) -> None:
    with pytest.raises(ImageError, match=match):
        load_image(source)  # type: ignore[arg-type]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read as an image"):
        load_image(tmp_path)


# ---------------------------------------------------------------- samples


def test_of_takes_one_image_or_several() -> None:
    one, two = photo(), photo(30, 30)
    assert Sample.of("Where?", one).images == (one,)
    assert Sample.of("Where?", "a.png").images == ("a.png",)
    assert Sample.of("Where?", {"path": "a.png"}).images == ({"path": "a.png"},)
    several = Sample.of("Where?", [one, two], id="s")
    assert several.images == (one, two) and several.image is one and several.load(1) is two


def test_a_question_may_have_no_image() -> None:
    sample = Sample("What is two and two?", (), answer="4", id="s1")
    with pytest.raises(ImageError, match="'s1' has 0 images: there is no image 0"):
        sample.image  # noqa: B018
    with pytest.raises(SampleError, match="lies on none of its 0 images"):
        Sample("What?", (), boxes=[Box(0, 0, 1, 1)])


def test_an_unreadable_image_names_the_sample() -> None:
    with pytest.raises(ImageError, match="image 1 of sample 's7' .'gone.png'. does not exist"):
        Sample.of("Where?", [photo(), "gone.png"], id="s7").load(1)


def test_images_are_rendered_on_demand() -> None:
    calls: list[int] = []

    def render() -> Image.Image:
        calls.append(1)
        return photo()

    sample = Sample.of("Where?", render)
    assert not calls
    assert sample.image.size == (60, 40) and len(calls) == 1


@pytest.mark.parametrize(("given", "letter"), [("B", "B"), ("b", "B"), ("(B)", "B"), ("green", "B"), ("Green.", "B")])
def test_the_answer_of_a_choice_question_becomes_its_letter(given: str, letter: str) -> None:
    assert Sample.of("What?", photo(), answer=given, choices=["red", "green", "blue"]).answer == letter


def test_an_open_answer_stays_as_it_is() -> None:
    assert Sample.of("What?", photo(), answer=" 1,000 m").answer == " 1,000 m"
    assert Sample.of("What?", photo()).answer is None


BAD: list[tuple[Callable[[], Sample], str]] = [
    (lambda: Sample.of("", photo(), id="s1"), "sample 's1': the question is ''"),
    (lambda: Sample("What?", "a.png", id="s1"), "images must be a tuple, .* Sample.of"),  # type: ignore[arg-type]
    (lambda: Sample.of("What?", photo(), choices="AB"), "'What\\?': choices must be a tuple"),
    (lambda: Sample.of("What?", photo(), choices=["x"] * 27), "at most 26"),
    (lambda: Sample.of("What?", photo(), choices=[1, 2]), "at most 26 texts"),
    (lambda: Sample.of("What?", photo(), answer=""), "the answer is ''"),
    (lambda: Sample.of("What?", photo(), answer=3), "the answer is 3; give a text"),
    (lambda: Sample.of("What?", photo(), answer="C", choices=["x", "y"]), "a letter from A to B"),
    (lambda: Sample.of("What?", photo(), answer="x", choices=["x", "x"]), "none of the choices"),
    (lambda: Sample.of("What?", photo(), boxes=[Box(0, 0, 1, 1, image=1)]), "lies on none of its 1 images"),
    (lambda: Sample.of("What?", photo(), boxes=[Box(0, 0, 1, float("nan"))]), "lies on none"),
]


@pytest.mark.parametrize(("make", "match"), BAD, ids=[match[:30] for _, match in BAD])
def test_a_sample_that_contradicts_itself_is_refused(make: Callable[[], Sample], match: str) -> None:
    with pytest.raises(SampleError, match=match):
        make()
