"""Chromium on a page, by Selenium: what a person at it does and sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Page:
    """The page of one server."""

    def __init__(self, driver: Any, address: str):
        self.driver, self.address = driver, address
        driver.get("about:blank")  # the browser's own first page asks for things
        driver.get_log("browser")
        driver.get_log("performance")
        driver.get(address)

    def element(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def until(self, holds: Callable[[], Any]) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, 60, 0.02, (StaleElementReferenceException,))
        return waiting.until(lambda _: holds())

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def choose(self, path: Path) -> None:
        self.element("file").send_keys(str(path))
        self.until(lambda: self.element("name").text == path.name)

    def skill(self, name: str) -> None:
        self.driver.find_element("css selector", f"input[name=skill][value={name}]").click()

    def type(self, field: str, text: str) -> None:
        self.element(field).clear()
        self.element(field).send_keys(text)

    def ask(self, state: str = "done") -> None:
        """Asks, and waits for the end of the answer."""
        self.element("go").click()
        self.until(lambda: self.state == state)

    def keys(self, *keys: str) -> None:
        """To whatever has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def size(self, width: int, height: int, density: float = 1) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": density, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def media(self, **features: str) -> None:
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})

    @property
    def state(self) -> str:
        return self.element("answer").get_attribute("data-state")

    @property
    def text(self) -> str:
        return self.script("return document.querySelector('#answer .text')?.textContent ?? ''")

    @property
    def focus(self) -> str:
        """The id of what has the focus, or its value."""
        return self.script("const e = document.activeElement; return e.id || e.value || e.textContent")

    def placed(self, selector: str) -> list[list[float]]:
        """Where marks lie, as drawn: [left, top, right, bottom] in fractions of the picture."""
        return self.script(
            """const whole = document.getElementById("picture").getBoundingClientRect();
            return [...document.querySelectorAll(arguments[0])].map((each) => {
              const box = each.getBoundingClientRect();
              return [(box.left - whole.left) / whole.width, (box.top - whole.top) / whole.height,
                      (box.right - whole.left) / whole.width, (box.bottom - whole.top) / whole.height];
            });""",
            selector,
        )

    def complaints(self) -> list[str]:
        """What the console holds, policy violations included, since the last call."""
        return [each["message"] for each in self.driver.get_log("browser")]

    def requested(self) -> list[str]:
        """The addresses asked for since the last call."""
        messages = [json.loads(each["message"])["message"] for each in self.driver.get_log("performance")]
        sent = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]
