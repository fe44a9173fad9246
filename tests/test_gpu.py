"""Requirements of a GPU, checked on the meta device; tests that need a GPU run where
there is one."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import noise, perturb, tiny
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import hierarch
from hierarch.engine import caches
from hierarch.engine.alignment import ALIGNMENT, padded_rows
from hierarch.nn import functional

HEAD = {"num_classes": 5}
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "item")
PLAIN_MIXERS = [
    {"type": "global_attention", "head_dim": 4},
    {"type": "global_attention", "head_dim": 4, "rope": {}},
    {"type": "grid_attention", "head_dim": 4, "window_size": 7},
    {"type": "neighborhood_attention", "head_dim": 4, "kernel_size": 3},
    {"type": "linear_attention", "head_dim": 4},
    {"type": "depthwise_conv"},
    {"type": "pooling"},
    {"type": "identity"},
]
SHIFTED = ["window_attention", "cosine_window_attention", "window_mlp"]
UNMASKED = {"type": "window_attention", "head_dim": 4, "shift_size": 3, "shift_mask": False}
SPECS = [tiny(mixer, head=HEAD) for mixer in SHIFTED] + [
    {**tiny(head=HEAD), "mixer": mixer} for mixer in [UNMASKED, *PLAIN_MIXERS]
]


class NothingCrosses(TorchDispatchMode):
    """Fails if an operator copies a tensor from the CPU, or synchronizes with the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in WAITS, f"{func} waits for the device"
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        held = {t.device.type for t in tensors if t.ndim}
        assert "cpu" not in held, f"{func} reads from the processor"
        out = func(*args, **(kwargs or {}))
        made = {t.device.type for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.ndim}
        assert "cpu" not in made, f"{func} makes a tensor on the processor"
        return out


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec["mixer"])[:40])
@pytest.mark.parametrize("training", [False, True])
def test_no_data_is_copied_to_or_from_the_device(spec, training):
    with torch.device("meta"):
        model = hierarch.build(spec).train(training)
        images = torch.empty(2, 3, 75, 101)
    with torch.set_grad_enabled(training), NothingCrosses():
        out = model(images)
        if training:
            out.square().mean().backward()
    assert out.shape == (2, 5)


def test_a_copy_to_the_device_is_detected():
    with NothingCrosses(), pytest.raises(AssertionError, match="the processor"):
        torch.arange(3).to("meta")


@pytest.mark.parametrize("size", [49, 64, 16, 7])
def test_padded_rows_are_the_mask_and_zeros(size):
    mask = noise(3, size, size)
    rows = padded_rows(mask)
    assert rows.stride(-2) % ALIGNMENT == 0
    torch.testing.assert_close(rows[..., :size], mask, rtol=0, atol=0)
    assert not rows[..., size:].any()


