"""Attention that recomputes its attention maps has torch's gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import noise, perturb, tiny
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks

import hierarch
from hierarch.engine import recomputing
from hierarch.engine.recomputing import recomputing_attention

MASKS = [(1, 3), (5, 3), (1, 1), (5, 1)]


def inputs(mask, *, dtype=torch.float64):
    shapes = [(5, 3, 6, 4)] * 3 + [(*mask, 6, 6)]
    return [noise(*s, dtype=dtype, seed=i).requires_grad_() for i, s in enumerate(shapes)]


def one_mask(q, k, v, mask, scale=None):
    return recomputing_attention([q, k, v], [(len(q), mask)], scale)


def two_masks(q, k, v, mask, scale=None):
    first, second = (mask[:2], mask[2:]) if len(mask) > 1 else (mask, mask)
    return recomputing_attention([q, k, v], [(2, first), (3, second)], scale)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("elements", [1, 2 * 3 * 36, 1 << 21])
@pytest.mark.parametrize("attend", [one_mask, two_masks])
def test_outputs_and_gradients_are_torchs(mask, scale, elements, attend, monkeypatch):
    monkeypatch.setattr(recomputing, "MAX_RECOMPUTED_ELEMENTS", elements)
    tensors = inputs(mask)
    grad = noise(5, 3, 6, 4, dtype=torch.float64, seed=9)
    q, k, v, bias = tensors
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    wanted = torch.autograd.grad(expected, tensors, grad)
    out = attend(q, k, v, bias, scale)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(torch.autograd.grad(out, tensors, grad), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mask", MASKS)
def test_gradients_are_those_of_small_differences(mask):
    for attend in (one_mask, two_masks):
        assert gradcheck(attend, inputs(mask), fast_mode=True)
        assert gradgradcheck(attend, inputs(mask), fast_mode=True)


@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention", "grid_attention"])
def test_no_attention_map_is_kept(mixer):
    entry = {"type": mixer, "head_dim": 2, "window_size": 8}
    spec = tiny(stages=[{"dim": 8, "depth": 1}]) | {"mixer": entry}
    model = perturb(hierarch.build(spec)).train()
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(noise(2, 3, 128, 128))
    windows = 2 * 16
    maps = [t for t in kept if t.shape[-2:] == (64, 64) and t.numel() >= windows * 64 * 64]
    assert maps == []
    held = [t for t in kept if t.numel() in (windows * 64 * 8, 3 * windows * 64 * 8)]
    assert held, "queries are kept, so hooks see all"


def test_autocast_trains():
    model = perturb(hierarch.build(tiny(head={"num_classes": 5}))).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(noise(2, 3, 64, 64))
    out.float().square().mean().backward()
    table = model.stages[0].blocks[1].mixer.relative_position_bias_table
    assert out.dtype == torch.bfloat16
    assert table.grad.isfinite().all()
    assert table.grad.any()
