"""The README's pictures: `python -m tests.browser.screenshots`, at the top of the repository, writes docs/images."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.browser import seed
from tests.browser.conftest import Browser, Site, chromium

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
# name -> (address, window, colours)
PICTURES = {
    "fleet.png": ("/", (1280, 940), "light"),
    "machine.png": (f"/machines/{seed.mac(11)}", (1280, 1010), "dark"),
}


def take(folder: Path) -> None:
    """All pictures into `folder`, from a fleet made for them."""
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as profile:
        site = Site(Path(data))
        try:
            with chromium(Path(profile)) as driver:
                browser = Browser(driver, site)
                seed.picture(site.fleet, time.time())
                for name, (path, (width, height), scheme) in PICTURES.items():
                    browser.colours(scheme)
                    size = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": False}
                    browser.cdp("Emulation.setDeviceMetricsOverride", **size)
                    browser.open(path)
                    browser.live()
                    driver.save_screenshot(str(folder / name))
        finally:
            site.close()


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    take(IMAGES)
