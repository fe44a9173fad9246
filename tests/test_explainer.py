"""The explainer's arithmetic and drawings, in a real browser, against the library."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

import explainer_tables
import pytest
import torch
from helpers import noise, perturb

from hierarch.nn.cut import Cut, kinds, kinds_by_axis
from hierarch.nn.window_mixer import shift_mask
from hierarch.spec.grid import Sides, per_axis
from hierarch.spec.registry import get

FOLDER = explainer_tables.SCRIPT.parent
PAGE = FOLDER / "index.html"
Setting = tuple[Sides, Sides, Sides]
"""Grid, window and shift."""


def settings() -> list[Setting]:
    """Grids, windows and shifts: by hand what is special, and then whatever comes."""
    drawn, chance = [], random.Random(0)
    for _ in range(60):
        window = chance.randint(1, 8), chance.randint(1, 8)
        shift = chance.randrange(window[0]), chance.randrange(window[1])
        drawn.append(((chance.randint(1, 24), chance.randint(1, 24)), window, shift))
    return [
        ((12, 12), (4, 4), (2, 2)),
        ((56, 56), (7, 7), (3, 3)),
        ((7, 7), (7, 7), (3, 3)),  # one window
        ((5, 3), (7, 7), (3, 3)),  # a window larger than the map
        ((6, 24), (6, 6), (3, 3)),  # shifted along one axis
        ((13, 18), (4, 4), (2, 2)),  # padded
        ((15, 19), (4, 4), (3, 1)),
        ((12, 12), (4, 4), (0, 0)),
        ((9, 10), (3, 5), (0, 4)),
        ((1, 30), (4, 4), (3, 3)),
        *drawn,
    ]


def spec(setting: Setting, **fields: Any) -> Any:
    """The library's attention in these windows."""
    _, window, shift = setting
    return get("mixer", "window_attention")(
        window_size=window, shift_size=shift, num_heads=1, **fields
    )


def js(setting: Setting) -> str:
    """The page's cut for a setting, as an expression."""
    grid, window, shift = map(list, setting)
    return f"Windows.cut({{ grid: {grid}, window: {window}, shift: {shift} }})"


@pytest.fixture(scope="module")
def page(browser):
    """The explainer, opened from disk."""
    browser.open(PAGE)
    assert browser.complaints() == []
    return browser


def expected_slots(cut: Cut, found: list[list[list[int]]]) -> list[int]:
    """The library's numbers of slots, from the page's windows and places in them.

    The library numbers windows kind after kind; in a kind, row by row.
    """
    grouped = {kind: [] for kind, _ in cut.runs(1)}
    shift = cut.shift
    for window in itertools.product(*(range(axis.count) for axis in cut.axes)):
        last = [at == axis.count - 1 for at, axis in zip(window, cut.axes, strict=True)]
        grouped[
            tuple(bool(by) and is_last for by, is_last in zip(shift, last, strict=True))
        ].append(window)
    numbers = {window: i for i, window in enumerate(itertools.chain(*grouped.values()))}
    rows, columns = cut.window
    return [numbers[tuple(window)] * rows * columns + y * columns + x for window, (y, x) in found]


def test_every_token_is_in_the_slot_that_the_library_gives_it(page):
    for setting in settings():
        cut = spec(setting).build(4).cut(setting[0])
        found = page.run(f"""
            const of = {js(setting)}, all = [];
            for (let row = 0; row < of.grid[0]; row++)
              for (let column = 0; column < of.grid[1]; column++) {{
                const {{ window, within }} = Windows.place(of, [row, column]);
                all.push([window, within]);
              }}
            return {{ shift: of.shift, counts: of.counts, all, kinds: Windows.kinds(of) }}""")
        assert tuple(found["shift"]) == cut.shift, setting
        assert found["counts"] == [axis.count for axis in cut.axes], setting
        slots = cut.slots(1, device=torch.device("cpu")).tolist()
        assert expected_slots(cut, found["all"]) == slots, setting
        counted = {entry["kind"]: entry["count"] for entry in found["kinds"]}
        assert counted == explainer_tables.counts(cut), setting


def library_masks(setting: Setting) -> dict[str, list[list[float]]]:
    """The mask of each kind of window that a grid has, by its name on the page."""
    cut = spec(setting).build(4).cut(setting[0])
    masks = shift_mask(kinds_by_axis(cut.shift), cut.window, cut.shift)
    named = zip(kinds(cut.shift), masks[:, 0].tolist(), strict=True)
    of_kinds = {explainer_tables.NAMES[kind]: mask for kind, mask in named}
    return {kind: of_kinds[kind] for kind in explainer_tables.counts(cut)}


def test_masks_are_the_librarys(page):
    for setting in settings():
        found = page.run(f"""
            const of = {js(setting)};
            const masks = Windows.kinds(of).map(({{ kind }}) => [kind, Windows.mask(of, kind)]);
            return Object.fromEntries(masks)""")
        assert found == library_masks(setting), setting


