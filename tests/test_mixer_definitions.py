"""Mixers that no library here has, against their papers' definitions, written in plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import noise, perturb

import hierarch
from hierarch import MixerSpec, SpecError
from hierarch.spec.claim import growing

DIM = 24
GRIDS = [(1, 1), (2, 9), (7, 7), (13, 6)]
on_grids = pytest.mark.parametrize("grid", GRIDS, ids=str)


def mixer(**fields: object) -> MixerSpec:
    """The spec of a mixer, at the width of these tests."""
    return hierarch.load({"stages": [{"dim": DIM, "depth": 1}], "mixer": fields}).mixer[0]


def built(**fields):
    """A mixer's module in float64, with noise on its parameters."""
    return perturb(mixer(**fields).build(DIM).double(), std=0.3)


def tokens_of(grid):
    return itertools.product(range(grid[0]), range(grid[1]))


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def inputs(grid):
    return noise(2, *grid, DIM, dtype=torch.float64)


# shift


@on_grids
@pytest.mark.parametrize("n_div", [4, 5, 12, 24])
def test_a_shift_takes_each_channel_from_one_neighbor(n_div, grid):
    x, group = inputs(grid), DIM // n_div
    expected = torch.zeros_like(x)
    for (i, j), channel in itertools.product(tokens_of(grid), range(DIM)):
        # moved to the left, it comes from the right, and so on
        comes_from = {0: (0, 1), 1: (0, -1), 2: (1, 0), 3: (-1, 0)}.get(channel // group, (0, 0))
        y, z = i + comes_from[0], j + comes_from[1]
        if 0 <= y < grid[0] and 0 <= z < grid[1]:
            expected[:, i, j, channel] = x[:, y, z, channel]
    assert torch.equal(built(type="shift", n_div=n_div)(x), expected)


def test_a_shift_of_no_channel_is_refused():
    with pytest.raises(SpecError, match="n_div=25 leaves no channel to shift at dim=24"):
        mixer(type="shift", n_div=25)


# attention in stripes


def in_stripes(layer, x, split):
    """Cross-shaped window attention, token by token. `split` are heads and stripe by direction."""
    _, h, w, _ = x.shape
    head_dim = DIM // sum(heads for heads, _ in split)
    queries, keys, values = layer.qkv(x).unflatten(-1, (3, -1, head_dim)).unbind(3)
    out, first = torch.zeros_like(queries), 0
    for branch, (heads, stripe) in zip(layer.attns, split, strict=True):
        high, wide = (side or length for side, length in zip(stripe, (h, w), strict=True))
        of_branch = slice(first, first + heads)
        kernel = branch.get_v.conv.weight.view(heads, head_dim, 3, 3)
        bias = branch.get_v.conv.bias.view(heads, head_dim)
        for i, j in tokens_of((h, w)):
            top, left = i // high * high, j // wide * wide
            stripe_of = [(y, z) for y in range(top, top + high) for z in range(left, left + wide)]
            inside = [(y, z) for y, z in stripe_of if y < h and z < w]
            query = queries[:, i, j, of_branch] * head_dim**-0.5
            logits = [(query * keys[:, y, z, of_branch]).sum(-1) for y, z in inside]
            # a padding token is attended to: its logit is 0, and its value
            logits += [torch.zeros_like(query[..., 0])] * (len(stripe_of) - len(inside))
            weights = torch.stack(logits).softmax(0)
            mixed = bias.expand_as(query).clone()
            for weight, (y, z) in zip(weights, inside, strict=False):
                mixed += weight[..., None] * values[:, y, z, of_branch]
                if abs(y - i) <= 1 and abs(z - j) <= 1:
                    mixed += kernel[..., y - i + 1, z - j + 1] * values[:, y, z, of_branch]
            out[:, i, j, of_branch] = mixed
        first += heads
    return layer.proj(out.flatten(-2))


@on_grids
@pytest.mark.parametrize(
    ("heads", "width", "split"),
    [
        (4, 1, [(2, (0, 1)), (2, (1, 0))]),
        (2, 3, [(1, (0, 3)), (1, (3, 0))]),
        (3, 7, [(2, (0, 7)), (1, (7, 0))]),
        (1, 2, [(1, (0, 2))]),
        (4, None, [(4, (0, 0))]),
    ],
    ids=str,
)
def test_heads_attend_in_stripes(heads, width, split, grid):
    layer = built(type="cross_window_attention", num_heads=heads, stripe_width=width)
    x = inputs(grid)
    with torch.no_grad():
        assert_equal(layer(x), in_stripes(layer, x, split))


def test_two_directions_see_a_cross():
    layer = built(type="cross_window_attention", num_heads=2, stripe_width=2)
    x = inputs((9, 8)).requires_grad_()
    layer(x)[0, 5, 3].square().sum().backward()
    seen = {(i, j) for i, j in x.grad[0].abs().amax(-1).nonzero().tolist()}
    assert seen == {(i, j) for i, j in tokens_of((9, 8)) if i in (4, 5) or j in (2, 3)}


def test_a_split_without_channels_is_refused():
    with pytest.raises(SpecError, match=r"branch_ratio=0\.04 leaves no channel at dim=24"):
        mixer(type="inception_conv", branch_ratio=0.04)


# large kernel attention


def convolved(conv, x, *, dilation=1):
    """A depthwise convolution with zero padding, tap by tap."""
    kernel, out = conv.weight, conv.bias.expand_as(x).clone()
    middle = kernel.shape[-1] // 2
    for i, j in tokens_of(x.shape[1:3]):
        for a, b in tokens_of(kernel.shape[2:]):
            y, z = i + (a - middle) * dilation, j + (b - middle) * dilation
            if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                out[:, i, j] += kernel[:, 0, a, b] * x[:, y, z]
    return out


@on_grids
@pytest.mark.parametrize(("kernel_size", "dilation"), [(7, 3), (3, 2), (5, 1)])
def test_a_large_kernel_gates_the_map(kernel_size, dilation, grid):
    fields = {"kernel_size": kernel_size, "dilation": dilation}
    layer, x = built(type="large_kernel_attention", **fields), inputs(grid)
    with torch.no_grad():
        u = F.gelu(layer.proj_1(x))
        assert layer.conv0.conv.kernel_size == (2 * dilation - 1, 2 * dilation - 1)
        near = convolved(layer.conv0.conv, u)
        gate = layer.conv1(convolved(layer.conv_spatial.conv, near, dilation=dilation))
        assert_equal(layer(x), layer.proj_2(u * gate) + x)


# axial shift


@on_grids
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7, 17])
def test_groups_of_channels_move_along_both_axes(kernel_size, grid):
    layer, x = built(type="axial_shift", kernel_size=kernel_size), inputs(grid)
    group = math.ceil(DIM / kernel_size)

    def shifted(x, axis):
        out = torch.zeros_like(x)
        for place, channel in itertools.product(tokens_of(grid), range(DIM)):
            source = list(place)
            source[axis] -= channel // group - kernel_size // 2
            if 0 <= source[axis] < grid[axis]:
                out[:, *place, channel] = x[:, *source, channel]
        return out

    def normed(norm, x):
        deviation = (x.var((1, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        return (x - x.mean((1, 2, 3), keepdim=True)) / deviation * norm.weight + norm.bias

    with torch.no_grad():
        hidden = F.gelu(normed(layer.norm1, layer.conv1(x)))
        lines = F.gelu(layer.conv2_1(shifted(hidden, 1))) + F.gelu(
            layer.conv2_2(shifted(hidden, 0))
        )
        assert_equal(layer(x), layer.conv3(normed(layer.norm2, lines)))


# random mixing


@on_grids
def test_random_mixing_is_a_mean_of_all_tokens(grid):
    layer, x = built(type="random_mixing", grid=list(grid)), inputs(grid)
    matrix = layer.random_matrix
    assert not list(layer.parameters())
    assert list(layer.state_dict()) == ["random_matrix"]
    assert (matrix > 0).all()
    assert torch.allclose(matrix.sum(-1), torch.ones(1, dtype=torch.float64), atol=1e-6)
    assert_equal(layer(x), torch.einsum("mn, bnc -> bmc", matrix, x.flatten(1, 2)).view_as(x))


def test_two_random_mixings_differ():
    one, other = (built(type="random_mixing", grid=4) for _ in range(2))
    assert not torch.equal(one.random_matrix, other.random_matrix)


@pytest.mark.parametrize("grid", [(1, 1), (5, 12), (9, 4)], ids=str)
def test_random_mixing_of_another_grid_is_a_mean_as_well(grid):
    layer, x = built(type="random_mixing", grid=[5, 9]), inputs(grid)
    constant = torch.ones_like(x) * x[:, :1, :1]
    assert_equal(layer(constant), constant)
    by_positions = layer.random_matrix.view(5, 9, 5, 9)
    expected = by_positions.flatten(0, 1)[None]
    expected = F.interpolate(expected, size=grid, mode="bicubic").view(5, 9, *grid)
    expected = expected.permute(2, 3, 0, 1).flatten(0, 1)[None]
    expected = F.interpolate(expected, size=grid, mode="bicubic").view(-1, math.prod(grid))
    expected = (expected / expected.sum(0)).T @ x.flatten(1, 2)
    assert_equal(layer(x), expected.view_as(x))


# global filter


def by_its_frequencies(weight, x):
    """A filter in the frequency domain, by sums of cosines and sines."""
    _, h, w, _ = x.shape
    y, z = torch.arange(h).double(), torch.arange(w).double()
    u, v = torch.arange(h).double(), torch.arange(w // 2 + 1).double()
    rows = torch.exp(-2j * math.pi * u[:, None] * y / h)
    columns = torch.exp(-2j * math.pi * v[:, None] * z / w)
    spectrum = torch.einsum("uy, vz, byzc -> buvc", rows, columns, x.to(torch.complex128))
    filtered = spectrum * torch.complex(weight[..., 0], weight[..., 1])
    # a real map: each frequency of a row stands for its conjugate too, but the first, and the last
    # one of an even row
    twice = torch.tensor([1 if k in (0, w / 2) else 2 for k in range(w // 2 + 1)])
    filtered = filtered * twice[:, None]
    back = torch.einsum("uy, vz, buvc -> byzc", rows.conj(), columns.conj(), filtered)
    return back.real / (h * w)


@on_grids
def test_a_global_filter_scales_each_frequency(grid):
    layer, x = built(type="global_filter", grid=list(grid)), inputs(grid)
    with torch.no_grad():
        assert_equal(layer(x), by_its_frequencies(layer.complex_weight, x))
        layer.complex_weight[..., 0] = 1
        layer.complex_weight[..., 1] = 0
        assert_equal(layer(x), x)


def test_a_global_filter_is_a_circular_convolution():
    layer, x = built(type="global_filter", grid=[6, 7]), inputs((6, 7))
    rolled = layer(x.roll((2, -3), (1, 2)))
    assert_equal(rolled, layer(x).roll((2, -3), (1, 2)))
    impulse = torch.zeros_like(x)
    impulse[:, 0, 0] = 1
    assert layer(impulse).ne(0).all()


@pytest.mark.parametrize("grid", [(1, 1), (5, 12), (11, 4)], ids=str)
def test_a_global_filter_is_resized_from_corner_to_corner(grid):
    layer, x = built(type="global_filter", grid=[5, 9]), inputs(grid)
    size = (grid[0], grid[1] // 2 + 1)
    planes = layer.complex_weight.reshape(1, 5, 5, 2 * DIM).permute(0, 3, 1, 2)
    resized = F.interpolate(planes, size=size, mode="bicubic", align_corners=True)
    with torch.no_grad():
        weight = resized.permute(0, 2, 3, 1).reshape(*size, DIM, 2)
        assert_equal(layer(x), by_its_frequencies(weight, x))


# the verdict


@pytest.mark.parametrize(
    ("fields", "linear"),
    [
        ({"type": "focal_modulation", "focal_window": 63}, True),
        ({"type": "channel_attention", "head_dim": 4}, True),
        ({"type": "shift"}, True),
        ({"type": "cross_window_attention", "head_dim": 4}, False),
        ({"type": "cross_window_attention", "head_dim": 4, "stripe_width": None}, False),
        ({"type": "large_kernel_attention"}, True),
        ({"type": "inception_conv", "band_kernel_size": 63}, True),
        ({"type": "axial_shift"}, True),
        ({"type": "global_filter", "grid": 14}, False),
        ({"type": "random_mixing", "grid": 14}, False),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_the_verdict(fields, linear):
    spec = hierarch.load({"stages": [{"dim": DIM, "depth": 1}], "mixer": fields})
    assert (growing(spec) == []) == linear
