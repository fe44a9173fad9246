"""Grid, neighborhood and linear attention against timm, and against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import noise, perturb, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.maxxvit import MaxxVitTransformerCfg, PartitionAttentionCl

import hierarch
from hierarch.mixers.grid_attention import GridAttention
from hierarch.mixers.linear_attention import LinearAttention, positive
from hierarch.mixers.neighborhood_attention import NeighborhoodAttention, neighbors
from hierarch.mixers.window_attention import WindowAttention
from hierarch.nn.padding import pad
from hierarch.spec.claim import growing

DIM, HEADS = 16, 4
side = st.integers(1, 5)


def grid_attention(window=(4, 4), position_bias="relative", qkv_bias=True):
    options = {"window_size": window, "qkv_bias": qkv_bias, "position_bias": position_bias}
    return perturb(GridAttention(DIM, num_heads=HEADS, **options).double(), std=0.3)


def neighborhood_attention(kernel_size=3, position_bias="relative", qkv_bias=True, dilation=1):
    options = {"kernel_size": kernel_size, "qkv_bias": qkv_bias, "position_bias": position_bias}
    options["dilation"] = dilation
    return perturb(NeighborhoodAttention(DIM, num_heads=HEADS, **options).double(), std=0.3)


def linear_attention(dtype=torch.float64, std=0.3):
    layer = LinearAttention(DIM, num_heads=HEADS, qkv_bias=True)
    return perturb(layer.to(dtype), std=std)


def reached(layer, grid, token):
    """The tokens of the input that one token of the output depends on."""
    x = noise(1, *grid, DIM, dtype=torch.float64).requires_grad_()
    layer(x)[0, *token].square().sum().backward()
    return {(i, j) for i, j in x.grad[0].abs().amax(-1).nonzero().tolist()}


def every(grid):
    return {(i, j) for i in range(grid[0]) for j in range(grid[1])}


@pytest.mark.parametrize(
    "mixer",
    [
        {"type": "grid_attention", "window_size": [61, 64]},
        {"type": "neighborhood_attention", "kernel_size": 63},
        {"type": "neighborhood_attention", "kernel_size": 63, "dilation": 256},
        {"type": "linear_attention"},
    ],
    ids=lambda mixer: mixer["type"],
)
def test_the_cost_is_linear_and_global_attentions_is_not(mixer):
    def spec(mixer):
        return hierarch.load({"stages": [{"dim": 8, "depth": 1}], "mixer": mixer | {"head_dim": 4}})

    assert growing(spec(mixer)) == []
    assert growing(spec({"type": "global_attention"}))


@pytest.mark.parametrize("mixer", ["grid_attention", "neighborhood_attention", "linear_attention"])
def test_autocast(mixer):
    model = perturb(hierarch.build(tiny() | {"mixer": {"type": mixer, "head_dim": 4}}))
    images = noise(2, 3, 36, 44)
    with torch.no_grad():
        expected = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            maps = model(images)
    for found, wanted in zip(maps, expected, strict=True):
        tolerance = 0.1 * float(wanted.abs().max())
        torch.testing.assert_close(found.float(), wanted, rtol=0, atol=tolerance)


def test_weight_decay_spares_the_bias_tables():
    for mixer in ("grid_attention", "neighborhood_attention"):
        model = hierarch.build(tiny() | {"mixer": {"type": mixer, "head_dim": 4}})
        tables = {name for name in model.state_dict() if name.endswith("position_bias_table")}
        assert len(tables) == 7
        assert tables <= model.no_weight_decay()


# grid attention


def timms(grid_size, *, head_first):
    config = MaxxVitTransformerCfg(
        dim_head=DIM // HEADS,
        head_first=head_first,
        rel_pos_type="bias",
        window_size=grid_size,
        grid_size=grid_size,
    )
    return perturb(PartitionAttentionCl(DIM, "grid", config).double(), std=0.3)


def from_timms(attention, *, head_first):
    """Our state dict, in which the projection is ordered by queries, keys, values, then heads."""
    state = {name.removeprefix("rel_pos."): w for name, w in attention.state_dict().items()}
    if head_first:
        for name in ("qkv.weight", "qkv.bias"):
            by_head = state[name].view(HEADS, 3, DIM // HEADS, -1)
            state[name] = by_head.transpose(0, 1).reshape(state[name].shape)
    return state


@pytest.mark.parametrize("head_first", [False, True])
@pytest.mark.parametrize("grid_size", [(7, 7), (3, 5)], ids=str)
@pytest.mark.parametrize("stride", [(1, 1), (2, 3), (4, 1)], ids=str)
def test_grid_attention_is_timms(grid_size, stride, head_first):
    theirs = timms(grid_size, head_first=head_first)
    ours = grid_attention(grid_size)
    ours.load_state_dict(from_timms(theirs.attn, head_first=head_first))
    x = noise(2, grid_size[0] * stride[0], grid_size[1] * stride[1], DIM, dtype=torch.float64)
    expected = theirs._partition_attn(x)
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.float()(x.float()), expected.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", [(1, 1), (3, 9), (5, 4), (13, 6)], ids=str)
def test_grid_attention_pads_at_the_bottom_and_the_right(grid):
    layer = grid_attention()
    x = noise(2, *grid, DIM, dtype=torch.float64)
    padded = layer(pad(x, [-n % 4 for n in grid]))
    torch.testing.assert_close(layer(x), padded[:, : grid[0], : grid[1]], rtol=0, atol=1e-12)


def test_a_grid_is_spread_over_the_map():
    rows, columns = {1, 4, 7, 10}, {0, 2, 4, 6}
    assert reached(grid_attention(), (12, 8), (4, 2)) == {(i, j) for i in rows for j in columns}


def test_windows_and_grids_together_reach_every_token():
    grid = (16, 16)
    windows = perturb(
        WindowAttention(
            DIM, num_heads=HEADS, window_size=(4, 4), shift_size=(0, 0), qkv_bias=True,
            position_bias="relative", small_map="pad", shift_mask=True,
        ).double(),
        std=0.3,
    )  # fmt: skip
    assert len(reached(windows, grid, (5, 9))) == 16
    assert len(reached(grid_attention(), grid, (5, 9))) == 16
    assert reached(torch.nn.Sequential(windows, grid_attention()), grid, (5, 9)) == every(grid)


def test_a_window_size_carries_over_to_the_grid():
    mixers = hierarch.swap("swin_base_384", "grid_attention").mixer
    assert [(mixer.type, mixer.window_size) for mixer in mixers] == [("grid_attention", 12)]


# neighborhood attention


def around(place, size, kernel_size, dilation=1):
    """The neighbors of a position on an axis: the kernel around it, moved inside at the ends, among
    the positions that are a multiple of the dilation away."""
    reached = range(place % dilation, size, dilation)
    count = min(kernel_size, max(1, size // dilation))
    inside = [reached[start : start + count] for start in range(len(reached) - count + 1)]
    return min(inside, key=lambda n: abs(n[count // 2] - place))


def query_by_query(layer, x):
    """Neighborhood attention by its definition, in loops."""
    _, h, w, dim = x.shape
    k, d, scale = layer.kernel_size, layer.dilation, (dim // HEADS) ** -0.5
    queries, keys, values = layer.qkv(x).unflatten(-1, (3, HEADS, -1)).unbind(3)
    table = layer.relative_position_bias_table
    out = torch.empty_like(queries)
    for i, j in every((h, w)):
        places = [(y, x_) for y in around(i, h, k, d) for x_ in around(j, w, k, d)]
        assert len(places) == min(k, max(1, h // d)) * min(k, max(1, w // d))
        logits = []
        for y, x_ in places:
            logit = (queries[:, i, j] * keys[:, y, x_]).sum(-1) * scale
            if table is not None:
                steps = ((y - i) // d + k - 1, (x_ - j) // d + k - 1)
                logit = logit + table.view(2 * k - 1, 2 * k - 1, HEADS)[steps]
            logits.append(logit)
        weights = torch.stack(logits).softmax(0)
        found = zip(weights, places, strict=True)
        out[:, i, j] = sum(weight[..., None] * values[:, *place] for weight, place in found)
    return layer.proj(out.flatten(-2))


@pytest.mark.parametrize("position_bias", ["relative", "none"])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("grid", [(1, 1), (2, 9), (8, 3), (5, 5), (6, 7)], ids=str)
def test_each_query_attends_to_its_neighborhood(grid, kernel_size, position_bias):
    layer = neighborhood_attention(kernel_size, position_bias)
    x = noise(2, *grid, DIM, dtype=torch.float64)
    with torch.no_grad():
        expected = query_by_query(layer, x)
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("position_bias", ["relative", "none"])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(3, 2), (3, 4), (5, 3), (1, 2), (5, 7)])
@pytest.mark.parametrize("grid", [(1, 1), (2, 9), (8, 3), (13, 16)], ids=str)
def test_each_query_attends_to_its_dilated_neighborhood(grid, kernel_size, dilation, position_bias):
    layer = neighborhood_attention(kernel_size, position_bias, dilation=dilation)
    x = noise(2, *grid, DIM, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), query_by_query(layer, x), rtol=0, atol=1e-10)


def natten_start(index, length, kernel_size, dilation):
    """The first neighbor of a position on an axis of at least K·d, as NATTEN's kernels say it."""
    half = kernel_size // 2 * dilation
    if index < half:
        return index % dilation
    if index + half < length:
        return index - half
    whole = length // dilation * dilation
    rest, of_class = length - whole, index % dilation
    if of_class < rest:
        return length - rest + of_class - 2 * half
    return whole + of_class - kernel_size * dilation


