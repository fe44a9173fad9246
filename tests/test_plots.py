"""Plots of cost, windows, shifts and architecture: their artists, compared with the numbers of
`measure`, and with the cut and the masks of the network itself."""

from __future__ import annotations

import io
import math
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import plotted
import pytest
import torch
from helpers import tiny, without_mask
from matplotlib.collections import LineCollection
from matplotlib.testing.compare import compare_images
from PIL import Image

import hierarch
from hierarch import needs, plots
from hierarch.errors import MissingPackageError, PlotError
from hierarch.nn.cut import kinds_by_axis
from hierarch.nn.window_mixer import shift_mask
from hierarch.plots import style
from hierarch.plots.blocks import Skip, steps
from hierarch.plots.cuts import COLUMNS, CORNER, REST, ROWS, windowed
from hierarch.plots.kinds.architecture import different, pattern
from hierarch.plots.kinds.cost import CONTROLLED, line_sizes, quadratic
from hierarch.plots.kinds.windows import BORDER
from hierarch.spec.claim import PARTS as CLAIMED
from hierarch.spec.claim import claim

STORED = Path(__file__).parent / "data" / "plots"
OWN = ("architecture", "cost", "share", "shift", "windows")
SWIN_V2 = tiny("cosine_window_attention", block="post_norm")
SWIN_MIXER = tiny("window_mlp")
GRID = tiny() | {
    "mixer": [
        {"type": "window_attention", "head_dim": 4, "window_size": 4},
        {"type": "grid_attention", "head_dim": 4, "window_size": 4},
    ]
}
POOLING = tiny() | {"mixer": "pooling"}
SIZES = [(64, 64), (128, 128), (100, 90)]


@pytest.fixture(scope="module")
def report():
    return hierarch.measure(tiny(), sizes=SIZES)


def drawn(axes, **wanted):
    """The lines of a panel in which these properties have these values."""
    return [
        [*zip(*line.get_data(), strict=True)]
        for line in axes.lines
        if len(line.get_xdata())
        and all(getattr(line, f"get_{k}")() == v for k, v in wanted.items())
    ]


def panels(figure):
    return {axes.get_title(loc="left") or axes.get_title(): axes for axes in figure.axes}


# cost


def test_the_curve_of_costs_goes_through_the_counted_points(report):
    figure = plots.cost(tiny(), sizes=SIZES)
    assert panels(figure).keys() == {"the whole network", "stage 0", "stage 1", "stage 2"}
    for name, axes in panels(figure).items():
        stage = None if name == "the whole network" else int(name.split()[1])
        counted = {
            (size.pixels, size.macs if stage is None else size.stages[stage].macs)
            for size in report.sizes
        }
        [points] = drawn(axes, marker="o", linestyle="None")
        assert {*points} == counted
        [curve] = drawn(axes, marker="None", color=style.COLORS[0])
        assert {*curve} >= counted
        assert [area for area, _ in curve] == sorted(area for area, _ in curve)


def test_the_control_is_the_claim_of_global_attention():
    spec, control = hierarch.load(tiny()), hierarch.swap(tiny(), "global_attention")
    figure = plots.cost(spec, sizes=SIZES)
    for stage in (0, 2):
        [curve] = drawn(panels(figure)[f"stage {stage}"], color=style.GRAY)
        claims = {
            math.prod(size): claim(control, size).stages[stage].macs
            for size in line_sizes(spec, SIZES)
        }
        assert dict(curve) == claims
    assert not drawn(
        panels(plots.cost(spec, sizes=SIZES, control=False))["stage 0"], color=style.GRAY
    )
    assert quadratic(control) is None


def test_between_the_points_nothing_is_padded():
    # windows of 4 tokens of 4 pixels, at stride 4 of the third stage: 64
    assert line_sizes(hierarch.load(tiny()), [(50, 64), (300, 300)]) == [
        (50, 64),
        *[(n, n) for n in (64, 128, 192, 256)],
        (300, 300),
    ]


