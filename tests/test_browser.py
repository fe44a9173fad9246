"""The browser that pages are tested in: it sees what a page does wrong, and does as it is told."""

import pytest
from browser import started


def page(folder, body):
    path = folder / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><title>page</title>{body}")
    return path


def test_a_page_without_fault_has_none(browser, tmp_path):
    path = page(tmp_path, "<p>well</p><script>console.log('fine')</script>")
    browser.open(path)
    assert browser.complaints() == []
    assert browser.requested() == [path.as_uri()]
    assert browser.overflow() == 0


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("nothing.at.all()", "nothing is not defined"),
        ("console.error('wrong')", "wrong"),
        ("Promise.reject(new Error('late'))", "late"),
    ],
)
def test_errors_are_seen(browser, tmp_path, script, said):
    browser.open(page(tmp_path, f"<script>{script}</script>"))
    [complaint] = browser.complaints()
    assert said in complaint
    browser.open(page(tmp_path, ""))
    assert browser.complaints() == []


def test_what_a_page_asks_for_is_seen(browser, tmp_path):
    browser.open(page(tmp_path, "<img src='missing.png'><img src='data:image/gif;base64,R0lGOD'>"))
    assert (tmp_path / "missing.png").as_uri() in browser.requested()
    assert any("missing.png" in complaint for complaint in browser.complaints())


def test_width_scheme_media_and_scripts(browser, tmp_path):
    script = "<script>it.textContent = 'yes'</script>"
    path = page(tmp_path, f"<p id=it style='width:700px'>no</p>{script}")
    queries = "['(prefers-color-scheme: dark)', 'print'].map(query => matchMedia(query).matches)"
    asked = f"return [innerWidth, ...{queries}]"
    browser.open(path, width=360, scheme="dark", media="print")
    assert browser.run(asked) == [360, True, True]
    assert browser.overflow() > 300
    assert browser.find("#it").text == "yes"
    browser.open(path, scripts=False)
    assert browser.run(asked) == [1280, False, False]
    assert browser.find("#it").text == "no"


def test_keys_reach_what_has_the_focus(browser, tmp_path):
    browser.open(page(tmp_path, "<input id=it autofocus>"))
    browser.press("a", "b")
    assert browser.run("return it.value") == "ab"


def test_a_screenshot_holds_the_whole_page(browser, tmp_path):
    from PIL import Image

    browser.open(page(tmp_path, "<body style='margin:0;height:2000px;background:#00f'>"), width=360)
    browser.screenshot(tmp_path / "shot.png")
    shot = Image.open(tmp_path / "shot.png").convert("RGB")
    assert shot.size == (360, 2000)
    assert shot.getpixel((359, 1999)) == (0, 0, 255)


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
)
def test_without_chromium_tests_are_skipped_and_fail_in_ci(monkeypatch, tmp_path, ci, outcome):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="install Debian's packages chromium and"), started():
        pass
