"""The explainer's page in a real browser: what a reader does with it, and what it looks like."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import explainer_tables
import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys
from test_explainer import PAGE, library_masks

VIEWS = [(width, scheme) for width in (1280, 768, 360) for scheme in ("light", "dark")]


def drawn(browser) -> int:
    """How often the page has drawn itself; it waits for a drawing that is due."""
    wait = "requestAnimationFrame(() => requestAnimationFrame(() => arguments[0]()))"
    browser.driver.execute_async_script(wait)
    return int(browser.run("return document.documentElement.dataset.drawn"))


def said(browser, name: str) -> str:
    """What the text says of something that changes."""
    text = browser.run(f"return document.querySelector('[data-live={name}]').textContent")
    return re.sub(r"\s+", " ", text)


def picture(browser, name: str) -> str:
    """What a figure shows: its elements."""
    return browser.run(f"return document.getElementById('figure-{name}').outerHTML")


def pictures(browser) -> list[str]:
    """What is in each picture of the page."""
    return browser.run(
        "return [...document.querySelectorAll('svg.board, svg.chart')].map((svg) => svg.innerHTML)"
    )


@pytest.fixture
def page(browser):
    browser.open(PAGE)
    return browser


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_it_opens_from_disk_without_a_complaint_or_the_network(browser, width, scheme, tmp_path):
    browser.open(PAGE, width=width, scheme=scheme)
    drawn(browser)
    assert browser.complaints() == []
    asked = browser.requested()
    assert asked
    assert all(address.startswith(PAGE.parent.as_uri()) for address in asked)
    assert browser.overflow() == 0
    assert all("</" in shown for shown in pictures(browser))
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        assert shot.width == width
        ground = shot.convert("L").getpixel((width // 2, shot.height - 2))
        assert (ground > 200) == (scheme == "light")
        assert len(shot.convert("RGB").getcolors(2**24)) > 1000


def test_the_text_without_scripts_is_the_text_of_the_start(browser):
    browser.open(PAGE)
    drawn(browser)
    now = {name: said(browser, name) for name in written()}
    assert len(now) > 8
    assert now == written()
    browser.open(PAGE, scripts=False)
    assert "does not run" in browser.find("noscript").text


def written() -> dict[str, str]:
    """What the file itself has in the places of what changes, as far as it has anything."""

    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.name, self.found = None, {}

        def handle_starttag(self, tag, attributes):
            self.name = dict(attributes).get("data-live")

        def handle_data(self, data):
            if self.name and data.strip():
                self.found[self.name] = " ".join(data.split())

        def handle_endtag(self, tag):
            self.name = None

    reader = Reader()
    reader.feed(PAGE.read_text("utf-8"))
    return reader.found


MOVE = "down and to the right, by"
SLIDERS = {
    "rows": ("tokens", {"144": "156"}),
    "columns": ("tokens", {"144": "156"}),
    "window": ("windowSize", {"4 × 4": "5 × 5"}),
    "shift": ("borderMove", {f"{MOVE} 2 tokens": f"{MOVE} 3 tokens"}),
    "padding": ("tokens", {"144": "121"}),
}


@pytest.mark.parametrize("slider", SLIDERS)
def test_sliders_move_by_keyboard_and_the_pictures_change(page, slider):
    name, [(before, after)] = SLIDERS[slider][0], SLIDERS[slider][1].items()
    drawn(page)
    assert said(page, name) == before
    old = picture(page, "shifted"), picture(page, "regular"), said(page, "windowPairs")
    page.run(f"document.getElementById('{slider}').focus()")
    page.press(Keys.ARROW_RIGHT)
    drawn(page)
    assert said(page, name) == after
    assert picture(page, "shifted") != old[0]
    if slider != "shift":
        assert picture(page, "regular") != old[1]
    page.press(Keys.ARROW_LEFT)
    drawn(page)
    assert (said(page, name), said(page, "windowPairs")) == (before, old[2])
    assert page.complaints() == []


def test_padding_is_what_the_last_windows_lack(page):
    for rows, columns, shown in [(13, 12, "3 / 0"), (15, 15, "1"), (16, 4, "0")]:
        page.run(f"State.change({{ rows: {rows}, columns: {columns} }})")
        drawn(page)
        assert page.find("#padding-value").text == shown


def test_every_preset_is_drawn(page):
    for i, (_, grid, window, shift, _) in enumerate(explainer_tables.PRESETS):
        page.run(
            f"const list = document.getElementById('presets'); list.value = '{i}';"
            "list.dispatchEvent(new Event('change'))"
        )
        drawn(page)
        set_ = page.run("const s = State.setting; return [s.rows, s.columns, s.window, s.shift]")
        assert set_ == [*grid, window, shift]
        assert page.run("return document.getElementById('presets').value") == str(i)
        assert page.overflow() == 0
    assert page.complaints() == []


def cells(path: str) -> set[tuple[int, int]]:
    """The cells that a path of squares fills."""
    unit = 20
    return {
        (int(y) // unit, int(x) // unit) for x, y in re.findall(r"M(\d+) (\d+)h20v20h-20z", path)
    }


@pytest.mark.parametrize("preset", [0, 2, 5, 6, 8])
def test_the_masks_drawn_are_the_librarys(page, preset):
    _, grid, window, shift, _ = explainer_tables.PRESETS[preset]
    page.run(
        f"State.change({{ rows: {grid[0]}, columns: {grid[1]}, window: {window}, shift: {shift} }})"
    )
    drawn(page)
    paths = page.run("""return [...document.querySelectorAll('#masks svg:last-of-type .masked')]
        .map((path) => path.getAttribute('d'))""")
    masks = library_masks((grid, (window, window), (shift, shift)))
    assert len(paths) == len(masks)
    for path, mask in zip(paths, masks.values(), strict=True):
        expected = {(i, j) for i, row in enumerate(mask) for j, cell in enumerate(row) if cell}
        assert cells(path) == expected


def test_a_token_is_chosen_by_keyboard_and_by_pointer(page):
    drawn(page)
    page.run("document.getElementById('figure-reach-both').focus()")
    page.press(*[Keys.ARROW_UP] * 9, *[Keys.ARROW_LEFT] * 2)
    drawn(page)
    assert page.run("return State.setting.token") == [0, 4]
    label = page.find("#figure-reach-both").get_attribute("aria-label")
    assert label == "The chosen token, row 1, column 5, has gathered from 32 of 144 tokens."
    assert "row 1, column 5" in said(page, "reachCaption")
    page.run("State.change({ rows: 13, columns: 13 })")
    page.find("#figure-tokens").click()  # in the middle
    drawn(page)
    assert page.run("return State.setting.token") == [6, 6]


def test_a_kind_of_window_is_chosen_and_explained(page):
    drawn(page)
    assert "right below it rows from the top edge" in said(page, "strangersCaption")
    page.run("document.querySelector('[data-kinds] input:checked').focus()")
    page.press(Keys.ARROW_RIGHT)
    drawn(page)
    assert page.run("return State.setting.kind") == "corner"
    assert "all four corners" in said(page, "strangersCaption")
    assert "with it 0 %" in said(page, "sharesCaption")
    page.press(Keys.ARROW_RIGHT)  # around, to the first
    drawn(page)
    assert "No strangers here" in said(page, "strangersCaption")


def test_a_cell_of_the_mask_says_what_it_is(page):
    drawn(page)
    assert said(page, "cellCaption").endswith("They come from different pieces: −100, masked.")
    page.run("document.getElementById('figure-cell').focus()")
    page.press(*[Keys.ARROW_LEFT] * 3)
    drawn(page)
    assert page.run("return State.setting.pair") == [5, 7]
    assert said(page, "cellCaption").endswith(
        "They come from the same piece: 0, they see each other."
    )


def test_other_region_numbers_give_the_same_mask(page):
    drawn(page)
    before = picture(page, "regions"), picture(page, "numbered")
    page.run("document.getElementById('other-numbers').click()")
    drawn(page)
    assert picture(page, "regions") != before[0]
    assert picture(page, "numbered") == before[1]
    assert "is the same as" in said(page, "regionsCaption")


def moves(browser) -> list[str]:
    return browser.run("""return [...document.querySelectorAll('#figure-roll .piece')]
        .map((piece) => piece.style.transform)""")


def test_the_cyclic_shift_goes_step_by_step(page):
    drawn(page)
    home = [
        "translate(40px, 40px)",
        "translate(0px, 40px)",
        "translate(40px, 0px)",
        "translate(0px, 0px)",
    ]
    assert moves(page) == home
    assert not page.find("#roll-back").is_enabled()
    captions = []
    for _ in range(4):
        page.run("document.getElementById('roll-next').click()")
        drawn(page)
        captions.append(page.find("#roll-caption").text)
    assert [caption[:7] for caption in captions] == [f"{i} of 5." for i in (2, 3, 4, 5)]
    assert moves(page) == home
    assert not page.find("#roll-next").is_enabled()
    page.run("document.getElementById('roll-step').focus()")
    page.press(Keys.ARROW_LEFT)
    drawn(page)
    there = [
        "translate(0px, 0px)",
        "translate(200px, 0px)",
        "translate(0px, 200px)",
        "translate(200px, 200px)",
    ]
    assert moves(page) == there


def test_whoever_wants_less_motion_gets_none(page):
    move = (
        "return getComputedStyle(document.querySelector('#figure-roll .piece')).transitionDuration"
    )
    drawn(page)
    for wish, still in (("no-preference", False), ("reduce", True)):
        page.tell(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-reduced-motion", "value": wish}],
        )
        assert (page.run(move) == "0s") == still


def test_a_picture_of_the_readers_own(page, tmp_path):
    drawn(page)
    old = page.run("return document.getElementById('image').getAttribute('href')")
    Image.new("RGB", (90, 40), (255, 0, 0)).save(tmp_path / "red.png")
    page.find("#file").send_keys(str(tmp_path / "red.png"))
    wait_for(page, "document.getElementById('picture-status').textContent === 'Showing red.png.'")
    drawn(page)
    assert page.run("return document.getElementById('image').getAttribute('href')") != old
    red, green, blue = map(float, re.findall(r"\d\.\d\d", said(page, "numbers")))
    assert (red, green, blue) == pytest.approx((1, 0, 0), abs=0.02)
    page.run("document.getElementById('default-picture').click()")
    drawn(page)
    assert page.run("return document.getElementById('image').getAttribute('href')") == old
    assert page.complaints() == []
    assert all(address.startswith("file:") for address in page.requested())


def test_a_picture_is_dropped_anywhere(page, tmp_path):
    Image.new("RGB", (40, 40), (0, 0, 255)).save(tmp_path / "blue.png")
    data = base64.b64encode((tmp_path / "blue.png").read_bytes()).decode()
    page.run(
        """const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], "blue.png", { type: "image/png" }));
        const drop = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
        document.querySelector("h1").dispatchEvent(drop);""",
        data,
    )
    wait_for(page, "document.getElementById('picture-status').textContent === 'Showing blue.png.'")
    drawn(page)
    assert said(page, "numbers").endswith("1.00, …]")


def test_what_is_no_picture_is_refused_with_a_word(page, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    before = page.run("return document.getElementById('image').getAttribute('href')")
    page.find("#file").send_keys(str(tmp_path / "notes.txt"))
    wait_for(
        page, "document.getElementById('picture-status').textContent.includes('not a picture')"
    )
    assert page.run("return document.getElementById('image').getAttribute('href')") == before


def wait_for(browser, condition: str) -> None:
    """Waits for a condition of the page's; a script that never ends is an error."""
    browser.driver.set_script_timeout(20)
    browser.driver.execute_async_script(
        f"const look = () => ({condition}) ? done() : setTimeout(look, 30);"
        "const done = arguments[0]; look()"
    )