@given(st.sampled_from([1, 3, 5, 7]), st.integers(1, 9), st.integers(0, 30))
def test_neighborhoods_start_where_nattens_do(kernel_size, dilation, more):
    length = kernel_size * dilation + more
    found = neighbors(length, kernel_size, dilation, device=torch.device("cpu"))
    starts = [natten_start(i, length, kernel_size, dilation) for i in range(length)]
    assert found[:, 0].tolist() == starts
    steps = dilation * torch.arange(kernel_size)
    assert torch.equal(found, torch.tensor(starts)[:, None] + steps)


@pytest.mark.parametrize(
    ("token", "rows", "columns"),
    [
        ((6, 5), range(4, 9), range(3, 8)),
        ((0, 0), range(5), range(5)),
        ((1, 10), range(5), range(6, 11)),
        ((12, 8), range(8, 13), range(6, 11)),
    ],
    ids=str,
)
def test_a_token_depends_on_its_neighborhood_only(token, rows, columns):
    seen = reached(neighborhood_attention(5), (13, 11), token)
    assert seen == {(i, j) for i in rows for j in columns}


def test_a_neighborhood_of_the_whole_map_is_global_attention():
    layer = neighborhood_attention(7, "none")
    assert reached(layer, (7, 5), (0, 4)) == every((7, 5))
    x = noise(2, 7, 5, DIM, dtype=torch.float64)
    expected = layer.attend(x.flatten(1, 2), [(2, None)]).view_as(x)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)
    wider = noise(2, 7, 8, DIM, dtype=torch.float64)
    assert not torch.allclose(
        layer(wider), layer.attend(wider.flatten(1, 2), [(2, None)]).view_as(wider)
    )


