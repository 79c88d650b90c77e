"""The page at / in a browser, on a real server: every skill, every way to it, and what goes wrong."""

from __future__ import annotations

import io
import json
import re
from contextlib import ExitStack
from importlib.resources import files

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image

from jaxphoton.bodies.faults import BodyError
from jaxphoton.image.decode import decode
from jaxphoton.requests.answer import Result
from jaxphoton.server.app import DEFAULTS
from jaxphoton.server.options import ServerOptions
from jaxphoton.server.service import Service
from tests.chromium import chromium
from tests.server.browser import Page
from tests.server.serving import EXAMPLES, FakeBackend, data_address

SCENE = EXAMPLES / "scene_11.png"
BOX = {"x_min": 0.25, "y_min": 0.5, "x_max": 0.75, "y_max": 0.9}
PATH = "M 0 0 L 1 0.5 L 0 1 Z"
BROKEN = b"\xff\xd8\xff\xe0 not a photo"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def visit(browser):
    """Opens the page of a server. In the end nothing may have been complained of or asked for elsewhere."""
    with ExitStack() as stack:

        def visit(address: str, refused: bool = False) -> Page:
            page = Page(browser, address)
            page.size(1280, 900)
            page.media(prefers_color_scheme="light")
            stack.callback(leave, page, refused)
            return page

        yield visit


def leave(page: Page, refused: bool) -> None:
    complaints = page.complaints()
    if refused:  # the browser itself writes a line for what did not come
        complaints = [each for each in complaints if "Failed to load resource" not in each]
    assert complaints == []
    elsewhere = [url for url in page.requested() if not url.startswith((page.address, "blob:", "data:"))]
    assert elsewhere == []
    page.script("sessionStorage.clear()")


@pytest.fixture
def page(visit, address) -> Page:
    """Of the shipped model."""
    return visit(address)


@pytest.fixture
def fake(serve, visit):
    """The page of a server that answers as it is told to, once it shows this name of the model."""

    def fake(*events, refused=False, options=DEFAULTS) -> tuple[Page, FakeBackend]:
        backend = FakeBackend(*events)
        service = Service(backend, ["fake"])
        service.start()
        page = visit(serve(service, options), refused)
        page.until(lambda: page.element("model").text == "fake")
        return page, backend

    return fake


