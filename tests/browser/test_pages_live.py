"""The pages in a real Chromium: live, without JavaScript, in both colours, under the policy, for everybody."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from pxeserver.fleet.values import AssignOrder, MachineEdit
from pxeserver.model import Event, Stage
from tests.browser import seed
from tests.browser.conftest import Browser, Site

MAC = seed.mac(1)
BOOT = seed.boot_id(1)
ROW = "#m-525400000001"


@pytest.fixture
def one(site: Site) -> Site:
    """One machine, web-1, with an image of web; it has not booted."""
    image = seed.image(site.fleet, "web", 1, time.time() - 600)
    site.fleet.add_machine(MachineEdit(name="web-1", macs=(MAC,)))
    site.fleet.assign([MAC], AssignOrder("web"))
    assert image.spec == "web"
    return site


def reach(site: Site, stage: Stage, mac: str = MAC, boot: str = BOOT, image: str = "") -> None:
    """What the boot process writes when a machine comes to a stage."""
    data = {"image": image} if image else {}
    site.fleet.record([Event(time.time(), str(stage), mac, boot, stage, data=data)])


# notes the browser's own time at which a text first stands in an element
WATCH = """
const [css, text] = arguments;
window.seenAt = 0;
const look = () => {
  const found = document.querySelector(css);
  if (!window.seenAt && found && found.textContent.includes(text)) window.seenAt = Date.now();
};
look();
new MutationObserver(look).observe(document.body, {childList: true, subtree: true, characterData: true});
"""


def test_each_stage_shows_by_itself_in_order(
    one: Site, browser: Browser, record_property: Callable[[str, object], None]
) -> None:
    browser.open("/")
    browser.live()
    delays = []
    for stage, text in (
        (Stage.OFFER, "booting: offer"),
        (Stage.SCRIPT, "booting: script"),
        (Stage.KERNEL, "booting: kernel"),
        (Stage.INITRD, "booting: initrd"),
        (Stage.NETWORK, "booting: network"),
        (Stage.UP, "up"),
    ):
        watched = f"{ROW} .stage > span:last-child"
        browser.js(WATCH, watched, text)
        began = time.time()
        reach(one, stage, image=one.fleet.images()[0].digest)
        seen = browser.until(lambda: browser.js("return window.seenAt"), f"{text} never showed")
        delays.append(seen / 1000 - began)
        assert browser.find(watched).is_displayed() and browser.text(watched) == text
    slowest = max(delays)
    record_property("slowest_stage_change_seconds", round(slowest, 3))
    print(f"stage changes showed after {', '.join(f'{d:.2f}' for d in delays)} s")
    assert not browser.complaints()


def test_a_machine_page_draws_its_timeline_as_it_happens(one: Site, browser: Browser) -> None:
    browser.open(f"/machines/{MAC}")
    browser.live()
    assert "has not booted yet" in browser.text("#boot")
    reach(one, Stage.OFFER)
    browser.until(lambda: browser.all("#boot rect.wait"), "no bar of what is waited for")
    reach(one, Stage.SCRIPT)
    reach(one, Stage.UP)
    browser.until(lambda: "up in" in browser.text("#boot"), "the boot never ended")
    assert len(browser.all("#boot rect.done")) == 3


def test_a_form_being_filled_in_survives_what_happens_meanwhile(one: Site, browser: Browser) -> None:
    other = seed.mac(2)
    reach(one, Stage.OFFER, other, seed.boot_id(2))
    browser.open("/")
    browser.live()
    field = browser.find("#name-525400000002")
    field.send_keys("db-")
    reach(one, Stage.SCRIPT, other, seed.boot_id(2))
    browser.until(lambda: "waiting" in browser.text("#u-525400000002"), "the row was not drawn anew")
    field.send_keys("7")
    assert browser.find("#name-525400000002").get_attribute("value") == "db-7"
    assert browser.js("return document.activeElement.id") == "name-525400000002"


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_an_unknown_machine_is_assigned(one: Site, browser: Browser, scripts: bool) -> None:
    other = seed.mac(2)
    reach(one, Stage.OFFER, other, seed.boot_id(2))
    reach(one, Stage.SCRIPT, other, seed.boot_id(2))
    browser.scripts(scripts)
    browser.open("/")
    assert "1 heard, not named" in browser.text("#unknown")
    row = browser.find("#u-525400000002")
    row.find_element(By.CSS_SELECTOR, "input[name=name]").send_keys("db-7")
    Select(row.find_element(By.CSS_SELECTOR, "select")).select_by_index(1)
    row.find_element(By.CSS_SELECTOR, "button").click()
    browser.until(lambda: browser.all("#note"), "no word of what was done")
    assert "db-7 changed" in browser.text("#note") and "unassign" in browser.text("#note")
    assert not browser.all("#unknown")
    assert "web@" in browser.text("#m-525400000002")
    machine = one.fleet.find("db-7")
    assert one.fleet.view().assignments[machine.id].spec == "web"


def test_a_machine_is_unassigned_and_pinned_without_scripts(one: Site, browser: Browser) -> None:
    browser.scripts(False)
    browser.open(f"/machines/{MAC}")
    browser.find("#assign button.danger").click()
    browser.until(lambda: browser.all("#note"), "no word of what was done")
    assert "it waits" in browser.text().lower() or "waits until an image is assigned" in browser.text()
    Select(browser.find("#style")).select_by_value("pxe10")
    browser.find("#settings form:last-of-type button").click()
    browser.until(lambda: "pin: none → style=pxe10" in browser.text("#note"), "the pin was not told")
    assert one.fleet.find(MAC).pin.style == "pxe10"


def test_filters_apply_while_typing_and_stand_in_the_address(one: Site, browser: Browser) -> None:
    one.fleet.add_machine(MachineEdit(name="db-1", macs=(seed.mac(3),)))
    browser.open("/")
    browser.live()
    browser.find("body").send_keys("/")
    browser.js("return document.activeElement").send_keys("db")
    browser.until(lambda: not browser.all(ROW) and browser.all("#m-525400000003"), "the filter did not apply")
    assert browser.driver.current_url.endswith("q=db&stage=&spec=&sort=name")
    reach(one, Stage.OFFER, seed.mac(3), seed.boot_id(3))
    browser.until(lambda: "booting" in browser.text("#m-525400000003"), "the filtered page is not live")
    assert not browser.all(ROW)
    assert browser.js("return document.activeElement.id") == "q"


def test_filters_work_without_scripts(one: Site, browser: Browser) -> None:
    browser.scripts(False)
    browser.open("/")
    browser.find("#q").send_keys("nosuch", Keys.ENTER)
    browser.until(lambda: "No machine matches" in browser.text(), "the filter did not apply")
    assert "q=nosuch" in browser.driver.current_url
    assert "refresh every 5s" in browser.text(".tools")


def background(browser: Browser) -> str:
    return str(browser.js("return getComputedStyle(document.documentElement).backgroundColor"))


LIGHT, DARK = "rgb(246, 247, 248)", "rgb(14, 17, 20)"


@pytest.mark.parametrize(("scheme", "colour"), [("light", LIGHT), ("dark", DARK)])
def test_colours_follow_the_system(one: Site, browser: Browser, scheme: str, colour: str) -> None:
    browser.colours(scheme)
    browser.open("/")
    assert background(browser) == colour


def test_the_switch_overrules_the_system_and_is_remembered(one: Site, browser: Browser) -> None:
    browser.colours("light")
    browser.open("/")
    browser.find("label:has(#theme-dark)").click()
    assert background(browser) == DARK
    browser.open("/images")
    assert background(browser) == DARK
    assert browser.find("#theme-dark").is_selected()
    browser.find("label:has(#theme-auto)").click()
    assert background(browser) == LIGHT


def test_the_switch_works_without_scripts(one: Site, browser: Browser) -> None:
    browser.scripts(False)
    browser.colours("light")
    browser.open("/")
    browser.find("label:has(#theme-dark)").click()
    assert background(browser) == DARK


PAGES = ("/", f"/machines/{MAC}", "/boots", f"/boots/{BOOT}", "/images", "/images/web", "/nowhere")

# the contrast (WCAG 2) of every element that has text of its own, against what it stands on
CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgb = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data]; };
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (node) => { for (let n = node; n; n = n.parentElement) {
  const c = rgb(getComputedStyle(n).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
return [...document.querySelectorAll('body *')].filter((n) =>
    [...n.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim()) && n.checkVisibility())
  .map((n) => { const [a, b] = [light(rgb(getComputedStyle(n).color)), light(ground(n))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), n.tagName + ' ' + n.textContent.trim().slice(0, 40)]; })
  .filter(([ratio]) => ratio < 4.5);
"""
# what a screen reader could not name, and what a narrow window cannot hold
UNNAMED = """
const wanted = 'input:not([type=hidden]), select, textarea, button, a[href], [role=img]';
return [...document.querySelectorAll(wanted)].filter((n) =>
  !(n.labels && n.labels.length) && !n.textContent.trim() && !n.getAttribute('aria-label')).map((n) => n.outerHTML);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_readable_named_and_under_the_policy(site: Site, browser: Browser, scheme: str) -> None:
    seed.picture(site.fleet, time.time())
    browser.colours(scheme)
    stuck = f"/machines/{seed.mac(11)}"
    for path in (*PAGES, stuck, f"/boots/{seed.boot_id(111)}", f"/machines/{seed.mac(9)}"):
        browser.open(path)
        assert browser.js(CONTRAST) == [], path
        assert browser.js(UNNAMED) == [], path
        foreign = browser.js("return performance.getEntriesByType('resource').map((e) => e.name)")
        assert all(name.startswith(site.url) for name in foreign)
    complaints = [c for c in browser.complaints() if "404 (Not Found)" not in c]
    assert complaints == []


@pytest.mark.parametrize("width", [360, 800])
def test_no_page_is_wider_than_the_window(site: Site, browser: Browser, width: int) -> None:
    seed.picture(site.fleet, time.time())
    browser.cdp("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    try:
        for path in (*PAGES, f"/machines/{seed.mac(11)}"):
            browser.open(path)
            browser.js("for (const d of document.querySelectorAll('details')) d.open = true")
            wide = browser.js("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, path
    finally:
        browser.cdp("Emulation.clearDeviceMetricsOverride")


def test_a_page_that_lost_its_server_says_so_and_catches_up(one: Site, browser: Browser) -> None:
    browser.open("/")
    browser.live()
    one.stop()
    browser.until(lambda: browser.text("#live") in ("connecting", "reconnecting"), "the loss was not told")
    reach(one, Stage.OFFER)
    one.start()
    browser.live()
    browser.until(lambda: "booting: offer" in browser.text(ROW), "the page never caught up")
