"""What is kept between calls: few shapes for many sizes, few bytes, and all of it freed."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import noise, perturb, tiny
from torch.testing import assert_close as assert_equal

import hierarch
from hierarch import engine
from hierarch.engine import caches, keeping, onednn, orders, threads, torch_private
from hierarch.engine.caches import Cache
from hierarch.engine.onednn import few, inference_linear
from hierarch.nn.window_mixer import MaskedWindowMixer

HEAD = {"num_classes": 5}
SIZES = [(height, 211 - height) for height in range(41, 171, 3)]


@pytest.fixture(autouse=True)
def nothing_kept():
    engine.clear()
    yield
    engine.clear()


@pytest.fixture
def shapes(monkeypatch, onednn_faster):
    """(rows, out, in) of each multiplication, all of which are oneDNN's, however small."""
    seen, multiply = set(), torch_private.linear_pointwise
    if multiply is None:
        pytest.skip("torch has no oneDNN here")

    def watched(rows, weight, *rest):
        seen.add((len(rows), *weight.shape))
        return multiply(rows, weight, *rest)

    monkeypatch.setattr(torch_private, "linear_pointwise", watched)
    monkeypatch.setattr(onednn, "MIN_MULTIPLY_ADDS", 0)
    return seen


def assert_close(found, wanted):
    assert_equal(found, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def defined(model, images):
    """The output with the engine disabled."""
    with engine.disabled():
        return model(images)


def network(mixer="window_attention"):
    return perturb(hierarch.build(tiny(mixer, head=HEAD)))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("tile", ["auto", 300])
def test_many_sizes_need_few_shapes(shapes, monkeypatch, tile, packed):
    model = network()
    wanted = [defined(model, noise(1, 3, *size)) for size in SIZES]
    shapes.clear()
    model.set_tile_size(tile)
    if packed:
        model.pack_weights()
    with torch.inference_mode():
        for size, output in zip(SIZES, wanted, strict=True):
            assert_close(model(noise(1, 3, *size)), output)
    by_weight = defaultdict(set)
    for count, *weight in shapes:
        by_weight[tuple(weight)].add(count)
    for counts in by_weight.values():
        odd = {n for n in counts if n != few(n)}
        assert len(odd) <= onednn.MAX_ROW_COUNTS
        assert len(counts) <= onednn.MAX_ROW_COUNTS + 8 * max(counts).bit_length()
    assert len(SIZES) > 2 * onednn.MAX_ROW_COUNTS


def test_the_first_counts_are_multiplied_as_they_are(shapes):
    weight = noise(6, 5)
    for count in range(17, 17 + 2 * onednn.MAX_ROW_COUNTS):
        inference_linear(noise(count, 5), weight)
    odd = [n for n in range(17, 17 + 2 * onednn.MAX_ROW_COUNTS) if n != few(n)]
    assert {n for n, *_ in shapes if n != few(n)} == set(odd[: onednn.MAX_ROW_COUNTS])


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 11, 5), (97, 5), (0, 5)])
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_padded_rows_change_nothing(shapes, monkeypatch, shape, activation):
    monkeypatch.setattr(onednn, "MAX_ROW_COUNTS", 0)
    x, weight, bias = noise(*shape), noise(6, 5), noise(6)
    if x.numel():
        product = inference_linear(x, weight, bias, activation)
        wanted = torch.nn.functional.linear(x, weight, bias)
        assert_close(product, torch.nn.functional.gelu(wanted) if activation == "gelu" else wanted)
        assert {few(n) for n, *_ in shapes} == {n for n, *_ in shapes}


@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_a_small_multiplication_is_torchs(shapes, monkeypatch, activation):
    x, weight, bias = noise(9, 5), noise(6, 5), noise(6)
    found = inference_linear(x, weight, bias, activation)
    shapes.clear()
    monkeypatch.setattr(onednn, "MIN_MULTIPLY_ADDS", 9 * 5 * 6 + 1)
    assert_close(inference_linear(x, weight, bias, activation), found)
    assert not shapes
    monkeypatch.setattr(onednn, "MIN_MULTIPLY_ADDS", 9 * 5 * 6)
    inference_linear(x, weight, bias, activation)
    assert shapes == {(9, 6, 5)}


def test_few_numbers():
    assert [few(n) for n in range(17)] == [*range(17)]
    assert all(n <= few(n) < 1.125 * n for n in range(1, 5000))
    assert all(few(few(n)) == few(n) for n in range(5000))
    assert len({few(n) for n in range(1024, 2048)}) == 9


def test_clear_frees_all_of_it():
    model, images = network(), noise(2, 3, 75, 101)
    with torch.inference_mode():
        before = model(images)
        assert keeping.kept()["masks"] > 0
        assert keeping.kept()["orders of windows"] > 0
        engine.clear()
        assert keeping.kept() == {"masks": 0, "orders of windows": 0, "constants on a GPU": 0}
        assert_close(model(images), before)