def shown_json(page: Page) -> dict:
    """What the button copies."""
    page.script("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    (button,) = [each for each in page.all("#answer .copies button") if each.text == "Copy JSON"]
    button.click()
    page.until(lambda: button.text == "Copied")
    return json.loads(page.script("return window.copied"))


def test_a_caption_streams_in(page, shapes):
    page.until(lambda: page.element("model").text == "shapes")
    page.choose(SCENE)
    assert page.element("size").text.startswith("240 × 320")
    page.script(
        """window.seen = [];
        const answer = document.getElementById("answer");
        new MutationObserver(() => window.seen.push(answer.querySelector(".text").textContent))
          .observe(answer, { subtree: true, childList: true, characterData: true });"""
    )
    page.ask()
    seen = page.script("return window.seen")
    assert all(later.startswith(earlier) for earlier, later in zip(seen, seen[1:], strict=False))
    assert len(set(seen)) > 3, "the text came in one piece"
    assert page.text == seen[-1] and page.text.startswith("The image shows three objects")
    facts = {each.text.split("\n")[0]: each.text.split("\n")[1] for each in page.all("#answer .facts div")}
    assert list(facts)[:3] == ["First text", "Total", "Tokens"]
    copied = shown_json(page)
    assert copied["caption"] == page.text and str(copied["metrics"]["output_tokens"]) == facts["Tokens"]


def test_lengths_are_asked_for(page):
    page.choose(SCENE)
    page.all("input[name=extent]")[0].click()
    page.ask()
    assert page.text.startswith("Three objects")


def test_a_question_is_answered(page):
    page.choose(SCENE)
    page.skill("query")
    page.type("question", "How many objects are there?")
    page.ask()
    assert page.text == "3"


@pytest.mark.parametrize("width, density", [(1280, 1), (390, 3)])
def test_boxes_are_drawn_where_they_are(page, width, density):
    page.size(width, 844, density)
    page.choose(SCENE)
    page.skill("detect")
    page.type("object", "object")
    page.ask()
    found = shown_json(page)["objects"]
    assert len(found) == 3 and page.text == "3 found"
    wanted = [[box["x_min"], box["y_min"], box["x_max"], box["y_max"]] for box in found]
    drawn = page.placed("#marks .box .line")
    assert drawn == [pytest.approx(box, abs=0.002) for box in wanted]
    assert [each.text for each in page.all("#marks .badge text")] == ["1", "2", "3"]
    listed = [[float(n) for n in each.text.split("\n")[-1].split(",")] for each in page.all("#answer .places li")]
    assert listed == [pytest.approx(box, abs=0.0006) for box in wanted]
    page.size(700, 900)  # the picture is another size now
    assert page.placed("#marks .box .line") == [pytest.approx(box, abs=0.003) for box in wanted]


def test_points_are_drawn_where_they_are(page):
    page.choose(SCENE)
    page.skill("point")
    page.type("object", "flower")
    page.ask()
    found = shown_json(page)["points"]
    assert len(found) == 2
    drawn = page.placed("#marks .dot")
    middles = [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in drawn]
    assert middles == [pytest.approx((point["x"], point["y"]), abs=0.002) for point in found]


def test_an_outline_is_drawn_in_its_box(fake):
    page, backend = fake({"bbox": BOX}, {"chunk": PATH[:5]}, "wait", {"chunk": PATH[5:]}, Result(path=PATH, bbox=BOX))
    page.choose(SCENE)
    page.skill("segment")
    page.type("object", "fish")
    page.element("go").click()
    corners = pytest.approx(list(BOX.values()), abs=0.01)
    page.until(lambda: page.placed("#marks .around"))
    assert page.placed("#marks .around") == [corners], "the box comes before the outline is complete"
    backend.released.set()
    page.until(lambda: page.state == "done")
    assert page.placed("#marks .outline .line") == [corners]
    assert page.all("#marks .outline .line")[0].get_attribute("d") == PATH
    assert backend.asked[0][1].arguments == {"object": "fish"}


def test_reasoning_is_shown_and_its_points_are_drawn(fake):
    thought = {"text": "I see <b>one</b>.", "grounding": [{"start_idx": 0, "end_idx": 5, "points": [[0.5, 0.25]]}]}
    page, backend = fake({"reasoning": thought}, {"chunk": "One."}, Result(answer="One.", reasoning=thought))
    page.choose(SCENE)
    page.skill("query")
    page.type("question", "How many?")
    page.element("reasoning").click()
    page.ask()
    assert backend.asked[0][1].arguments == {"question": "How many?", "reasoning": True}
    page.all("#answer summary")[0].click()
    assert page.all("#answer .thought p")[0].text == "I see <b>one</b>." and page.text == "One."
    (left, top, right, bottom) = page.placed("#marks .dot")[0]
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((0.5, 0.25), abs=0.002)


def test_stop_gives_the_ask_up(fake):
    page, backend = fake({"chunk": "Half of"}, "wait", Result(caption="Half of it"))
    page.choose(SCENE)
    page.element("go").click()
    page.until(lambda: page.text == "Half of")
    page.element("stop").click()
    page.until(lambda: page.state == "stopped")
    assert backend.given_up.wait(60)
    assert page.text == "Half of" and not page.element("stop").is_displayed()


def test_a_new_ask_stops_the_old(fake):
    page, backend = fake({"chunk": "Half of"}, "wait", Result(caption="Half of it"))
    page.choose(SCENE)
    page.element("go").click()
    page.until(lambda: page.text == "Half of")
    page.element("go").click()
    assert backend.given_up.wait(60)
    page.until(lambda: len(backend.asked) == 2)
    backend.released.set()
    page.until(lambda: page.state == "done")
    first, second = [each.text.split("\n") for each in page.all("#history button")]
    assert first == second == ["Caption: normal", "Half of"]


def test_a_broken_picture_is_told_in_words(visit, address, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(BROKEN)
    page = visit(address, refused=True)
    page.choose(tmp_path / "broken.jpg")
    assert "cannot show the picture" in page.element("unseen").text
    page.element("go").click()
    page.until(lambda: page.element("fault").is_displayed())
    said = httpx.post(
        f"{address}/v1/caption", json={"image_url": data_address(tmp_path / "broken.jpg")}, timeout=60
    ).json()["error"]["message"]
    assert page.element("fault").text == f"The server cannot use this: {said}"
    page.choose(SCENE)
    assert not page.element("fault").is_displayed()
    page.ask()
    assert page.text


@pytest.mark.parametrize(
    "error, message",
    [
        (
            BodyError("4 requests wait", status=429, headers={"Retry-After": "7"}),
            "busy: 4 requests wait. Try again in 7",
        ),
        (BodyError("compiling", status=503), "Not now: compiling"),
        (ZeroDivisionError(), "The server failed: "),
    ],
)
def test_refusals_are_told_in_words(fake, error, message):
    page, _ = fake(error, refused=True)
    page.choose(SCENE)
    page.element("go").click()
    page.until(lambda: page.element("fault").is_displayed())
    assert message in page.element("fault").text


def test_a_server_that_starts_is_waited_for(serve, visit):
    service = Service(FakeBackend({"chunk": "a fake"}, Result()), ["fake"])
    page = visit(serve(service), refused=True)
    page.until(lambda: page.element("model").text == "fake, starting, compiling")
    page.choose(SCENE)
    page.element("go").click()
    page.until(lambda: page.element("fault").text == "Not now: the server is starting: compiling. Try again in 5 s.")
    service.start()
    page.until(lambda: page.element("model").text == "fake")
    page.ask()
    assert page.text == "a fake"


def test_what_the_model_has_not_is_not_offered(page):
    page.until(lambda: not page.all("input[value=segment]")[0].is_enabled())
    assert all(page.all(f"input[value={skill}]")[0].is_enabled() for skill in ("caption", "query", "detect", "point"))


def test_a_broken_stream_is_no_answer(fake):
    page, backend = fake({"chunk": "Half of"}, "wait", ZeroDivisionError(), refused=True)
    page.choose(SCENE)
    page.element("go").click()
    page.until(lambda: page.text == "Half of")
    backend.released.set()
    page.until(lambda: page.state == "failed")
    assert page.text == "Half of" and page.element("fault").is_displayed()


def test_by_keyboard_alone(page):
    from selenium.webdriver.common.keys import Keys

    page.keys(Keys.TAB)
    assert page.focus == "choose"
    assert page.script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.script("document.getElementById('file').click = () => { window.opened = true; }")
    page.keys(Keys.ENTER)
    assert page.script("return window.opened"), "the key opens the dialog for files"
    page.choose(SCENE)
    page.until(lambda: page.focus == "change")
    page.keys(Keys.TAB)
    assert page.focus == "caption"
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.focus == "detect"
    page.keys(Keys.TAB, "flower", Keys.ENTER)
    page.until(lambda: page.state == "done")
    assert page.text == "2 found"
    assert page.element("status").text == "Detect: flower. 2 found"  # for who listens to the page
    page.keys(Keys.TAB, Keys.TAB, Keys.ARROW_DOWN)  # past "Ask" and the first place
    assert page.all("#marks .chosen")[0].get_attribute("data-number") == "2"
    page.keys(Keys.TAB)
    assert page.focus == "Copy text" and not page.all("#marks .chosen")


def test_what_is_missing_is_said(page):
    page.element("go").click()
    assert page.element("fault").text == "Choose a picture first." and page.focus == "choose"
    page.skill("query")
    page.element("go").click()
    assert page.element("fault").text == "Type a question first." and page.focus == "question"


def test_drop_and_paste(page):
    put = """const [name, kind, data] = arguments;
        const bytes = Uint8Array.from(atob(data.split(",")[1]), (c) => c.charCodeAt(0));
        const moved = new DataTransfer();
        moved.items.add(new File([bytes], name, { type: "image/png" }));
        const options = { bubbles: true, cancelable: true, dataTransfer: moved, clipboardData: moved };
        const Kind = kind === "paste" ? ClipboardEvent : DragEvent;
        document.body.dispatchEvent(new Kind(kind, options));"""
    for kind in ("drop", "paste"):
        page.script(put, f"{kind}.png", kind, data_address(SCENE))
        page.until(lambda kind=kind: page.element("name").text == f"{kind}.png")
        assert page.element("picture").get_attribute("naturalWidth") == "240"


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "avif"])
def test_a_photo_is_shown_upright(page, tmp_path, kind):
    """As the model sees it, in all eight ways of storing it."""
    stored = Image.new("RGB", (240, 120), "white")
    stored.paste("red", (0, 0, 120, 60))
    stored.paste("blue", (120, 0, 240, 60))
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.{kind}"
        stored.save(path, exif=exif)
        page.choose(path)
        seen, shown = np.asarray(decode(path).picture, int), pixels(page)
        assert shown.shape == seen.shape and np.abs(shown - seen).mean() < 4, orientation


