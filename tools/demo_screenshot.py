"""Make the README's screenshot of the demo: the first example, after a run, in Debian's chromium.

uv run tools/demo_screenshot.py              starts the demo, writes docs/images/demo.png
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "demo"))
from demo_process import demo  # noqa: E402  (the tests' way to start it)

IMAGE = ROOT / "docs" / "images" / "demo.png"
MOST_BYTES = 300_000


def looked(page: Page, address: str) -> bytes:
    """The page after a run of the first example, from the sources of images down to the steps."""
    page.goto(f"{address}?__theme=light")
    page.locator("#examples button").first.click()
    page.locator("#status", has_text="Press Run").wait_for()
    page.click("#run")
    page.locator("#status", has_text="Done in").wait_for()
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(1000)  # the crop slides in, the button's colour fades
    end = page.locator("#history").bounding_box()
    assert end is not None
    clip = {"x": 0, "y": 0, "width": 1440, "height": end["y"] + end["height"] + 16}
    return page.screenshot(full_page=True, clip=clip)


def main() -> int:
    """Write the screenshot, and print its size."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("There is no chromium: run apt-get install chromium.", file=sys.stderr)
        return 2
    with demo() as started, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shot = looked(browser.new_page(viewport={"width": 1440, "height": 900}), started.ready_url)
        browser.close()
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    image.save(IMAGE, optimize=True)
    size = IMAGE.stat().st_size
    print(f"{IMAGE.relative_to(ROOT)}: {image.width}×{image.height}, {size / 1000:.0f} kB")
    return int(size > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
