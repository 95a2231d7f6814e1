"""A real fleet behind the real front, and one Chromium that looks at it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from pxeserver import config as configuration
from pxeserver.config import Config
from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.serve import admin
from pxeserver.serve.express import ExpressLoop
from pxeserver.web.site import make_web

HERE = Path(__file__).parent
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")


class Site:
    """The admin side on a port of its own, in a thread; `fleet` is another connection, as the boot process has one."""

    def __init__(self, folder: Path) -> None:
        self.fleet: Fleet = open_fleet(self._config(folder, 0))
        self._folder, self._port = folder, 0
        self._loop = ExpressLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()
        self.url = f"http://127.0.0.1:{self._port}"

    def _config(self, folder: Path, port: int) -> Config:
        flags = {"server.data": str(folder), "admin.listen": f"127.0.0.1:{port}", "admin.socket": ""}
        return configuration.load(None, flags=flags, environ={})

    def start(self) -> None:
        config = self._config(self._folder, self._port)
        sockets = admin.bind(config)
        self._port = sockets[0].getsockname()[1]
        self._server = admin.AdminServer(config, open_fleet(config), sockets, make_web)
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(30)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(30)

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
        self.fleet.close()


class Browser:
    """A Chromium that is driven; every helper waits for what it wants instead of sleeping."""

    def __init__(self, driver: webdriver.Chrome, site: Site) -> None:
        self.driver, self.site = driver, site

    def open(self, path: str) -> None:
        self.driver.get(self.site.url + path)

    def reset(self) -> None:
        """As freshly started: scripts on, the system's colours, nothing kept, a wide window."""
        self.cdp("Emulation.setScriptExecutionDisabled", value=False)
        self.cdp("Emulation.setEmulatedMedia", features=[])
        self.cdp("Storage.clearDataForOrigin", origin="*", storageTypes="all")
        self.driver.set_window_size(1280, 900)
        self.driver.get("about:blank")
        self.driver.get_log("browser")  # type: ignore[no-untyped-call]

    def cdp(self, command: str, **values: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, values)  # type: ignore[no-untyped-call]

    def colours(self, scheme: str) -> None:
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def scripts(self, on: bool) -> None:
        self.cdp("Emulation.setScriptExecutionDisabled", value=not on)

    def js(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(code, *values)  # type: ignore[no-untyped-call]

    def find(self, css: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def text(self, css: str = "main") -> str:
        return str(self.find(css).text)

    def until(self, ready: Callable[[], object], what: str, seconds: float = 20) -> Any:
        """Whatever true value `ready` gives; elements that are drawn anew meanwhile are looked up again."""
        from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

        wait = WebDriverWait(self.driver, seconds, 0.02, (NoSuchElementException, StaleElementReferenceException))
        return wait.until(lambda _: ready(), what)

    def live(self) -> None:
        """Wait until the page hears events."""
        self.until(lambda: self.find("#live").get_attribute("data-state") == "on", "the page never went live")

    def complaints(self) -> list[str]:
        """What the console holds: refused by the policy, failed scripts and requests."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service("/usr/bin/chromedriver", env={**os.environ, "HOME": str(profile)})
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.set_page_load_timeout(60)
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.fixture
def browser(driver: webdriver.Chrome, site: Site) -> Iterator[Browser]:
    made = Browser(driver, site)
    made.reset()
    yield made
    made.driver.get("about:blank")  # leave before the server goes: no complaints about a lost connection
