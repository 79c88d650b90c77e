"""The page in a browser: filters, search, order, keys, narrow and dark screens, hostile texts."""

from __future__ import annotations

import pytest
from PIL import Image

from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.report import write_report
from tests.batch.helpers import make_journal
from tests.chromium import chromium

webdriver = pytest.importorskip("selenium.webdriver", reason="NO SELENIUM: the report is NOT tested in a browser")

ALERT = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
RIGHT = {"x_min": 0.5, "y_min": 0.0, "x_max": 1.0, "y_max": 1.0}
ODD = {
    "cut.png": ("A very long story about a red fox that", "length", ()),
    "empty.png": ("", "stop", ()),
    "repeated.png": ("a dog, a dog, a dog, a dog", "stop", ()),
    "turned.png": ("An upright tower", "stop", ("rotated by EXIF orientation 6",)),
    f"{ALERT}.png": (ALERT, "stop", ()),
    "\u202egnp.exe": ("نص عربي \N{FISH} \ud83d", "stop", ()),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def records(folder):
    Image.new("RGB", (40, 20), (200, 40, 40)).save(folder / "image.png")
    for n in range(100):
        yield captioned(f"img{n}.png", " ".join(["Plain text", *(f"w{i}" for i in range(5 + n))]), folder)
    for key, (text, finish, warnings) in ODD.items():
        yield captioned(key, text, folder, finish_reason=finish, warnings=warnings)
    boxes = [{"x_min": 0.5, "y_min": 0.0, "x_max": 1.0, "y_max": 0.5}]
    found = (
        {"task": "detect", "object": "fish", "objects": boxes},
        {"task": "point", "object": "eye", "points": [{"x": 0.25, "y": 0.5}]},
    )
    yield Record("boxes.png", "ok", path=str(folder / "image.png"), results=found)
    # A triangle over the left half of the box, which is the right half of the picture.
    shape = {"task": "segment", "object": "kite", "path": "M 0 0 L 0.5 0.5 0 1 Z", "bbox": RIGHT}
    yield Record("outline.png", "ok", path=str(folder / "image.png"), results=(shape,))
    broken = shape | {"path": 'M 0 0 L 1 1"/><image href="https://example.org/x" onload="document.title=1"/>'}
    unknown = shape | {"path": "", "parse_error": "no path"}
    yield Record("outlines.png", "ok", path=str(folder / "image.png"), results=(broken, unknown))
    yield Record("gone.png", "failed", path="/nowhere/gone.png", reason="not-found", fault="no such file")
    yield Record("bad.png", "failed", reason="corrupt", fault="damaged <b>data</b>")


def captioned(key, text, folder, finish_reason="stop", warnings=()):
    result = {"task": "caption", "caption": text, "tokens": len(text), "finish_reason": finish_reason}
    return Record(key, "ok", path=str(folder / "image.png"), results=(result,), warnings=warnings)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(make_journal(folder / "journal", records(folder)), folder / "report.html")
    return (folder / "report.html").as_uri()


class View:
    """What a reader does and sees."""

    def __init__(self, driver):
        self.driver = driver

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def keys(self) -> list[str]:
        return self.run("return [...document.querySelectorAll('.card')].map((card) => card.dataset.key)")

    def count(self) -> str:
        return self.one("#count").text

    def filter(self, name):
        self.one(f"[data-filter={name}]").click()

    def sort(self, order):
        self.run(
            "const s = arguments[0]; s.value = arguments[1]; s.dispatchEvent(new Event('change'))",
            self.one("#sort"),
            order,
        )

    def press(self, key):
        webdriver.ActionChains(self.driver).send_keys(key).perform()


@pytest.fixture
def view(browser, address):
    browser.get(address)
    yield View(browser)
    assert browser.get_log("browser") == []  # no error, and nothing the policy refused
    assert browser.title == "jaxphoton: 111 images"


def test_cards_come_as_they_are_needed(view):
    assert view.count() == "111 images"
    assert view.keys()[:2] == ["img0.png", "img1.png"]
    assert len(view.keys()) < 111
    for _ in range(4):
        view.run("window.scrollTo(0, document.body.scrollHeight)")
        view.driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")
    assert len(view.keys()) == 111


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("failed", ["gone.png", "bad.png"]),
        ("cut-off", ["cut.png"]),
        ("repeated", ["repeated.png"]),
        ("notes", ["turned.png"]),
        ("empty", ["empty.png"]),
        ("longest", [f"img{n}.png" for n in range(99, 89, -1)]),
    ],
)
def test_filters(view, name, keys):
    view.filter(name)
    assert view.keys() == keys
    assert view.count() == f"{len(keys)} of 111 images"
    assert view.one(f"[data-filter={name}]").get_attribute("aria-pressed") == "true"
    view.filter("all")
    assert view.count() == "111 images"


