"""`hierarch report`: what the page says is what the network does, and it opens in a browser."""

from __future__ import annotations

import json
import re
import shutil
import sys
from base64 import b64decode
from dataclasses import asdict
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers import noise, perturb, tiny
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

import hierarch
from hierarch.errors import DataError, FormatError, MissingPackageError
from hierarch.page.cuts import GridCut, block_cuts, regions
from hierarch.report import BenchReport, text

ROOT = Path(__file__).parents[1]
GRID = ROOT / "docs" / "results" / "shifting"
HOSTILE = "</script></style><img src=x onerror=pwned=1><script>pwned=1</script>&\"'$\\frac$"


# masks and windows, as data


def sees(cut: GridCut) -> torch.Tensor:
    """(N, N), of the tokens of a grid: whether the data says that one sees another."""
    height, width = (len(axis.windows) for axis in cut.axes)
    rows, columns = cut.axes
    splits = [any(kind.last[i] for kind in cut.kinds) for i in range(2)]

    def place(y, x):
        window = (rows.windows[y], columns.windows[x])
        last = tuple(
            split and at == axis.count - 1
            for split, at, axis in zip(splits, window, cut.axes, strict=True)
        )
        [kind] = [kind for kind in cut.kinds if kind.last == last]
        return window, kind.regions[rows.slots[y] * columns.window + columns.slots[x]]

    places = [place(y, x) for y in range(height) for x in range(width)]
    return torch.tensor([[one == other for other in places] for one in places])


def reaches(mixer: torch.nn.Module, grid: tuple[int, int], dim: int) -> torch.Tensor:
    """(N, N), of the tokens of a grid: whether a mixer's output at one depends on another."""
    x = noise(1, *grid, dim, dtype=torch.float64)
    size = grid[0] * grid[1]
    jacobian = torch.autograd.functional.jacobian(lambda x: mixer.double()(x).sum(-1), x)
    return jacobian.view(size, size, dim).abs().amax(2) > 1e-12


@pytest.mark.parametrize(
    ("mixer", "fields"),
    [
        ("window_attention", {}),
        ("window_attention", {"shift_size": [0, 2]}),
        ("window_attention", {"window_size": [3, 5], "shift_size": [1, 2]}),
        ("window_attention", {"shift_size": 2, "shift_mask": False}),
        ("window_attention", {"window_size": 12, "shift_size": 5}),
        ("window_attention", {"window_size": 12, "shift_size": 5, "small_map": "pad_shift"}),
        ("cosine_window_attention", {"shift_size": 1}),
        ("window_mlp", {"shift_size": 1}),
        ("grid_attention", {}),
    ],
)
def test_a_token_sees_what_reaches_it(mixer, fields):
    """The data of a page against the gradients of the network that it describes."""
    mixer = {"type": mixer, "head_dim": 4, "window_size": 4} | fields
    spec = hierarch.load({"mixer": mixer, "stages": [{"dim": 8, "depth": 1}]})
    [block] = block_cuts(spec, (28, 40))
    [own] = perturb(hierarch.build(spec), std=0.5).stages[0].blocks
    assert block.grid == (7, 10)
    assert torch.equal(sees(block.cut), reaches(own.mixer, block.grid, 8))


def test_masks_are_those_that_attention_adds():
    spec = hierarch.load(tiny())
    model = perturb(hierarch.build(spec))
    masked = 0
    for block in block_cuts(spec, (44, 44)):
        mixer = model.stages[block.stage].blocks[block.block].mixer
        cut = mixer.cut(block.grid)
        masks = mixer.masks(cut, torch.zeros(1))
        assert dict(cut.runs(1)) == {kind.last: kind.count for kind in block.cut.kinds}
        for kind in block.cut.kinds:
            added = masks[kind.last] - mixer.bias(cut.window)
            of = torch.tensor(kind.regions)
            apart = (of[:, None] != of).expand(added.shape)
            torch.testing.assert_close(added, torch.where(apart, -100.0, 0.0))
            masked += kind.masked
    assert masked == 3 + 3


def test_a_mixer_that_does_not_work_in_windows_has_no_cut():
    spec = hierarch.load({"mixer": "pooling", "stages": [{"dim": 8, "depth": 2}]})
    assert [block.cut for block in block_cuts(spec, (28, 28))] == [None, None]


def test_a_mask_that_is_not_by_regions_is_not_drawn_as_if_it_were():
    chain = torch.eye(3, dtype=torch.bool)
    assert regions(~chain) == (0, 1, 2)
    chain[0, 1] = chain[1, 0] = chain[1, 2] = chain[2, 1] = True  # 0 sees 1, and 1 sees 2
    with pytest.raises(AssertionError, match="not by regions"):
        regions(~chain)