@pytest.mark.parametrize("mixer", SHIFTED[:2])
@pytest.mark.parametrize("training", [False, True])
def test_masks_are_aligned_for_attention_on_a_gpu(mixer, training, monkeypatch):
    seen = []
    original = F.scaled_dot_product_attention

    def watched(q, k, v, attn_mask=None, **options):
        seen.append((q, k, v, attn_mask))
        return original(q, k, v, attn_mask=attn_mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    spec = tiny(mixer, head=HEAD)
    spec["mixer"] = [entry | {"window_size": 7} for entry in spec["mixer"]]
    spec["mixer"][1]["shift_size"] = 3
    with torch.device("meta"):
        model = hierarch.build(spec).train(training)
    model(torch.empty(2, 3, 112, 112, device="meta"))
    assert len(seen) >= 7
    for q, k, v, mask in seen:
        assert q.ndim == 4
        assert {x.stride(-1) for x in (q, k, v, mask)} == {1}
        assert mask.shape[-2:] == (q.shape[2], k.shape[2])
        assert mask.stride(-2) % ALIGNMENT == 0
        assert mask.storage_offset() % ALIGNMENT == 0


# what follows from sizes is kept, by stream, and not by a CUDA graph


@pytest.fixture
def gpu(monkeypatch):
    """Sets what torch reports of a GPU: the current stream, and whether a graph is captured."""
    reported = SimpleNamespace(stream=0, captures=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: reported.stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: reported.captures)
    return reported


def counting():
    made = []

    def make(size, *, device):
        made.append(size)
        return torch.arange(size)

    return functools.partial(functional.constant, make), made


GPU = torch.device("cuda", 0)


def test_constants_are_made_once_per_stream(gpu):
    make, made = counting()
    assert make(3, device=GPU) is make(3, device=GPU)
    gpu.stream = 1
    other = make(3, device=GPU)
    assert make(3, device=GPU) is other
    make(4, device=GPU)
    make(4, device=torch.device("cuda", 1))
    assert made == [3, 3, 4, 4]


def test_a_captured_graph_makes_its_own_constants(gpu):
    make, made = counting()
    kept = make(3, device=GPU)
    gpu.captures = True
    assert make(3, device=GPU) is not make(3, device=GPU)
    gpu.captures = False
    assert make(3, device=GPU) is kept
    assert made == [3, 3, 3]


def test_constants_are_not_cached_on_a_cpu_or_for_observers(gpu):
    make, made = counting()
    make(3, device=torch.device("cpu"))
    make(3, device=torch.device("cpu"))
    with FlopCounterMode(display=False):
        make(3, device=GPU)
    make(3, device=GPU)
    assert len(made) == 4


def test_a_constant_made_in_inference_mode_can_be_saved_for_backward(gpu):
    make, _ = counting()
    with torch.inference_mode():
        kept = make(3, device=GPU)
    assert not kept.is_inference()
    assert make(3, device=GPU) is kept


def test_the_cache_of_constants_is_bounded(gpu, monkeypatch):
    make, made = counting()
    monkeypatch.setattr(caches, "constants", caches.Cache(9 * 8))
    for size in (1, 2, 3, 4):  # numbers of 8 bytes, ten in all
        make(size, device=GPU)
    make(4, device=GPU)
    make(1, device=GPU)
    assert made == [1, 2, 3, 4, 1]


# on a GPU itself, where there is one

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@needs_gpu
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec["mixer"])[:40])
def test_a_gpu_computes_the_same(spec, monkeypatch):
    model, images = perturb(hierarch.build(spec)).double().eval(), noise(2, 3, 75, 101).double()
    expected = model(images)
    wanted = torch.autograd.grad(expected.square().mean(), list(model.parameters()))
    model.float().cuda()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for _ in range(2):  # what the first call keeps, the second one uses
        out = model(images.float().cuda())
        torch.testing.assert_close(out.double().cpu(), expected, rtol=1e-5, atol=1e-5)
        grads = torch.autograd.grad(out.square().mean(), list(model.parameters()))
        for found, grad in zip(grads, wanted, strict=True):
            torch.testing.assert_close(found.double().cpu(), grad, rtol=1e-4, atol=1e-5)
        with torch.inference_mode():
            torch.testing.assert_close(model(images.float().cuda()), out, rtol=1e-5, atol=1e-5)


@needs_gpu
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec["mixer"])[:40])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
def test_nothing_synchronizes_with_a_gpu(spec, training):
    model = hierarch.build(spec).cuda().train(training)
    images = torch.randn(2, 3, 75, 101, device="cuda")
    model(images)  # cuBLAS allocates once
    try:
        torch.cuda.set_sync_debug_mode("error")
        for size in (75, 101), (101, 75):
            with torch.set_grad_enabled(training):
                out = model(images.reshape(2, 3, *size))
            if training:
                out.square().mean().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec["mixer"])[:40])
def test_a_cuda_graph_is_captured_and_replayed(spec):
    model = perturb(hierarch.build(spec)).cuda().eval()
    images = torch.randn(2, 3, 75, 101, device="cuda")
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        model(images)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph), torch.no_grad():
        out = model(images)
    with torch.no_grad():
        for _ in range(2):
            images.normal_()
            graph.replay()
            found = out.clone()
            torch.testing.assert_close(found, model(images), rtol=1e-5, atol=1e-5)


@needs_gpu
@pytest.mark.parametrize("mixer", SHIFTED[:2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_attention_on_a_gpu_keeps_no_maps(mixer, dtype):
    spec = tiny(mixer, head=HEAD)
    spec["mixer"] = [entry | {"window_size": 7, "head_dim": 8} for entry in spec["mixer"]]
    spec["mixer"][1]["shift_size"] = 3
    model = hierarch.build(spec).cuda().to(dtype)
    # where it cannot be multiplied so, torch raises
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION]):
        model(torch.randn(2, 3, 112, 112, device="cuda", dtype=dtype)).mean().backward()