def test_the_shortest_come_with_the_shortest_first(view):
    view.filter("shortest")
    assert len(view.keys()) == 10 and view.keys()[0] == "empty.png" and view.keys()[-1].startswith("img")


def test_search(view):
    search = view.one("#search")
    for text, keys in (
        ("FOX story", ["cut.png"]),
        ("fish", ["boxes.png"]),
        ("no such", ["gone.png"]),
        ("عربي", ["\u202egnp.exe"]),
        ("exif", ["turned.png"]),
        ("w103", ["img99.png"]),
        ("(.*[", []),
    ):
        search.clear()
        search.send_keys(text)
        assert view.keys() == keys, text
    assert view.one(".nothing").text.startswith("No image fits")
    search.clear()
    search.send_keys("fox")
    assert view.one("mark").text == "fox"
    view.filter("failed")
    assert view.keys() == []


def test_order(view):
    for order, first in (("longest", "img99.png"), ("shortest", "empty.png"), ("name", None), ("run", "img0.png")):
        view.sort(order)
        if first:
            assert view.keys()[0] == first
    view.sort("name")
    keys = [key for key in view.keys() if key.startswith("img")]
    assert keys == sorted(keys, key=lambda key: int(key[3:-4]))


def test_figures(view):
    figures = view.run("return [...document.querySelectorAll('.figure')].map((each) => each.innerText)")
    assert figures[2].split() == ["Failed", "2", "1.8%"]
    assert [each.split("\n")[0] for each in figures[4:]] == ["Cut off", "Empty", "Repeated"]


def test_rows_of_the_overview_select(view):
    view.one("[data-kind=reason][data-value=corrupt]").click()
    assert view.keys() == ["bad.png"] and "reason: corrupt" in view.one("#detail").text
    assert view.one(".fault").text == "damaged <b>data</b>"
    view.one("#detail button").click()
    assert view.count() == "111 images"
    view.run("arguments[0].click()", view.one("[data-kind=opening][data-value='plain text w0']"))
    assert view.count() == "100 of 111 images"
    view.run("arguments[0].click()", view.one("[data-kind=object][data-value=eye]"))
    assert view.keys() == ["boxes.png"]


def test_boxes_and_points_lie_on_the_picture(view):
    view.one("#search").send_keys("boxes.png")
    image, box, point = (view.one(f".picture {name}").rect for name in ("img", ".box", ".point"))
    # 40 x 20 pixels fill the width; what is left above and below is even.
    width, height = image["width"], image["width"] / 2
    top = image["y"] + (image["height"] - height) / 2
    assert box["x"] == pytest.approx(image["x"] + width / 2, abs=4)
    assert (box["width"], box["height"]) == pytest.approx((width / 2, height / 2), abs=6)
    assert point["x"] + point["width"] / 2 == pytest.approx(image["x"] + width / 4, abs=2)
    assert point["y"] + point["height"] / 2 == pytest.approx(top + height / 2, abs=2)
    assert view.one(".found").text.split("\n") == ["fish 1 box", "eye 1 point"]
    view.run("[...document.querySelectorAll('#legend button')].find((each) => each.textContent === 'fish').click()")
    assert not view.one(".box").is_displayed() and view.one(".point").is_displayed()
    view.one("#boxes").click()
    assert not view.one(".point").is_displayed()


