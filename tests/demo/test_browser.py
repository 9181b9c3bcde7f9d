"""The demo in a browser, as a person uses it: real clicks and keys, a real model, no request beyond this machine.

Screenshots go to the folder that MGPO_SCREENSHOTS names, else to pytest's temporary one; CI keeps them in
outputs/screenshots.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from patience import PAGE
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))
from demo_process import demo

pytestmark = pytest.mark.slow

UPLOAD_MB = 5
DONE = "Done in "
SLOWLY = "horizontal\nvertical\nrising\nfalling\nslowly"
"""Choices that make moody_demo.py dawdle until it is stopped; the tiny model would not understand another question."""
expect.set_options(timeout=PAGE)


@pytest.fixture(scope="module")
def go_on(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that lets moody_demo.py say a number more."""
    return tmp_path_factory.mktemp("moody") / "go-on"


@pytest.fixture(scope="module")
def address(go_on: Path) -> Iterator[str]:
    """One server for all tests: each page is a visitor of its own."""
    moody = [str(Path(__file__).with_name("moody_demo.py"))]
    with demo("--max-upload-mb", str(UPLOAD_MB), command=moody, MOODY_GO_ON=str(go_on)) as started:
        yield started.ready_url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "These tests drive a browser: run `apt-get install chromium`."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Browser, address: str, *, width: int = 1440, height: int = 900, theme: str = "light") -> Page:
    """The page, ready to be used; `page.complaints` collects what no test may cause."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PAGE)
    complaints = page.complaints = []
    page.on("console", lambda said: complaints.append(f"console: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(f"script: {error}"))
    page.on("request", lambda request: complaints.extend(_foreign(request.url)))
    page.on("response", lambda got: complaints.append(f"{got.status}: {got.url}") if got.status >= 400 else None)
    page.goto(f"{address}?__theme={theme}")
    expect(page.locator("#examples img")).to_have_count(6)
    return page


def _foreign(url: str) -> list[str]:
    parts = urlsplit(url)
    local = parts.scheme in ("data", "blob") or parts.hostname == "127.0.0.1"
    return [] if local else [f"request to {url}"]


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = opened(browser, address)
    yield page
    assert page.complaints == []
    page.close()


def choose(page: Page, example: int = 0) -> None:
    page.locator("#examples button").nth(example).click()
    expect(page.locator("#status")).to_have_text("Press Run, and watch where the model looks.")


def run(page: Page, steps: int = 1, button: str = "#run") -> None:
    """Press a button that lets the model look, and wait until there are so many steps."""
    page.click(button)
    expect(rows(page)).to_have_count(steps)
    expect(page.locator("#status")).to_contain_text(DONE)


def rows(page: Page) -> Locator:
    return page.locator("#history tbody tr")


def numbers(page: Page) -> list[float]:
    return [float(part) for part in page.input_value("#numbers :is(input, textarea)").split(",") if part.strip()]


def draw(page: Page, x1: float, y1: float, x2: float, y2: float) -> None:
    """Press the mouse at (x1, y1) and let go at (x2, y2), in parts of the image's width and height."""
    before = drawn = numbers(page)
    canvas = page.locator("#image canvas")
    page.locator("#image .annotator-container").focus()  # it scrolls the page: measure after it
    canvas.scroll_into_view_if_needed()
    place = canvas.bounding_box()
    page.mouse.move(place["x"] + x1 * place["width"], place["y"] + y1 * place["height"])
    page.mouse.down()
    page.mouse.move(place["x"] + (x1 + x2) / 2 * place["width"], place["y"] + (y1 + y2) / 2 * place["height"])
    page.mouse.move(place["x"] + x2 * place["width"], place["y"] + y2 * place["height"])
    page.mouse.up()
    for _ in range(int(PAGE / 150)):  # until the numbers have followed the mouse and stand still
        page.wait_for_timeout(150)
        last, drawn = drawn, numbers(page)
        if drawn == last != before:
            return
    raise AssertionError(f"The numbers do not follow the mouse: {drawn}")


def test_an_example_is_looked_at_and_answered(page: Page) -> None:
    choose(page)
    run(page)
    x1, y1, x2, y2 = numbers(page)
    assert 0 <= x1 < x2 <= 1344 and 0 <= y1 < y2 <= 1344 and (x2 - x1) * (y2 - y1) < 1344**2 / 4
    expect(page.locator("#turn1")).to_contain_text("bbox_2d")
    expect(page.locator("#turn2")).to_contain_text(r"\boxed{A}")
    expect(page.locator("#answer strong")).to_have_text("A · horizontal")
    expect(page.locator("#answer .verdict")).to_have_text("✓ right")
    expect(page.locator("#single_turn")).to_contain_text("From a single turn")
    expect(page.locator("#single_turn strong")).not_to_have_text("…")
    crop = page.locator("#crop figure.slide")
    expect(crop.locator("figcaption")).to_contain_text("really 320×320 of 1,344×1,344")
    assert crop.locator("img").get_attribute("alt")
    assert crop.locator("img").evaluate("image => image.naturalWidth") > 0