def test_everything_has_a_name(page):
    drawn(page)
    nameless = page.run("""
        const things = document.querySelectorAll('svg.board, svg.chart, input, select, button');
        const named = (one) => one.getAttribute('aria-label') || one.labels?.length;
        return [...things].filter((one) => !named(one) && !one.textContent.trim())
          .map((one) => one.outerHTML.slice(0, 80))""")
    assert nameless == []
    twice = page.run("""const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
        return ids.filter((id, i) => ids.indexOf(id) !== i)""")
    assert twice == []
    dead = page.run("""return [...document.querySelectorAll('a[href^="#"]')]
        .filter((link) => !document.getElementById(link.hash.slice(1))).map((link) => link.hash)""")
    assert dead == []


CONTRAST = """
const light = (color) => {
  const [r, g, b] = color.match(/[\\d.]+/g).map((n) => n / 255)
    .map((n) => (n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (one) => {
  for (let at = one; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (!color.endsWith(", 0)")) return color;
  }
};
const texts = 'p, li, a, h1, h2, h3, h4, figcaption, label, dt, dd, summary, output';
return [...document.querySelectorAll(texts)]
  .filter((one) => one.offsetParent && one.textContent.trim())
  .map((one) => [getComputedStyle(one).color, ground(one)])
  .map(([ink, paper]) => [light(ink), light(paper)].sort((a, b) => b - a))
  .map(([more, less]) => (more + 0.05) / (less + 0.05));
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser, scheme):
    browser.open(PAGE, scheme=scheme)
    drawn(browser)
    ratios = browser.run(CONTRAST)
    assert len(ratios) > 100
    assert min(ratios) > 4.5  # WCAG 2.2, 1.4.3


def test_it_prints_with_every_answer_open(page):
    drawn(page)
    printed = base64.b64decode(page.tell("Page.printToPDF")["data"])
    assert printed.startswith(b"%PDF")
    assert 4 < printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") < 30
    assert page.run(
        "return [...document.querySelectorAll('#check details')].every((one) => one.open)"
    )


def test_every_thread_that_it_answers_is_named():
    text = PAGE.read_text("utf-8")
    threads = {
        "microsoft/Swin-Transformer": (38, 52, 125, 174, 194, 245),
        "berniwal/swin-transformer-pytorch": (9,),
        "JingyunLiang/SwinIR": (13, 153),
        "meraks/Swin-Transformer-1D": (7,),
    }
    for repository, numbers in threads.items():
        for number in numbers:
            assert f'href="https://github.com/{repository}/issues/{number}"' in text
    assert text.count('class="note-link"') == text.count('<li id="asked-') == 6