# the file


@pytest.fixture(scope="module")
def bench_file(tmp_path_factory):
    """A benchmark of two tiny specs, timed here and written as the command writes it."""
    report = hierarch.benchmark(
        [tiny(name="first"), tiny("window_mlp", name="second")],
        sizes=[32],
        rounds=2,
        memory=False,
        gemm_side=0,
    )
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    path.write_text(text(report, "json"))
    return path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of `hierarch train`, as its folder has it."""
    folder = tmp_path_factory.mktemp("run")
    results = {"name": "tiny", "run": "runs/tiny", "steps": 40, "epochs": 2, "loss": 1.25}
    results |= {"val_loss": 1.5, "val_top1": 0.625, "val_top5": 0.9, "best_top1": 0.65}
    (folder / "results.json").write_text(json.dumps(results))
    rows = [f"{step},0,0.1,{2 - step / 40},1.0,9,,," for step in range(10, 50, 10)]
    rows[-1] = "40,1,0.1,1.0,1.0,9,1.5,0.625,0.9"
    columns = "step,epoch,lr,loss,grad_norm,images_per_s,val_loss,val_top1,val_top5"
    (folder / "metrics.csv").write_text("\n".join([columns, *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The page of Swin-T."""
    return hierarch.write_report("swin_tiny", tmp_path_factory.mktemp("single") / "report.html")


@pytest.fixture(scope="module")
def several(tmp_path_factory, bench_file, run_folder):
    """A page with all that a page can have."""
    mixed = tiny(name="mixed", input_size=60)
    mixed["stages"][1]["mixer"] = "pooling"
    specs = [mixed, tiny("window_mlp", name="mlp"), tiny("pooling", name="pooled")]
    specs[2]["mixer"] = "pooling"
    return hierarch.write_report(
        specs,
        tmp_path_factory.mktemp("several") / "report.html",
        sizes=[64, (96, 128)],
        bench=[bench_file],
        results=[run_folder, GRID],
    )


