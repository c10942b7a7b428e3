"""How fast the studio follows, in the browser that is installed: python -m benchmarks.studio MODEL PHOTO

The photo should have a megapixel or more. Medians; nothing else should run beside it.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

PORT = 7899
# Set the slider as a hand does, and wait for a picture that shows it
SLIDE = """async (value) => {
  const slider = document.querySelector("#picture-aperture input[type=range]");
  const figure = document.querySelector("#picture figure");
  const started = performance.now();
  slider.value = value;
  slider.dispatchEvent(new Event("input", {bubbles: true}));
  while (!figure.dataset.shown.includes(`aperture=${value}&`)) await new Promise(requestAnimationFrame);
  const image = figure.querySelector("img");
  return [performance.now() - started, image.naturalWidth * image.naturalHeight];
}"""


def main(model: str, photo: str) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "argan", "studio", model, "--port", str(PORT), "--no-browser"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        began = time.perf_counter()
        assert server.stdout and "studio at" in server.stdout.readline()
        found: dict[str, float] = {"ready_seconds": time.perf_counter() - began}
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            found["first_picture_seconds"] = statistics.median(_first(browser) for _ in range(5))
            pages = [_with_photo(browser, photo) for _ in range(2)]
            found |= _follows(pages[0])
            found["memory_two_users_mb"] = psutil.Process(server.pid).memory_info().rss / 2**20
            browser.close()
        began = time.perf_counter()
        server.send_signal(signal.SIGINT)
        server.wait()
        found["end_seconds"] = time.perf_counter() - began
        print(json.dumps({name: round(value, 2) for name, value in found.items()}, indent=2))
    finally:
        server.kill()


def _first(browser: Browser) -> float:
    """Seconds from the navigation of a browser that has seen nothing to the first picture."""
    page = browser.new_context().new_page()
    began = time.perf_counter()
    page.goto(f"http://127.0.0.1:{PORT}", wait_until="commit")
    page.wait_for_function("[...document.querySelectorAll('#tiles img, #scene img')].some((i) => i.naturalWidth)")
    spent = time.perf_counter() - began
    page.context.close()
    return spent


def _with_photo(browser: Browser, photo: str) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
    page.goto(f"http://127.0.0.1:{PORT}")
    page.get_by_role("tab", name="Photo", exact=True).click()
    page.locator("#drop input[type=file]").set_input_files(Path(photo))
    page.wait_for_function("document.querySelector('#picture figure')?.dataset.shown", timeout=120_000)
    return page


def _follows(page: Page) -> dict[str, float]:
    server: dict[bool, list[float]] = {True: [], False: []}

    def note(answer: Any) -> None:
        if timing := re.search(r"preview;dur=(\d+)", answer.headers.get("server-timing", "")):
            server["draft=true" in answer.url].append(float(timing[1]))

    page.on("response", note)
    hand = []
    for i in range(24):
        hand.append(page.evaluate(SLIDE, round(0.5 + 0.05 * i, 2)))
        page.wait_for_timeout(30 if i % 4 else 1200)  # a hand that moves on, and rests now and then
    return {
        "preview_megapixel_ms": statistics.median(server[False]),
        "preview_moving_ms": statistics.median(server[True]),
        "slider_to_picture_ms": statistics.median(spent for spent, _ in hand),
        "slider_to_picture_megapixels": statistics.median(pixels for _, pixels in hand) / 1e6,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