def test_costs_of_several_networks(report):
    figure = plots.cost(tiny(), POOLING, hierarch.build(tiny()), report, sizes=SIZES)
    texts = [text.get_text() for text in panels(figure)["the whole network"].get_legend().texts]
    assert [text.split(":")[0] for text in texts[:4]] == [
        "tiny #1",
        "tiny #2",
        "tiny #3",
        "tiny #4",
    ]
    assert texts[4] == "the same with global attention: quadratic"
    assert "are linear: the claimed cost" in style.caption_of(figure)
    totals = [{*points} for points in drawn(figure.axes[0], linestyle="None")]
    assert totals[0] == totals[2] == totals[3] != totals[1]
    with pytest.raises(PlotError, match="no network to draw"):
        plots.cost()


def test_the_verdict_is_in_the_caption():
    figure = plots.cost(tiny() | {"mixer": {"type": "global_attention", "head_dim": 4}}, sizes=[64])
    assert "tiny is superlinear: the cost per token grows" in style.caption_of(figure)
    assert "control" not in style.caption_of(figure)
    assert len(drawn(figure.axes[0], linestyle=CONTROLLED)) == 0


# share


def test_the_shares_add_up_to_the_claim(report):
    spec = hierarch.load(tiny(head={"num_classes": 10}))
    figure = plots.share(spec, size=(100, 90))
    claimed = claim(spec, (100, 90))
    whole, parts = figure.axes
    assert sum(bar.get_width() for bar in whole.patches) == pytest.approx(100, abs=1e-9)
    wanted = [claimed.stem, *(stage.macs for stage in claimed.stages), claimed.head]
    rows = {}
    for bar in parts.patches:
        row = round(bar.get_y() + bar.get_height() / 2)
        rows[row] = rows.get(row, 0) + bar.get_width() / 100 * claimed.macs
    assert [rows[i] for i in sorted(rows)] == pytest.approx(wanted, rel=1e-12)
    names = [label.get_text().split(":")[0] for label in parts.get_yticklabels()]
    assert names == ["stem", "stage 0", "stage 1", "stage 2", "head"]
    [mixers] = [bars for bars in whole.containers if bars.get_label() == "mixer"]
    of_mixers = sum(stage.parts["mixer"] for stage in claimed.stages)
    assert mixers[0].get_width() == pytest.approx(100 * of_mixers / claimed.macs, rel=1e-12)
    assert "as many as the formulas claim" in style.caption_of(figure)
    assert f"{100 * claimed.padding / claimed.macs:.1f} % are spent on padding" in style.caption_of(
        figure
    )


def test_the_shares_of_a_report(report):
    figure = plots.share(report, size=(100, 90))
    assert "100 × 90 pixels" in style.caption_of(figure)
    assert "64 × 64 pixels" in style.caption_of(plots.share(report))
    with pytest.raises(PlotError, match="tiny: not measured at 32x32; measured: 64x64, 128x128"):
        plots.share(report, size=32)


# windows


def borders(axes):
    """Rows and columns at which the lines of windows are drawn."""
    [lines] = [
        of
        for of in axes.collections
        if isinstance(of, LineCollection) and np.allclose(of.get_color()[0][:3], rgb(BORDER))
    ]
    rows = {a[1] for a, b in lines.get_segments() if a[1] == b[1]}
    columns = {a[0] for a, b in lines.get_segments() if a[0] == b[0]}
    return sorted(rows), sorted(columns)