def pixels(page: Page) -> np.ndarray:
    """Of the picture as the browser shows it: int [H, W, 3]."""
    width, height, data = page.script(
        """const image = document.getElementById("picture");
        return image.decode().then(() => {
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          return [canvas.width, canvas.height, [...context.getImageData(0, 0, canvas.width, canvas.height).data]];
        });"""
    )
    return np.array(data).reshape(height, width, 4)[..., :3]


def test_boxes_lie_on_the_upright_photo(fake, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 200), (200, 40, 40)).save(tmp_path / "turned.jpg", exif=exif)
    page, _ = fake(Result(objects=[BOX]))
    page.choose(tmp_path / "turned.jpg")
    assert page.element("size").text.startswith("200 × 400")
    page.skill("detect")
    page.type("object", "fish")
    page.ask()
    shown = page.element("picture").rect
    assert shown["width"] / shown["height"] == pytest.approx(0.5, abs=0.01)
    assert page.placed("#marks .box .line") == [pytest.approx(list(BOX.values()), abs=0.005)]


def test_places_that_are_no_numbers_are_left_out(fake):
    page, _ = fake(Result(objects=[BOX | {"x_min": None}, BOX | {"x_max": 1.4}, BOX]))
    page.choose(SCENE)
    page.skill("detect")
    page.type("object", "fish")
    page.ask()
    assert page.text == "3 found" and len(page.all("#marks .box")) == 2