# linear attention


def explicit(layer, x):
    """Linear attention as an explicit attention matrix with normalized rows."""
    tokens = x.flatten(1, 2)
    q, k, v = layer.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    weights = (F.elu(q) + 1) @ (F.elu(k) + 1).mT
    weights = weights / weights.sum(-1, keepdim=True)
    return layer.proj((weights @ v).transpose(1, 2).flatten(-2)).view_as(x)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(1, 12))
def test_linear_attention_is_a_matrix_of_all_tokens(height, width):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        layer = linear_attention(dtype)
        x = noise(2, height, width, DIM, dtype=dtype)
        expected = explicit(layer, x)
        torch.testing.assert_close(layer(x), expected, rtol=tolerance, atol=tolerance)


def test_linear_attention_reaches_every_token():
    assert reached(linear_attention(), (9, 7), (0, 3)) == every((9, 7))


def test_the_feature_map_is_elu_plus_1():
    x = torch.linspace(-8, 8, 129, dtype=torch.float64).requires_grad_()
    expected = F.elu(x) + 1
    torch.testing.assert_close(positive(x), expected, rtol=1e-12, atol=1e-15)
    slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (positive(x), expected)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_the_feature_map_is_positive_where_elu_plus_1_rounds_to_0(dtype):
    far = torch.tensor([-20.0, -300.0], dtype=dtype)
    assert (positive(far) > 0).all()
    assert (F.elu(far) + 1 == 0).all()


@pytest.mark.parametrize(("keys", "fits"), [(0, True), (8, False)])
def test_a_large_map_stays_in_the_range_of_float16(keys, fits):
    layer = linear_attention(torch.float32)
    x = noise(1, 128, 128, DIM)
    with torch.no_grad():
        layer.qkv.bias[DIM : 2 * DIM] += keys
        expected = layer(x)
        found = layer.half()(x.half()).float()
        # a twin: the sums over tokens themselves, as eq. (5) is written
        _, k, _ = layer.split(x.half().flatten(1, 2))
    assert positive(k).sum(-2).isfinite().all() == fits
    tolerance = 0.02 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