def rgb(color):
    return [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def numbered_windows(mixer, grid):
    """(H, W): the window of each token, from the slots of the network's cut."""
    cut = mixer.cut(grid)
    slots = cut.slots(1, device=torch.device("cpu"))
    return (slots // math.prod(cut.window)).view(grid).numpy()


def changes(numbers, axis):
    """The positions at which one token's window is another than its neighbor's."""
    differs = np.diff(numbers, axis=axis).any(axis=1 - axis)
    return [int(i) + 1 for i in np.flatnonzero(differs)]


@pytest.mark.parametrize("source", [tiny(), SWIN_V2, SWIN_MIXER, without_mask(tiny())])
@pytest.mark.parametrize("size", [(64, 64), (52, 100), (37, 211)])
def test_the_windows_drawn_are_those_of_the_cut(source, size):
    spec = hierarch.load(source)
    model = hierarch.build(spec)
    shown = panels(plots.windows(spec, size=size))
    grids = [stage.grid for stage in claim(spec, size).stages]
    seen = 0
    for title, axes in shown.items():
        stage, block = int(title.split(",")[0][6:]), int(title.split("block")[1].lstrip("s ")[0])
        grid, mixer = grids[stage], model.stages[stage].blocks[block].mixer
        numbers, cut = numbered_windows(mixer, grid), mixer.cut(grid)
        for drawn_at, axis, of in zip(borders(axes), (0, 1), cut.axes, strict=True):
            ends = -of.lead, -of.lead + of.count * of.window
            assert (drawn_at[0], drawn_at[-1]) == ends
            inside = [at for at in drawn_at if 0 < at < grid[axis]]
            assert inside == changes(numbers, axis), (title, axis)
            seen += len(inside)
        [padding] = [
            patch for patch in axes.patches if patch.get_zorder() < axes.images[0].get_zorder()
        ]
        left, top = (-of.lead for of in reversed(cut.axes))
        tall, wide = (of.count * of.window for of in cut.axes)
        assert padding.get_bbox().bounds == (left, top, wide, tall)
    assert len(shown) == 6
    assert seen > 12


def test_the_padded_axis_is_that_of_the_cut():
    for source in (tiny(), SWIN_V2, SWIN_MIXER, GRID):
        for one in windowed(hierarch.load(source), (37, 211)):
            for line in one.lines:
                windows, slots = line.axis.places(torch.device("cpu"))
                own = slice(line.axis.lead, line.axis.lead + line.axis.size)
                assert line.places[0][own] == windows.tolist()
                assert line.places[1][own] == slots.tolist()
                assert sorted(line.order) == list(range(line.padded))
                assert line.is_map.count(True) == line.axis.size


def test_pieces_that_a_shift_joins_are_hatched_alike():
    axes = panels(plots.windows(tiny(), size=64))[
        "stage 0, block 1\n4×4 windows of 4×4, shifted by 2"
    ]
    spec = hierarch.load(tiny())
    numbers = numbered_windows(hierarch.build(spec).stages[0].blocks[1].mixer, (16, 16))
    covers = [patch for patch in axes.patches if patch.get_zorder() > 0]
    assert len(covers) == 16  # a frame of pieces, five on a side
    hatches = {}
    for patch in covers:
        x, y, wide, tall = map(int, patch.get_bbox().bounds)
        piece = numbers[y : y + tall, x : x + wide]
        assert len(np.unique(piece)) == 1
        hatches.setdefault(int(piece[0, 0]), []).append(patch.get_hatch())
    assert sorted(map(len, hatches.values())) == [2] * 6 + [4]
    assert all(len({*of}) == 1 for of in hatches.values())


def test_the_tokens_of_a_spread_window_are_marked():
    shown = panels(plots.windows(GRID, size=(60, 64)))
    axes = next(of for title, of in shown.items() if "grid_attention" in title)
    mixer = hierarch.build(GRID).stages[0].blocks[1].mixer
    numbers = numbered_windows(mixer, (15, 16))
    windows = {}
    for mark in axes.patches[1:]:
        x, y = (int(at) for at in mark.xy)
        if y < 15:
            windows.setdefault(mark.get_facecolor(), set()).add(int(numbers[y, x]))
    assert len(windows) == 4
    assert sorted(map(len, windows.values())) == [1] * 4
    assert len({*map(tuple, windows.values())}) == 4
    assert "spread" in style.caption_of(plots.windows(GRID, size=64))


def test_a_network_without_windows_is_an_error():
    with pytest.raises(
        PlotError, match=r"tiny: no block of the network is in windows; .*: pooling"
    ):
        plots.windows(POOLING)
    with pytest.raises(PlotError, match="tiny, stage 0, no block has shifted windows"):
        plots.shift(POOLING)


def test_windows_of_some_stages_on_a_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "it.png")
    for image in (tmp_path / "it.png", pixels, Image.fromarray(pixels)):
        figure = plots.windows(tiny(), image=image, size=(64, 96), stages=[0, 2])
        assert len(figure.axes) == 4
        for axes in figure.axes:
            assert np.array_equal(axes.images[0].get_array(), pixels)
    assert plots.windows(tiny(stem={"type": "patch_embed", "in_chans": 5}), size=32).axes
    with pytest.raises(PlotError, match="tiny has stages 0 to 2"):
        plots.windows(tiny(), stages=[3])
    cut_off = tiny(out_indices=[0])
    with pytest.raises(PlotError, match="tiny has stages 0 to 0"):
        plots.windows(cut_off, stages=[1])


# shift


def masks_drawn(figure):
    """The arrays of the matrices of masks, in their order."""
    of = [image for axes in figure.axes for image in axes.images if axes.get_xlabel() == "key"]
    return [np.asarray(image.get_array()) for image in of]


@pytest.mark.parametrize("source", [tiny(), SWIN_V2])
@pytest.mark.parametrize(("size", "stage"), [(None, 0), (None, 1), ((50, 70), 0), ((16, 64), 0)])
def test_the_mask_drawn_is_that_of_the_network(source, size, stage):
    figure = plots.shift(source, stage=stage, size=size)
    spec = hierarch.load(source)
    at = size or (48 * 2**stage, 48 * 2**stage)
    mixer = hierarch.build(spec).stages[stage].blocks[1].mixer
    cut = mixer.cut(claim(spec, at).stages[stage].grid)
    shown = masks_drawn(figure)
    expected = shift_mask(kinds_by_axis(cut.shift), cut.window, cut.shift)[:, 0].numpy()
    assert len(shown) == len(expected) == (2 if size == (16, 64) else 4)
    for one, wanted in zip(shown, expected, strict=True):
        assert np.array_equal(one, wanted)
    # and what the network adds to the logits of a window of each kind, with the position bias
    with torch.no_grad():
        added = mixer.masks(cut, torch.zeros(()))
        bias = mixer.bias(cut.window)
    for one, mask in zip(shown, added.values(), strict=True):
        assert np.allclose(one, (mask - bias)[0, 0].numpy(), atol=1e-4)


def test_what_the_mask_keeps_apart_is_what_the_regions_are():
    for size in ((48, 48), (50, 70)):
        for one in windowed(hierarch.load(tiny()), size, stages=[0]):
            height, width = one.cut.window
            regions = one.regions(by_order=True)
            for (row, column), kind in one.kinds().items():
                slots = regions[row * height :, column * width :][:height, :width].ravel()
                apart = one.masks()[kind].numpy() != 0
                assert np.array_equal(apart, slots[:, None] != slots[None, :])


def test_regions_are_where_the_shift_takes_them_from():
    figure = plots.shift(tiny())
    before, after = (
        axes.images[0].get_array()
        for axes in figure.axes
        if axes.get_xlabel() == "" and axes.images
    )
    assert before.shape == (12, 12)
    assert np.array_equal(np.roll(before, (-2, -2), (0, 1)), after)
    assert {*map(int, before[:2, :2].ravel())} == {CORNER}
    assert {*map(int, before[:2, 2:].ravel())} == {ROWS}
    assert {*map(int, before[2:, :2].ravel())} == {COLUMNS}
    assert {*map(int, before[2:, 2:].ravel())} == {REST}
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"A", "B", "C", "1", "2", "3", "4", "2 up, 2 left"} <= texts