def test_numbers_of_many_places_do_not_cover_the_picture(fake):
    page, _ = fake(Result(objects=[BOX] * 30))
    page.choose(SCENE)
    page.skill("detect")
    page.type("object", "fish")
    page.ask()
    assert not any(each.is_displayed() for each in page.all("#marks .badge"))
    page.script("document.querySelectorAll('#answer .places button')[9].focus()")
    assert [each.text for each in page.all("#marks .badge text") if each.is_displayed()] == ["10"]


def test_earlier_asks_come_back(page):
    page.choose(SCENE)
    page.skill("detect")
    page.type("object", "flower")
    page.ask()
    page.choose(EXAMPLES / "scene_09.jpg")
    page.skill("caption")
    page.ask()
    assert page.all("#marks .box") == []
    page.all("#history button")[1].click()
    assert page.element("name").text == "scene_11.png" and page.text == "2 found"
    assert len(page.all("#marks .box")) == 2
    assert page.element("object").get_attribute("value") == "flower"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screens_and_contrast(page, scheme):
    """Nothing is wider than a telephone, and every text can be read (WCAG AA)."""
    page.size(390, 844, 3)
    page.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    page.choose(SCENE)
    page.skill("detect")
    page.type("object", "object")
    page.ask()
    page.skill("query")
    page.type("question", "How many objects are there in this very long question?" * 3)
    page.ask()
    assert page.script("return document.documentElement.scrollWidth") <= 390
    assert page.script(TOO_WIDE) == []
    assert page.script(CONTRAST) == []