def test_a_box_of_the_mouse_changes_the_answer_and_undo_takes_it_back(page: Page) -> None:
    choose(page)
    run(page)
    draw(page, 0.06, 0.43, 0.25, 0.62)  # the red diamond's stripes are vertical
    run(page, 2, "#from-box")
    expect(page.locator("#answer")).to_contain_text("From your box")
    expect(page.locator("#answer strong")).to_have_text("B · vertical")
    expect(page.locator("#turn1 h3")).to_contain_text("You, turn 1")
    page.click("#undo")
    expect(rows(page)).to_have_count(1)
    expect(page.locator("#answer strong")).to_have_text("A · horizontal")
    page.click("#undo")
    expect(page.locator("#status")).to_have_text("There is nothing to undo: this is the first step.")
    run(page, 2, "#closer")
    expect(rows(page).nth(1)).to_contain_text("the model, closer inside [832, 192, 1152, 512]")


def test_a_box_is_drawn_moved_and_resized_without_choosing_a_tool(page: Page) -> None:
    choose(page)
    run(page)
    for mouse, wanted in (
        ((0.1, 0.5, 0.3, 0.7), (0.1, 0.5, 0.3, 0.7)),  # drawn, outside the model's box
        ((0.2, 0.6, 0.4, 0.65), (0.3, 0.55, 0.5, 0.75)),  # moved, held in the middle
        ((0.5, 0.75, 0.8, 0.9), (0.3, 0.55, 0.8, 0.9)),  # resized, held at its corner
        ((0.6, 0.1, 0.9, 0.3), (0.6, 0.1, 0.9, 0.3)),  # another one
    ):
        draw(page, *mouse)
        assert numbers(page) == pytest.approx([1344 * part for part in wanted], abs=8)
    page.click("#image button[aria-label='Create box']")
    draw(page, 0.7, 0.15, 0.8, 0.25)  # by the tool, inside the other
    assert numbers(page) == pytest.approx([1344 * part for part in (0.7, 0.15, 0.8, 0.25)], abs=8)


@pytest.mark.parametrize("size", [(3840, 2160), (2160, 3840)], ids=["landscape", "portrait"])
def test_a_drawn_box_comes_back_where_it_was_drawn(page: Page, tmp_path: Path, size: tuple[int, int]) -> None:
    file = tmp_path / "large.png"
    Image.linear_gradient("L").resize(size).convert("RGB").save(file)
    page.set_input_files("#upload input[type=file]", file)
    expect(page.locator("#caption")).to_contain_text("large.png: seen at 224 px, really 3,840 px")
    drawn = (0.15, 0.3, 0.55, 0.8)
    draw(page, *drawn)
    wanted = [part * side for part, side in zip(drawn, size * 2, strict=True)]
    for found, wish, side in zip(numbers(page), wanted, size * 2, strict=True):
        assert abs(found - wish) < 0.01 * side
    page.fill("#question textarea", "What is this?")
    run(page, 1, "#from-box")
    used = re.search(r"\[(.*?)\]", rows(page).first.inner_text()).group(1)
    for found, wish, side in zip(map(float, used.split(",")), wanted, size * 2, strict=True):
        assert abs(found - wish) < 0.01 * side