def test_a_shift_without_a_mask_or_without_a_cycle():
    for source, says in ((without_mask(tiny()), "No mask keeps apart"), (SWIN_MIXER, "no mask is")):
        figure = plots.shift(source)
        assert masks_drawn(figure) == []
        assert says in style.caption_of(figure)


def test_a_shift_that_is_not_there():
    with pytest.raises(PlotError, match="no block has shifted windows on its map of 4×4 tokens"):
        plots.shift(tiny(), size=16)
    with pytest.raises(PlotError, match="block 0: not one that has shifted windows"):
        plots.shift(tiny(), block=0)
    with pytest.raises(PlotError, match="block 2: stage 0 of tiny has blocks 0 to 1"):
        plots.shift(tiny(), block=2)
    with pytest.raises(PlotError, match="tiny has stages 0 to 2"):
        plots.shift(tiny(), stage=3)


# architecture


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize("preset", ["swin_tiny", "convnext/convnext_tiny", "vit/vit_tiny_patch16"])
def test_every_stage_is_named(preset):
    spec = hierarch.load(preset)
    shown = texts(plots.architecture(spec, size=256))
    claimed = claim(spec, (256, 256))
    for stage, of in zip(spec.plan(), claimed.stages, strict=True):
        assert f"stage {stage.index}" in shown
        assert f"{of.grid[0]}×{of.grid[1]}×{stage.dim}" in shown
        assert f"{stage.depth} blocks" in shown
        if stage.downsample:
            assert stage.downsample.type in shown
    assert {"256×256 pixels", "1000 classes"} < {*shown}


