"""What a GPU asks for, checked without one: on the meta device, and by what a compiler is given."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import noise, perturb, tiny
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hierarch
from hierarch.model.masks import ALIGNMENT, in_whole_rows

HEAD = {"num_classes": 5}
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "item")
PLAIN_MIXERS = [
    {"type": "global_attention", "head_dim": 4},
    {"type": "grid_attention", "head_dim": 4, "window_size": 7},
    {"type": "neighborhood_attention", "head_dim": 4, "kernel_size": 3},
    {"type": "linear_attention", "head_dim": 4},
    {"type": "depthwise_conv"},
    {"type": "pooling"},
    {"type": "identity"},
]
SHIFTED = ["window_attention", "cosine_window_attention", "window_mlp"]
SPECS = [tiny(mixer, head=HEAD) for mixer in SHIFTED] + [
    {**tiny(head=HEAD), "mixer": mixer} for mixer in PLAIN_MIXERS
]


class NothingCrosses(TorchDispatchMode):
    """Fails where an operator reads more than a number from the processor, or waits for it."""

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
def test_nothing_goes_to_the_device_or_comes_from_it(spec, training):
    with torch.device("meta"):
        model = hierarch.build(spec).train(training)
        images = torch.empty(2, 3, 75, 101)
    with torch.set_grad_enabled(training), NothingCrosses():
        out = model(images)
        if training:
            out.square().mean().backward()
    assert out.shape == (2, 5)


def test_a_copy_to_the_device_is_seen():
    with NothingCrosses(), pytest.raises(AssertionError, match="the processor"):
        torch.arange(3).to("meta")


@pytest.mark.parametrize("size", [49, 64, 16, 7])
def test_whole_rows_hold_what_was_there(size):
    mask = noise(3, size, size)
    rows = in_whole_rows(mask)
    assert rows.stride(-2) % ALIGNMENT == 0
    torch.testing.assert_close(rows[..., :size], mask, rtol=0, atol=0)
    assert not rows[..., size:].any()


@pytest.mark.parametrize("mixer", SHIFTED[:2])
@pytest.mark.parametrize("training", [False, True])
def test_masks_lie_as_attention_on_a_gpu_reads_them(mixer, training, monkeypatch):
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
        model(torch.empty(2, 3, 112, 112))
    assert len(seen) >= 7
    for q, k, v, mask in seen:
        assert q.ndim == 4
        assert {x.stride(-1) for x in (q, k, v, mask)} == {1}
        assert mask.shape[-2:] == (q.shape[2], k.shape[2])
        assert mask.stride(-2) % ALIGNMENT == 0
        assert mask.storage_offset() % ALIGNMENT == 0


# four kinds of windows, compiled too


@pytest.mark.parametrize("mixer", SHIFTED[:2])
def test_compiled_masks_do_not_grow_with_the_image(mixer):
    made = []

    def look(graph, inputs):
        for node in graph.graph.nodes:
            value = node.meta.get("example_value")
            for tensor in tree_leaves(value):
                if isinstance(tensor, torch.Tensor) and tensor.shape[2:] == (16, 16):
                    made.append(tensor.shape)
        return graph.forward

    model = perturb(hierarch.build(tiny(mixer, head=HEAD)))
    images = noise(2, 3, 320, 320)
    with torch.no_grad():
        found = torch.compile(model, backend=look, fullgraph=True, dynamic=False)(images)
        torch.testing.assert_close(found, model(images), rtol=1e-5, atol=1e-5)
    torch.compiler.reset()
    heads = 24 // 4
    assert made
    assert max(torch.Size(shape).numel() for shape in made) <= 4 * heads * 16 * 16