def test_outlines_lie_on_the_picture(view):
    view.one("#search").send_keys("outline.png")
    image, shape = view.one(".picture img").rect, view.one(".picture .outline").rect
    width, height = image["width"], image["width"] / 2
    top = image["y"] + (image["height"] - height) / 2
    assert (shape["x"], shape["y"]) == pytest.approx((image["x"] + width / 2, top), abs=4)
    assert (shape["width"], shape["height"]) == pytest.approx((width / 4, height), abs=8)
    assert not view.driver.find_elements("css selector", ".picture rect")
    assert view.one(".found").text == "kite 1 outline"
    fill = view.run("return getComputedStyle(document.querySelector('.picture .outline')).fill")
    assert fill != "none"
    view.one("#boxes").click()
    assert not view.one(".outline").is_displayed()


def test_an_outline_is_numbers_and_without_one_there_is_the_box(view):
    view.one("#search").send_keys("outlines.png")
    paths = view.run("return [...document.querySelectorAll('.picture path')].map((each) => each.getAttribute('d'))")
    assert paths == ["M0 0 L1 1"] * 2  # and what makes it stand out
    assert len(view.driver.find_elements("css selector", ".picture rect.box")) == 1
    assert view.run("return document.querySelectorAll('.card svg image').length") == 0


def test_keys(view):
    view.press("/")
    webdriver.ActionChains(view.driver).send_keys("img7").perform()
    assert view.count() == "11 of 111 images"
    view.press("\ue00c")  # Escape
    assert view.count() == "111 images"
    focused = "return document.activeElement.closest('.card')?.dataset.key"
    for key, at in (("j", "img0.png"), ("j", "img1.png"), ("k", "img0.png")):
        view.press(key)
        assert view.run(focused) == at
    view.press("c")
    search = view.one("#search")
    search.send_keys(webdriver.Keys.CONTROL, "v")
    assert search.get_attribute("value") == "Plain text w0 w1 w2 w3 w4"
    view.press("\ue00c")
    view.press("v")
    assert view.one("#cards").get_attribute("class") == "list"


def test_hostile_texts_are_texts(view):
    view.one("#search").send_keys("onerror")
    assert view.one(".card .text").text == view.one(".card h3").text[:-4] == ALERT
    assert view.run("return document.querySelectorAll('.card img[onerror], #overview script').length") == 0


@pytest.mark.parametrize(("width", "columns"), [(390, 1), (1200, 3)])
def test_narrow_screens_have_one_column(view, width, columns):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    view.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert view.run("return document.documentElement.scrollWidth <= innerWidth")
        lefts = "return new Set([...document.querySelectorAll('.card')].map((card) => card.offsetLeft)).size"
        assert view.run(lefts) == columns
    finally:
        view.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_screens(view):
    def shade() -> int:
        colour = view.run("return getComputedStyle(document.body).backgroundColor")
        return int(colour.strip("rgb()").split(",")[0])

    assert shade() > 200
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    view.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert shade() < 50
    view.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_old_captions_stand_beside(browser, tmp_path):
    result = {"task": "caption", "caption": "the new one", "finish_reason": "stop"}
    both = [Record(key, "ok", results=(result,), org_caption=old) for key, old in (("a", "the old one"), ("b", ""))]
    write_report(make_journal(tmp_path / "journal", both), tmp_path / "report.html")
    browser.get((tmp_path / "report.html").as_uri())
    view = View(browser)
    view.one("#search").send_keys("old")
    now, before = view.one(".now").rect, view.one(".before").rect
    assert now["y"] == before["y"] and now["x"] < before["x"]
    assert view.one(".before .text").text == "the old one"