def test_files_that_cannot_be_used_are_told_in_the_page(page: Page, tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    Image.effect_noise((300, 200), 60).save(good)
    files = {
        "corrupt.png": (good.read_bytes()[:20_000], "is truncated or corrupt"),
        "notes.txt": (b"no image\n" * 50, "is not an image that can be opened"),
        "heavy.png": (b"\x89PNG" + bytes(UPLOAD_MB * 1_000_000), "at most 5 MB can be uploaded"),
    }
    Image.new("1", (20_000, 10_000)).save(tmp_path / "enormous.png")
    for name, (data, _) in files.items():
        (tmp_path / name).write_bytes(data)
    wanted = {name: sentence for name, (_, sentence) in files.items()} | {"enormous.png": "200 million pixels"}
    for name, sentence in wanted.items():
        page.set_input_files("#upload input[type=file]", tmp_path / name)
        alert = page.locator("#status .bad[role=alert]")
        expect(alert).to_contain_text(sentence)
        expect(alert).to_contain_text(name)
        assert "/tmp" not in alert.inner_text()
    page.set_input_files("#upload input[type=file]", good)
    expect(page.locator("#caption")).to_contain_text("good.png")


@pytest.mark.parametrize("place", ["#image", "#upload button", "#intro"])
def test_an_image_may_be_dropped_anywhere(page: Page, place: str) -> None:
    expect(page.locator("#image")).to_be_visible()
    page.evaluate(
        """async (place) => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 300, height: 200 });
          const data = await new Promise((resolve) => canvas.toBlob(resolve));
          const files = new DataTransfer();
          files.items.add(new File([data], "dropped.png", { type: "image/png" }));
          const dropped = { bubbles: true, cancelable: true, dataTransfer: files };
          document.querySelector(place).dispatchEvent(new DragEvent("drop", dropped));
        }""",
        place,
    )
    expect(page.locator("#caption")).to_contain_text("dropped.png")


def test_what_is_missing_is_told_in_the_page(page: Page) -> None:
    status = page.locator("#status")
    page.click("#run")
    expect(status).to_have_text("There is no image yet: choose an example, or drop one of your own.")
    page.click("#save-json")
    expect(status).to_have_text("There is nothing to save yet: press Run first.")
    choose(page)
    page.click("#from-box")
    expect(status).to_contain_text("There is no box yet")
    page.fill("#question textarea", " ")
    page.click("#run")
    expect(status).to_have_text("Ask something first: the question is empty.")
    page.fill("#question textarea", "x" * 2001)
    page.click("#run")
    expect(status).to_contain_text("at most 2,000 are taken")
    page.fill("#numbers :is(input, textarea)", "1, 2, 3")
    page.click("#draw")
    expect(status).to_contain_text("Give four numbers")


def test_stop_ends_a_run_while_it_is_streamed(page: Page, go_on: Path) -> None:
    choose(page)
    page.fill("#choices textarea", SLOWLY)
    page.click("#run")
    said = page.locator("#turn1 pre")
    expect(said).to_contain_text("json")
    early = said.inner_text()
    go_on.touch()
    page.wait_for_function(
        "early => document.querySelector('#turn1 pre').innerText.length > early.length + 1", arg=early
    )
    assert said.inner_text().startswith(early.rstrip()), "the text grows while it is generated"
    expect(page.locator("#answer .pending")).to_be_visible()
    page.click("#stop")
    expect(page.locator("#status")).to_have_text("Stopped.")
    assert "]" not in said.inner_text(), "stopped before the box was closed"
    expect(page.locator("#turn2 pre")).to_have_count(0)
    expect(page.locator("#answer strong")).to_have_count(0)
    expect(page.locator("#turn1 .caret")).to_be_hidden()
    choose(page)
    run(page)


def test_another_example_ends_the_run_and_clears_the_page(page: Page) -> None:
    choose(page)
    page.fill("#choices textarea", SLOWLY)
    page.click("#run")
    expect(page.locator("#turn1 pre")).to_contain_text("json")
    page.locator("#examples button").nth(1).click()
    expect(page.locator("#caption")).to_contain_text("example 2")
    expect(page.locator("#turn1 pre")).to_have_count(0)
    page.wait_for_timeout(700)  # two tokens more, had it gone on
    expect(page.locator("#turn1 pre")).to_have_count(0)
    expect(page.locator("#status")).to_have_text("Press Run, and watch where the model looks.")
    page.locator("#run").dblclick()
    expect(page.locator("#status")).to_contain_text(DONE)
    expect(rows(page)).to_have_count(1)
    expect(page.locator("#answer .verdict")).to_have_text("✓ right")


def test_an_error_of_the_model_is_told_and_the_next_request_works(page: Page) -> None:
    choose(page)
    page.fill("#question textarea", "Will it break?")
    page.press("#question textarea", "Enter")
    expect(page.locator("#status .bad")).to_contain_text("Something went wrong (RuntimeError)")
    choose(page)
    run(page)


def test_saved_steps_open_again(page: Page, tmp_path: Path) -> None:
    choose(page)
    run(page)
    run(page, 2, "#closer")
    before = page.inner_text("#history"), page.inner_text("#answer")
    for kind in ("html", "json"):
        with page.expect_download() as download:
            page.click(f"#save-{kind}")
        download.value.save_as(tmp_path / f"looks.{kind}")
    assert (tmp_path / "looks.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert len(json.loads((tmp_path / "looks.json").read_text(encoding="utf-8"))["looks"]) == 2
    page.reload()
    expect(page.locator("#examples img")).to_have_count(6)
    with page.expect_file_chooser() as chooser:
        page.click("#open")
    chooser.value.set_files(tmp_path / "looks.json")
    expect(page.locator("#status")).to_have_text("Opened.")
    assert (page.inner_text("#history"), page.inner_text("#answer")) == before
    expect(page.locator("#question textarea")).to_have_value("Which stripes are on the green square?")


def focused(page: Page, selector: str) -> None:
    """Press Tab until the part has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab never comes to {selector}")


def test_everything_works_by_keyboard(page: Page) -> None:
    status = page.locator("#status")
    focused(page, "#examples button[aria-label='Example: yellow square']")
    page.keyboard.press("Enter")
    expect(page.locator("#caption")).to_contain_text("example 2")
    focused(page, "#run")
    page.keyboard.press("Enter")
    expect(status).to_contain_text(DONE)
    focused(page, "#numbers :is(input, textarea)")
    page.keyboard.press("Control+A")
    page.keyboard.type("100, 200, 500, 600")
    page.keyboard.press("Enter")
    expect(status).to_have_text("Drawn: [100, 200, 500, 600].")
    focused(page, "#from-box")
    page.keyboard.press("Space")
    expect(rows(page)).to_have_count(2)
    focused(page, "#stop")
    focused(page, "#undo")
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(1)
    focused(page, "#explain-box button")
    page.keyboard.press("Enter")
    expect(page.locator("#explain .tokens")).to_be_visible()


def test_every_control_has_a_name_and_every_image_a_text(page: Page) -> None:
    choose(page)
    run(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, [tabindex='0'], img, canvas")]
          .filter((part) => part.checkVisibility())
          .filter((part) => !(part.getAttribute("aria-label") || part.alt || part.innerText?.trim() || part.title
                              || part.labels?.[0]?.innerText.trim()))
          .map((part) => part.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].filter(h => h.checkVisibility())"
                           ".map(h => Number(h.tagName[1]))")  # fmt: skip
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("name", "width", "height"), [("desk", 1440, 900), ("phone", 390, 844)])
def test_it_looks_right(
    browser: Browser, address: str, tmp_path: Path, name: str, width: int, height: int, theme: str
) -> None:
    """Takes the screenshots; nothing is cut off at the side, and the text stands out from what is behind it."""
    folder = Path(os.environ.get("MGPO_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page = opened(browser, address, width=width, height=height, theme=theme)
    page.screenshot(path=folder / f"{name}-{theme}-1-start.png", full_page=True)
    choose(page)
    run(page)
    page.wait_for_timeout(600)  # the crop slides in
    page.screenshot(path=folder / f"{name}-{theme}-2-run.png", full_page=True)
    run(page, 2, "#closer")
    page.click("#explain-box button")
    expect(page.locator("#explain .tokens")).to_be_visible()
    page.screenshot(path=folder / f"{name}-{theme}-3-explain.png", full_page=True)
    assert beyond(page, width) == []
    for part in ("#status .note", "#caption .note", "#answer h2", "#turn1 pre", "#history td", "#explain .shown"):
        assert contrast(page, part) >= 4.5, part
    assert page.complaints == []
    page.close()


def beyond(page: Page, width: int) -> list[str]:
    """The visible parts that reach out of the page at the side, but for tables that can be scrolled."""
    return page.evaluate(
        """(width) => [...document.querySelectorAll("body *")]
          .filter((part) => part.checkVisibility({ visibilityProperty: true }) && !part.closest(".scroll, .tables"))
          .filter((part) => part.getBoundingClientRect().right > width + 1)
          .map((part) => part.outerHTML.slice(0, 120))""",
        width,
    )


def contrast(page: Page, selector: str) -> float:
    """WCAG's ratio of a text's colour and the first opaque background behind it."""
    ink, paper = page.locator(selector).first.evaluate(
        """(part) => {
          const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
          const ink = numbers(getComputedStyle(part).color);
          for (; part; part = part.parentElement) {
            const paper = numbers(getComputedStyle(part).backgroundColor);
            if (paper.length === 3 || paper[3] === 1) return [ink.slice(0, 3), paper.slice(0, 3)];
          }
          return [ink.slice(0, 3), [255, 255, 255]];
        }"""
    )
    light, dark = sorted((_luminance(ink), _luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: list[float]) -> float:
    linear = [value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
