"""Inference a few windows at a time: the plain path's result, whatever the tile."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from helpers import noise, perturb, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import backbone_specs, image_sizes
from torch import nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

import hierarch
from hierarch.model import attention, gathering, streaming
from hierarch.model.block import Block
from hierarch.model.cut import PADDING, Cut, shifted_cut
from hierarch.model.onednn import ONEDNNS_TYPES

WINDOWED = ["window_attention", "cosine_window_attention", "window_mlp"]
HEAD = {"num_classes": 5}
SIZES = [(2, 64, 64), (1, 37, 50), (3, 7, 101), (1, 1, 1)]


@pytest.fixture(params=WINDOWED)
def model(request):
    return perturb(hierarch.build(tiny(request.param, head=HEAD)))


def plain(model, images):
    """The output of the path that gradients, compilers and traces see."""
    with torch.enable_grad():
        out = model(images)
    return out.detach() if isinstance(out, torch.Tensor) else [one.detach() for one in out]


@torch.no_grad()
def streamed(model, images):
    return model(images)


def assert_close(found, wanted):
    scale = max(1.0, float(wanted.detach().abs().max()))
    torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=1e-5)


@pytest.fixture
def tiles(monkeypatch):
    """The blocks that were streamed."""
    seen = []
    original = streaming.streamed

    def watched(blocks, x, **options):
        seen.extend(blocks)
        return original(blocks, x, **options)

    for user in ("block", "stage"):
        monkeypatch.setattr(f"hierarch.model.{user}.streamed", watched)
    return seen


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tile", [1, 40, 10_000])
def test_the_result_is_the_plain_one_whatever_the_tile(model, tiles, size, tile):
    images = noise(size[0], 3, *size[1:])
    model.set_tile_size(tile)
    assert_close(streamed(model, images), plain(model, images))
    assert len(set(tiles)) == 7


@settings(max_examples=60, deadline=None)
@given(backbone_specs(), image_sizes())
def test_any_network(spec, size):
    model = perturb(hierarch.build(spec))
    model.set_tile_size(30)
    images = noise(2, spec.stem.in_chans, *size)
    with torch.no_grad():
        found = model(images)
        model.set_tile_size(None)
        wanted = model(images)
    if isinstance(found, torch.Tensor):
        found, wanted = (found,), (wanted,)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("preset", ["swin_tiny", "swin_mixer_tiny_d24", "swin_v2_tiny_window8_256"])
def test_presets_at_full_width(preset):
    model = perturb(hierarch.build(preset), std=0.02)
    for size in [(2, 128, 128), (1, 100, 75)]:
        images = noise(size[0], 3, *size[1:])
        assert_close(streamed(model, images), plain(model, images))


def test_memory_layouts(model):
    images = noise(2, 3, 40, 56)
    wanted = plain(model, images)
    for other in (
        images.to(memory_format=torch.channels_last),
        noise(2, 3, 40, 56).transpose(2, 3).contiguous().transpose(2, 3),
        torch.cat([images, images], dim=1)[:, :3],
    ):
        assert_close(streamed(model, other), wanted)


def test_the_number_of_threads_changes_nothing(model):
    images = noise(2, 3, 64, 64)
    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2):
            torch.set_num_threads(n)
            results.append(streamed(model, images))
    finally:
        torch.set_num_threads(threads)
    assert_close(*results)


@pytest.mark.parametrize(
    ("torchs", "ours", "tile", "count"),
    [(1, 1, "auto", 8), (2, 1, "auto", 4), (2, 2, "auto", 8), (2, 1, 32, 8)],
)
def test_a_tile_is_as_large_for_each_thread_that_works_on_it(
    monkeypatch, torchs, ours, tile, count
):
    block = hierarch.build(tiny("window_attention")).eval().stages[0].blocks[0]
    x, seen, original = noise(1, 16, 16, block.norm1.weight.numel()), [], streaming._tiles
    block.tile = tile
    monkeypatch.setattr(streaming, "BYTES", x.nbytes // 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: torchs)
    monkeypatch.setattr(streaming, "_tiles", lambda *of: seen.append(of[1]) or original(*of))
    monkeypatch.setattr(streaming, "each", lambda run, items, threads: list(map(run, items)))
    with torch.no_grad():
        streaming.streamed([block], x, threads=ours)
    assert seen == [count]


@pytest.mark.parametrize("small", [True, False])
def test_how_a_map_is_cut_is_worked_out_once_where_it_is_small(model, monkeypatch, small):
    made, original = [], Cut.order
    monkeypatch.setattr(Cut, "order", lambda cut, n: made.append(cut) or original(cut, n))
    if not small:
        monkeypatch.setattr(streaming, "KEPT", 0)
    streaming._kept_order.cache_clear()
    images = noise(2, 3, 64, 64)
    with torch.inference_mode():
        model(images)
    count = len(made)
    assert_close(streamed(model, images), plain(model, images))
    assert len(made) == (count if small else 2 * count)


def test_two_threads_share_one_model(model):
    images = [noise(1, 3, 64, 64, seed=seed) for seed in range(6)]
    wanted = [plain(model, image) for image in images]
    found = {}

    def work(mine):
        with torch.inference_mode():
            for i in mine:
                found[i] = model(images[i]).clone()

    workers = [threading.Thread(target=work, args=(range(n, 6, 2),)) for n in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, expected in enumerate(wanted):
        assert_close(found[i], expected)


# who sees the plain path


@pytest.mark.parametrize("watcher", ["training", "gradient", "hook", "mode", "compiled", "no tile"])
def test_who_looks_inside_sees_whole_maps(tiles, watcher):
    model = perturb(hierarch.build(tiny(head=HEAD)))
    images = noise(1, 3, 64, 64)
    block = model.stages[0].blocks[0]
    with torch.no_grad():
        if watcher == "training":
            model.train()(images)
        elif watcher == "gradient":
            with torch.enable_grad():
                model(images)
        elif watcher == "hook":
            shapes = []
            block.mixer.register_forward_hook(lambda *seen: shapes.append(seen[2].shape))
            model(images)
            assert shapes == [(1, 16, 16, 8)]
            assert block not in tiles
            return
        elif watcher == "mode":
            with FlopCounterMode(display=False):
                model(images)
        elif watcher == "compiled":
            torch.compile(model, backend="eager", fullgraph=True)(images)
            torch.compiler.reset()
        else:
            model.set_tile_size(None)
            model(images)
    assert tiles == []


@pytest.mark.parametrize("transform", ["vmap", "jvp", "dual"])
def test_transforms_see_the_plain_path(tiles, transform):
    # torch's own attention has no forward derivative on a CPU
    model = perturb(hierarch.build(tiny("window_mlp", head=HEAD)))
    images, tangent = noise(2, 3, 32, 32), noise(2, 3, 32, 32, seed=1)
    _, wanted = torch.func.jvp(lambda x: plain_output(model, x), (images,), (tangent,))
    with torch.no_grad():
        if transform == "vmap":
            found = torch.vmap(lambda image: model(image[None])[0])(images)
            wanted = plain(model, images)
        elif transform == "jvp":
            _, found = torch.func.jvp(model, (images,), (tangent,))
        else:
            with forward_ad.dual_level():
                found = forward_ad.unpack_dual(model(forward_ad.make_dual(images, tangent))).tangent
    assert_close(found, wanted)
    assert tiles == []


def plain_output(model, images):
    with torch.enable_grad():
        return model(images)


def test_a_norm_over_the_map_is_never_streamed(tiles):
    model = perturb(hierarch.build(tiny(head=HEAD, norm="group_norm")))
    images = noise(1, 3, 64, 64)
    assert_close(streamed(model, images), plain(model, images))
    assert tiles == []


@pytest.mark.parametrize("tokens", [0, -1, "all"])
def test_no_tile_is_below_one_token(tokens):
    with pytest.raises(ValueError, match=f"tokens={tokens} should be 1 or more, 'auto' or None"):
        hierarch.build(tiny()).set_tile_size(tokens)


# masks and position biases: four kinds of windows, worked out once per change of a weight


def test_masks_do_not_grow_with_the_image(model):
    for side in (64, 640):
        streamed(model, noise(1, 3, side, side))
        for block in model.modules():
            held = isinstance(block, Block) and getattr(block.mixer, "memo", None)
            if held:
                masks = held._held[2]
                assert len(masks) in (1, 2, 4)
                assert all(mask.numel() <= 16**2 * block.mixer.num_heads for mask in masks.values())


def weights(model):
    """The parameters that position biases are made of, in a shifted block."""
    mixer = model.stages[0].blocks[1].mixer
    table = getattr(mixer, "relative_position_bias_table", None)
    return [table] if table is not None else [mixer.cpb_mlp[2].weight]


def other(like):
    """Noise that changes what attention attends to."""
    return noise(*like.shape, seed=7) * 5


def other_state(model):
    names = ("relative_position_bias_table", "cpb_mlp.2.weight")
    state = model.state_dict().items()
    return {name: value + other(value) * name.endswith(names) for name, value in state}


def load(model):
    model.load_state_dict(other_state(model))
    return model


def assign(model):
    model.load_state_dict(other_state(model), assign=True)
    return model


def edit(model):
    with torch.no_grad():
        for weight in weights(model):
            weight.add_(other(weight))
    return model


def edit_data(model):
    for weight in weights(model):
        weight.data.add_(other(weight))
    return model


def edit_one_number(model):
    with torch.no_grad():
        for weight in weights(model):
            weight[len(weight) // 2, 0] += 20
    return model


def copied(model):
    return edit(copy.deepcopy(model))


def train(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    model.train()(noise(1, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    return model.eval()


CHANGES = [load, assign, edit, edit_data, edit_one_number, copied, train, nn.Module.double]


@pytest.mark.parametrize("mixer", WINDOWED[:2])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("tile", ["auto", None])
def test_a_bias_is_never_that_of_old_weights(mixer, change, mode, tile):
    model = perturb(hierarch.build(tiny(mixer, head=HEAD)))
    model.set_tile_size(tile)
    images = noise(1, 3, 64, 64)
    with mode():
        before = model(images)
    changed = change(model)
    images = images.to(next(changed.parameters()).dtype)
    with mode():
        after = changed(images)
    assert (
        not torch.allclose(after.float(), before.float(), rtol=0, atol=1e-5)
        or change is nn.Module.double
    )
    assert_close(after.clone(), plain(changed, images))
    assert_close(streamed(model, images), plain(model, images))  # what was copied from, too


@pytest.mark.parametrize("tile", ["auto", None])
@pytest.mark.parametrize("mixer", [*WINDOWED[:2], "grid_attention"])
def test_a_bias_is_gathered_once(monkeypatch, mixer, tile):
    spec = tiny() | {"mixer": {"type": mixer, "head_dim": 4, "window_size": 4}}
    model = perturb(hierarch.build(spec))
    model.set_tile_size(tile)
    mixer = model.stages[0].blocks[1].mixer
    calls = []
    original = mixer.position_bias
    monkeypatch.setattr(mixer, "position_bias", lambda *a: calls.append(1) or original(*a))
    for _ in range(3):
        streamed(model, noise(1, 3, 64, 64))
    assert len(calls) == 1
    plain_output(model, noise(1, 3, 64, 64))
    assert len(calls) == 2


@pytest.mark.parametrize("mixer", WINDOWED[:2])
def test_a_bias_that_autocast_rounded_is_not_kept_for_others(mixer):
    model = perturb(hierarch.build(tiny(mixer, head=HEAD)))
    images = noise(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        streamed(model, images)
    assert_close(streamed(model, images), plain(model, images))


# the order of windows


@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(0, 6), st.integers(0, 6)),
    st.integers(1, 3),
)
def test_every_token_is_in_one_window(grid, window, shift, batch):
    shift = tuple(min(s, w - 1) for s, w in zip(shift, window, strict=True))
    index, counts = shifted_cut(grid, window, shift).order(batch)
    held = index[index != PADDING]
    assert sorted(held.tolist()) == list(range(batch * grid[0] * grid[1]))
    assert sum(count for _, count in counts) == len(index)


# in strips


@pytest.mark.parametrize("size", [(1, 3, 200, 330), (2, 3, 201, 95), (3, 3, 5, 7), (1, 3, 1, 1)])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("norm", ["layer_norm", "group_norm"])
def test_patches_are_embedded_and_merged_in_strips(monkeypatch, size, threads, norm):
    monkeypatch.setattr(streaming, "BYTES", 2000)
    model = perturb(hierarch.build(tiny(norm=norm, stem={"type": "patch_embed", "norm": norm})))
    images, before = noise(*size), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for found, wanted in zip(streamed(model, images), plain(model, images), strict=True):
            assert_close(found, wanted)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("side", "sharing"), [(224, 1), (512, 2)])
def test_a_map_is_shared_among_threads_throughout_or_not_at_all(monkeypatch, side, sharing):
    # a second stage's own map of 512x512 would be too small, the one that it is made of is not
    model = perturb(hierarch.build(tiny(stages=[{"dim": 64, "depth": 1}, {"dim": 64, "depth": 1}])))
    images, before = noise(1, 3, side, side), torch.get_num_threads()
    seen, each = [], streaming.each
    monkeypatch.setattr(streaming, "each", lambda *call: seen.append(call[2]) or each(*call))
    torch.set_num_threads(2)
    try:
        streamed(model, images)
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {sharing}
    assert len(seen) >= 4  # windows and their order, of each stage


@pytest.mark.parametrize("seen", ["stem", "position_embedding", "drop", "stages.0", None])
def test_an_embedded_image_is_written_over_unless_somebody_has_it(seen):
    model = perturb(hierarch.build(tiny(stages=[{"dim": 8, "depth": 2}])))
    images, kept, made = noise(1, 3, 64, 64), [], []
    streams = model.stages[0].streams
    model.stages[0].streams = lambda x: made.append(x) or streams(x)
    if seen == "stages.0":
        model.stages[0].register_forward_pre_hook(lambda *call: kept.append(call[1][0]))
    elif seen:
        model.get_submodule(seen).register_forward_hook(lambda *call: kept.append(call[2]))
    (found,) = streamed(model, images)
    maps, embedded = [made[-1], *kept], plain(model.stem, images)
    assert_close(found, plain(model, images)[0])
    for x in maps:
        assert torch.allclose(x, embedded, atol=1e-5) == (seen is not None)


def test_nothing_but_a_stages_own_map_is_written_over():
    model = perturb(hierarch.build(tiny()))
    kept = []
    model.stages[1].downsample.register_forward_hook(lambda *call: kept.append(call[2]))
    images = noise(1, 3, 64, 64)
    streamed(model, images)
    with torch.enable_grad():
        x = model.stages[0](model.stem(images))
        assert_close(kept[0], model.stages[1].downsample(x).detach())
    wanted = x.detach().clone()
    with torch.no_grad():
        model.stages[0](wanted)
        model.stages[1](wanted)
    assert_close(wanted, x)


@pytest.mark.parametrize("mixer", WINDOWED)
def test_bfloat16_is_as_close_as_the_plain_path(mixer):
    exact = perturb(hierarch.build(tiny(mixer, head=HEAD)))
    model, images = copy.deepcopy(exact).bfloat16(), noise(2, 3, 40, 56).bfloat16()
    exact.load_state_dict(model.state_dict())
    wanted = plain(exact.double(), images.double())
    found, other = streamed(model, images), plain(model, images)
    assert found.dtype is torch.bfloat16
    error, plain_error = ((one - wanted).abs().max() for one in (found, other))
    assert error <= max(1.5 * plain_error, 0.02 * wanted.abs().max())


@pytest.mark.parametrize("mask", [None, (1, 1, 9, 9), (1, 2, 9, 9), (6, 2, 9, 9)])
@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize("made", [0, 1 << 21])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_attention_with_maps_made_or_not(monkeypatch, mask, scale, made, dtype):
    monkeypatch.setattr(attention, "ELEMENTS", made)
    made_of, original = [], attention._in_two_products
    monkeypatch.setattr(
        attention, "_in_two_products", lambda *x, **o: made_of.append(x) or original(*x, **o)
    )
    qkv = noise(3, 6, 2, 9, 8).to(dtype)
    added = None if mask is None else noise(*mask, seed=1).to(dtype)
    with torch.no_grad():
        found = attention.attention(qkv, [(6, added)], scale)
    assert bool(made_of) == (made > 0 and dtype is torch.bfloat16 and dtype in ONEDNNS_TYPES)
    exact = None if added is None else added.double()
    wanted = F.scaled_dot_product_attention(*qkv.double(), attn_mask=exact, scale=scale)
    assert found.dtype is dtype
    atol = 0.02 if dtype is torch.bfloat16 else 1e-5
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("dim", [3, 8, 12])
@pytest.mark.parametrize("offset", [0, 1, 8])
@pytest.mark.parametrize("across", [None, "out", "rows"])
def test_rows_are_written_whatever_they_are_made_of(dtype, dim, offset, across):
    def rows(count, seed):
        numbers = noise(offset + count * dim, seed=seed).to(dtype)[offset:]
        return numbers.view(count, dim), numbers.view(dim, count).T

    out = rows(20, 0)[across == "out"]
    new = rows(3, 1)[across == "rows"]
    new[0, 0] = float("nan")
    places = torch.tensor([7, 3, 19])
    wanted = out.clone()
    wanted[places] = new
    gathering.write(out, places, new)
    assert torch.equal(out.nan_to_num(9), wanted.nan_to_num(9))