TOO_WIDE = """return [...document.querySelectorAll("body *")]
  .filter((each) => each.getBoundingClientRect().right > 391 && each.checkVisibility()).map((each) => each.outerHTML)"""
# Every text against the nearest background behind it; all of these are opaque.
CONTRAST = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => channels(colour).slice(0, 3).map((each) => each / 255)
  .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
  .reduce((sum, each, index) => sum + each * [0.2126, 0.7152, 0.0722][index], 0);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if ((channels(colour)[3] ?? 1) > 0) return colour;
  }
  return "rgb(255, 255, 255)";
};
const faint = [];
for (const node of document.querySelectorAll("body *")) {
  const own = [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
  if (!own || !node.checkVisibility() || node.closest("svg, input:disabled + span")) continue;
  const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) faint.push(`${ratio.toFixed(2)}: ${node.outerHTML}`);
}
return faint;
"""


def test_a_picture_over_the_limit_is_made_smaller(fake, tmp_path):
    """And no other: that goes as it is."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 900, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    page, backend = fake(options=ServerOptions(max_body=400_000))
    for path, as_it_is in ((SCENE, True), (tmp_path / "noise.png", False)):
        page.choose(path)
        page.ask()
        sent = backend.asked[-1][0]
        image = Image.open(io.BytesIO(sent))
        assert (sent == path.read_bytes()) == as_it_is
        assert page.element("scaled").is_displayed() != as_it_is
    assert 400 < image.width < 900 and image.width / image.height == pytest.approx(1.5, abs=0.01)
    assert f"{image.width} × {image.height}" in page.element("scaled").text


def test_a_key_is_asked_for_and_kept_in_the_tab(fake):
    page, _ = fake({"chunk": "a fake"}, Result(), refused=True, options=ServerOptions(keys=("secret",)))
    page.until(lambda: page.element("key").is_displayed())
    page.type("secret", "wrong")
    page.all("#key button")[0].click()
    page.until(lambda: page.element("fault").is_displayed())
    assert page.element("fault").text == "The server refuses this key."
    page.type("secret", "secret")
    page.all("#key button")[0].click()
    page.until(lambda: not page.element("key").is_displayed())
    assert not page.element("fault").is_displayed()
    page.driver.refresh()
    page.choose(SCENE)
    page.ask()
    assert page.text == "a fake"


def test_a_key_that_is_no_longer_good_is_asked_for_at_an_ask(fake):
    """Which then goes on."""
    page, _ = fake({"chunk": "a fake"}, Result(), refused=True, options=ServerOptions(keys=("secret",)))
    page.until(lambda: page.element("key").is_displayed())
    page.choose(SCENE)
    page.element("go").click()
    page.until(lambda: page.element("fault").is_displayed())
    page.type("secret", "secret")
    page.all("#key button")[0].click()
    page.until(lambda: page.state == "done")
    assert page.text == "a fake"


def test_the_page_may_reach_nothing_else(address):
    response = httpx.get(address + "/")
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    for name in re.findall(r'(?:src|href)="([^"]+)"', response.text):
        part = httpx.get(f"{address}/{name}")
        assert part.status_code == 200 and part.headers["x-content-type-options"] == "nosniff", name
        assert part.headers["content-security-policy"] == response.headers["content-security-policy"]


@pytest.mark.parametrize("name", sorted(each.name for each in files("jaxphoton.server").joinpath("assets").iterdir()))
def test_nothing_is_inline_or_from_elsewhere(name):
    text = files("jaxphoton.server").joinpath("assets", name).read_text(encoding="utf-8")
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)|//cdn|@import|eval\(|innerHTML|insertAdjacent", text) == []
    if name.endswith(".html"):
        assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", text) == []
        assert all(re.search(r"\ssrc=", tag) for tag in re.findall(r"<script[^>]*>", text))


def test_unknown_files_are_not_found(address):
    for path in ("/page/none.js", "/page/index.html", "/page/..%2fpage.py", "/page/../page.py"):
        assert httpx.get(address + path).status_code == 404
    assert httpx.post(address + "/").status_code == 405