def test_the_maps_that_are_returned():
    shown = texts(plots.architecture(tiny(out_indices=[0, 2])))
    assert shown.count("map") == 2


@pytest.mark.parametrize(
    ("preset", "names", "origins"),
    [
        ("swin_tiny", ["", "norm1", "mixer", "add", "norm2", "mlp", "add"], {3: 0, 6: 3}),
        (
            "swin_v2/swin_v2_tiny_window8_256",
            ["", "mixer", "norm1", "add", "mlp", "norm2", "add"],
            {3: 0, 6: 3},
        ),
        (
            "convnext/convnext_tiny",
            ["", "mixer", "norm", "mlp", "layer_scale", "add"],
            {5: 0},
        ),
        (
            "davit/davit_tiny",
            ["", "position1", "norm1", "mixer", "add", "position2", "norm2", "mlp", "add"],
            {4: 1, 8: 5},
        ),
    ],
)
def test_the_steps_of_a_block(preset, names, origins):
    found = steps(hierarch.load(preset).plan()[0].blocks[0])
    assert [step.name for step in found] == names
    assert {i: step.skips[0].origin for i, step in enumerate(found) if step.skips} == origins


def test_a_scale_on_a_skip_connection():
    found = steps(hierarch.load("metaformer/caformer_s18").plan()[3].blocks[0])
    assert found[3].skips == (Skip(0, ("residual_scale1",)),)


