"""Which library multiplies: oneDNN, or MKL where that is faster. Either gives the same network."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch
from helpers import noise, perturb, tiny

import hierarch
from hierarch import engine
from hierarch.engine import onednn, torch_private

REASON = "torch multiplies faster on this processor"
ON_X86 = platform.machine().lower() in ("x86_64", "amd64")


@pytest.fixture(params=[False, True], ids=["oneDNN", "MKL"])
def mkl(request, monkeypatch):
    monkeypatch.setattr(onednn, "MKL_IS_FASTER", request.param)
    monkeypatch.setattr(onednn, "MIN_MULTIPLY_ADDS", 0)
    return request.param


@pytest.fixture
def programs(monkeypatch):
    """One entry for each call of oneDNN's linear layer."""
    seen, multiply = [], torch_private.linear_pointwise
    if multiply is None:
        pytest.skip("torch has no oneDNN here")
    monkeypatch.setattr(
        torch_private, "linear_pointwise", lambda *args: seen.append(args) or multiply(*args)
    )
    return seen


def network(mixer):
    return perturb(hierarch.build(tiny(mixer, head={"num_classes": 5})))


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
@torch.no_grad()
def test_inference_is_the_same(mixer, packs, mkl, programs):
    model, images = network(mixer), noise(2, 3, 61, 94)
    with engine.disabled():
        wanted = model(images)
    if packs:
        model.pack_weights()
    programs.clear()
    torch.testing.assert_close(model(images), wanted, rtol=1e-4, atol=1e-5)
    assert bool(programs) == (packs or not mkl)


@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_gradients_are_the_same(mixer, mkl, programs):
    model, images = network(mixer).train(), noise(2, 3, 61, 94).requires_grad_()
    inputs = [images, *model.parameters()]
    with engine.disabled():
        wanted = torch.autograd.grad(model(images).square().sum(), inputs)
    programs.clear()
    found = torch.autograd.grad(model(images).square().sum(), inputs)
    assert bool(programs) == (not mkl)
    for one, other in zip(found, wanted, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=2e-5)


@torch.no_grad()
def test_explain_says_why_oneDNN_does_not_multiply(mkl):
    steps = engine.explain(network("window_attention"), noise(1, 3, 64, 64)).steps
    refused = [reason for step in steps for _, reason in step.refused]
    assert (REASON in refused) == mkl


@pytest.mark.skipif(not ON_X86, reason="torch has one set of instructions on this processor")
def test_MKL_is_faster_without_AVX_512():
    program = "from hierarch.engine.onednn import MKL_IS_FASTER; print(MKL_IS_FASTER)"
    found = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            env={**os.environ, "ATEN_CPU_CAPABILITY": instructions},
            capture_output=True,
            encoding="utf-8",
            check=True,
        ).stdout.strip()
        for instructions in ("avx2", "default")
    ]
    assert found == [str(torch_private.has_mkl()), "False"]
