"""A real Chromium without a window, for tests of pages: the fixture `browser` of conftest.py.

Debian's packages chromium and chromium-driver have the browser and the program that drives it, of
the same version. `.ci/run` installs them.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

MISSING = (
    "no Chromium, in which pages are opened: install Debian's packages chromium and "
    "chromium-driver, or put chromium and chromedriver on the PATH"
)


class Browser:
    """One tab, which opens one page after another."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(
        self,
        page: Path | str,
        *,
        width: int = 1280,
        height: int = 900,
        scheme: Literal["light", "dark"] = "light",
        media: Literal["screen", "print"] = "screen",
        scripts: bool = True,
    ) -> None:
        """Open a file, or an address, in a view of this size, which may be as narrow as a phone's.

        `scheme` is what the system prefers, which also prefers no animations; without `scripts`,
        the page's JavaScript is off.
        """
        self.complaints(), self.requested()  # what an earlier page left
        view = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.tell("Emulation.setDeviceMetricsOverride", **view)
        prefers = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in prefers.items()]
        self.tell("Emulation.setEmulatedMedia", media=media, features=features)
        self.tell("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.driver.get(page.resolve().as_uri() if isinstance(page, Path) else page)

    def complaints(self) -> list[str]:
        """The warnings and errors of the console since the last call, uncaught exceptions among
        them."""
        log = self.driver.get_log("browser")
        return [entry["message"] for entry in log if entry["level"] in ("WARNING", "SEVERE")]

    def requested(self) -> list[str]:
        """The addresses that were asked for since the last call, but for data that a page holds."""
        messages = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        addresses = [params["request"]["url"] for params in asked]
        return [address for address in addresses if not address.startswith(("data:", "blob:"))]

    def find(self, selector: str) -> WebElement:
        """The first element that a CSS selector matches."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector: str) -> list[WebElement]:
        """All elements that a CSS selector matches."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def press(self, *keys: str) -> None:
        """Press keys, one after another, on whatever has the focus."""
        for key in keys:
            ActionChains(self.driver, duration=0).send_keys(key).perform()

    def run(self, script: str, *arguments: Any) -> Any:
        """What a JavaScript function with this body returns."""
        return self.driver.execute_script(script, *arguments)

    def overflow(self) -> int:
        """Pixels by which the page is wider than the view: 0, or one has to scroll sideways."""
        root = "document.documentElement"
        return int(self.run(f"return {root}.scrollWidth - {root}.clientWidth"))

    def screenshot(self, path: Path) -> None:
        """Write the whole page, from top to bottom, as PNG."""
        shot = self.tell("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def tell(self, command: str, **parameters: Any) -> Any:
        """Send a command of Chromium's DevTools protocol, and return its result."""
        return self.driver.execute_cdp_cmd(command, parameters)


@contextmanager
def started() -> Iterator[Browser]:
    """A browser, which is ended after. Without one, a test is skipped with the reason; where the
    environment has CI, it fails."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.fail(MISSING) if os.environ.get("CI") else pytest.skip(MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium does not start for root with it
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    opened = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(opened)
    finally:
        opened.quit()