class Page(HTMLParser):
    """Ids, addresses, headings, tables and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.tables = 0
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action")]
        self.headings += [tag] * bool(re.fullmatch("h[1-6]", tag))
        self.tables += tag == "table"

    def handle_data(self, data):
        self.text += data


def test_the_page_of_swin_t_is_small(single):
    assert single.stat().st_size < 3_000_000


def test_the_page_of_swin_t_says_what_others_say(single):
    page = Page(single)
    shown = {"28,288,354", "4.509", "linear", "stage 3", "7x7", "downsampling", "1792x1792"}
    assert all(word in page.text for word in shown)
    assert hierarch.dump(hierarch.load("swin_tiny")) in page.text
    data = json.loads(re.search(r'id="windows-1">(.*?)</script>', single.read_text())[1])
    assert [block["stage"] for block in data["blocks"]] == [0] * 2 + [1] * 2 + [2] * 6 + [3] * 2
    blocks = block_cuts(hierarch.load("swin_tiny"), (224, 224))
    cuts = [json.loads(json.dumps(asdict(block.cut))) for block in blocks]
    assert [data["cuts"][block["cut"]] for block in data["blocks"]] == cuts


def test_everything_that_was_given_is_in_the_page(several):
    page = Page(several)
    assert page.tables > 20
    for said in (
        *("Comparison", "window_mlp for window_attention", "mixed", "mlp", "pooled"),
        *("Benchmark: bench.json", "ms/image", "Training: tiny", "62.5%", "runs/tiny"),
        *("Experiment: shifting", "shifted_attention_no_mask", "worse"),
        "No block of this network works in windows.",
    ):
        assert said in page.text
    assert several.read_text().count("<img src=") == 9


@pytest.mark.parametrize("which", ["single", "several"])
def test_the_page_refers_to_nothing_outside_and_is_well_formed(which, request):
    path = request.getfixturevalue(which)
    page = Page(path)
    assert len(page.ids) == len(set(page.ids))
    assert len(page.addresses) > 4
    for address in page.addresses:
        is_own = address.startswith("#") and address[1:] in page.ids
        assert is_own or address.startswith("data:image/svg+xml;base64,")
    source = path.read_text("utf-8")
    assert set(re.findall(r"url\(([^)]*)\)", source)) == {"#hatch"}
    assert not re.search(r"@import|<link|<iframe|<base", source)
    assert page.headings[0] == "h1"
    levels = [int(heading[1]) for heading in page.headings]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_same_specs_give_the_same_page(tmp_path):
    pages = [
        hierarch.write_report(tiny(), tmp_path / name, sizes=[64], results=[GRID]).read_bytes()
        for name in ("one.html", "two.html")
    ]
    assert pages[0] == pages[1]


def test_a_benchmark_that_was_written_is_read_as_it_was(bench_file):
    data = json.loads(bench_file.read_text())
    report = BenchReport.from_data(data)
    assert report.to_data() == data
    limit = {"operator": "linear", "side": 64, "seconds": [0.5], "gmacs_per_second": 64**3 / 5e8}
    data["settings"][0]["gemm"] = limit
    assert BenchReport.from_data(data).to_data() == data


# in a browser


def shot(browser, path: Path) -> Image.Image:
    """A screenshot of the whole page, which is also kept at a path."""
    browser.screenshot(path)
    with Image.open(path) as image:
        return image.convert("RGB")


@pytest.mark.parametrize("which", ["single", "several"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 768, 360])
def test_the_page_opens_without_fault(browser, which, request, width, scheme, tmp_path):
    path = request.getfixturevalue(which)
    browser.open(path, width=width, scheme=scheme)
    assert browser.complaints() == []
    assert browser.requested() == [path.as_uri()]
    assert browser.overflow() == 0
    assert browser.find(".viewer").is_displayed()
    image = shot(browser, tmp_path / "page.png")
    assert image.width == width
    assert (min(image.getpixel((1, 300))) > 200) == (scheme == "light")
    assert (max(image.getpixel((1, 300))) < 60) == (scheme == "dark")


def picture(browser):
    return [svg.get_attribute("innerHTML") for svg in browser.find_all(".views figure svg")]


def test_the_slider_moves_by_keyboard_and_the_pictures_change(browser, single, tmp_path):
    browser.open(single)
    output, slider = browser.find("output"), browser.find("input[type=range]")
    assert output.text == "2 of 12: stage 0, block 1, window_attention, map 56 × 56"
    slider.send_keys("")  # has the focus
    first = shot(browser, tmp_path / "before.png")
    before = picture(browser)
    browser.press(Keys.ARROW_RIGHT)
    assert output.text == "3 of 12: stage 1, block 0, window_attention, map 28 × 28"
    assert slider.get_attribute("aria-valuetext") == output.text
    assert all(old != new for old, new in zip(before, picture(browser), strict=True))
    assert shot(browser, tmp_path / "after.png") != first
    browser.press(Keys.ARROW_LEFT)
    assert picture(browser) == before
    browser.press(Keys.END)
    assert output.text.startswith("12 of 12: stage 3, block 1")
    browser.press(Keys.HOME)
    assert output.text.startswith("1 of 12: stage 0, block 0")
    assert browser.complaints() == []


def cells(browser, view, name):
    """The tokens or slots that a view shows as `seen`, `apart` or `token`: (row, column)."""
    found = browser.find_all(f".{view} .chosen .{name}")
    drawn = "".join(path.get_attribute("d") for path in found)
    assert drawn.count("v1h-1z") == drawn.count("M")
    return {(int(y), int(x)) for x, y in re.findall(r"M(\d+) (\d+)h1", drawn)}


@pytest.mark.parametrize(
    ("mixer", "block"), [("window_attention", 1), ("window_mlp", 1), ("window_attention", 0)]
)
def test_what_is_drawn_as_seen_is_what_reaches_the_token(browser, tmp_path, mixer, block):
    """From the network's gradients to the pixels: the data, the script and the picture."""
    spec = hierarch.load(tiny(mixer, input_size=44))
    path = hierarch.write_report(spec, tmp_path / "page.html", sizes=[44])
    own = perturb(hierarch.build(spec), std=0.5).stages[0].blocks[block].mixer
    found = reaches(own, (11, 11), 8)
    browser.open(path)
    browser.find("input[type=range]").send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * block)
    assert browser.find("output").text.startswith(f"{block + 1} of 7: stage 0, block {block}")
    browser.find(".map svg").send_keys(*[Keys.ARROW_UP] * 11, *[Keys.ARROW_LEFT] * 11)
    for place in [(0, 0), (0, 1), (0, 5), (0, 10)]:  # along the first row
        while cells(browser, "map", "token") != {place}:
            browser.press(Keys.ARROW_RIGHT)
        seen = {(i // 11, i % 11) for i in found[place[1]].nonzero().flatten().tolist()}
        assert cells(browser, "map", "seen") == seen
        assert len(cells(browser, "window", "seen")) == len(seen)
        assert len(cells(browser, "window", "token")) == 1
        assert f"row {place[0]}, column {place[1]}" in browser.find(".told").text
    assert browser.complaints() == []


def test_the_matrix_that_is_drawn_is_the_mask(browser, single):
    from hierarch.nn.window_mixer import shift_mask

    browser.open(single)
    browser.find(".map svg").send_keys(Keys.ARROW_DOWN)  # in the corner window
    drawn = browser.find(".mask .never").get_attribute("d")
    apart = torch.zeros(49, 49, dtype=torch.bool)
    for x, y, length in re.findall(r"M(\d+) (\d+)h(\d+)v1", drawn):
        apart[int(y), int(x) : int(x) + int(length)] = True
    mask = shift_mask((2, 2), (7, 7), (3, 3))
    assert torch.equal(apart, mask[3, 0] != 0)


def test_a_token_is_chosen_with_the_mouse(browser, single):
    browser.open(single)
    view = browser.find(".map svg")
    ActionChains(browser.driver).move_to_element_with_offset(view, 5, 5).click().perform()
    assert "row 28, column 28" in browser.find(".told").text
    browser.find(".cells span:last-child").click()
    assert browser.find("output").text.startswith("2 of 12")


def test_a_block_without_windows_is_drawn_without_them(browser, several):
    browser.open(several)
    slider = browser.find("input[type=range]")
    slider.send_keys(Keys.HOME)
    assert browser.find(".views .slots").is_displayed()
    slider.send_keys(*[Keys.ARROW_RIGHT] * 2)
    assert "pooling" in browser.find("output").text
    assert browser.find(".told").text == "pooling does not work in windows."
    assert not browser.find(".views .slots").is_displayed()
    assert browser.complaints() == []


def test_the_first_tab_skips_to_the_content_and_every_stop_is_seen(browser, single):
    browser.open(single)
    browser.press(Keys.TAB)
    assert browser.run("return document.activeElement.textContent") == "Skip to the content"
    assert browser.run("return document.activeElement.getBoundingClientRect().left") >= 0
    browser.press(Keys.ENTER)
    assert browser.run("return document.activeElement.id") == "content"
    stops = 0
    for _ in range(20):
        browser.press(Keys.TAB)
        outlined = "const s = getComputedStyle(document.activeElement); return s.outlineStyle"
        if browser.run("return document.activeElement === document.body"):
            break
        assert browser.run(outlined) == "solid"
        stops += 1
    assert stops > 5


def test_light_and_dark_are_switched(browser, single):
    browser.open(single, scheme="light")
    background = "return getComputedStyle(document.body).backgroundColor"
    light = browser.run(background)
    button = browser.find("button.theme")
    assert button.text == "Dark"
    button.send_keys(Keys.ENTER)
    assert browser.run(background) != light
    assert button.text == "Light"
    button.send_keys(Keys.ENTER)
    assert browser.run(background) == light


def test_without_javascript_all_tables_are_there(browser, several):
    browser.open(several, scripts=False)
    assert browser.complaints() == []
    for table in browser.find_all("table"):
        for details in browser.find_all("details:not([open]) > summary"):
            details.click()
        assert table.is_displayed()
    assert "need JavaScript" in browser.find("noscript").text
    assert not browser.find(".viewer").is_displayed()
    assert not browser.find("button.theme").is_displayed()


def test_the_page_prints(browser, single, tmp_path):
    browser.open(single, media="print", scheme="dark")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert not browser.find(".top").is_displayed()
    assert all(table.is_displayed() for table in browser.find_all("table"))
    assert browser.run("return getComputedStyle(document.documentElement).colorScheme") == "light"
    filters = "return [...document.images].map(image => getComputedStyle(image).filter)"
    assert set(browser.run(filters)) == {"none"}  # a dark page's pictures are inverted, on screen
    printed = b64decode(browser.tell("Page.printToPDF", printBackground=True)["data"])
    assert printed.startswith(b"%PDF")
    assert browser.complaints() == []


# what others wrote


def test_what_specs_and_files_say_is_text(browser, tmp_path, bench_file):
    bench = json.loads(bench_file.read_text())
    bench |= {"device": HOSTILE, "notes": [HOSTILE]}
    bench["settings"][0]["rows"][0]["name"] = HOSTILE
    folder = tmp_path / "<b onclick=pwned=1>"
    folder.mkdir()
    (folder / "<i>bench.json").write_text(json.dumps(bench))
    grid = json.loads((GRID / "results.json").read_text())
    grid |= {"name": HOSTILE, "data": HOSTILE}
    grid["arms"][1]["name"] = HOSTILE
    grid["arms"][1]["difference"] = [HOSTILE]
    (folder / "results.json").write_text(json.dumps(grid))
    path = hierarch.write_report(
        [tiny(name=HOSTILE), tiny(name=HOSTILE)],
        tmp_path / "page.html",
        sizes=[64],
        bench=[folder / "<i>bench.json"],
        results=[folder / "results.json"],
    )
    browser.open(path)
    assert browser.complaints() == []  # none of it was even tried, or the page's policy would say
    assert browser.run("return window.pwned") is None
    assert browser.requested() == [path.as_uri()]
    assert browser.find_all("img[src=x], b, i, main script:not([type])") == []
    assert browser.find("h1").text == f"{HOSTILE} #1, {HOSTILE} #2"
    seen = browser.run("return document.body.innerText")
    assert seen.count(HOSTILE) > 10
    assert "Benchmark: <i>bench.json" in seen


def test_the_pages_policy_runs_no_other_script(browser, single, tmp_path):
    """The twin: what the escaping is for, and the policy that would hold without it."""
    source = single.read_text("utf-8")
    broken = tmp_path / "broken.html"
    injected = "<h1><img src=x onerror=pwned=1><script>pwned=1</script>"
    broken.write_text(source.replace("<h1>", injected))
    browser.open(broken)
    assert browser.run("return window.pwned") is None
    assert any("Content Security Policy" in complaint for complaint in browser.complaints())


@pytest.mark.parametrize(
    ("option", "name", "written", "said"),
    [
        ("bench", "gone.json", None, "gone.json: cannot be read: No such file"),
        ("bench", "a.json", "{", "a.json: is not what hierarch bench --format json writes"),
        ("bench", "a.json", "[]", "it holds a list"),
        ("bench", "a.json", "{}", "KeyError: 'device'"),
        ("results", "a.json", '{"arms": 3}', "a.json: is not a results.json of hierarch train or"),
        ("results", "a.json", '{"name": "x"}', "missing 4 required"),
        ("results", "a.json", '"text"', "it holds a str"),
        ("results", "", None, "results.json: cannot be read"),
    ],
)
def test_results_that_are_none_are_one_message_and_nothing_is_written(
    run, tmp_path, option, name, written, said
):
    file = tmp_path / name
    if written is not None:
        file.write_text(written)
    page = tmp_path / "page.html"
    page.write_text("before")
    status, out, err = run("report", "swin_tiny", f"--{option}", file, "-o", page)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert page.read_text() == "before"


def test_numbers_that_are_none_are_one_message(bench_file, run_folder, tmp_path):
    bench = json.loads(bench_file.read_text())
    bench["settings"][0]["rows"][0]["vs_first"] = "fast"
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(bench))
    with pytest.raises(DataError, match=r"bench.json: is not what .*Unknown format code 'f'"):
        hierarch.write_report(tiny(), tmp_path / "page.html", bench=[file])
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").write_text("step,loss\nlate,1\n")
    with pytest.raises(DataError, match=r"is not a results.json .*invalid literal for int"):
        hierarch.write_report(tiny(), tmp_path / "page.html", results=[tmp_path / "run"])
    assert not (tmp_path / "page.html").exists()


def test_a_run_without_metrics_has_no_curves(run_folder, tmp_path):
    shutil.copy(run_folder / "results.json", tmp_path)
    path = hierarch.write_report(
        tiny(), tmp_path / "page.html", sizes=[64], results=[tmp_path / "results.json"]
    )
    assert "62.5%" in path.read_text()
    assert path.read_text().count("<img src=") == 3  # architecture and cost


def test_a_file_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(FormatError, match=r"page.html: cannot be written: No such file or direct"):
        hierarch.write_report(tiny(), tmp_path / "gone" / "page.html", sizes=[64])


def test_no_spec_is_said(tmp_path):
    with pytest.raises(hierarch.SpecError, match="no spec to report on"):
        hierarch.write_report([], tmp_path / "page.html")


@pytest.mark.parametrize("package", ["matplotlib", "jinja2", "pygments"])
def test_a_missing_package_is_one_line(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"needs the package {package}: pip .*\[plot\]"):
        hierarch.write_report(tiny(), tmp_path / "page.html", sizes=[64])


def test_the_command_writes_the_page(run, tmp_path):
    path = tmp_path / "page.html"
    status, out, err = run(
        "report", "swin_tiny", "--set", "name=wide", "--set", "stages.0.dim=64", "-o", path,
        "--sizes", "224",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert out == f"{path}: {path.stat().st_size:,} bytes\n"
    assert "{dim: 64, depth: 2}" in Page(path).text
