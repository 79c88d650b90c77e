"""Takes the picture of the page that the README shows: `jaxphoton serve` asked for boxes, in Chromium.

    python scripts/page_screenshot.py docs/page.png

Needs chromium and chromedriver of the system, selenium, and Pillow.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

PICTURE = Path(__file__).parents[1] / "examples" / "shapes" / "scene_09.jpg"
SWITCHES = ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-background-networking")
WIDTH, HEIGHT = 1200, 862


@contextmanager
def serving() -> Iterator[str]:
    """The address of a server of the shipped model."""
    command = [sys.executable, "-m", "jaxphoton", "serve", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert server.stdout is not None
        yield next(found[0] for line in server.stdout if (found := re.search(r"http://[\d.]+:\d+", line)))
    finally:
        server.terminate()
        server.communicate()


@contextmanager
def chromium() -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or sys.exit("there is no chromium")
        for switch in (*SWITCHES, f"user-data-dir={profile}"):
            options.add_argument(f"--{switch}")
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


def taken(driver: Any, address: str) -> Image.Image:
    """The page with a caption asked before, and now boxes."""
    metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.get(address)
    until = WebDriverWait(driver, 600, 0.1).until
    until(lambda _: driver.find_element("id", "model").text == "shapes")
    driver.find_element("id", "file").send_keys(str(PICTURE))
    until(lambda _: driver.find_element("id", "name").text == PICTURE.name)
    for skill, text in (("caption", None), ("query", "How many objects are there?"), ("detect", "object")):
        driver.find_element("css selector", f"input[value={skill}]").click()
        if text:
            driver.find_element("id", "question" if skill == "query" else "object").send_keys(text)
        driver.find_element("id", "go").click()
        until(lambda _: driver.find_element("id", "answer").get_attribute("data-state") == "done")
    driver.execute_script("document.activeElement.blur()")
    return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    with serving() as address, chromium() as driver:
        image = taken(driver, address)
    # Every fourth level of a colour: the noise of the picture is half of the file.
    levels = [min(255, (level + 2) // 4 * 4) for level in range(256)]
    image.point(levels * len(image.getbands())).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
