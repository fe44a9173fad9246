"""Windows: cut and reassembled, padded before the shift, and masked as published."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from helpers import noise, perturb
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.swin_transformer import SwinTransformerBlock

from hierarch import engine
from hierarch.mixers.window_attention import WindowAttention
from hierarch.mixers.window_mlp import WindowMlp
from hierarch.nn.cut import Cut, Dilated, FrontPadded, shifted_cut
from hierarch.nn.padding import pad, pad_to_multiple
from hierarch.nn.window_mixer import WindowMixer, shift_mask
from hierarch.spec.grid import fit

side = st.integers(1, 5)


def attention(window, shift, small_map="pad", **fields):
    options = {"num_heads": 2, "qkv_bias": True, "position_bias": "relative", "shift_mask": True}
    return perturb(
        WindowAttention(
            8, window_size=window, shift_size=shift, small_map=small_map, **options | fields
        ).double(),
        std=0.5,
    )


# cut, and padded


class Seen(WindowMixer):
    """A window mixer that records its windows and returns them."""

    def __init__(self, of_grid):
        super().__init__()
        self.cut = of_grid

    def mix(self, windows, cut, runs):
        self.windows, self.runs = windows, runs
        return windows


CUTS = {
    "shifted": lambda grid: shifted_cut(grid, (3, 2), (1, 1)),
    "rolled": lambda grid: shifted_cut(grid, (3, 2), (1, 1), masked=False),
    "regular": lambda grid: shifted_cut(grid, (3, 2), (0, 0)),
    "front padded": lambda grid: Cut((FrontPadded(grid[0], 3, 2), FrontPadded(grid[1], 2, 1))),
    "dilated": lambda grid: Cut((Dilated(grid[0], 3), Dilated(grid[1], 2))),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("enabled", [True, False])
@given(grid=st.tuples(st.integers(1, 9), st.integers(1, 9)), batch=side)
def test_each_token_is_in_one_window_and_comes_back(cut, enabled, grid, batch):
    mixer = Seen(CUTS[cut])
    x = 1 + torch.arange(batch * grid[0] * grid[1] * 2).view(batch, *grid, 2)
    if enabled:
        found = mixer(x)
    else:
        with engine.disabled():
            found = mixer(x)
    assert torch.equal(found, x)
    assert mixer.windows.shape[1:] == (6, 2)
    held = mixer.windows[mixer.windows > 0]
    assert torch.equal(held.sort().values, x.flatten())
    assert sum(count for _, count in mixer.runs) == len(mixer.windows)


@given(st.tuples(side, side), st.tuples(side, side))
def test_a_window_holds_neighbors_row_by_row(window, count):
    (h, w), (nh, nw) = window, count
    x = torch.arange(h * nh * w * nw).view(1, h * nh, w * nw, 1)
    mixer = Seen(lambda grid: shifted_cut(grid, window, (0, 0)))
    mixer(x)
    for i, tokens in enumerate(mixer.windows):
        top, left = i // nw * h, i % nw * w
        assert torch.equal(tokens, x[0, top : top + h, left : left + w].reshape(h * w, 1))


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4)), min_size=1, max_size=3),
    st.integers(1, 3),
    st.data(),
)
def test_a_cut_of_any_rank_numbers_windows_kind_after_kind(axes, batch, data):
    grid, window = zip(*axes, strict=True)
    shift = tuple(data.draw(st.integers(0, w - 1)) for w in window)
    cut = shifted_cut(grid, window, shift)
    kinds = [kind for kind, count in cut.runs(batch) for _ in range(count)]
    slots = cut.slots(batch, device=torch.device("cpu")).view(batch, *grid)
    assert len(kinds) == batch * cut.count
    for place in torch.cartesian_prod(*map(torch.arange, grid)).view(-1, len(grid)).tolist():
        last = [
            bool(by) and (p - by) % (axis.count * w) // w == axis.count - 1
            for p, by, w, axis in zip(place, shift, window, cut.axes, strict=True)
        ]
        number = int(slots[0, *place]) // int(torch.tensor(window).prod())
        assert kinds[number] == tuple(last)


@given(st.tuples(side, side), st.tuples(side, side))
def test_padding_is_zeros_at_the_bottom_and_the_right(size, multiple):
    x = torch.ones(1, *size, 2)
    padded = pad_to_multiple(x, multiple)
    for found, had, of in zip(padded.shape[1:3], size, multiple, strict=True):
        assert found % of == 0
        assert had <= found < had + of
    assert torch.equal(padded[:, : size[0], : size[1]], x)
    assert padded.sum() == x.sum()
    assert torch.equal(pad(padded, [size[0] - padded.shape[1], size[1] - padded.shape[2]]), x)


def test_a_map_that_needs_no_padding_is_not_copied():
    x = noise(1, 4, 6, 2)
    assert pad_to_multiple(x, (2, 3)) is x
    assert pad(x, [0, 0]) is x


# the window and the shift that a map is really cut with

RULES = {  # map, then (window, shift) of a window of 7 and a shift of 3 by each rule
    (14, 21): {"pad": (7, 7, 3, 3), "clamp": (7, 7, 3, 3), "clamp_both": (7, 7, 3, 3)},
    (8, 8): {"pad": (7, 7, 3, 3), "clamp": (7, 7, 3, 3), "clamp_both": (7, 7, 3, 3)},
    (7, 7): {"pad": (7, 7, 0, 0), "clamp": (7, 7, 0, 0), "clamp_both": (7, 7, 0, 0)},
    (7, 14): {"pad": (7, 7, 0, 3), "clamp": (7, 7, 0, 3), "clamp_both": (7, 7, 0, 0)},
    (5, 14): {"pad": (7, 7, 0, 3), "clamp": (5, 7, 0, 3), "clamp_both": (5, 5, 0, 0)},
    (14, 5): {"pad": (7, 7, 3, 0), "clamp": (7, 5, 3, 0), "clamp_both": (5, 5, 0, 0)},
    (5, 4): {"pad": (7, 7, 0, 0), "clamp": (5, 4, 0, 0), "clamp_both": (4, 4, 0, 0)},
    (1, 1): {"pad": (7, 7, 0, 0), "clamp": (1, 1, 0, 0), "clamp_both": (1, 1, 0, 0)},
}


@pytest.mark.parametrize("grid", RULES, ids=str)
def test_the_window_that_fits_a_map(grid):
    for rule, (h, w, down, right) in RULES[grid].items():
        assert fit(grid, (7, 7), (3, 3), rule) == ((h, w), (down, right)), rule
    assert fit(grid, (7, 7), (3, 3), "pad_shift") == ((7, 7), (3, 3))


@pytest.mark.parametrize("grid", [(7, 20), (5, 20), (20, 6), (4, 5)], ids=str)
@pytest.mark.parametrize("small_map", ["pad", "clamp"])
def test_an_axis_that_one_window_covers_is_not_shifted(grid, small_map):
    shifted = attention((7, 7), (3, 3), small_map)
    kept = tuple(3 if n > 7 else 0 for n in grid)
    expected = attention((7, 7), kept, small_map)
    expected.load_state_dict(shifted.state_dict())
    x = noise(2, *grid, 8, dtype=torch.float64)
    torch.testing.assert_close(shifted(x), expected(x), rtol=0, atol=0)
    always = attention((7, 7), (3, 3), "pad_shift")
    always.load_state_dict(shifted.state_dict())
    assert not torch.allclose(always(x), expected(x))


# a second way to the same numbers: attention of all tokens to all, each pair looked at by itself


def dense_attention(layer, x, *, window, shift):
    """Which pairs of tokens of the padded map attend to each other in shifted windows."""
    batch, height, width, dim = x.shape
    (wh, ww), heads = window, layer.num_heads
    rows, columns = -(-height // wh) * wh, -(-width // ww) * ww
    padded = torch.zeros(batch, rows, columns, dim, dtype=x.dtype)
    padded[:, :height, :width] = x
    y, x_ = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    place = torch.stack([y.flatten(), x_.flatten()], 1)
    moved = place - torch.tensor(shift)
    end = torch.tensor([rows, columns])
    here, wrapped = moved % end, moved < 0
    tile = here // torch.tensor(window)
    together = (tile[:, None] == tile[None]).all(-1)
    apart = (wrapped[:, None] != wrapped[None]).any(-1)
    offset = here[:, None] - here[None] + torch.tensor(layer.window_size) - 1
    table = layer.relative_position_bias_table
    index = (offset[..., 0] * (2 * layer.window_size[1] - 1) + offset[..., 1]) * together
    logits = table[index].permute(2, 0, 1) - 100.0 * apart
    logits = logits.masked_fill(~together, float("-inf"))
    q, k, v = layer.qkv(padded.flatten(1, 2)).view(batch, -1, 3, heads, dim // heads).unbind(2)
    logits = logits + torch.einsum("bnhd,bmhd->bhnm", q, k) * (dim // heads) ** -0.5
    mixed = torch.einsum("bhnm,bmhd->bnhd", logits.softmax(-1), v)
    out = layer.proj(mixed.reshape(batch, -1, dim)).view(batch, rows, columns, dim)
    return out[:, :height, :width]


@pytest.mark.parametrize("grid", RULES, ids=str)
@pytest.mark.parametrize("rule", ["pad", "clamp", "clamp_both", "pad_shift"])
def test_which_pairs_of_tokens_attend_to_each_other(grid, rule):
    layer = attention((7, 7), (3, 3), rule)
    h, w, *shift = RULES[grid].get(rule, (7, 7, 3, 3))
    x = noise(2, *grid, 8, dtype=torch.float64)
    expected = dense_attention(layer, x, window=(h, w), shift=tuple(shift))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=25)
@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.tuples(side, side), st.data())
def test_which_pairs_attend_to_each_other_in_rectangular_windows(grid, window, data):
    shift = tuple(data.draw(st.integers(0, n - 1)) for n in window)
    layer = attention(window, shift, "pad_shift")
    x = noise(1, *grid, 8, dtype=torch.float64)
    expected = dense_attention(layer, x, window=window, shift=shift)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)


# the mask


def published_mask(height, width, window, shift):
    """The published mask: -100 between tokens of different ones of nine regions."""
    numbers = torch.zeros(height, width)
    count = 0
    for rows in (slice(0, -window), slice(-window, -shift), slice(-shift, None)):
        for columns in (slice(0, -window), slice(-window, -shift), slice(-shift, None)):
            numbers[rows, columns] = count
            count += 1
    numbers = numbers.view(height // window, window, width // window, window)
    numbers = numbers.transpose(1, 2).reshape(-1, window * window)
    return (numbers[:, None] != numbers[:, :, None]) * -100.0


@pytest.mark.parametrize("window", [2, 4, 7])
@pytest.mark.parametrize("count", [(2, 2), (2, 5), (3, 3), (6, 4)], ids=str)
def test_the_mask_is_the_published_one_of_nine_regions(window, count):
    for shift in range(1, window):
        expected = published_mask(count[0] * window, count[1] * window, window, shift)
        mask = shift_mask(count, (window, window), (shift, shift))
        assert torch.equal(mask.squeeze(1), expected)


# without the mask


def rolled_attention(layer, x, *, window, shift):
    """Attention in the windows of a map that is padded and rolled."""
    (h, w), (down, right), (height, width) = window, shift, x.shape[1:3]
    x = F.pad(x, (0, 0, 0, -width % w, 0, -height % h)).roll((-down, -right), (1, 2))
    tokens = rearrange(x, "b (i h) (j w) c -> b i j (h w) c", h=h, w=w)
    parts = {"three": 3, "heads": layer.num_heads}
    q, k, v = rearrange(layer.qkv(tokens), "... n (three heads d) -> three ... heads n d", **parts)
    place = torch.cartesian_prod(torch.arange(h), torch.arange(w))
    y, x_ = (place[:, None] - place + torch.tensor(layer.window_size) - 1).unbind(-1)
    bias = layer.relative_position_bias_table[y * (2 * layer.window_size[1] - 1) + x_]
    logits = q @ k.mT * q.shape[-1] ** -0.5 + bias.permute(2, 0, 1)
    mixed = rearrange(logits.softmax(-1) @ v, "b i j e (h w) d -> b (i h) (j w) (e d)", h=h, w=w)
    return layer.proj(mixed).roll((down, right), (1, 2))[:, :height, :width]


def unmasked(layer):
    """The same layer without its mask."""
    other = attention(layer.window_size, layer.shift_size, layer.small_map, shift_mask=False)
    other.load_state_dict(layer.state_dict())
    return other


@pytest.mark.parametrize("grid", RULES, ids=str)
@pytest.mark.parametrize("rule", ["pad", "clamp", "clamp_both", "pad_shift"])
def test_without_the_mask_a_map_is_rolled(grid, rule):
    masked = attention((7, 7), (3, 3), rule)
    layer = unmasked(masked)
    h, w, *shift = RULES[grid].get(rule, (7, 7, 3, 3))
    x = noise(2, *grid, 8, dtype=torch.float64)
    expected = rolled_attention(layer, x, window=(h, w), shift=tuple(shift))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)
    with engine.disabled():
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)
    # a twin: with the mask the results are others, wherever there is a shift
    assert torch.allclose(masked(x), expected, atol=1e-6) == (not any(shift))


@settings(deadline=None, max_examples=25)
@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.tuples(side, side), st.data())
def test_without_the_mask_rectangular_windows_are_rolled(grid, window, data):
    shift = tuple(data.draw(st.integers(0, n - 1)) for n in window)
    layer = attention(window, shift, "pad_shift", shift_mask=False)
    x = noise(1, *grid, 8, dtype=torch.float64)
    expected = rolled_attention(layer, x, window=window, shift=shift)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("grid", [(14, 21), (8, 17)], ids=str)
def test_without_the_mask_gradients_are_those_of_a_rolled_map(grid, enabled):
    layer = attention((7, 7), (3, 3), shift_mask=False).train()
    x = noise(2, *grid, 8, dtype=torch.float64).requires_grad_()
    weights = [x, *layer.parameters()]
    expected = rolled_attention(layer, x, window=(7, 7), shift=(3, 3))
    wanted = torch.autograd.grad(expected.square().sum(), weights)
    with nullcontext() if enabled else engine.disabled():
        found = torch.autograd.grad(layer(x).square().sum(), weights)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shift", [(3, 3), (0, 2), (6, 0)], ids=str)
@pytest.mark.parametrize("count", [(2, 2), (1, 3), (3, 2)], ids=str)
def test_without_the_mask_it_is_timms_block_without_its_own(count, shift):
    grid = tuple(7 * n for n in count)
    shift = tuple(by if n > 1 else 0 for by, n in zip(shift, count, strict=True))
    block = SwinTransformerBlock(8, grid, num_heads=2, window_size=7, shift_size=shift)
    block = perturb(block, std=0.5).double()
    assert (block.attn_mask is not None) == any(shift)
    layer = attention((7, 7), shift)
    layer.load_state_dict(block.attn.state_dict())
    x = noise(2, *grid, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), block._attn(x), rtol=0, atol=1e-10)
    block.attn_mask = None
    torch.testing.assert_close(unmasked(layer)(x), block._attn(x), rtol=0, atol=1e-10)
    assert torch.allclose(layer(x), block._attn(x), atol=1e-6) == (not any(shift))


# padding and shift together


def reached(layer, height, *, width=7, row=0):
    """The rows of the input that one row of the output depends on."""
    x = noise(1, height, width, 8).requires_grad_()
    layer(x)[:, row].square().sum().backward()
    return {i for i in range(height) if x.grad[0, i].abs().max() > 1e-20}


@pytest.mark.parametrize("height", [8, 10, 12, 13, 14, 15, 20, 24])
def test_padding_and_shift_together_join_no_distant_rows(height):
    layer = attention((7, 7), (3, 3)).float()
    # shifted windows start at row 3, 10, ...; the first holds rows 0 to 2
    for row in range(height):
        start = (row - 3) // 7 * 7 + 3
        assert reached(layer, height, row=row) == set(range(max(0, start), min(height, start + 7)))


@pytest.mark.parametrize("height", [8, 10, 12, 13, 14, 15, 20, 24])
def test_without_the_mask_the_last_window_joins_both_edges(height):
    layer = attention((7, 7), (3, 3), shift_mask=False).float()
    padded = -(-height // 7) * 7
    edges = {0, 1, 2, *range(padded - 4, height)}
    for row in range(height):
        start = (row - 3) // 7 * 7 + 3
        inside = set(range(start, min(height, start + 7)))
        assert reached(layer, height, row=row) == (edges if row in edges else inside)


def test_rolling_before_padding_would_join_them():
    block = SwinTransformerBlock(8, (12, 7), num_heads=2, window_size=7, shift_size=3).eval()
    assert 11 in reached(block._attn, 12, row=0)
    assert 11 not in reached(attention((7, 7), (3, 3)).float(), 12, row=0)
    # where no padding is needed, the two agree
    assert reached(
        SwinTransformerBlock(8, (14, 7), num_heads=2, window_size=7, shift_size=3).eval()._attn, 14
    ) == reached(attention((7, 7), (3, 3)).float(), 14)


@pytest.mark.parametrize("height", [8, 12, 14, 15])
def test_a_shifted_mlp_joins_no_distant_rows(height):
    layer = WindowMlp(num_heads=2, window_size=(7, 7), shift_size=(3, 3), small_map="pad")
    perturb(layer)
    assert reached(layer, height, row=0) == {0, 1, 2}
    assert reached(layer, height, row=4) == set(range(3, min(height, 10)))