def test_costs_are_the_librarys_claims(page):
    for setting in settings():
        for dim in (32, 96, 768):
            found = page.run(f"""
                const of = {js(setting)};
                return [Windows.windowMacs(of, {dim}), Windows.globalMacs(of, {dim})]""")
            facts = explainer_tables.facts(*setting, dim)["macs"]
            assert found == [facts["windows"], facts["all"]], setting


def attention(setting: Setting, **fields: Any) -> Any:
    """The library's attention with weights that let something through."""
    return perturb(spec(setting, **fields).build(4).double(), std=0.5)


def sources(mixers: list[Any], grid: Sides, token: Sides) -> set[Sides]:
    """The tokens that one token of a stack's output depends on, by gradients."""
    x = noise(1, *grid, 4, dtype=torch.float64).requires_grad_()
    out = x
    for mixer in mixers:
        out = mixer(out)
    out[0, token[0], token[1]].sum().backward()
    found = x.grad.abs().sum(-1)[0] > 1e-25  # a masked pair's gradient is e^-100 of another's
    return {tuple(at) for at in found.nonzero().tolist()}


REACHED = [
    ((12, 12), (4, 4), (2, 2)),
    ((13, 18), (4, 4), (2, 2)),
    ((6, 15), (6, 6), (3, 3)),
    ((5, 3), (7, 7), (3, 3)),
    ((11, 9), (3, 4), (1, 3)),
    ((12, 12), (4, 4), (0, 0)),
]