def test_explain_tells_what_is_kept():
    model, images = network(), noise(1, 3, 64, 64)
    with torch.no_grad():
        explained = engine.explain(model, images)
    assert explained.kept == keeping.kept()
    masks = {id(m): m for _, _, made in caches._kept.values() for m in made.values()}.values()
    of_masks = {m.untyped_storage().data_ptr(): m.untyped_storage().nbytes() for m in masks}
    assert explained.kept["masks"] == sum(of_masks.values())
    assert explained.to_data()["kept"] == explained.kept
    line = explained.blocks()[-1].text
    assert line.startswith("kept: masks ")
    assert "GPU" not in line


def test_masks_beyond_the_limit_are_made_at_each_call(monkeypatch):
    model, images = network(), noise(1, 3, 64, 64)
    wanted = defined(model, images)
    with torch.inference_mode():
        model(images)
        most = keeping.kept()["masks"]
        engine.clear()
        monkeypatch.setattr(caches, "MAX_MASK_BYTES", most // 2)
        for _ in range(2):
            assert_close(model(images), wanted)
            assert 0 < keeping.kept()["masks"] <= most // 2


def test_a_thread_keeps_masks_while_another_counts_them(monkeypatch):
    first, second, started = network(), network(), []

    def run():
        with torch.inference_mode():
            second(noise(1, 3, 64, 64))

    class Interrupted(weakref.WeakKeyDictionary):
        def values(self):
            for value in super().values():
                if not started:
                    started.append(threading.Thread(target=run))
                    started[0].start()
                    started[0].join(0.5)  # as far as it gets
                yield value

    monkeypatch.setattr(caches, "_kept", Interrupted())
    with torch.inference_mode():
        first(noise(1, 3, 64, 64))
    started[0].join(60)
    assert not started[0].is_alive()
    modules = [*first.modules(), *second.modules()]
    assert len(caches._kept) == sum(isinstance(module, MaskedWindowMixer) for module in modules)


@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_of_large_windows_the_bias_is_kept_and_not_a_mask_for_each_kind(mixer, dtype):
    windows = [{"type": mixer, "head_dim": 4, "window_size": 12, "shift_size": n} for n in (0, 6)]
    spec = tiny(stages=[{"dim": 16, "depth": 2}], head=HEAD) | {"mixer": windows}
    model, images = perturb(hierarch.build(spec)).to(dtype), noise(2, 3, 100, 180).to(dtype)
    wanted = defined(model, images)
    with torch.inference_mode():
        for _ in range(2):
            assert_close(model(images), wanted)
    plain, shifted = (block.mixer for block in model.stages[0].blocks)
    assert len(caches._kept[plain][2]) == 1
    masks = caches._kept[shifted][2]
    assert isinstance(masks, caches.Summed)
    for like in (torch.zeros(1), torch.zeros(1, dtype=torch.float64)):
        cut = shifted.cut((25, 45))
        with torch.no_grad():
            summed, made = caches._made(shifted, cut, like), caches.masks(shifted, cut, like)
        assert summed.keys() == made.keys()
        for kind, mask in made.items():
            torch.testing.assert_close(summed[kind], mask, rtol=0, atol=0)
    # a byte for each pair of tokens says which are apart
    bias = 144**2 * 4 * dtype.itemsize
    assert keeping.kept()["masks"] == 2 * bias + 4 * 144**2


def test_orders_of_windows_are_bounded(monkeypatch):
    monkeypatch.setattr(orders, "kept", Cache(20_000))
    model = network()
    with torch.inference_mode():
        for size in SIZES:
            model(noise(1, 3, *size))
            assert orders.kept.nbytes <= 20_000
    assert orders.kept.nbytes > 10_000


def test_a_cache_forgets_what_was_not_used_for_longest():
    made, cache = [], Cache(10)

    def get(key):
        return cache.get(key, lambda: made.append(key) or key, lambda key: key)

    for key in (3, 4, 3, 5):  # 12 bytes: 4 leaves, since 3 was used again
        assert get(key) == key
    assert (made, cache.nbytes) == ([3, 4, 5], 8)
    get(11)  # more than there may be
    assert cache.nbytes == 8
    get(3), get(4)
    assert made == [3, 4, 5, 11, 4]
    cache.clear()
    assert cache.nbytes == 0


def test_clear_while_other_threads_compute():
    stop = threading.Event()

    def clearing():
        while not stop.is_set():
            engine.clear()

    with ThreadPoolExecutor(1) as other:
        cleared = other.submit(clearing)
        try:
            for _ in range(50):
                with torch.no_grad():
                    assert threads.each(lambda n: n * n, range(5), threads=2) == [0, 1, 4, 9, 16]
        finally:
            stop.set()
        cleared.result()