def test_different_blocks_have_a_letter_each():
    letters = [inside.letter for inside in different(hierarch.load(tiny())).values()]
    assert letters == ["a", "b"]
    heads = [dim // 4 for dim in (8, 16, 24)]
    own = [
        {"dim": 4 * n, "depth": 1, "mixer": {"type": "window_attention", "num_heads": n}}
        for n in heads
    ]
    assert len(different(hierarch.load({"stages": own}))) == 1


@pytest.mark.parametrize(
    ("letters", "short"),
    [
        ("abcab", "a b c … b"),
        ("ab", "a b"),
        ("ababab", "a b\n×3"),
        ("aba", "a b a"),
        ("a", "a"),
        ("abcdef", "a b … f"),
    ],
)
def test_the_order_of_blocks_in_short(letters, short):
    assert pattern([*letters]) == short


# files and the command


FIGURES = {
    "architecture": lambda: plots.architecture(tiny(head={"num_classes": 10})),
    "cost": lambda: plots.cost(tiny(), POOLING, sizes=[64, 128]),
    "share": lambda: plots.share(tiny(head={"num_classes": 10}), size=100),
    "shift": lambda: plots.shift(tiny(), size=(50, 70)),
    "windows": lambda: plots.windows(tiny(), size=(50, 70), stages=[0, 1]),
}


def stored(figure, path):
    """A figure as it is stored: small, since it is compared within a tolerance."""
    figure.savefig(path, dpi=50)
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


@pytest.mark.parametrize("kind", OWN)
def test_a_picture_is_the_stored_one(kind, tmp_path):
    stored(FIGURES[kind](), tmp_path / "now.png")
    assert compare_images(STORED / f"{kind}.png", tmp_path / "now.png", tol=TOLERANCE) is None
    assert (STORED / f"{kind}.png").stat().st_size < 40_000


TOLERANCE = 3
"""Of the root mean square of the difference, of 255. Other words in a caption are 1."""


def test_another_picture_is_not_the_stored_one(tmp_path):
    stored(plots.shift(tiny(), size=(50, 74)), tmp_path / "now.png")
    assert compare_images(STORED / "shift.png", tmp_path / "now.png", tol=TOLERANCE)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_each_suffix_is_written_and_twice_the_same(tmp_path, suffix):
    path = tmp_path / f"it.{suffix}"
    plots.save(FIGURES["windows"](), path)
    first = path.read_bytes()
    plots.save(FIGURES["windows"](), path)
    assert path.read_bytes() == first
    if suffix == "png":
        assert Image.open(io.BytesIO(first)).size[0] > 500
    elif suffix == "svg":
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    else:
        assert first.startswith(b"%PDF")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_that_cannot_be_written(tmp_path):
    for name, message in (("it.bmp", "written as .png, .svg, .pdf"), ("no/it.png", "No such file")):
        with pytest.raises(PlotError, match=message):
            plots.save(FIGURES["shift"](), tmp_path / name)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("kind", OWN)
def test_the_command_draws(run, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(hierarch.dump(hierarch.load(tiny())))
    options = {"cost": ["--size", "64,128"], "windows": ["--stage", "0,1"], "shift": ["--stage", 1]}
    status, out, err = run("plot", "tiny.yaml", kind, *options.get(kind, []), "-o", "it.png")
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    assert "tiny" in out
    with Image.open(tmp_path / "it.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["swin_tiny", "costs"], "unknown kind of plot 'costs'; known: architecture, attention"),
        (["cost", "swin_tiny"], "the kind comes last: hierarch plot swin_tiny cost"),
        (
            ["swin_tiny", "swin_small", "share"],
            "share is of one spec, got 2: swin_tiny, swin_small",
        ),
        (["swin_tiny", "cost", "--stage", "1"], "cost has no --stage; it has --size"),
        (["swin_tiny", "shift", "--stage", "0,1"], "shift takes one --stage, got 2"),
        (["swin_tiny", "shift", "--stage", "first"], "--stage 'first': write it as 2,3"),
        (["swin_tiny", "windows", "--size", "0"], "size (0, 0): a side should be an integer"),
        (["swin_tiny", "windows", "--pixel", "1"], "--pixel '1': write it as 100,60 (row, column)"),
        (["swin_tiny", "windows", "--image", "no.png"], "no.png: cannot be read"),
        (["swin_tiny", "windows", "-o", "it.bmp"], "it.bmp: a plot is written as .png, .svg, .pdf"),
        (["swin_tinny", "windows"], "did you mean 'swin_tiny'?"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(run, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("plot", "-o", "it.png", *args)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert message in err
    assert [*tmp_path.iterdir()] == []


def test_without_matplotlib_it_is_one_line(run, tmp_path, monkeypatch):
    here = needs.find_spec
    monkeypatch.setattr(
        needs, "find_spec", lambda name: None if name == "matplotlib" else here(name)
    )
    with pytest.raises(MissingPackageError, match=r"hierarch-vision\[plot\]"):
        plots.architecture(tiny())
    path = tmp_path / "it.png"
    message = "error: this needs the package matplotlib: pip install 'hierarch-vision[plot]'\n"
    assert run("plot", "swin_tiny", "architecture", "-o", path) == (2, "", message)


def test_the_names_of_kinds_are_those_of_the_files():
    assert {*OWN} <= {*plots.KINDS}
    assert {*dir(plots)} == {*plots.KINDS, "save"}
    assert plots.cost is plots.drawer("cost")
    listed = re.findall(r"import (\w+) as \1$", Path(plots.__file__).read_text("utf-8"), re.M)
    assert sorted(listed) == sorted(plots.__all__)  # what type checkers see
    with pytest.raises(AttributeError, match="no attribute 'costs'"):
        plots.costs  # noqa: B018


def test_nothing_is_imported_before_a_plot_is_drawn():
    code = "import sys, hierarch.plots; print(sorted({'torch', 'matplotlib'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_page_has_a_small_picture_of_every_kind():
    page = plotted.PAGE.read_text("utf-8")
    files = {path.stem: path.stat().st_size for path in plotted.STORED.iterdir()}
    assert {*re.findall(r"\]\(images/plots/(\w+)\.png\)", page)} == {*files}
    assert {*plots.KINDS} <= {*files}
    assert {*plotted.NAMES} <= {*plotted.commands()} == {*files}
    assert max(files.values()) < 100_000


def test_a_gray_print_tells_series_and_parts_apart():
    for of in (style.MARKERS, style.LINES, style.HATCHES, style.COLORS):
        assert len({*map(str, of)}) == len(style.COLORS)
    assert len({hatch for _, hatch in style.PARTS.values()}) == len(style.PARTS)
    assert {*style.PARTS} == {"stem", *CLAIMED, "head"}
