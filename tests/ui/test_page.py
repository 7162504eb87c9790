"""The page in a real browser: choosing, drawing, comparing, downloading, errors and cancelling, by keyboard and mouse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import ditzoo
from ditzoo.measure.parity import TOLERANCES
from ditzoo.pictures.png_metadata import read_request
from tests.support.chromium import DRIVER, PROGRAM, WHY_NOT, chromium
from tests.support.page_server import PageServer

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

pytestmark = pytest.mark.skipif(PROGRAM is None or DRIVER is None, reason=WHY_NOT)

PATIENCE = 300


class Page:
    """The page in the browser, by the ids of its elements."""

    def __init__(self, driver: Chrome, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def __call__(self, name: str) -> WebElement:
        return self.driver.find_element("id", name)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements("css selector", selector)

    def choose(self, name: str, value: str) -> None:
        from selenium.webdriver.support.select import Select

        Select(self(name)).select_by_value(value)

    def write(self, name: str, text: str) -> None:
        self(name).clear()
        self(name).send_keys(text)

    def wait(self, selector: str) -> list[WebElement]:
        """Waits until elements are shown, and returns them."""
        return self.until(lambda: [each for each in self.all(selector) if each.is_displayed()])

    def until(self, condition):
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        wait = WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda _: condition())

    def run(self, script: str) -> object:
        return self.driver.execute_script(f"return {script}")


@pytest.fixture(scope="module")
def browser(page: PageServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all tests of this module."""
    downloads = tmp_path_factory.mktemp("downloads")
    with chromium(downloads, width=1280, height=900) as driver:
        driver.get(page.address)
        shown = Page(driver, downloads)
        shown.wait("#model option")
        yield shown


def test_two_backends_draw_the_same_pictures(browser: Page) -> None:
    """The last field is sent by the Enter key."""
    browser.choose("model", "dit-digits")
    browser.choose("backend", "onnxruntime")
    browser.choose("other", "torch")
    for chip in browser.all("#chips button")[3:8:4]:
        chip.click()
    assert browser("classes").get_attribute("value") == "3, 7"
    browser.write("steps", "6")
    browser.write("seed", "41\n")
    browser.wait("#timing")
    sides = [each.text for each in browser.all(".side h2")]
    assert sides[:2] == ["onnxruntime fp32 cpu", "torch fp32 cpu"]
    assert sides[2].startswith("Difference × ")
    assert "Both backends agree within the limits." in browser("said").text
    numbers = [cell.text for cell in browser.all("#numbers tbody tr:first-child td")]
    limit = TOLERANCES["fp32"].sample
    assert 0 < float(numbers[0]) <= limit
    assert float(numbers[1].removeprefix("≤ ")) == limit
    browser.until(lambda: browser.run("[...document.images].every((image) => image.complete)"))
    assert browser.run("[...document.images].map((image) => image.naturalWidth)") == [8] * 6
    assert [image.get_attribute("alt") for image in browser.all(".side:first-child img")] == [
        f"{name} by dit-digits on onnxruntime fp32 cpu" for name in "37"
    ]


def test_the_picture_is_downloaded_with_its_request(browser: Page) -> None:
    browser.all(".download")[1].click()
    file = browser.downloads / "dit-digits-seed41-torch-fp32-cpu.png"
    browser.until(file.exists)
    request = read_request(file)
    assert (request.model, request.classes, request.seed) == ("dit-digits", (3, 7), 41)
    assert request.plan == ditzoo.make_plan("dit-digits", steps=6)


def test_the_plan_is_shown_in_full(browser: Page) -> None:
    browser("show-plan").click()
    browser.until(lambda: browser("said").text == "The plan is shown.")
    assert len(browser.all("#rows tbody tr")) == 6
    assert "12 evaluations of the network for each image" in browser("plan-text").text
    assert browser("command").text == "ditzoo sample dit-digits --backend onnxruntime --classes '3, 7' --steps 6 --seed 41"


def test_a_wrong_value_shows_its_error_as_plain_text(browser: Page) -> None:
    browser.write("classes", "<b>three</b>")
    browser("draw").click()
    (box,) = browser.wait("#error")
    assert box.text.startswith("unknown class '<b>three</b>'; ")
    assert browser.all("#error b") == []
    assert box == browser.driver.switch_to.active_element
    browser.write("classes", "3")
    browser.write("steps", "many")
    browser("draw").click()
    browser.until(lambda: box.text == "steps must be a whole number of steps, not 'many'")


def test_a_drawing_is_cancelled(browser: Page) -> None:
    browser.choose("other", "")
    browser.write("steps", "250")
    browser.write("num", "64")
    browser("draw").click()
    browser.wait(".preview")
    browser.wait("#cancel")[0].click()
    browser.until(lambda: browser("said").text == "The drawing was cancelled.")
    assert browser("draw").is_enabled()
    assert not browser("cancel").is_displayed()


def test_every_field_has_a_label(browser: Page) -> None:
    nameless = "[...document.querySelectorAll('input, select, textarea, progress')].filter((each) => !each.labels.length)"
    assert browser.run(f"{nameless}.map((each) => each.id)") == []
    assert browser.run("[...document.images].every((image) => image.alt)") is True


def test_a_phone_shows_the_page_without_scrolling_sideways(browser: Page) -> None:
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    assert browser.run("document.documentElement.scrollWidth") == 390
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_colours_are_used_if_the_system_wants_them(browser: Page) -> None:
    shown = []
    for scheme in ("dark", "light"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        shown.append(browser.run("getComputedStyle(document.body).backgroundColor"))
    assert shown == ["rgb(20, 22, 29)", "rgb(246, 247, 250)"]


def test_nothing_came_from_elsewhere_and_nothing_was_blocked(browser: Page, page: PageServer) -> None:
    """The last test: it looks at all that the browser loaded and said."""
    loaded = browser.run("performance.getEntriesByType('resource').map((each) => each.name)")
    assert isinstance(loaded, list)
    assert [name for name in loaded if not name.startswith(f"{page.address}/")] == []
    assert any("/previews/0" in name for name in loaded)
    assert any("/previews/1" in name for name in loaded)
    said = [entry["message"] for entry in browser.driver.get_log("browser")]
    assert [text for text in said if "400 (Bad Request)" not in text] == []