@pytest.mark.parametrize("setting", REACHED, ids=str)
def test_a_token_gathers_from_what_the_networks_output_depends_on(page, setting):
    grid = setting[0]
    shifted = attention(setting)
    unmasked = attention(setting, shift_mask=False)
    regular = attention((grid, setting[1], (0, 0)))
    stacks = {
        "[regular]": [regular],
        "[of]": [shifted],
        "[regular, of]": [regular, shifted],
        "[regular, of, regular, of]": [regular, shifted, regular, shifted],
    }
    corners = list(itertools.product((0, grid[0] - 1), (0, grid[1] - 1)))
    for token in [*corners, (grid[0] // 2, grid[1] // 2)]:
        for blocks, mixers in stacks.items():
            found = page.run(f"""
                const of = {js(setting)}, regular = Windows.regular(of);
                return Windows.gathered({blocks}, {list(token)})""")
            assert {tuple(at) for at in found} == sources(mixers, grid, token), (token, blocks)
        found = page.run(f"""
            const of = {js(setting)};
            return Windows.seen(of, {list(token)}, {{ masked: false }})
              .filter((token) => !Windows.isPadding(of, token))""")
        assert {tuple(at) for at in found} == sources([unmasked], grid, token), token


@pytest.mark.parametrize("setting", REACHED[:3], ids=str)
def test_what_a_token_knows_spreads_as_the_page_says(page, setting):
    grid = setting[0]
    shifted = attention(setting)
    regular = attention((grid, setting[1], (0, 0)))
    last = (grid[0] - 1, grid[1] - 1)
    waves = page.run(f"return Windows.spread({js(setting)}, [0, 0], {list(last)})")
    for blocks in range(1, len(waves)):
        turns = [(regular, shifted)[i % 2] for i in range(blocks)]
        reached = (0, 0) in sources(turns, grid, last)
        assert reached == (blocks == len(waves) - 1)
    unshifted = js((grid, setting[1], (0, 0)))
    islands = page.run(f"return Windows.spread({unshifted}, [0, 0], {list(last)})")
    assert list(last) not in islands[-1]


@pytest.mark.parametrize("setting", [s for s in settings()[:20] if any(s[2])], ids=str)
def test_rolled_and_masked_is_what_cut_off_windows_compute(page, setting):
    """The sentence that the page is about, in the library: attention in the pieces of step 4."""
    grid = setting[0]
    mixer = spec(setting, position_bias="none").build(8).double()
    down, across = page.run(f"return Windows.unrolledWindows({js(setting)})")
    height, width = (along[-1][0] + along[-1][1] for along in (down, across))
    x = noise(1, *grid, 8, dtype=torch.float64)
    padded = x.new_zeros(1, height, width, 8)
    padded[:, : grid[0], : grid[1]] = x
    expected = torch.zeros_like(padded)
    for (row, rows), (column, columns) in itertools.product(down, across):
        piece = padded[:, row : row + rows, column : column + columns]
        mixed = mixer.attend(piece.reshape(1, rows * columns, 8)).view_as(piece)
        expected[:, row : row + rows, column : column + columns] = mixed
    with torch.no_grad():
        torch.testing.assert_close(mixer(x), expected[:, : grid[0], : grid[1]])


def published_regions(length: Sides, window: Sides, shift: Sides) -> torch.Tensor:
    """The region numbers as the published code has them: three slices along each axis."""
    numbers = torch.zeros(length, dtype=torch.int64)
    slices = [
        (slice(0, -size), slice(-size, -by), slice(-by, None))
        for size, by in zip(window, shift, strict=True)
    ]
    for number, (rows, columns) in enumerate(itertools.product(*slices)):
        numbers[rows, columns] = number
    return numbers


def test_region_numbers_are_the_published_ones_and_any_others_give_the_same_mask(page):
    checked = 0
    for setting in settings():
        found = page.run(f"""
            const of = {js(setting)}, last = of.counts.map((count) => count - 1);
            const [rows, columns] = of.padded.map((length) => [...Array(length).keys()]);
            const number = (row) => columns.map((column) => Windows.regionOf(of, [row, column]));
            const numbers = rows.map(number);
            const others = [40, 7, 13, 2, 99, 1, 60, 5, 31];
            return {{ of, numbers, mask: Windows.mask(of, Windows.kindOf(of, last)),
              published: Windows.maskByNumbers(of, last, (at) => Windows.regionOf(of, at)),
              renamed: Windows.maskByNumbers(of, last, (at) => others[Windows.regionOf(of, at)]),
            }}""")
        assert found["published"] == found["mask"] == found["renamed"], setting
        padded, window, shift = (tuple(found["of"][key]) for key in ("padded", "window", "shift"))
        if all(shift):
            checked += 1
            assert found["numbers"] == published_regions(padded, window, shift).tolist(), setting
    assert checked > 20


def test_two_names_along_an_axis_do_what_three_do():
    """What the page says in answer to "why three regions": no window holds both 0 and 1."""
    for setting in settings():
        cut = spec(setting).build(4).cut(setting[0])
        if not all(cut.shift):
            continue
        padded = tuple(axis.count * axis.window for axis in cut.axes)
        three = published_regions(padded, cut.window, cut.shift)
        ends = [torch.arange(n) >= n - by for n, by in zip(padded, cut.shift, strict=True)]
        two = 2 * ends[0][:, None] + ends[1][None, :]
        for numbers in (three, two):
            windows = numbers.unfold(0, cut.window[0], cut.window[0])
            windows = windows.unfold(1, cut.window[1], cut.window[1]).flatten(2)
            apart = windows[..., None] != windows[..., None, :]
            last = apart[-1, -1].int() * -100
            assert last.tolist() == library_masks(setting)["corner"]
            assert not apart[:-1, :-1].any()


def test_the_published_rule_masks_nothing_for_a_shift_of_0():
    """What the page says in answer to "which blocks": `slice(-0, None)` is the whole axis."""
    assert published_regions((12, 12), (4, 4), (0, 0)).unique().tolist() == [8]


def test_touching_tokens_are_counted_pair_by_pair(page):
    for setting in settings()[:20]:
        found = page.run(f"""
            const of = {js(setting)}, blocks = [Windows.regular(of), of];
            const pairs = [];
            for (let row = 0; row < of.grid[0]; row++)
              for (let column = 0; column < of.grid[1]; column++)
                for (const other of [[row + 1, column], [row, column + 1]])
                  if (other[0] < of.grid[0] && other[1] < of.grid[1])
                    pairs.push(blocks.map((of) => Windows.together(of, [row, column], other)));
            return [pairs, ...[[blocks[0]], [of], blocks].map(Windows.touching)]""")
        pairs, *counted = found
        shares = [[one for one, _ in pairs], [other for _, other in pairs], list(map(any, pairs))]
        for share, count in zip(shares, counted, strict=True):
            assert count == {"pairs": len(pairs), "together": sum(share)}, setting


def test_the_generated_tables_are_up_to_date(page):
    assert explainer_tables.SCRIPT.read_text("utf-8") == explainer_tables.text(), (
        "run: python docs/figures.py"
    )
    found = page.run("return Tables.presets")
    for (name, grid, window, shift, dim), row in zip(explainer_tables.PRESETS, found, strict=True):
        setting = grid, per_axis(window), per_axis(shift)
        assert row["name"] == name
        macs = f"windows: Windows.windowMacs(of, {dim}), all: Windows.globalMacs(of, {dim})"
        assert row["macs"] == page.run(f"const of = {js(setting)}; return {{ {macs} }}")


def test_what_the_page_says_of_the_missing_mask_is_what_was_measured(page):
    results = (explainer_tables.DOCS / "results.md").read_text("utf-8")
    assert "lose 2.5 points (1.2 to 3.7)" in results
    said = page.find("[data-live='lost']").text
    assert re.sub(r"\s", " ", said) == "2.5 (with 95 % confidence 1.2 to 3.7)"
